import type { Content } from '../content.ts'
import { isChannelkitError } from '../errors.ts'
import type { Counters } from '../internal/counters.ts'
import { decodeContent, type Encoded, encodeContent } from './codec.ts'
import { ContentSeal, type EncryptionOptions, type SealPlace } from './content-seal.ts'

/** Encodes and decodes the content of one backend, encrypted where its options have keys. */
export class ContentCodec {
  readonly #seal: ContentSeal | undefined
  readonly #counters: Counters

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(counters: Counters, encryption: EncryptionOptions | undefined) {
    this.#counters = counters
    this.#seal = encryption === undefined ? undefined : new ContentSeal(encryption)
  }

  /**
   * Encodes content for one place.
   *
   * @param maxBytes - most bytes before it is sealed, which adds 49.
   * @throws {ChannelkitError} `ERR_INVALID_CONTENT`, `ERR_CONTENT_TOO_LARGE`
   */
  encode(content: Content, maxBytes: number, place: SealPlace): Encoded {
    return this.seal(encodeContent(content, maxBytes), place)
  }

  /** Seals what was encoded already. */
  seal(encoded: Encoded, place: SealPlace): Encoded {
    return this.#seal ? this.#seal.close(encoded, place) : encoded
  }

  /** The encoded form of what was sealed for a place, or `undefined`; not counted. */
  unseal(stored: Encoded, place: SealPlace): Encoded | undefined {
    const encoded = this.#open(stored, place)
    return encoded === undefined ? undefined : (encoded as Encoded)
  }

  /** What {@link decode} will come to, not counted yet. */
  peek(stored: string | Uint8Array, place: SealPlace): Content | undefined {
    const encoded = this.#open(stored, place)
    try {
      return encoded === undefined ? undefined : decodeContent(encoded)
    } catch {
      return undefined
    }
  }

  /** The content, or `undefined`, which is counted, for what nobody of this site has put there. */
  decode(stored: string | Uint8Array, place: SealPlace): Content | undefined {
    const encoded = this.#open(stored, place)
    if (encoded === undefined) {
      this.#counters.add('dropped.undecryptable')
      return undefined
    }
    try {
      return decodeContent(encoded)
    } catch (error) {
      if (!isChannelkitError(error, 'ERR_INVALID_CONTENT')) throw error
      this.#counters.add('dropped.invalid')
      return undefined
    }
  }

  #open(stored: string | Uint8Array, place: SealPlace): string | Uint8Array | undefined {
    return this.#seal ? this.#seal.open(asBytes(stored), place) : stored
  }
}

function asBytes(stored: string | Uint8Array): Uint8Array {
  return typeof stored === 'string' ? Buffer.from(stored) : stored
}
