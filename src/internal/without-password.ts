/** A URL as it may be shown to anybody: without what stands behind its user's name, or in `password=`. */
export function withoutPassword(url: string): string {
  // What is no URL may have a password in which signs of URLs stand as they are.
  const place = URL.canParse(url) ? /(\/\/[^/?#:@]*):[^/?#]*@/ : /(\/\/[^:@]*):.*@/s
  return url.replace(place, '$1:…@').replace(/([?&](?:ssl)?password=)[^&#]*/gi, '$1…')
}
