/**
 * Whether the time of a refusal tells how much of a signature is right:
 * `node --import tsx bench/timing.ts [pairs]`.
 *
 * For session cookies, and for the keyed hashes of tickets and passed sessions: the time that it takes
 * to refuse one whose first character is wrong, and one whose last is, in random order, 10,000 pairs of
 * each; Welch's t of the two, without the slowest tenth. Beyond 4.5 either way they can be told
 * apart. A comparison that stops at the first difference is measured the same way, to show that
 * the experiment would notice.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { isKeyedHash, keyedHash, signCookie, verifyCookie } from '../src/sessions/signing.ts'

const pairs = Number(process.argv[2] ?? 10_000)
const callsPerSample = 10
const secret = randomBytes(32).toString('base64')
const key = randomBytes(16).toString('hex')

const cookie = signCookie(key, [secret])
const hash = keyedHash('ticket', key, secret)

report('session cookie', cookie, cookie.lastIndexOf('.') + 1, (text) => {
  return verifyCookie(text, [secret]) !== undefined
})
report('keyed hash', hash, 0, (text) => isKeyedHash('ticket', key, text, [secret]))
report('keyed hash, were it compared until it differs', hash, 0, (text) => {
  return isSameUntilItDiffers(keyedHash('ticket', key, secret), text)
})

function report(
  name: string,
  right: string,
  from: number,
  accepts: (text: string) => boolean,
): void {
  if (!accepts(right)) throw new Error(`${name}: what is right is refused`)
  const early = withOther(right, from)
  // Of the last character some bits are padding in base64, so the one before it.
  const late = withOther(right, right.length - 2)
  for (const text of [early, late]) {
    if (accepts(text)) throw new Error(`${name}: ${text} is accepted`)
  }
  const samples: [number[], number[]] = [[], []]
  const sample = (text: string): number => {
    const begin = process.hrtime.bigint()
    for (let call = 0; call < callsPerSample; call++) accepts(text)
    return Number(process.hrtime.bigint() - begin) / callsPerSample
  }
  for (let warm = 0; warm < pairs / 10; warm++) [early, late].forEach(sample)
  for (let pair = 0; pair < pairs; pair++) {
    const isLateFirst = randomInt(2) === 1
    const [first, second] = isLateFirst ? [late, early] : [early, late]
    const times = [sample(first), sample(second)] as const
    samples[0].push(times[isLateFirst ? 1 : 0])
    samples[1].push(times[isLateFirst ? 0 : 1])
  }
  const limit = samples.flat().sort((a, b) => a - b)[Math.floor(pairs * 2 * 0.9)] ?? 0
  const [a, b] = samples.map((each) => momentsOf(each.filter((time) => time <= limit)))
  if (!a || !b) return
  const t = (a.mean - b.mean) / Math.sqrt(a.variance / a.count + b.variance / b.count)
  console.log(
    `${name}: first character wrong ${a.mean.toFixed(1)} ns, last wrong ${b.mean.toFixed(1)} ns, t = ${t.toFixed(2)}${Math.abs(t) > 4.5 ? ': can be told apart' : ''}`,
  )
}

function withOther(text: string, index: number): string {
  return `${text.slice(0, index)}${text[index] === 'A' ? 'B' : 'A'}${text.slice(index + 1)}`
}

function momentsOf(times: readonly number[]) {
  const count = times.length
  const mean = times.reduce((sum, time) => sum + time, 0) / count
  const variance = times.reduce((sum, time) => sum + (time - mean) ** 2, 0) / (count - 1)
  return { count, mean, variance }
}

function isSameUntilItDiffers(expected: string, given: string): boolean {
  for (let index = 0; index < expected.length; index++) {
    if (expected[index] !== given[index]) return false
  }
  return true
}
