// node --import tsx http-channelkit.ts <app> <backend URL> both|interface|worker
import { defineConfig, setup } from 'channelkit'
import { attach, createHttpServer } from 'channelkit/server'
import { appOf } from './http-apps.ts'
import { answerMeasurements, serve } from './serve.ts'

const [name, backend = 'memory:', role = 'both'] = process.argv.slice(2)
const config = defineConfig({
  mode: 'production',
  app: appOf(name),
  http: { maxBodyBytes: 4_294_967_296 },
  channelBackends: { default: { backend } },
})
const site = await setup(config)
if (role === 'worker') {
  await site.backend().open()
  const worker = await site.worker()
  await worker.start()
  answerMeasurements()
  process.send?.({ port: 0 })
} else {
  const server = createHttpServer(config.http)
  await attach(server, site, { http: true, websocket: false, worker: role === 'both' })
  serve(server)
}
