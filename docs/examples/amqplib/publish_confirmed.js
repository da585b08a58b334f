// Publish messages and know, for each, that the broker has it.

import { commandLine, connect } from './common.js';

const { url, queue, words } = commandLine({ queue: { type: 'string', default: 'confirmed' } });
const count = Number(words[0] ?? 100);

const connection = await connect(url);
// On a confirm channel the broker answers every publish.
const channel = await connection.createConfirmChannel();
await channel.assertQueue('confirmed', { durable: true });
// Without `mandatory`, a message that fits no queue would be dropped and confirmed.
let returned = 0;
channel.on('return', () => {
  returned += 1;
});
for (let number = 0; number < count; number += 1) {
  channel.sendToQueue(queue, Buffer.from(`message ${number}`), {
    persistent: true,
    mandatory: true,
  });
}
try {
  // Many publishes are under way at once; this waits for the answer to the last of them.
  await channel.waitForConfirms();
  if (returned > 0) {
    console.error(`${returned} messages were returned: there is no queue ${queue}`);
    process.exitCode = 1;
  } else {
    console.log(`confirmed ${count}`);
  }
} catch {
  console.error('the broker refused a message: publish it again later');
  process.exitCode = 1;
}
await connection.close();
