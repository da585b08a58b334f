// Ask the server for a Fibonacci number and wait for its answer.

import { randomUUID } from 'node:crypto';
import { commandLine, connect } from './common.js';

const { url, timeout, words } = commandLine({ timeout: { type: 'string', default: '10' } });
const n = words[0] ?? '30';

const connection = await connect(url);
const channel = await connection.createChannel();
// A queue of our own for the answers.
const { queue: answers } = await channel.assertQueue('', { exclusive: true });
const mark = randomUUID();

const answer = new Promise((resolve, reject) => {
  const clock = setTimeout(
    () => reject(new Error('no answer in time: is rpc_server.js running?')),
    Number(timeout) * 1000,
  );
  const take = ({ properties, content }) => {
    // An answer with another mark belongs to a request that somebody gave up on.
    if (properties.correlationId !== mark) return;
    clearTimeout(clock);
    resolve(content.toString());
  };
  channel.consume(answers, take, { noAck: true }).catch(reject);
});
channel.sendToQueue('rpc', Buffer.from(n), { replyTo: answers, correlationId: mark });
console.log(`asked for ${n}`);
try {
  console.log(`answer ${await answer}`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
await connection.close();
