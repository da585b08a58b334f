// Print the log lines whose key fits one of the patterns that the command line names.
// A pattern is words with dots between; * stands for one word, # for any number, none too.

import { commandLine, connect, runUntilStopped } from './common.js';

const { url, words: patterns } = commandLine();
if (patterns.length === 0) {
  console.error('usage: node receive_logs_topic.js [--url URL] PATTERN...');
  process.exit(2);
}
const connection = await connect(url);
const channel = await connection.createChannel();
await channel.assertExchange('logs.topic', 'topic', { durable: false });
const { queue } = await channel.assertQueue('', { exclusive: true });
for (const pattern of patterns) {
  // A line that fits several of our patterns still comes once.
  await channel.bindQueue(queue, 'logs.topic', pattern);
}
const show = ({ fields, content }) => console.log(`log ${fields.routingKey}: ${content}`);
await channel.consume(queue, show, { noAck: true });
await runUntilStopped(connection);
