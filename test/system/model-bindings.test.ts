import { Group, inTransaction, type Site, setup } from 'channelkit'
import { bindSequelize, bindTypeorm, modelBinding } from 'channelkit/models'
import { DataTypes, Model, Sequelize, type Transaction } from 'sequelize'
import { DataSource, type EntityManager, EntitySchema } from 'typeorm'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startPostgres } from '../support/service-process.ts'
import { postgresPlace } from '../support/sql-places.ts'

interface Note {
  id: number
  room: string
  text: string
  secret: string
}

const binding = modelBinding<Note>({
  model: 'note',
  fields: ['id', 'room', 'text'],
  groups: (note) => `room-${note.room}`,
  content: ({ model, action, key, fields }) => ({ model, action, key: Number(key), ...fields }),
})

const server = await startPostgres()
const place = postgresPlace(server)
afterAll(() => place[Symbol.asyncDispose]())

/** What an ORM does in these tests; `scope` is its transaction or manager, where there is one. */
interface Orm {
  create(note: Note, scope?: unknown): Promise<void>
  change(id: number, changes: Partial<Note>, scope?: unknown): Promise<void>
  remove(id: number, scope?: unknown): Promise<void>
  transaction(run: (scope: never) => Promise<void>): Promise<unknown>
  savepoint(scope: unknown, run: (scope: unknown) => Promise<void>): Promise<unknown>
  close(): Promise<unknown>
}

function options(url: string) {
  return {
    host: new URL(url).searchParams.get('host') ?? '',
    username: 'postgres',
    database: new URL(url).pathname.slice(1),
  }
}

const orms: Readonly<Record<string, (url: string) => Promise<Orm>>> = {
  async Sequelize(url) {
    const db = new Sequelize({ dialect: 'postgres', ...options(url), logging: false })
    class NoteRow extends Model {}
    const id = { type: DataTypes.INTEGER, primaryKey: true }
    const [room, text, secret] = [DataTypes.TEXT, DataTypes.TEXT, DataTypes.TEXT]
    NoteRow.init({ id, room, text, secret }, { sequelize: db, timestamps: false })
    bindSequelize<Note>(NoteRow, binding)
    await db.sync()
    const within = (scope: unknown) => ({ transaction: (scope as Transaction) ?? null })
    const find = async (key: number, scope: unknown) => {
      return (await NoteRow.findByPk(key, within(scope))) as Model
    }
    return {
      create: async (note, scope) => void (await NoteRow.create({ ...note }, within(scope))),
      change: async (key, changes, scope) => {
        await (await find(key, scope)).update(changes, within(scope))
      },
      remove: async (key, scope) => (await find(key, scope)).destroy(within(scope)),
      transaction: (run) => db.transaction(run as never),
      savepoint: (scope, run) => db.transaction({ transaction: scope as Transaction }, run),
      close: () => db.close(),
    }
  },
  async TypeORM(url) {
    const schema = new EntitySchema<Note>({
      name: 'note',
      columns: {
        id: { type: 'integer', primary: true },
        room: { type: 'text' },
        text: { type: 'text' },
        secret: { type: 'text' },
      },
    })
    const source = new DataSource({
      type: 'postgres',
      ...options(url),
      entities: [schema],
      synchronize: true,
    })
    await source.initialize()
    bindTypeorm<Note>(source, schema, binding)
    const notes = (scope: unknown) => {
      return ((scope as EntityManager) ?? source.manager).getRepository(schema)
    }
    const find = (id: number, scope: unknown) => notes(scope).findOneByOrFail({ id })
    return {
      create: async (note, scope) => void (await notes(scope).save(note)),
      change: async (id, changes, scope) => {
        await notes(scope).save({ ...(await find(id, scope)), ...changes })
      },
      remove: async (id, scope) => void (await notes(scope).remove(await find(id, scope))),
      transaction: (run) => source.transaction(run as never),
      savepoint: (scope, run) => (scope as EntityManager).transaction(run),
      close: () => source.destroy(),
    }
  },
}

describe.each(Object.entries(orms))('a binding of a model of %s', (_name, openOrm) => {
  let site: Site
  let orm: Orm

  beforeEach(async () => {
    const url = await place.newUrl()
    site = await setup({ channelBackends: { default: { backend: url } } })
    for (const room of ['kitchen', 'garden']) await Group(`room-${room}`).add(`heard-in-${room}`)
    orm = await openOrm(url)
  })

  afterEach(async () => {
    await orm.close()
    await site.close()
  })

  const note = (id: number, room = 'kitchen') => ({ id, room, text: `text ${id}`, secret: 'no' })

  async function heardIn(room: string): Promise<unknown[]> {
    // What a transaction has sent is moved a moment after its commit, and before what is sent now.
    await site.backend().send([{ channel: `heard-in-${room}`, content: { isEnd: true } }])
    const contents: unknown[] = []
    while (true) {
      const messages = await site
        .backend()
        .receive([`heard-in-${room}`], { max: 100, waitMs: 5_000 })
      for (const { content } of messages) {
        if (content.isEnd || messages.length === 0) return contents
        contents.push(content)
      }
    }
  }

  const created = (id: number, room = 'kitchen') => ({
    model: 'note',
    action: 'create',
    key: id,
    id,
    room,
    text: `text ${id}`,
  })

  it('tells the right groups of what is created, changed and deleted, by its listed fields', async () => {
    await orm.create(note(1))
    await orm.change(1, { text: 'new' })
    await orm.change(1, { room: 'garden' })
    await orm.remove(1)

    const changed = { ...created(1), action: 'update', text: 'new' }
    expect(await heardIn('kitchen')).toEqual([
      created(1),
      changed,
      { model: 'note', action: 'delete', key: 1 },
    ])
    expect(await heardIn('garden')).toEqual([
      { ...created(1, 'garden'), text: 'new' },
      { model: 'note', action: 'delete', key: 1 },
    ])
  })

  it('tells after the commit of a transaction of the ORM alone, and never when it rolls back', async () => {
    await orm.transaction(async (scope) => {
      await orm.create(note(1), scope)
      await orm
        .savepoint(scope, async (inner) => {
          await orm.create(note(2), inner)
          throw new Error('no')
        })
        .catch(() => {})
      await orm.savepoint(scope, (inner) => orm.create(note(3), inner))
      expect(await heardIn('kitchen')).toEqual([])
    })
    await orm
      .transaction(async (scope) => {
        await orm.create(note(4), scope)
        throw new Error('no')
      })
      .catch(() => {})

    expect(await heardIn('kitchen')).toEqual([created(1), created(3)])
  })

  it('is part of a transaction by inTransaction', async () => {
    await inTransaction(orm.transaction as never, async (scope) => {
      await orm.create(note(1), scope)
      await orm
        .savepoint(scope, async (inner) => {
          await orm.create(note(2), inner)
          throw new Error('no')
        })
        .catch(() => {})
      await orm.savepoint(scope, (inner) => orm.create(note(3), inner))
      expect(await heardIn('kitchen')).toEqual([])
    })
    await inTransaction(orm.transaction as never, async (scope) => {
      await orm.create(note(4), scope)
      throw new Error('no')
    }).catch(() => {})

    expect(await heardIn('kitchen')).toEqual([created(1), created(3)])
  })

  it('lets a row be saved though nobody can be told', async () => {
    await site.close()

    await orm.create(note(1))
    await orm.change(1, { text: 'saved' })
  })
})

describe('modelBinding()', () => {
  beforeAll(async () => {
    await setup({ channelBackends: { default: { backend: 'memory:' } } })
  })

  it('sends a text frame by default, with no more than the listed fields', async () => {
    const plain = modelBinding<Note>({
      model: 'note',
      fields: ['text'],
      groups: () => ['all', 'all'],
    })
    const site = await setup({ channelBackends: { default: { backend: 'memory:' } } })
    await Group('all').add('heard')

    await plain.created({ id: 1, room: 'kitchen', text: 'hi', secret: 'no' })

    const messages = await site.backend().receive(['heard'], { max: 9, waitMs: 0 })
    expect(messages.map(({ content }) => JSON.parse(String(content.content)))).toEqual([
      { model: 'note', action: 'create', key: 1, fields: { text: 'hi' } },
    ])
    await site.close()
  })

  it('refuses to send all fields for lack of a list', () => {
    expect(() => modelBinding<Note>({ model: 'note', fields: [], groups: () => 'all' })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    )
  })
})

describe('a row that is only marked as deleted', () => {
  /** Creates, marks and restores a row, and then says what a group has heard. */
  async function heard(run: (url: string) => Promise<void>): Promise<unknown[]> {
    const url = await place.newUrl()
    const site = await setup({ channelBackends: { default: { backend: url } } })
    await Group('room-kitchen').add('heard')
    await run(url)
    const messages = await site.backend().receive(['heard'], { max: 100, waitMs: 5_000 })
    await site.close()
    return messages.map(({ content: { action, id } }) => [action, id])
  }

  const note = { id: 1, room: 'kitchen', text: 'text', secret: 'no' }
  const expected = [
    ['create', 1],
    ['delete', undefined],
    ['create', 1],
  ]

  it('is deleted and created to its groups, by Sequelize', async () => {
    const actions = await heard(async (url) => {
      const db = new Sequelize({ dialect: 'postgres', ...options(url), logging: false })
      class NoteRow extends Model {}
      const id = { type: DataTypes.INTEGER, primaryKey: true }
      NoteRow.init({ id, room: DataTypes.TEXT }, { sequelize: db, paranoid: true })
      bindSequelize<Note>(NoteRow, binding)
      await db.sync()
      const row = await NoteRow.create({ id: 1, room: 'kitchen' })
      await row.destroy()
      await row.restore()
      await db.close()
    })

    expect(actions).toEqual(expected)
  })

  it('is deleted and created to its groups, by TypeORM', async () => {
    const actions = await heard(async (url) => {
      const text = { type: 'text' } as const
      const schema = new EntitySchema<Note & { goneAt?: Date }>({
        name: 'note',
        columns: {
          id: { type: 'integer', primary: true },
          room: text,
          text,
          secret: text,
          goneAt: { type: 'timestamptz', deleteDate: true, nullable: true },
        },
      })
      const source = new DataSource({
        type: 'postgres',
        ...options(url),
        entities: [schema],
        synchronize: true,
      })
      await source.initialize()
      bindTypeorm<Note>(source, schema, binding)
      const notes = source.getRepository(schema)
      const row = await notes.save(note)
      await notes.softRemove(row)
      await notes.recover(row)
      await source.destroy()
    })

    expect(actions).toEqual(expected)
  })
})
