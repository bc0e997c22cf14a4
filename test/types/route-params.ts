import { defineRouting, include, type PathParams, route } from 'channelkit'
import { type Equal, holds } from './equal.ts'

holds<Equal<PathParams<'/rooms/:room'>, { readonly room: string }>>()
holds<Equal<PathParams<'/a/:b/c/:d'>, { readonly b: string; readonly d: string }>>()
holds<Equal<PathParams<RegExp>, Readonly<Record<string, string>>>>()

// The path's names are the message's parameters, beside the channel's own content.
route('http.request', { path: '/rooms/:room', method: 'GET' }, async (message) => {
  holds<Equal<typeof message.params, { readonly room: string }>>()
  holds<Equal<typeof message.content.method, string>>()
  // @ts-expect-error: the path names no user.
  message.params.user
})
route('websocket.receive', { path: '/:room' }, ({ params }) => {
  holds<Equal<typeof params.room, string>>()
})
route('jobs', { path: /^\/(?<name>\w+)$/ }, './jobs.ts#run')

defineRouting({}, include(defineRouting({}), { path: '/live' }), route('a', {}, './a.ts#b'))
// @ts-expect-error: a reference has a file and a name.
route('a', {}, './a.ts')
