import { expect, it } from 'vitest'
import { withoutPassword } from '../../../src/internal/without-password.ts'

it.each([
  ['postgres://ada:secret@host/db', 'postgres://ada:…@host/db'],
  ['postgres://ada:se:cr:et@host:5432/db?a=b', 'postgres://ada:…@host:5432/db?a=b'],
  ['mysql://ada:se@cret@host/db', 'mysql://ada:…@host/db'],
  ['mysql://ada:se/cr#et@host/db', 'mysql://ada:…@host/db'],
  ['postgres://:secret@host/db', 'postgres://:…@host/db'],
  ['postgres://ada@host/db?password=secret&a=b', 'postgres://ada@host/db?password=…&a=b'],
  ['postgres://ada@host/db?a=b&sslpassword=secret', 'postgres://ada@host/db?a=b&sslpassword=…'],
  ['postgres://host:5432/db?options=a@b', 'postgres://host:5432/db?options=a@b'],
  ['sqlite:/srv/a:b@c.sqlite', 'sqlite:/srv/a:b@c.sqlite'],
])('shows %s as %s', (url, expected) => {
  expect(withoutPassword(url)).toBe(expected)
})
