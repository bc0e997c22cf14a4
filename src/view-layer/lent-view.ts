import type { LocalRequest } from '../http/local-requests.ts'
import { isPromise } from '../internal/is-promise.ts'
import { lendResponse, takeResponseBack } from './lent-response.ts'
import type { NodeHandler } from './view-app.ts'
import { rememberRequest, type ViewRequest } from './view-request.ts'

/**
 * Has a handler of Node's requests answer a client of this process on the client's own request and
 * response. Resolves when the answer is written, deferred or not wanted any more.
 */
export async function runLentNodeView(
  handler: NodeHandler,
  view: ViewRequest,
  lent: LocalRequest,
): Promise<void> {
  const { request, response } = lent
  let isOver = false
  let onOver: (() => void) | undefined
  lent.onOver = () => {
    isOver = true
    if (lent.isTakenBack) {
      takeResponseBack(lent)
      view.takenBack()
    }
    onOver?.()
  }
  view.onDefer = () => lent.giveBack()
  lendResponse(lent, view)
  rememberRequest(request, view)
  const returned = handler(request, response)
  if (isOver && !isPromise(returned)) return
  if (isPromise(returned)) {
    // One that never settles is not waited for when nobody wants its answer any more.
    await Promise.race([
      returned,
      new Promise<void>((resolve) => {
        onOver = () => {
          if (lent.isTakenBack) resolve()
        }
        if (isOver) onOver()
      }),
    ])
    if (isOver) return
  }
  await new Promise<void>((resolve) => {
    onOver = resolve
  })
}
