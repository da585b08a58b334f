// Give the workers a task; every dot in its text is a tenth of a second of work.

import { commandLine, connect } from './common.js';

const { url, words } = commandLine();
const task = words.join(' ') || 'dig a burrow...';

const connection = await connect(url);
const channel = await connection.createChannel();
// A durable queue is there again after the broker's restart ...
await channel.assertQueue('tasks', { durable: true });
// ... and so are the messages in it that ask for it.
channel.sendToQueue('tasks', Buffer.from(task), { persistent: true });
console.log(`sent ${task}`);
await channel.close();
await connection.close();
