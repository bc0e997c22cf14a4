/** A web app in the fetch style: Hono and most newer frameworks. */
export interface FetchApp {
  fetch(request: Request): Response | Promise<Response>
}
