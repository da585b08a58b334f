// What all the programs of this folder share: the broker's address, and a clean end.

import { parseArgs } from 'node:util';
import amqp from 'amqplib';

// Reads the command line: `--url` (or AMQP_URL), what `options` adds, and the plain words.
export function commandLine(options = {}) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      url: {
        type: 'string',
        default: process.env.AMQP_URL ?? 'amqp://guest:guest@localhost:5672/',
      },
      ...options,
    },
  });
  return { ...values, words: positionals };
}

export function connect(url) {
  return amqp.connect(url);
}

// Waits for Ctrl-C or SIGTERM, lets `finish` end what is under way, then closes the connection.
// What was received and is not acknowledged by then goes back to its queue.
export async function runUntilStopped(connection, finish = async () => {}) {
  const stopped = new Promise((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
  });
  console.log('waiting for messages, Ctrl-C ends');
  await stopped;
  await finish();
  await connection.close();
  console.log('stopped');
}
