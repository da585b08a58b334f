// Put one message into the queue `hello`.

import { commandLine, connect } from './common.js';

const { url, words } = commandLine();
const text = words.join(' ') || 'Hello, hare!';

const connection = await connect(url);
const channel = await connection.createChannel();
// Whoever comes first creates the queue; for the second, the same assert changes nothing.
await channel.assertQueue('hello', { durable: false });
// sendToQueue uses the exchange without a name: the routing key names the queue.
channel.sendToQueue('hello', Buffer.from(text));
console.log(`sent ${text}`);
await channel.close();
await connection.close();
