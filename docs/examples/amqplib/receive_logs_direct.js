// Print the log lines of the severities that the command line names.

import { commandLine, connect, runUntilStopped } from './common.js';

const { url, words: severities } = commandLine();
if (severities.length === 0) {
  console.error('usage: node receive_logs_direct.js [--url URL] SEVERITY...');
  process.exit(2);
}
const connection = await connect(url);
const channel = await connection.createChannel();
await channel.assertExchange('logs.direct', 'direct', { durable: false });
const { queue } = await channel.assertQueue('', { exclusive: true });
// One binding for each severity; a queue may have as many as it likes.
for (const severity of severities) {
  await channel.bindQueue(queue, 'logs.direct', severity);
}
const show = ({ fields, content }) => console.log(`log ${fields.routingKey}: ${content}`);
await channel.consume(queue, show, { noAck: true });
await runUntilStopped(connection);
