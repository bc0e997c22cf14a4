/** What a client reads of a failure: in development its stack, in production which request it was. */
export function errorPage(error: unknown, requestId: string, isProduction: boolean): string {
  return isProduction ? `Internal Server Error\nRequest ${requestId}\n` : stackOf(error)
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? String(error)) : String(error)
}
