// What amqplib can do with a broker: one check after another, one line of output for each.
// Run from docs/examples/amqplib, where amqplib is installed: node amqplib_probe.mjs URL

import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';

const amqp = createRequire(path.join(process.cwd(), 'package.json'))('amqplib');
const url = process.argv[2];
const connection = await amqp.connect(url, { clientProperties: { connection_name: 'probe' } });
connection.on('error', () => {});

function same(name, actual, expected) {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  console.log(a === b ? `ok ${name}` : `FAILED ${name}: ${a} instead of ${b}`);
}

const properties = connection.connection.serverProperties;
same('server properties', [properties.product, typeof properties.version], ['RabbitMQ', 'string']);

// Queues, get, acknowledgement, requeue.
const channel = await connection.createChannel();
const { queue } = await channel.assertQueue('', { exclusive: true });
for (const body of ['0', '1', '2']) channel.sendToQueue(queue, Buffer.from(body));
await channel.checkQueue(queue);
const got = await channel.get(queue);
same('get', [got.content.toString(), got.fields.redelivered], ['0', false]);
channel.nack(got, false, true);
const again = await channel.get(queue);
same('requeue', [again.content.toString(), again.fields.redelivered], ['0', true]);
channel.ack(again);
same('purge', await channel.purgeQueue(queue), { messageCount: 2 });
same('get empty', await channel.get(queue), false);

// Properties and headers.
const options = {
  contentType: 'text/plain',
  contentEncoding: 'utf-8',
  priority: 3,
  correlationId: 'c',
  replyTo: 'r',
  messageId: 'm',
  timestamp: 1700000000,
  type: 't',
  appId: 'a',
  headers: { int: 1, big: 2 ** 40, text: 'hé', list: [1, 'a', { b: true }], none: null, half: 0.5 },
};
channel.sendToQueue(queue, Buffer.from('x'), options);
const full = await channel.get(queue, { noAck: true });
const back = Object.fromEntries(Object.keys(options).map((key) => [key, full.properties[key]]));
same('properties', back, options);

// A body of several frames.
const big = Buffer.alloc(1 << 20, 'leveret');
channel.sendToQueue(queue, big);
same('1 MiB', (await channel.get(queue, { noAck: true })).content.equals(big), true);

// Consuming with a prefetch.
await channel.prefetch(2);
for (const body of ['a', 'b', 'c']) channel.sendToQueue(queue, Buffer.from(body));
const seen = [];
let enough;
const third = new Promise((resolve) => {
  enough = resolve;
});
const { consumerTag } = await channel.consume(queue, (message) => {
  seen.push(message.content.toString());
  if (seen.length === 2) channel.ack(message, true);
  if (seen.length === 3) enough();
});
await third;
same('consume', seen, ['a', 'b', 'c']);
await channel.cancel(consumerTag);

// Exchanges, bindings, returns.
await channel.bindQueue(queue, 'amq.topic', 'probe.*');
channel.publish('amq.topic', 'probe.x', Buffer.from('topic'));
same('topic', (await channel.get(queue, { noAck: true })).fields.routingKey, 'probe.x');
const returned = new Promise((resolve) => {
  channel.once('return', resolve);
});
channel.publish('amq.topic', 'no.such.key', Buffer.from('back'), { mandatory: true });
same('return', (await returned).fields.replyCode, 312);

// Confirms.
const confirming = await connection.createConfirmChannel();
for (let number = 0; number < 1000; number += 1) {
  confirming.publish('', queue, Buffer.from(String(number)));
}
await confirming.waitForConfirms();
same('confirms', (await confirming.checkQueue(queue)).messageCount, 1000);

// A refused operation closes its channel only, with the broker's reason.
const failing = await connection.createChannel();
const closed = new Promise((resolve) => {
  failing.once('error', resolve);
});
await failing.checkQueue('t-nowhere').catch(() => {});
same('channel error', (await closed).code, 404);

// Consumer cancel notification: amqplib calls the consumer with null.
const doomed = await connection.createChannel();
const shortLived = (await doomed.assertQueue('', { exclusive: true })).queue;
const notified = new Promise((resolve) => {
  doomed.consume(shortLived, resolve);
});
await channel.deleteQueue(shortLived);
same('cancel notify', await notified, null);

await connection.close();
console.log('done');
