import { describe, expect, it } from 'vitest'
import {
  resolveHttpSettings,
  resolveWebSocketSettings,
} from '../../../src/interface-servers/settings.ts'

describe('resolveWebSocketSettings', () => {
  it.each([
    ['pingMs', 0],
    ['maxMessageBytes', -1],
    ['maxSockets', 1.5],
    ['closeBatch', '100'],
    ['pongMs', Number.NaN],
    ['handshakeMs', Number.POSITIVE_INFINITY],
    ['acceptance', 'later'],
    ['renewal', 'never'],
    ['paths', '/ws/'],
    ['allowedOrigins', 'https://example.com'],
    ['allowedOrigins', [7]],
    ['allowedOrigin', ['https://example.com']],
    ['allowMissingOrigin', 'false'],
    ['allowMissingOrigin', null],
  ])('refuses %s %j, by name', (name, value) => {
    expect(() => resolveWebSocketSettings({ [name]: value })).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringContaining(name),
      }),
    )
  })
})

describe('resolveHttpSettings', () => {
  it.each([
    ['maxBodyBytes', 0],
    ['responseMs', '30'],
    ['trustedProxies', '10.0.0.1'],
    ['trustedProxy', ['10.0.0.1']],
  ])('refuses %s %j, by name', (name, value) => {
    expect(() => resolveHttpSettings({ [name]: value })).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringContaining(name),
      }),
    )
  })
})
