/** Where people meet. */
export interface Room {
  /** As the page calls it. */
  readonly name: string
  /** Its group, which is also what its messages are kept under. */
  readonly group: string
}

/** Leads each user to the room of all whose names begin with the same letter. */
export const letterPath = '/letter'

const privateStart = 'chat-private-'

/**
 * The room a path leads to: `/` the lobby, `/kitchen` the kitchen, `/letter` the one of the user's
 * letter; none for any other path, and none at `/letter` for a guest.
 */
export function roomOf(path: string, user: { readonly username: string } | null): Room | undefined {
  if (path === letterPath) {
    const letter = user?.username.charAt(0).toUpperCase()
    return letter
      ? { name: `Letter ${letter}`, group: privateStart + letter.toLowerCase() }
      : undefined
  }
  const name = path.slice(1) || 'lobby'
  // Another start than the private ones have, so that no name leads into one of those.
  return name.length <= 60 && !name.includes('/')
    ? { name, group: `chat-public-${name}` }
    : undefined
}

export function isPrivate(group: string): boolean {
  return group.startsWith(privateStart)
}
