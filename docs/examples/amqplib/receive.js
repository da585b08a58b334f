// Print every message of the queue `hello`.

import { commandLine, connect, runUntilStopped } from './common.js';

const { url } = commandLine();
const connection = await connect(url);
const channel = await connection.createChannel();
await channel.assertQueue('hello', { durable: false });
// noAck: the broker forgets a message once it is sent. Fine for a greeting, not for work.
await channel.consume('hello', (message) => console.log(`received ${message.content}`), {
  noAck: true,
});
await runUntilStopped(connection);
