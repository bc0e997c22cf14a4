import type { IncomingMessage, ServerResponse } from 'node:http'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import Koa from 'koa'
import { describe, expect, it } from 'vitest'
import { carriers, serveSite } from '../../support/http-site.ts'

function plain(request: IncomingMessage, response: ServerResponse): void {
  response.setHeader('x-path', request.url ?? '').end(`plain ${request.method}`)
}

const koa = new Koa().use((context) => {
  context.body = `koa ${context.path}`
})

function fastifyApp() {
  const app = fastify()
  app.get('/a', async (request) => ({ query: request.query, ip: request.ip }))
  app.post('/a', async (request, reply) => reply.code(201).send({ body: request.body }))
  app.get('/stream', (_request, reply) => reply.send(new Blob(['streamed']).stream()))
  return app
}

class FetchApp {
  readonly #text = 'own'
  fetch(): Response {
    return new Response(this.#text)
  }
}

describe.each(carriers)('The view layer over %s', (carrier) => {
  it.each([
    ['a plain handler', plain, 'plain GET'],
    ['a Koa app', koa, 'koa /a'],
    ['Koa’s handler', koa.callback(), 'koa /a'],
    ['a Fastify app', fastifyApp(), '{"query":{"x":"1"},"ip":"127.0.0.1"}'],
    [
      'an Express app',
      express().get('/a', (_request, response) => {
        response.send('express')
      }),
      'express',
    ],
    ['a Hono app', new Hono().get('/a', (c) => c.text('hono')), 'hono'],
    ['an app whose fetch needs its object', new FetchApp(), 'own'],
    ['an object with fetch', { fetch: () => new Response('fetched') }, 'fetched'],
    ['a function with fetch', Object.assign(() => {}, { fetch: () => new Response('f') }), 'f'],
    ['an import', () => import('../../support/view-apps/imported-app.ts'), 'imported'],
    ['an import of a handler', async () => ({ default: plain }), 'plain GET'],
    ['an import of an app by name', async () => ({ app: koa }), 'koa /a'],
    ['a reference', './test/support/view-apps/imported-app.ts#app', 'imported'],
  ])('runs %s', async (_what, app, text) => {
    await using site = await serveSite(carrier, { app })

    const response = await fetch(`http://127.0.0.1:${site.port}/a?x=1`)

    expect(await response.text()).toBe(text)
    expect(site.log).toEqual([])
  })

  it('runs Fastify’s bodies and streams', async () => {
    await using site = await serveSite(carrier, { app: fastifyApp() })
    const url = `http://127.0.0.1:${site.port}`

    const headers = { 'content-type': 'application/json' }
    const posted = await fetch(`${url}/a`, { method: 'POST', headers, body: '{"n":1}' })
    const streamed = await fetch(`${url}/stream`)

    expect([posted.status, await posted.text()]).toEqual([201, '{"body":{"n":1}}'])
    expect(await streamed.text()).toBe('streamed')
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('broken')
      },
    ],
    [
      'rejects',
      async () => {
        throw new Error('broken')
      },
    ],
  ])('answers 500 when a handler %s', async (_what, fail) => {
    const app = (_request: IncomingMessage, _response: ServerResponse) => fail()
    await using site = await serveSite(carrier, { app, mode: 'production' })

    const response = await fetch(`http://127.0.0.1:${site.port}/`)

    expect(response.status).toBe(500)
    expect(await response.text()).not.toContain('broken')
    expect(site.log).toHaveLength(1)
  })
})

describe('Config.app', () => {
  it.each([
    ['an empty object', {}, 'app is an object with nothing in it'],
    ['a number', 7, 'app is 7'],
    ['a function of one parameter', (_request: Request) => new Response(), 'of 1 parameter;'],
    ['a function that gives nothing', () => undefined, 'the function app gives undefined'],
    ['an import without an app', async () => ({ other: 1 }), 'an object with other'],
  ])('is refused when it is %s', async (_what, app, message) => {
    await expect(serveSite('memory', { app: app as never })).rejects.toMatchObject({
      code: 'ERR_INVALID_CONFIG',
      message: expect.stringContaining(message),
    })
  })
})
