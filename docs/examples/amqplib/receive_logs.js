// Print every log line that is sent while this program runs.

import { commandLine, connect, runUntilStopped } from './common.js';

const { url } = commandLine();
const connection = await connect(url);
const channel = await connection.createChannel();
await channel.assertExchange('logs', 'fanout', { durable: false });
// No name: the broker makes one up. Exclusive: the queue is ours and ends with our connection.
const { queue } = await channel.assertQueue('', { exclusive: true });
await channel.bindQueue(queue, 'logs', '');
await channel.consume(queue, (message) => console.log(`log ${message.content}`), { noAck: true });
await runUntilStopped(connection);
