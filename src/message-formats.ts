/**
 * The content of every channel that interface servers send on or read, as `docs/message-formats.md`
 * describes them. Keys are the published wire standard, shared with programs in other languages,
 * which is why they are not in camel case.
 */

/** `[name, value]` pairs in the order received; names in lower case, duplicates kept. */
export type HeaderList = readonly (readonly [name: string, value: string])[]

/** Name → every value given for it, in order. */
export type ValueLists = { readonly [name: string]: readonly string[] }

/** Host and port. */
export type Address = readonly [host: string, port: number]

/** What HTTP requests and WebSocket handshakes have in common. */
type RequestHead = {
  /** Where to answer. */
  readonly reply_channel: string
  /** The path, percent-decoded. */
  readonly path: string
  /** The path as the client sent it. */
  readonly raw_path: string
  /** What stood behind `?`, undecoded and without it; empty when there was none. */
  readonly query_string: string
  /** The query, decoded. */
  readonly get: ValueLists
  /** Cookie name → value; the first of a name wins. */
  readonly cookies: { readonly [name: string]: string }
  readonly headers: HeaderList
  /** The peer, or what a listed trusted proxy says of it. */
  readonly client: Address
  /** The local address that took the connection. */
  readonly server: Address
}

/** Content of `http.request`. */
export type HttpRequest = RequestHead & {
  /** In upper case. */
  readonly method: string
  readonly scheme: 'http' | 'https'
  /** `1.0` or `1.1`. */
  readonly http_version: string
  /** The whole body, or its first part; absent when there is none. */
  readonly body?: Uint8Array
  /** True when the body has further parts, which come as {@link HttpNotice}s to who listens. */
  readonly more_content?: boolean
}

/** What answers an `http.request`: the first message on its reply channel. */
export type HttpResponse = {
  /** 200–599; 200 when left out. */
  readonly status?: number
  readonly headers?: HeaderList
  /** Sets the `content-type` header unless `headers` has one. */
  readonly content_type?: string
  /** A string is sent as UTF-8. */
  readonly content?: string | Uint8Array
  /** True when further {@link HttpResponsePart}s follow. Default false. */
  readonly more_content?: boolean
}

/** A further message on the reply channel of an answer that said `more_content`. */
export type HttpResponsePart = {
  readonly content?: string | Uint8Array
  readonly more_content?: boolean
  /** True when the rest cannot be sent: the connection is cut, so that nobody takes it for whole. */
  readonly abort?: boolean
}

/**
 * Sent on the reply channel of an `http.request` by who wants to hear of its client, and again
 * every ten seconds while the request is under way. It is no answer.
 */
export type HttpListen = {
  /** The channel that {@link HttpNotice}s are to be sent on. */
  readonly listen: string
  /** How many parts of the body may have been sent in all, behind the one in `http.request`. */
  readonly body_parts?: number
}

/** What the interface server tells who listens to a request. */
export type HttpNotice = {
  /** How many parts of the answer have been written to the client. */
  readonly received?: number
  /** The place of a part of the request's body, from 0. */
  readonly part?: number
  /** That part; absent when it is empty. */
  readonly body?: Uint8Array
  /** Whether further parts of the body follow. */
  readonly more_content?: boolean
  /** True when the client has left or its request is given up: nothing more is to be done for it. */
  readonly closed?: boolean
}

/** Content of `http.disconnect`: the client left before its answer was complete. */
export type HttpDisconnect = { readonly reply_channel: string; readonly path: string }

/** Content of `websocket.connect`: a client asks for a socket, or has opened one. */
export type WebSocketConnect = RequestHead & {
  readonly scheme: 'ws' | 'wss'
  /** The subprotocols the client offers, in its order of preference. */
  readonly subprotocols: readonly string[]
}

/** Content of `websocket.receive`: one message from a client. */
export type WebSocketReceive = {
  readonly reply_channel: string
  readonly path: string
} & (
  | { readonly content: string; readonly binary?: false }
  | { readonly content: Uint8Array; readonly binary: true }
)

/** Content of `websocket.keepalive`, sent every half group expiry for each open socket. */
export type WebSocketKeepalive = { readonly reply_channel: string; readonly path: string }

/** Content of `websocket.disconnect`: a socket is gone. */
export type WebSocketDisconnect = {
  readonly reply_channel: string
  readonly path: string
  /** Close code, RFC 6455 section 7.4; 1006 when the connection was lost without one. */
  readonly code: number
}

/** What may be sent to a socket's reply channel, or to a group of them. */
export type WebSocketReply = {
  /** Sent as one message: a string as text, bytes as binary. */
  readonly content?: string | Uint8Array
  /** Overrules the kind of message that `content` suggests. */
  readonly binary?: boolean
  /** Closes the socket afterwards: true for code 1000, or the code. */
  readonly close?: boolean | number
  /** Why, at most 123 bytes of UTF-8, with `close`. */
  readonly reason?: string
  /** Where the consumer decides: true completes the handshake, false refuses it with 403. */
  readonly accept?: boolean
  /** The one of the offered subprotocols that is used, with `accept`. */
  readonly subprotocol?: string
}

/** Content of `__channels__.echo`, answered with itself: a probe that workers live. */
export type Echo = { readonly reply_channel: string }

/** Content of `__channels__.gone`: a socket is gone, and its session may end. */
export type Gone = { readonly reply_channel: string }

/** Channel name → its content, for the channels that Channelkit itself defines. */
export interface BuiltInChannels {
  'http.request': HttpRequest
  'http.disconnect': HttpDisconnect
  'websocket.connect': WebSocketConnect
  'websocket.receive': WebSocketReceive
  'websocket.keepalive': WebSocketKeepalive
  'websocket.disconnect': WebSocketDisconnect
  '__channels__.echo': Echo
  '__channels__.gone': Gone
}
