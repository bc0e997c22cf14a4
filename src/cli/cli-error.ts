/** An error that ends a command: one line that says what happened, and one that says what to do. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly hint: string
  /** 2 for wrong use or a wrong config, 1 for anything else. */
  readonly exitCode: 1 | 2

  constructor(
    message: string,
    options: { readonly hint: string; readonly exitCode: 1 | 2; readonly cause?: unknown },
  ) {
    super(message, { cause: options.cause })
    this.hint = options.hint
    this.exitCode = options.exitCode
  }
}
