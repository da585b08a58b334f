// Send a log line under its severity.

import { commandLine, connect } from './common.js';

const { url, words } = commandLine();
const [severity = 'info', ...rest] = words;
const line = rest.join(' ') || 'a hare ran by';

const connection = await connect(url);
const channel = await connection.createChannel();
// A direct exchange compares the routing key with the key of each binding.
await channel.assertExchange('logs.direct', 'direct', { durable: false });
channel.publish('logs.direct', severity, Buffer.from(line));
console.log(`sent ${severity}: ${line}`);
await channel.close();
await connection.close();
