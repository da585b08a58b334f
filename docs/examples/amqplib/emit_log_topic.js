// Send a log line under a key of words with dots between them, say `kernel.warning`.

import { commandLine, connect } from './common.js';

const { url, words } = commandLine();
const [key = 'field.info', ...rest] = words;
const line = rest.join(' ') || 'a hare ran by';

const connection = await connect(url);
const channel = await connection.createChannel();
await channel.assertExchange('logs.topic', 'topic', { durable: false });
channel.publish('logs.topic', key, Buffer.from(line));
console.log(`sent ${key}: ${line}`);
await channel.close();
await connection.close();
