import { createCipheriv, createDecipheriv, hkdfSync, randomFillSync } from 'node:crypto'
import { ChannelkitError, shown } from '../errors.ts'
import type { Encoded } from './codec.ts'

/** Of a backend whose content leaves the process. */
export interface EncryptionOptions {
  /**
   * 32 random bytes each, as base64, hexadecimal or `Uint8Array`; `openssl rand -base64 32` makes
   * one. The first encrypts, all decrypt.
   */
  readonly keys: readonly (string | Uint8Array)[]
}

/** Where content lies: a channel or a group. What is sealed for one place opens in no other. */
export type SealPlace = `c:${string}` | `g:${string}`

interface MasterKey {
  readonly id: string
  readonly bytes: Buffer
}

const version = 0x33
const keyBytes = 32
const idEnd = 5
const saltEnd = 21
const nonceEnd = 33
const tagBytes = 16
// With nonces at random, one key is good for 2^32 messages (NIST SP 800-38D section 8.3).
const mostSealsOfSalt = 2 ** 28
// A salt is one process's, so this is for as many; an unknown one costs some microseconds.
const maxRemembered = 1_000
const randomPoolBytes = 12 * 512

/**
 * Encrypts content by AES-256-GCM. Sealed content is `3`, the first four bytes of its key's id, 16
 * bytes of salt, a random nonce of 12 bytes, the encrypted form that `codec.ts` makes, and the tag of
 * 16 bytes. The key is HKDF-SHA-256 of one of `keys` with the salt, which is each process's own; the
 * associated data is the place.
 */
export class ContentSeal {
  readonly #keys: ReadonlyMap<string, MasterKey>
  readonly #first: MasterKey
  readonly #derived = new Map<string, Buffer>()
  readonly #random = Buffer.alloc(randomPoolBytes)
  #randomAt = randomPoolBytes
  #own: { readonly head: Buffer; readonly key: Buffer } | undefined
  #sealsLeft = 0

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG`, which never shows a key. */
  constructor(options: EncryptionOptions) {
    const keys = readKeys(options)
    this.#keys = new Map(keys.map((key) => [key.id, key]))
    this.#first = keys[0] as MasterKey
    if (this.#keys.size === keys.length) return
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      'encryption.keys has a key twice; leave one of them out',
    )
  }

  close(encoded: Encoded, place: SealPlace): Buffer {
    const { head, key } = this.#ownKey()
    const nonce = this.#nonce()
    const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes })
    cipher.setAAD(Buffer.from(place))
    const body =
      typeof encoded === 'string' ? cipher.update(encoded, 'utf8') : cipher.update(encoded)
    cipher.final()
    return Buffer.concat([head, nonce, body, cipher.getAuthTag()])
  }

  /** The encoded form, or `undefined` for what was not sealed for this place with one of the keys. */
  open(sealed: Uint8Array, place: SealPlace): Buffer | undefined {
    const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength)
    if (bytes[0] !== version || bytes.length < nonceEnd + tagBytes) return undefined
    const source = bytes.toString('latin1', 1, saltEnd)
    const known = this.#derived.get(source)
    const key = known ?? this.#derive(bytes)
    if (!key) return undefined
    const nonce = bytes.subarray(saltEnd, nonceEnd)
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes })
    decipher.setAAD(Buffer.from(place))
    decipher.setAuthTag(bytes.subarray(-tagBytes))
    const encoded = decipher.update(bytes.subarray(nonceEnd, -tagBytes))
    try {
      decipher.final()
    } catch {
      return undefined
    }
    if (!known) this.#remember(source, key)
    return encoded
  }

  #ownKey(): { readonly head: Buffer; readonly key: Buffer } {
    if (this.#own && this.#sealsLeft-- > 0) return this.#own
    const { id, bytes } = this.#first
    const salt = randomFillSync(Buffer.alloc(saltEnd - idEnd))
    const head = Buffer.concat([Buffer.of(version), Buffer.from(id, 'latin1'), salt])
    this.#own = { head, key: derive(bytes, salt, 'channelkit content') }
    this.#sealsLeft = mostSealsOfSalt
    return this.#own
  }

  #derive(sealed: Buffer): Buffer | undefined {
    const master = this.#keys.get(sealed.toString('latin1', 1, idEnd))
    return master && derive(master.bytes, sealed.subarray(idEnd, saltEnd), 'channelkit content')
  }

  #remember(source: string, key: Buffer): void {
    if (this.#derived.size >= maxRemembered) this.#derived.clear()
    this.#derived.set(source, key)
  }

  #nonce(): Buffer {
    if (this.#randomAt === randomPoolBytes) {
      randomFillSync(this.#random)
      this.#randomAt = 0
    }
    const start = this.#randomAt
    this.#randomAt += nonceEnd - saltEnd
    return this.#random.subarray(start, this.#randomAt)
  }
}

function derive(key: Buffer, salt: Uint8Array, info: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, info, keyBytes))
}

function readKeys(options: unknown): readonly MasterKey[] {
  const { keys, ...others } = isObject(options) ? options : { keys: undefined }
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `encryption has an unknown option ${shown(unknown)}; it has only keys`,
    )
  }
  if (!(Array.isArray(keys) && keys.length > 0)) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `encryption is no list of keys; give { keys: [KEY] }, a list also of one: the first encrypts, all decrypt`,
    )
  }
  return keys.map((given: unknown, index) => {
    const bytes = bytesOf(given)
    if (bytes?.length === keyBytes && new Set(bytes).size > 1) {
      const id = derive(bytes, Buffer.alloc(0), 'channelkit key id').toString(
        'latin1',
        0,
        idEnd - 1,
      )
      return { id, bytes }
    }
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `encryption.keys number ${index + 1} is not ${keyBytes} random bytes as base64 or hexadecimal; make one by openssl rand -base64 ${keyBytes}`,
    )
  })
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function bytesOf(key: unknown): Buffer | undefined {
  if (key instanceof Uint8Array) return Buffer.from(key)
  if (typeof key !== 'string') return undefined
  if (/^[0-9a-fA-F]{64}$/.test(key)) return Buffer.from(key, 'hex')
  return /^[A-Za-z0-9+/_-]{43}=?$/.test(key) ? Buffer.from(key, 'base64') : undefined
}
