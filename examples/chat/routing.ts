import { defineRouting } from 'channelkit'
import { connect, disconnect, receive } from './consumers.ts'

export const channelRouting = defineRouting({
  'websocket.connect': connect,
  'websocket.receive': receive,
  'websocket.disconnect': disconnect,
})
