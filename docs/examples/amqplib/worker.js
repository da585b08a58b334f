// Do tasks one at a time; start several workers to share the work among them.

import { setTimeout as pause } from 'node:timers/promises';
import { commandLine, connect, runUntilStopped } from './common.js';

const { url } = commandLine();
const connection = await connect(url);
const channel = await connection.createChannel();
await channel.assertQueue('tasks', { durable: true });
// No second task before the first is acknowledged: a slow task does not hold up those behind it.
await channel.prefetch(1);
let working = Promise.resolve();

async function work(message) {
  const task = message.content.toString();
  console.log(`started ${task}`);
  await pause((task.split('.').length - 1) * 100);
  // Only now may the broker forget the task. If this worker dies before, another one gets it.
  channel.ack(message);
  console.log(`finished ${task}`);
}

const { consumerTag } = await channel.consume('tasks', (message) => {
  working = work(message);
});
await runUntilStopped(connection, async () => {
  await channel.cancel(consumerTag);
  await working;
});
