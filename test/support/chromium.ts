import { type Browser, chromium } from 'playwright-core'

/** Starts the Chromium that `CHROMIUM_PATH` names, by default the one of the system's package. */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.CHROMIUM_PATH ?? '/usr/bin/chromium',
    args: ['--no-sandbox'],
  })
}
