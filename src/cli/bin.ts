#!/usr/bin/env node
import { main } from './main.ts'

// Timers and connections of the site's own code may be left over; they are no reason to stay.
process.exit(await main(process.argv.slice(2)))
