import { hashOf } from './view-apps/express-app.ts'

export type Step = readonly [path: string, init?: RequestInit]

/** What one browser gets, asking one after the other. */
export async function askAll(port: number, steps: readonly Step[]): Promise<unknown[]> {
  const browser = new Browser(port)
  const answers: unknown[] = []
  for (const [path, init] of steps) answers.push(await browser.ask(path, init))
  return answers
}

/** Asks on one port; keeps the cookies of one browser. */
class Browser {
  readonly #port: number
  #cookie = ''

  constructor(port: number) {
    this.#port = port
  }

  async ask(path: string, init: RequestInit = {}): Promise<unknown> {
    const response = await fetch(`http://127.0.0.1:${this.#port}${path}`, {
      redirect: 'manual',
      ...init,
      headers: { ...(init.headers as Record<string, string>), cookie: this.#cookie },
    })
    const cookies = response.headers.getSetCookie()
    if (cookies.length > 0) this.#cookie = cookies.map((each) => each.split(';')[0]).join('; ')
    const body = Buffer.from(await response.arrayBuffer())
    return {
      status: response.status,
      headers: [...response.headers]
        .filter(([name]) => !['date', 'connection', 'keep-alive'].includes(name))
        // A session's key is random, wherever it is made.
        .map(([name, value]) => [
          name,
          portless(value, this.#port).replace(/connect\.sid=[^;]+/, 'connect.sid=…'),
        ]),
      body: body.length < 1_000 ? portless(body.toString(), this.#port) : hashOf(body),
    }
  }
}

function portless(text: string, port: number): string {
  return text.replaceAll(`127.0.0.1:${port}`, '127.0.0.1:PORT')
}
