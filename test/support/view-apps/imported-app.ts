export const app = { fetch: () => new Response('imported') }
