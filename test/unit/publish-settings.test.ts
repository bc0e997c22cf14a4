import { describe, expect, it } from 'vitest'
import { checkConfig } from '../../src/config.ts'
import { resolvePublishSettings } from '../../src/publish-settings.ts'

const token = `${'Az09-._~+/'.repeat(3)}aa==`

describe('resolvePublishSettings', () => {
  it('lets a plain token send everywhere, and a limited one where it says', () => {
    const { tokens } = resolvePublishSettings({
      tokens: ['a'.repeat(32), { token, channels: ['orders', 'mail.*'], groups: ['chat-*-[x]'] }],
    })

    const [all, some] = tokens
    expect([all?.mayUseChannel('any'), all?.mayUseGroup('any')]).toEqual([true, true])
    const channels = ['orders', 'orders2', 'mail.', 'mail.new', 'mailxnew', 'my.mail.new']
    expect(channels.filter((name) => some?.mayUseChannel(name))).toEqual([
      'orders',
      'mail.',
      'mail.new',
    ])
    const groups = ['chat-a-[x]', 'chat-\n-[x]', 'chat-a-x', 'orders']
    expect(groups.filter((name) => some?.mayUseGroup(name))).toEqual(['chat-a-[x]', 'chat-\n-[x]'])
  })

  it('lets a token with channels alone send to no group', () => {
    const { tokens } = resolvePublishSettings({ tokens: [{ token, channels: ['*'] }] })

    expect([tokens[0]?.mayUseChannel('any'), tokens[0]?.mayUseGroup('any')]).toEqual([true, false])
  })

  it.each([
    ['no table', 'yes', /^publish is "yes"; give/],
    ['no tokens', {}, /^publish\.tokens is undefined; /],
    ['an empty list', { tokens: [] }, /^publish\.tokens is empty; /],
    ['a missing token', { tokens: [undefined] }, /^publish\.tokens\[0\] is undefined; /],
    [
      'a short token',
      { tokens: [token, 'x'.repeat(31)] },
      /^publish\.tokens\[1\] has 31 characters/,
    ],
    [
      'a token with blanks',
      { tokens: [`${token} ${token}`] },
      /has characters that a token cannot/,
    ],
    ['one token twice', { tokens: [token, { token, groups: ['*'] }] }, /has one token twice/],
    ['a token for nothing', { tokens: [{ token }] }, /\[0\] may send to nothing; /],
    ['a misspelt limit', { tokens: [{ token, channel: [] }] }, /unknown setting "channel"/],
    ['no list', { tokens: [{ token, channels: 'a' }] }, /^publish\.tokens\[0\]\.channels is "a"/],
    ['an empty name', { tokens: [{ token, groups: [''] }] }, /^publish\.tokens\[0\]\.groups is/],
    ['a relative path', { tokens: [token], path: 'publish' }, /^publish\.path is "publish"/],
    ['a path with a query', { tokens: [token], path: '/a?b' }, /^publish\.path is/],
    ['a path with dots', { tokens: [token], path: '/a/../b' }, /^publish\.path is/],
    ['the root', { tokens: [token], path: '/' }, /^publish\.path is/],
    ['no count', { tokens: [token], maxMessages: 0 }, /^publish\.maxMessages is 0; give a whole/],
    [
      'an unknown setting',
      { tokens: [token], cors: true },
      /^publish has an unknown setting "cors"/,
    ],
  ])('refuses %s when the config is loaded, and shows no token', (_what, publish, message) => {
    let error: unknown
    try {
      checkConfig({ publish })
    } catch (thrown) {
      error = thrown
    }

    expect(error).toMatchObject({
      code: 'ERR_INVALID_CONFIG',
      message: expect.stringMatching(message),
    })
    expect(String(error)).not.toContain(token)
    expect(String(error)).not.toContain('xxx')
  })
})
