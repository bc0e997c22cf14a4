import { Channel, defineRouting, type Message } from 'channelkit'

export const app = {
  fetch: (request: Request) => new Response(`Hello ${new URL(request.url).pathname.slice(1)}`),
}

export async function pass(message: Message): Promise<void> {
  await Channel('passed').send(message.content)
}

export const notAFunction = 'pass'

export const channelRouting = defineRouting({ greetings: './consumers.ts#pass' })
