import type { Content } from '../../content.ts'
import type { AdvanceOptions, LineOptions, LineTurn } from '../channel-backend.ts'
import type { Encoded } from '../codec.ts'
import type { ContentCodec } from '../content-codec.ts'
import type { MessageRow, PlacedRow, SqlDialect, TableNames } from './dialect.ts'
import { lineKey, parkedChannel, rowKind } from './schema.ts'
import { change, rows, type SqlValue, type SqlWork } from './sql-client.ts'
import type { Statements } from './statements.ts'

/** A row of a work channel on its way to a receiver by lines. */
export interface LinedRow extends MessageRow {
  readonly id: number
  readonly channel: string
  /** Read already; undefined when it is damaged. */
  readonly decoded: Content | undefined
  readonly turn: LineTurn | undefined
}

interface LineRow {
  readonly name: string
  readonly token: string | null
  readonly ready_id: number | null
  readonly expires_at: number
}

/** A row as the driver gives it, and the line it belongs to. */
interface Met {
  readonly row: PlacedRow
  readonly decoded: Content | undefined
  readonly line: string | undefined
}

/** What {@link SqlLines} shares with the transaction it works in. */
export interface LineWork {
  readonly now: number
  /** A row was put on this channel. */
  written(channel: string): void
  expired(count: number): void
  lapsed(): void
  /** Channel that others receive → the last row of it that was lined up. */
  readonly seenElsewhere: Map<string, number>
}

/**
 * The statements of lines. A message lies on its channel until a receiver by lines meets it there,
 * in the order of ids over all channels of the lines; that one takes it, with a row in `line` as
 * its turn, or parks it: the row moves out of the way of claims, to the channel's name behind `~`.
 * What is parked goes from hand to hand by {@link advance}.
 */
export class SqlLines {
  readonly #statements: Statements
  readonly #dialect: SqlDialect
  readonly #tables: TableNames
  readonly #codec: ContentCodec
  readonly #newToken: () => string
  readonly #oldest = new Map<number, string>()

  constructor(statements: Statements, codec: ContentCodec, newToken: () => string) {
    this.#statements = statements
    this.#codec = codec
    this.#dialect = statements.dialect
    this.#tables = statements.tables
    this.#newToken = newToken
  }

  /** Takes up to `most` rows whose turn it is, oldest first, and parks those it meets before. */
  *claim(work: LineWork, options: LineOptions, most: number): SqlWork<readonly LinedRow[]> {
    const taken: LinedRow[] = []
    while (taken.length < most) {
      const asked = most - taken.length
      const met = yield* this.#meet(options.channels, asked)
      if (met.length === 0) break
      const others = yield* this.#meetElsewhere(work, options.elsewhere, met.at(-1)?.row.id ?? 0)
      const isAgain = yield* this.#admit(work, met, others, options.leaseMs, taken)
      if (met.length < asked && !isAgain) break
    }
    return taken
  }

  /** See `ChannelBackend.advanceLines`. */
  *advance(
    work: LineWork,
    turns: readonly LineTurn[],
    { channels, leaseMs }: AdvanceOptions,
  ): SqlWork<{ readonly next: readonly LinedRow[]; readonly lost: readonly LineTurn[] }> {
    const lines = yield* this.#lines(turns.map(({ line }) => line))
    const lost = turns.filter(({ line, token }) => lines.get(line)?.token !== token)
    const names = turns.filter((turn) => !lost.includes(turn)).map(({ line }) => line)
    if (names.length === 0) return { next: [], lost }
    const next: LinedRow[] = []
    const changed: LineRow[] = []
    const free = new Set(names)
    const expiresAt = work.now + leaseMs
    for (const row of yield* this.#unpark(names, work.now)) {
      const name = row.target as string
      const channel = row.channel.slice(1)
      free.delete(name)
      if (channels.includes(channel)) {
        const token = this.#newToken()
        const turn = { line: name, token, expiresAt }
        next.push({ ...row, channel, decoded: this.#decoded({ ...row, channel }), turn })
        changed.push({ name, token, ready_id: null, expires_at: expiresAt })
      } else {
        changed.push({ name, token: null, ready_id: row.id, expires_at: row.expires_at })
        yield* this.#putBack(work, { ...row, channel })
      }
    }
    yield* this.#write(changed)
    yield* this.#free([...free])
    return { next, lost }
  }

  /** See `ChannelBackend.renewLines`. */
  *renew(turns: readonly LineTurn[], expiresAt: number): SqlWork<readonly LineTurn[]> {
    const lines = yield* this.#lines(turns.map(({ line }) => line))
    const held = turns.filter(({ line, token }) => lines.get(line)?.token === token)
    if (held.length === 0) return []
    const names = held.map(({ line }) => line)
    const isNamed = this.#dialect.among('name', names)
    yield* change(`UPDATE ${this.#tables.line} SET expires_at = ? WHERE ${isNamed.text}`, [
      expiresAt,
      ...isNamed.values,
    ])
    return held.map((turn) => ({ ...turn, expiresAt }))
  }

  /** Makes a row the ready head of its line again; false when the line went on without it. */
  *handBack(turn: LineTurn, id: number, expiresAt: number): SqlWork<boolean> {
    const changes = yield* change(
      `UPDATE ${this.#tables.line} SET token = NULL, ready_id = ?, expires_at = ?
       WHERE name = ? AND token = ?`,
      [id, expiresAt, turn.line, turn.token],
    )
    return changes > 0
  }

  /** Lets lines go on whose turn or ready head lapsed, or whose head a receiver without lines took. */
  *release(work: LineWork): SqlWork<void> {
    const { line, message } = this.#tables
    const lapsed = yield* rows<LineRow>(
      `SELECT name, token, ready_id, expires_at FROM ${line}
       WHERE expires_at <= ? OR (token IS NULL AND NOT EXISTS
         (SELECT 1 FROM ${message} AS head WHERE head.id = ${line}.ready_id))`,
      [work.now],
    )
    for (const each of lapsed) yield* this.#goOn(work, each)
  }

  /** When `release` has something to do, in milliseconds since the epoch; 0 for at once. */
  *nextLapse(): SqlWork<number> {
    const { line, message } = this.#tables
    const [found] = yield* rows<{ readonly at: number | null }>(
      `SELECT min(CASE WHEN token IS NULL AND NOT EXISTS
           (SELECT 1 FROM ${message} AS head WHERE head.id = ${line}.ready_id)
         THEN 0 ELSE expires_at END) AS at
       FROM ${line}`,
      [],
    )
    return found?.at == null ? Number.POSITIVE_INFINITY : Number(found.at)
  }

  /** How many live messages of a line are parked for a channel. */
  *parkedInLine(line: string, channel: string, now: number): SqlWork<number> {
    const [found] = yield* rows<{ readonly parked: number }>(
      `SELECT count(*) AS parked FROM ${this.#tables.message}
       WHERE kind = ${rowKind.parked} AND target = ? AND channel = ? AND expires_at > ?`,
      [line, parkedChannel(channel), now],
    )
    return Number(found?.parked)
  }

  /** Takes the oldest rows of some channels off the table. */
  *#meet(channels: readonly string[], most: number): SqlWork<readonly Met[]> {
    if (channels.length === 0) return []
    const found = yield* this.#dialect.take(this.#tables, this.#oldestText(channels.length), [
      ...channels.flatMap((channel) => [channel, most]),
      most,
    ])
    return found.map((row) => this.#met(row)).sort((a, b) => a.row.id - b.row.id)
  }

  /** Reads the rows before `id` of channels that others receive, those not lined up yet. */
  *#meetElsewhere(
    work: LineWork,
    channels: readonly string[] = [],
    id: number,
  ): SqlWork<readonly Met[]> {
    const met: Met[] = []
    for (const channel of channels) {
      const seen = work.seenElsewhere.get(channel) ?? 0
      const found = yield* rows<Met['row']>(
        `SELECT id, channel, kind, target, content, expires_at, attempts
         FROM ${this.#tables.message} WHERE channel = ? AND id > ? AND id < ? ORDER BY id`,
        [channel, seen, id],
      )
      for (const row of found) met.push(this.#met(row))
      const last = found.at(-1)
      if (last) work.seenElsewhere.set(channel, last.id)
    }
    return met
  }

  /**
   * Takes or parks what was met, in the order of ids.
   *
   * @returns whether a line that stood still has put an older row back on a channel.
   */
  *#admit(
    work: LineWork,
    own: readonly Met[],
    others: readonly Met[],
    leaseMs: number,
    taken: LinedRow[],
  ): SqlWork<boolean> {
    const names = [...own, ...others].flatMap(({ line }) => (line === undefined ? [] : [line]))
    const lines = yield* this.#lines(names)
    const changed = new Map<string, LineRow>()
    const set = (line: LineRow): void => {
      lines.set(line.name, line)
      changed.set(line.name, line)
    }
    const parked: (readonly SqlValue[])[] = []
    const moved: (readonly SqlValue[])[] = []
    const expiresAt = work.now + leaseMs
    let isAgain = false
    const isOther = new Set(others)
    const inOrder = others.length === 0 ? own : [...own, ...others].sort(byId)
    for (const met of inOrder) {
      const { row, line: name } = met
      const isLive = row.expires_at > work.now
      if (isOther.has(met) && (name === undefined || !isLive)) continue
      if (!isLive) work.expired(1)
      if (name === undefined) {
        if (isLive) taken.push({ ...row, decoded: met.decoded, turn: undefined })
        continue
      }
      const isHead = lines.get(name)?.ready_id === row.id
      const line = lines.get(name)
      if (line && (isLive ? line.expires_at <= work.now : isHead)) {
        yield* this.#write([...changed.values()])
        changed.clear()
        const ready = yield* this.#goOn(work, line)
        if (ready) lines.set(name, ready)
        else lines.delete(name)
        isAgain ||= ready !== undefined
      }
      if (!isLive) continue
      const current = lines.get(name)
      if (current && current.ready_id !== row.id) {
        const row = parkedRow(met.row, name)
        if (isOther.has(met)) moved.push(row)
        else parked.push(row)
      } else if (isOther.has(met)) {
        if (!current) set({ name, token: null, ready_id: row.id, expires_at: row.expires_at })
      } else {
        const token = this.#newToken()
        taken.push({ ...row, decoded: met.decoded, turn: { line: name, token, expiresAt } })
        set({ name, token, ready_id: null, expires_at: expiresAt })
      }
    }
    for (const each of moved) {
      // A receiver without lines may just have taken it.
      const text = `DELETE FROM ${this.#tables.message} WHERE id = ?`
      if ((yield* change(text, [each[0] as number])) > 0) parked.push(each)
    }
    if (parked.length > 0) yield* this.#statements.insertWithIds(parked)
    yield* this.#write([...changed.values()])
    return isAgain
  }

  /** Ends a turn that nobody passed on, or the wait for a head that is gone. */
  *#goOn(work: LineWork, line: LineRow): SqlWork<LineRow | undefined> {
    if (line.token !== null) work.lapsed()
    const [next] = yield* this.#unpark([line.name], work.now)
    if (!next) {
      yield* this.#free([line.name])
      return undefined
    }
    const { id, expires_at } = next
    const ready = { name: line.name, token: null, ready_id: id, expires_at }
    yield* this.#putBack(work, { ...next, channel: next.channel.slice(1) })
    yield* this.#write([ready])
    return ready
  }

  /** Takes the first live parked row of each line off the table. */
  *#unpark(names: readonly string[], now: number): SqlWork<readonly Met['row'][]> {
    const { message } = this.#tables
    const isNamed = this.#dialect.among('target', names)
    const found = yield* this.#dialect.take(
      this.#tables,
      `SELECT min(id) AS id FROM ${message}
       WHERE kind = ${rowKind.parked} AND ${isNamed.text} AND expires_at > ?
       GROUP BY target`,
      [...isNamed.values, now],
    )
    return found.map((row) => ({ ...row, content: this.#dialect.contentOf(row.content) }))
  }

  *#putBack(work: LineWork, row: Met['row']): SqlWork<void> {
    const { id, channel, content, expires_at, attempts } = row
    yield* this.#statements.insertWithIds([
      [id, channel, rowKind.work, null, content, expires_at, attempts],
    ])
    work.written(channel)
  }

  *#lines(names: readonly string[]): SqlWork<Map<string, LineRow>> {
    if (names.length === 0) return new Map()
    const isNamed = this.#dialect.among('name', names)
    const found = yield* rows<LineRow>(
      `SELECT name, token, ready_id, expires_at FROM ${this.#tables.line} WHERE ${isNamed.text}`,
      isNamed.values,
    )
    return new Map(found.map((line) => [line.name, line]))
  }

  *#write(lines: readonly LineRow[]): SqlWork<void> {
    if (lines.length === 0) return
    yield* this.#statements.upsertLines(
      lines.map(({ name, token, ready_id, expires_at }) => [name, token, ready_id, expires_at]),
    )
  }

  *#free(names: readonly string[]): SqlWork<void> {
    if (names.length === 0) return
    const isNamed = this.#dialect.among('name', names)
    yield* change(`DELETE FROM ${this.#tables.line} WHERE ${isNamed.text}`, isNamed.values)
  }

  #met(row: Met['row']): Met {
    const read = { ...row, content: this.#dialect.contentOf(row.content) }
    const content = this.#decoded(read)
    const line = content?.reply_channel
    return {
      row: read,
      decoded: content,
      line: typeof line === 'string' ? lineKey(line) : undefined,
    }
  }

  #decoded({ channel, content }: Pick<LinedRow, 'channel' | 'content'>): Content | undefined {
    return this.#codec.peek(content as Encoded, `c:${channel}`)
  }

  /** For so many channels: reads no more of each than are asked for, however many wait. */
  #oldestText(count: number): string {
    let text = this.#oldest.get(count)
    if (text === undefined) {
      const { message } = this.#tables
      const each = Array.from(
        { length: count },
        (_, index) =>
          `SELECT id FROM (SELECT id FROM ${message} WHERE channel = ? ORDER BY id LIMIT ?) AS c${index}`,
      )
      text = `SELECT id FROM (${each.join(' UNION ALL ')}) AS oldest ORDER BY id LIMIT ?`
      this.#oldest.set(count, text)
    }
    return text
  }
}

function byId(a: Met, b: Met): number {
  return a.row.id - b.row.id
}

function parkedRow(row: Met['row'], line: string): readonly SqlValue[] {
  const { id, channel, content, expires_at, attempts } = row
  return [id, parkedChannel(channel), rowKind.parked, line, content, expires_at, attempts]
}
