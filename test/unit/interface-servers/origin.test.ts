import { describe, expect, it } from 'vitest'
import { originFault } from '../../../src/interface-servers/origin.ts'
import {
  resolveWebSocketSettings,
  type WebSocketSettings,
} from '../../../src/interface-servers/settings.ts'

interface Handshake {
  readonly origins: readonly string[]
  readonly host?: string
  readonly isSecure?: boolean
  readonly clientHost?: string
  readonly isProduction?: boolean
}

/** What is wrong with a handshake; in production and from elsewhere, unless said otherwise. */
function fault(handshake: Handshake, settings: WebSocketSettings = {}): string | undefined {
  const { host = 'example.com', isSecure = true, clientHost = '203.0.113.9' } = handshake
  const { origins, isProduction = true } = handshake
  return originFault(
    { origins, host, isSecure, clientHost, isProduction },
    resolveWebSocketSettings(settings),
  )
}

const otherSite = 'its Origin is another site; list it in websocket.allowedOrigins to admit it'
const noPage = 'its Origin is not one of a web page'

describe('originFault', () => {
  it.each([
    ['https://example.com', undefined],
    ['https://EXAMPLE.com', undefined],
    ['HTTPS://example.com', undefined],
    ['https://example.com:443', undefined],
    ['http://example.com', otherSite],
    ['https://example.com:8443', otherSite],
    ['https://sub.example.com', otherSite],
    ['https://example.com.evil.example', otherSite],
    ['https://evilexample.com', otherSite],
    ['https://example.com.', otherSite],
    ['https://xn--exmple-cua.com', otherSite],
    ['https://exämple.com', noPage],
    ['null', noPage],
    ['', noPage],
    ['file://', noPage],
    ['example.com', noPage],
    ['https://user@example.com', noPage],
    ['https://example.com@evil.example', noPage],
    ['https://example.com/', noPage],
    ['https://example.com/path', noPage],
    ['https://example.com?x', noPage],
    ['https://example.com#x', noPage],
    ['https://example.com\\', noPage],
    ['https://example.com, https://evil.example', noPage],
    ['chrome-extension://abcdefgh', noPage],
    ['javascript://example.com', noPage],
    ['https://', noPage],
    ['https://example.com:99999', noPage],
  ])('judges Origin %s for the host example.com', (origin, expected) => {
    expect(fault({ origins: [origin] })).toBe(expected)
  })

  it.each([
    ['https://example.com', 'example.com:443', undefined],
    ['https://example.com:8443', 'example.com:8443', undefined],
    ['https://xn--bcher-kva.example', 'xn--bcher-kva.example', undefined],
    ['https://[2001:db8::1]', '[2001:db8::1]', undefined],
    ['https://example.com', undefined, 'it has no valid Host'],
    ['https://example.com', '', 'it has no valid Host'],
    ['https://example.com', 'user@example.com', 'it has no valid Host'],
    ['https://example.com', 'example.com/x', 'it has no valid Host'],
    ['https://evil.example', 'example.com\\@evil.example', 'it has no valid Host'],
  ])('judges Origin %s for the host %s', (origin, host, expected) => {
    const facts = { origins: [origin], isSecure: true, clientHost: '203.0.113.9' }

    expect(originFault({ ...facts, host, isProduction: true }, resolveWebSocketSettings())).toBe(
      expected,
    )
  })

  it('refuses two Origins, even of the same site', () => {
    const origins = ['https://example.com', 'https://example.com']

    expect(fault({ origins })).toBe('it has two Origin headers')
  })

  it('lets pages of either scheme in where TLS ends before the server', () => {
    expect(fault({ origins: ['https://example.com'], isSecure: false })).toBe(undefined)
    expect(fault({ origins: ['http://example.com'], isSecure: false })).toBe(undefined)
  })

  describe('with allowedOrigins', () => {
    it.each([
      ['https://app.example', undefined],
      ['https://app.example:443', undefined],
      ['http://app.example', otherSite],
      ['https://www.app.example', otherSite],
      ['https://app.example:8443', otherSite],
    ])('judges Origin %s where https://app.example is listed', (origin, expected) => {
      expect(fault({ origins: [origin] }, { allowedOrigins: ['https://app.example'] })).toBe(
        expected,
      )
    })

    it.each([['https://evil.example'], ['null'], ['anything']])(
      'admits %s where * is',
      (origin) => {
        expect(fault({ origins: [origin] }, { allowedOrigins: ['*'] })).toBe(undefined)
      },
    )

    it.each([
      ['app.example'],
      ['https://app.example/path'],
      ['*.app.example'],
      ['null'],
      ['https://app.example?x'],
    ])('refuses to list %s', (origin) => {
      expect(() => resolveWebSocketSettings({ allowedOrigins: [origin] })).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_CONFIG',
          message: `websocket.allowedOrigins has "${origin}"; give a scheme, host and port like https://example.com`,
        }),
      )
    })
  })

  describe('without an Origin', () => {
    const missing = 'it has no Origin; set websocket.allowMissingOrigin to admit such clients'

    it.each([
      [{ clientHost: '127.0.0.1', isProduction: false }, undefined, undefined],
      [{ clientHost: '::1', isProduction: false }, undefined, undefined],
      [{ clientHost: '192.0.2.1', isProduction: false }, undefined, missing],
      [{ clientHost: '127.0.0.1', isProduction: true }, undefined, missing],
      [{ clientHost: '192.0.2.1', isProduction: true }, true, undefined],
      [{ clientHost: '127.0.0.1', isProduction: false }, false, missing],
    ])('judges %j where allowMissingOrigin is %s', (client, allowMissingOrigin, expected) => {
      const settings = allowMissingOrigin === undefined ? {} : { allowMissingOrigin }

      expect(fault({ origins: [], ...client }, settings)).toBe(expected)
    })
  })

  describe('in development', () => {
    it.each([
      ['http://localhost:3000', 'localhost:8000', undefined],
      ['http://127.0.0.1:3000', 'localhost:8000', undefined],
      ['http://[::1]:3000', '127.0.0.1:8000', undefined],
      ['http://localhost.evil.example', 'localhost:8000', otherSite],
      ['http://localhost:3000', 'example.com', otherSite],
      ['http://example.com', 'localhost:8000', otherSite],
    ])('judges Origin %s for the host %s', (origin, host, expected) => {
      expect(fault({ origins: [origin], host, isSecure: false, isProduction: false })).toBe(
        expected,
      )
    })

    it('is over in production', () => {
      const handshake = { origins: ['http://localhost:3000'], host: 'localhost:8000' }

      expect(fault({ ...handshake, isSecure: false })).toBe(otherSite)
    })
  })
})
