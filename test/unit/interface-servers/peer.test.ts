import { describe, expect, it } from 'vitest'
import { peerReader } from '../../../src/interface-servers/peer.ts'
import { incomingRequest } from '../../support/incoming-request.ts'

describe('peerReader', () => {
  it('believes no forwarded header where no proxy is trusted', () => {
    const request = incomingRequest({
      rawHeaders: [
        ['X-Forwarded-For', '192.0.2.1'],
        ['X-Forwarded-Proto', 'https'],
      ],
    })

    expect(peerReader([])(request)).toEqual({
      client: ['203.0.113.9', 4_711],
      isSecure: false,
      isForwarded: false,
    })
  })

  it.each([
    ['::ffff:203.0.113.9', '203.0.113.9'],
    ['2001:db8::1', '2001:db8::1'],
  ])('writes the address %s as %s', (remoteAddress, host) => {
    expect(peerReader([])(incomingRequest({ remoteAddress })).client[0]).toBe(host)
  })

  it('knows TLS by its socket', () => {
    expect(peerReader([])(incomingRequest({ isEncrypted: true })).isSecure).toBe(true)
  })

  describe('behind the trusted proxies 10.0.0.0/8 and 2001:db8::1', () => {
    const readPeer = peerReader(['10.0.0.0/8', '2001:db8::1'])
    const clientOf = (forwardedFor: string, remoteAddress = '10.0.0.1') =>
      readPeer(incomingRequest({ remoteAddress, rawHeaders: [['X-Forwarded-For', forwardedFor]] }))
        .client

    it.each([
      ['one address', '192.0.2.1', ['192.0.2.1', 0]],
      ['what a client wrote in front', '6.6.6.6, 192.0.2.1', ['192.0.2.1', 0]],
      ['a chain of proxies', '6.6.6.6, 192.0.2.1, 10.0.0.3, 10.0.0.2', ['192.0.2.1', 0]],
      ['trusted addresses alone', '10.0.0.3, 10.0.0.2', ['10.0.0.3', 0]],
      ['an IPv6 address', '2001:db8::7', ['2001:db8::7', 0]],
      ['an IPv4 address written as IPv6', '::ffff:192.0.2.1', ['192.0.2.1', 0]],
      ['a port', '192.0.2.1:5555', ['192.0.2.1', 0]],
      ['an IPv6 address with a port', '[2001:db8::7]:5555', ['2001:db8::7', 0]],
      ['a port behind what a client wrote', '6.6.6.6, 192.0.2.1:5555', ['192.0.2.1', 0]],
      ['what is no address', '6.6.6.6, unknown', ['10.0.0.1', 4_711]],
      ['what is no address before a proxy', '6.6.6.6, x, 10.0.0.2', ['10.0.0.2', 0]],
      ['nothing', '', ['10.0.0.1', 4_711]],
    ])('reads %s', (_what, forwardedFor, client) => {
      expect(clientOf(forwardedFor)).toEqual(client)
    })

    it('takes the word of no other', () => {
      expect(clientOf('192.0.2.1', '11.0.0.1')).toEqual(['11.0.0.1', 4_711])
      expect(clientOf('192.0.2.1', '2001:db8::2')).toEqual(['2001:db8::2', 4_711])
    })

    it('takes the word of a proxy by IPv6, and of one by IPv4 over IPv6', () => {
      expect(clientOf('192.0.2.1', '2001:db8::1')).toEqual(['192.0.2.1', 0])
      expect(clientOf('192.0.2.1', '::ffff:10.0.0.1')).toEqual(['192.0.2.1', 0])
    })

    it('joins several headers in their order', () => {
      const request = incomingRequest({
        remoteAddress: '10.0.0.1',
        rawHeaders: [
          ['X-Forwarded-For', '6.6.6.6'],
          ['X-Forwarded-For', '192.0.2.1'],
        ],
      })

      expect(readPeer(request).client).toEqual(['192.0.2.1', 0])
    })

    it.each([
      ['https', true],
      ['wss', true],
      ['HTTPS', true],
      ['http', false],
      ['https, http', false],
      ['http, https', true],
      ['', false],
    ])('reads X-Forwarded-Proto %j', (scheme, isSecure) => {
      const rawHeaders = [['X-Forwarded-Proto', scheme]] as const

      expect(readPeer(incomingRequest({ remoteAddress: '10.0.0.1', rawHeaders })).isSecure).toBe(
        isSecure,
      )
    })
  })

  it.each(['proxy', '10.0.0.0/33', '10.0.0.0/x', '2001:db8::/129', '', '10.0.0'])(
    'refuses to trust %j',
    (entry) => {
      expect(() => peerReader([entry])).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_CONFIG',
          message: `http.trustedProxies has "${entry}"; give an IP address or a subnet like 10.0.0.0/8`,
        }),
      )
    },
  )
})
