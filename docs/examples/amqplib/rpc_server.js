// Answer requests for Fibonacci numbers.

import { commandLine, connect, runUntilStopped } from './common.js';

function fibonacci(n) {
  let [low, high] = [0n, 1n];
  for (let i = 0; i < n; i += 1) [low, high] = [high, low + high];
  return low;
}

const { url } = commandLine();
const connection = await connect(url);
const channel = await connection.createChannel();
await channel.assertQueue('rpc', { durable: false });
// With several servers, each takes one request at a time.
await channel.prefetch(1);
await channel.consume('rpc', (request) => {
  const n = Number(request.content.toString());
  console.log(`asked for ${n}`);
  // The request says where its answer goes, and the mark by which the client will know it.
  const { replyTo, correlationId } = request.properties;
  channel.sendToQueue(replyTo, Buffer.from(String(fibonacci(n))), { correlationId });
  channel.ack(request);
});
await runUntilStopped(connection);
