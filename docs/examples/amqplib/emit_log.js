// Tell everyone who listens at this moment; nobody listening is no error.

import { commandLine, connect } from './common.js';

const { url, words } = commandLine();
const line = words.join(' ') || 'info: a hare ran by';

const connection = await connect(url);
const channel = await connection.createChannel();
// A fanout exchange copies a message to every queue bound to it, whatever the routing key.
await channel.assertExchange('logs', 'fanout', { durable: false });
channel.publish('logs', '', Buffer.from(line));
console.log(`sent ${line}`);
await channel.close();
await connection.close();
