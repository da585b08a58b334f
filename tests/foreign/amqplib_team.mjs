// A publisher and a consumer as amqplib's users write them: amqplib connects to one node and tells
// of its loss, so each side goes on at the next of its nodes.
// Run from docs/examples/amqplib, where amqplib is installed: node amqplib_team.mjs QUEUE URL...
// Says `confirmed N` and `delivered N`, a line each, until it is killed.

import { once } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';

const amqp = createRequire(path.join(process.cwd(), 'package.json'))('amqplib');
const [queue, ...urls] = process.argv.slice(2);
const PREFETCH = 10;

// Use a channel of a connection to one node after the other, for as long as each lasts.
async function goOn(open, use) {
  for (let turn = 0; ; turn += 1) {
    try {
      const connection = await amqp.connect(urls[turn % urls.length]);
      const lost = once(connection, 'close');
      connection.on('error', () => {}); // `close` follows
      const channel = await open(connection);
      channel.on('error', () => {});
      await channel.assertQueue(queue, { durable: true });
      await Promise.race([use(channel), lost]);
    } catch {
      await sleep(100); // that node is down: the next one
    }
  }
}

let number = 0;
async function publish(channel) {
  for (;;) {
    channel.sendToQueue(queue, Buffer.from(String(number)), { persistent: true });
    await channel.waitForConfirms();
    console.log(`confirmed ${number}`);
    number += 1;
    await sleep(20);
  }
}

async function consume(channel) {
  await channel.prefetch(PREFETCH);
  await channel.consume(queue, (message) => {
    if (message === null) return;
    console.log(`delivered ${message.content}`);
    channel.ack(message);
  });
  await new Promise(() => {}); // until the connection is lost
}

await Promise.all([
  goOn((connection) => connection.createConfirmChannel(), publish),
  goOn((connection) => connection.createChannel(), consume),
]);
