/** True when both types are the same, `any` only beside `any`. */
export type Equal<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Fails to compile unless `T` is true. */
export function holds<T extends true>(..._proof: T[]): void {}
