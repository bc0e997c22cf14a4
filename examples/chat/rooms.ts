/** The room a path leads to: `/` the lobby, `/kitchen` the kitchen; none for any other path. */
export function roomOf(path: string): string | undefined {
  const room = path.slice(1) || 'lobby'
  return room.length <= 60 && !room.includes('/') ? room : undefined
}
