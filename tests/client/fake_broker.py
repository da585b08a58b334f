"""A cluster of brokers in memory, for what real ones do too seldom or too slowly.

All members share queues, exchanges and what they know of publishers. It speaks AMQP through
`leveret.amqp`'s server role, over transports that a test may cut at any moment: `cut`, `stop`,
`hold_confirms`. Only what the tests need is there; the real brokers are in the other tests.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio

from leveret.amqp import (
    Ack,
    DeliverEncoder,
    MethodReceived,
    Properties,
    Publish,
    ServerConnection,
    encode_get_ok,
    encode_record,
    encode_return,
    encode_route,
    errors,
    spec,
)
from leveret.amqp import Record as View
from leveret.amqp.states import ConnectionState
from leveret.client.address import Address

Record = bytes
FRAME_MAX = 131_072


@dataclass
class FakeQueue:
    declared: spec.QueueDeclare
    owner: FakeConnection | None
    ready: list[tuple[int, Record, bool]] = field(default_factory=list)
    """Place in the queue, message, redelivered; in order of their places."""
    consumers: list[FakeConsumer] = field(default_factory=list)

    @property
    def bodies(self) -> list[bytes]:
        return [record_body(record) for _, record, _ in self.ready]


@dataclass(eq=False)
class FakeConsumer:
    channel: FakeChannel
    tag: str
    queue: str
    no_ack: bool
    encoder: DeliverEncoder


@dataclass(eq=False)
class FakeChannel:
    connection: FakeConnection
    number: int
    confirms: bool = False
    publisher: str = ""
    after: int = 0
    published: int = 0
    delivered: int = 0
    prefetch: int = 0
    unacked: dict[int, tuple[str, int, Record]] = field(default_factory=dict)
    consumers: dict[str, FakeConsumer] = field(default_factory=dict)
    transaction: list[Callable[[], None]] | None = None


def record_body(record: Record) -> bytes:
    return View(record).body


class FakeCluster:
    """The members, by address, and what they share."""

    def __init__(
        self, *names: str, deduplicates: bool = False, mechanisms: bytes = b"PLAIN"
    ) -> None:
        self.addresses = [Address(name, 5672) for name in names or ("one",)]
        self.up = set(self.addresses)
        self.connections: list[FakeConnection] = []
        self.dialled: list[tuple[float, str]] = []
        self.queues: dict[str, FakeQueue] = {}
        self.exchanges: dict[str, spec.ExchangeDeclare] = {}
        self.bindings: list[tuple[str, str, str]] = []
        self.sequences: dict[tuple[str, str], int] = {}
        self.methods: list[str] = []
        """The names of the methods that clients sent, in order."""
        self.holds_confirms = False
        self.refuses: set[bytes] = set()
        """Bodies that are answered with basic.nack."""
        self.answers: dict[str, errors.AmqpError] = {}
        """Methods, by name, that are answered with an error, once."""
        self.is_silent = False
        self.notices_losses = True
        """A broker whose client is gone without a word notices that late."""
        self.deduplicates = deduplicates
        self.announces: list[str] = []
        self.heartbeat = 60
        self.mechanisms = mechanisms
        self.password = b"guest"
        self.names = itertools.count(1)
        self.places = itertools.count(1)
        self.body_max = 1 << 24

    @property
    def url(self) -> str:
        return f"amqp://{','.join(address.host for address in self.addresses)}/"

    async def dial(self, address: Address, context: object, hostname: object) -> FakeStream:
        self.dialled.append((trio.current_time(), address.host))
        await trio.lowlevel.checkpoint()
        if address not in self.up:
            raise ConnectionRefusedError(111, "Connection refused")
        connection = FakeConnection(self, address)
        self.connections.append(connection)
        return connection.stream

    def stop(self, host: str) -> None:
        """Have a member go: its connections break, new ones are refused."""
        self.up.discard(Address(host, 5672))
        self.cut(host)

    def start(self, host: str) -> None:
        self.up.add(Address(host, 5672))

    def cut(self, host: str | None = None) -> None:
        """Break the connections, of one member or of all."""
        for connection in list(self.connections):
            if host is None or connection.address.host == host:
                connection.end()

    @property
    def bodies(self) -> dict[str, list[bytes]]:
        return {name: queue.bodies for name, queue in self.queues.items()}

    def block(self, reason: str | None) -> None:
        for connection in self.connections:
            if reason is None:
                connection.write(0, spec.ConnectionUnblocked())
            else:
                connection.write(0, spec.ConnectionBlocked(reason=reason))

    def confirm_held(self) -> None:
        """Send the confirms that were held back."""
        self.holds_confirms = False
        for connection in self.connections:
            for channel in connection.channels.values():
                if channel.confirms and channel.published:
                    connection.confirm(channel, channel.published, multiple=True)

    def cancel_consumers(self, queue: str) -> None:
        """End the consumers of a queue, as its deletion does."""
        for consumer in self.queues[queue].consumers:
            connection = consumer.channel.connection
            del consumer.channel.consumers[consumer.tag]
            connection.write(
                consumer.channel.number, spec.BasicCancel(consumer_tag=consumer.tag, nowait=True)
            )
        self.queues[queue].consumers.clear()

    def dispatch(self, name: str) -> None:
        queue = self.queues[name]
        while queue.ready:
            free = [
                consumer
                for consumer in queue.consumers
                if not consumer.channel.prefetch
                or consumer.no_ack
                or len(consumer.channel.unacked) < consumer.channel.prefetch
            ]
            if not free:
                return
            consumer = free[0]
            queue.consumers.remove(consumer)
            queue.consumers.append(consumer)
            place, record, redelivered = queue.ready.pop(0)
            channel = consumer.channel
            channel.delivered += 1
            if not consumer.no_ack:
                channel.unacked[channel.delivered] = (name, place, record)
            out: list[bytes | memoryview] = []
            consumer.encoder.append(out, channel.delivered, redelivered, record, FRAME_MAX)
            channel.connection.put(b"".join(out))

    def give_back(self, channel: FakeChannel) -> None:
        """Return what a channel holds, in order."""
        for name, place, record in channel.unacked.values():
            if name in self.queues:
                insort(self.queues[name].ready, (place, record, True))
        channel.unacked.clear()
        for consumer in channel.consumers.values():
            if consumer.queue in self.queues:
                self.queues[consumer.queue].consumers.remove(consumer)
        channel.consumers.clear()


class FakeStream:
    """The client's end of a transport."""

    def __init__(self, connection: FakeConnection) -> None:
        self._connection = connection
        self._octets = bytearray()
        self._arrived = trio.Event()
        self.is_over = False

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_over:
            raise trio.BrokenResourceError
        self._connection.receive(data)

    async def receive(self, size_max: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._octets and not self.is_over:
            await self._arrived.wait()
        taken = bytes(self._octets[:size_max])
        del self._octets[:size_max]
        return taken

    def put(self, data: bytes) -> None:
        self._octets += data
        self._arrived.set()
        self._arrived = trio.Event()

    def close(self) -> None:
        if self._connection.cluster.notices_losses:
            self._connection.end()
        self.end()

    def end(self) -> None:
        self.is_over = True
        self._arrived.set()


class FakeConnection:
    """The broker's end."""

    def __init__(self, cluster: FakeCluster, address: Address) -> None:
        self.cluster = cluster
        self.address = address
        self.stream = FakeStream(self)
        self.server = ServerConnection(message_size_max=cluster.body_max)
        self.channels: dict[int, FakeChannel] = {}
        self.start_ok: spec.ConnectionStartOk | None = None
        self.ended = trio.Event()

    def put(self, octets: bytes) -> None:
        if not self.cluster.is_silent:
            self.stream.put(octets)

    def write(self, channel: int, method: object) -> None:
        self.put(self.server.send_method(channel, method))  # type: ignore[arg-type]

    def end(self) -> None:
        self.ended.set()
        if self in self.cluster.connections:
            self.cluster.connections.remove(self)
            for channel in self.channels.values():
                self.cluster.give_back(channel)
            for name, queue in list(self.cluster.queues.items()):
                if queue.owner is self:
                    del self.cluster.queues[name]
            for name in self.cluster.queues:
                self.cluster.dispatch(name)
        self.stream.end()

    def receive(self, data: bytes) -> None:
        events = self.server.receive_data(data)
        if self.server.state is ConnectionState.GREETED:
            capabilities: dict[str, object] = {"basic.nack": True, "direct_reply_to": True}
            if self.cluster.deduplicates:
                capabilities["publisher_deduplication"] = True
            self.write(
                0,
                spec.ConnectionStart(
                    server_properties={
                        "product": "Fake",
                        "capabilities": capabilities,  # type: ignore[dict-item]
                        "cluster_addresses": list(self.cluster.announces),
                    },
                    mechanisms=self.cluster.mechanisms,
                ),
            )
            events += self.server.receive_data(b"")
        waiting = deque(events)
        while waiting:
            event = waiting.popleft()
            if isinstance(event, Publish):
                if event.channel in self.channels:
                    self.publish(self.channels[event.channel], event)
            elif isinstance(event, Ack):
                self.settle(self.channels[event.channel], event.delivery_tag, event.multiple)
            elif isinstance(event, MethodReceived):
                self.cluster.methods.append(event.method.NAME)
                if event.channel:
                    self.on_channel(event.channel, event.method)
                else:
                    self.on_connection(event.method)
                waiting.extend(self.server.receive_data(b""))
            else:
                pytest.fail(f"the client broke the protocol: {event}")

    def on_connection(self, method: object) -> None:
        match method:
            case spec.ConnectionStartOk():
                self.start_ok = method
                if method.mechanism == "PLAIN" and not method.response.endswith(
                    b"\0" + self.cluster.password
                ):
                    self.write(
                        0,
                        spec.ConnectionClose(
                            reply_code=403,
                            reply_text="ACCESS_REFUSED - no",
                            class_id=0,
                            method_id=0,
                        ),
                    )
                    return
                self.write(
                    0,
                    spec.ConnectionTune(
                        channel_max=2047, frame_max=FRAME_MAX, heartbeat=self.cluster.heartbeat
                    ),
                )
            case spec.ConnectionOpen():
                self.write(0, spec.ConnectionOpenOk())
            case spec.ConnectionClose():
                self.write(0, spec.ConnectionCloseOk())
                self.end()
            case spec.ConnectionUpdateSecret():
                self.cluster.password = method.new_secret
                self.write(0, spec.ConnectionUpdateSecretOk())
            case _:
                pass

    def fail(self, number: int, error: errors.AmqpError) -> None:
        close = {
            "reply_code": error.reply_code,
            "reply_text": error.reply_text,
            "class_id": error.class_id,
            "method_id": error.method_id,
        }
        if error.scope == "connection":
            self.write(0, spec.ConnectionClose(**close))  # type: ignore[arg-type]
            self.end()
            return
        self.write(number, spec.ChannelClose(**close))  # type: ignore[arg-type]
        self.cluster.give_back(self.channels.pop(number))

    def on_channel(self, number: int, method: object) -> None:
        cluster = self.cluster
        name = method.NAME  # type: ignore[attr-defined]
        refusal = cluster.answers.pop(name, None)
        if refusal is not None:
            self.fail(number, refusal)
            return
        channel = self.channels.get(number)
        if isinstance(method, spec.ChannelOpen):
            channel = self.channels[number] = FakeChannel(self, number)
            if method.out_of_band:
                publisher, after = method.out_of_band.split()
                channel.publisher = publisher.removeprefix("publisher=")
                channel.after = int(after.removeprefix("after="))
            self.write(number, spec.ChannelOpenOk())
            return
        if channel is None:
            return
        match method:
            case spec.ChannelClose():
                cluster.give_back(self.channels.pop(number))
                self.write(number, spec.ChannelCloseOk())
                for queue in cluster.queues:
                    cluster.dispatch(queue)
            case spec.ConfirmSelect():
                channel.confirms = True
                self.write(number, spec.ConfirmSelectOk())
            case spec.TxSelect():
                channel.transaction = []
                self.write(number, spec.TxSelectOk())
            case spec.TxCommit():
                assert channel.transaction is not None
                for effect in channel.transaction:
                    effect()
                channel.transaction = []
                self.write(number, spec.TxCommitOk())
            case spec.TxRollback():
                channel.transaction = []
                self.write(number, spec.TxRollbackOk())
            case spec.BasicQos():
                channel.prefetch = method.prefetch_count
                self.write(number, spec.BasicQosOk())
            case spec.ExchangeDeclare():
                cluster.exchanges[method.exchange] = method
                self.write(number, spec.ExchangeDeclareOk())
            case spec.ExchangeDelete():
                cluster.exchanges.pop(method.exchange, None)
                self.write(number, spec.ExchangeDeleteOk())
            case spec.QueueDeclare():
                self.declare(channel, method)
            case spec.QueueBind():
                binding = (method.exchange, method.routing_key, method.queue)
                if binding not in cluster.bindings:
                    cluster.bindings.append(binding)
                self.write(number, spec.QueueBindOk())
            case spec.QueuePurge():
                count = len(cluster.queues[method.queue].ready)
                cluster.queues[method.queue].ready.clear()
                self.write(number, spec.QueuePurgeOk(message_count=count))
            case spec.QueueDelete():
                deleted = cluster.queues.pop(method.queue, None)
                count = len(deleted.ready) if deleted else 0
                self.write(number, spec.QueueDeleteOk(message_count=count))
            case spec.BasicConsume():
                self.consume(channel, method)
            case spec.BasicCancel():
                consumer = channel.consumers.pop(method.consumer_tag, None)
                if consumer is not None and consumer.queue in cluster.queues:
                    cluster.queues[consumer.queue].consumers.remove(consumer)
                self.write(number, spec.BasicCancelOk(consumer_tag=method.consumer_tag))
            case spec.BasicGet():
                self.get(channel, method)
            case spec.BasicReject():
                tag = method.delivery_tag
                self.settle(channel, tag, multiple=False, requeue=method.requeue)
            case spec.BasicNack():
                tag = method.delivery_tag
                self.settle(channel, tag, multiple=method.multiple, requeue=method.requeue)
            case spec.ChannelCloseOk():
                pass
            case _:
                raise AssertionError(f"the fake does not know {name}")

    def declare(self, channel: FakeChannel, method: spec.QueueDeclare) -> None:
        cluster = self.cluster
        name = method.queue or f"amq.gen-{next(cluster.names)}"
        queue = cluster.queues.get(name)
        if queue is None and method.passive:
            detail = f"no queue '{name}' in vhost '/'"
            self.fail(channel.number, errors.not_found(detail, 50, 10))
            return
        if queue is None:
            queue = cluster.queues[name] = FakeQueue(method, self if method.exclusive else None)
        elif queue.owner not in (None, self):
            detail = f"cannot obtain exclusive access to locked queue '{name}' in vhost '/'"
            self.fail(channel.number, errors.resource_locked(detail, 50, 10))
            return
        answer = spec.QueueDeclareOk(
            queue=name, message_count=len(queue.ready), consumer_count=len(queue.consumers)
        )
        self.write(channel.number, answer)

    def consume(self, channel: FakeChannel, method: spec.BasicConsume) -> None:
        if method.queue.startswith("amq.rabbitmq.reply-to"):
            queue = self.cluster.queues[f"reply.{id(channel)}"] = FakeQueue(
                spec.QueueDeclare(), self
            )
            name = f"reply.{id(channel)}"
        elif method.queue in self.cluster.queues:
            name, queue = method.queue, self.cluster.queues[method.queue]
        else:
            detail = f"no queue '{method.queue}' in vhost '/'"
            self.fail(channel.number, errors.not_found(detail, 60, 20))
            return
        consumer = FakeConsumer(
            channel, method.consumer_tag, name, method.no_ack,
            DeliverEncoder(channel.number, method.consumer_tag),
        )  # fmt: skip
        channel.consumers[method.consumer_tag] = consumer
        queue.consumers.append(consumer)
        self.write(channel.number, spec.BasicConsumeOk(consumer_tag=method.consumer_tag))
        self.cluster.dispatch(name)

    def get(self, channel: FakeChannel, method: spec.BasicGet) -> None:
        queue = self.cluster.queues.get(method.queue)
        if queue is None:
            detail = f"no queue '{method.queue}' in vhost '/'"
            self.fail(channel.number, errors.not_found(detail, 60, 70))
        elif not queue.ready:
            self.write(channel.number, spec.BasicGetEmpty())
        else:
            place, record, redelivered = queue.ready.pop(0)
            channel.delivered += 1
            if not method.no_ack:
                channel.unacked[channel.delivered] = (method.queue, place, record)
            self.put(
                encode_get_ok(
                    channel.number,
                    channel.delivered,
                    record,
                    redelivered=redelivered,
                    message_count=len(queue.ready),
                    frame_max=FRAME_MAX,
                )
            )

    def settle(
        self, channel: FakeChannel, tag: int, multiple: bool, requeue: bool | None = None
    ) -> None:
        tags = [t for t in channel.unacked if t == tag or (multiple and t <= tag)]
        assert tags, f"the client settled {tag}, which it does not hold"
        for one in tags:
            name, place, record = channel.unacked.pop(one)
            if requeue and name in self.cluster.queues:
                insort(self.cluster.queues[name].ready, (place, record, True))
        for name in self.cluster.queues:
            self.cluster.dispatch(name)

    def publish(self, channel: FakeChannel, event: Publish) -> None:
        cluster = self.cluster
        channel.published += 1
        tag = channel.published
        if event.exchange and event.exchange not in cluster.exchanges:
            detail = f"no exchange '{event.exchange}' in vhost '/'"
            self.fail(channel.number, errors.not_found(detail, 60, 40))
            return
        header, body = event.header, event.body
        properties = Properties.decode(header)
        if properties.reply_to == "amq.rabbitmq.reply-to":
            changed = Properties(reply_to=f"reply.{id(channel)}",
                                 correlation_id=properties.correlation_id)  # fmt: skip
            header = changed.encode(len(body))
        record = encode_record(encode_route(event.exchange, event.routing_key), header, body)
        if event.exchange:
            targets = [
                queue
                for exchange, key, queue in cluster.bindings
                if exchange == event.exchange and key == event.routing_key
            ]
        else:
            targets = [event.routing_key]
        targets = [name for name in targets if name in cluster.queues]
        if body in cluster.refuses:
            self.put(
                self.server.send_method(
                    channel.number, spec.BasicNack(delivery_tag=tag, multiple=False)
                )
            )
            return
        if not targets and event.mandatory:
            self.put(encode_return(channel.number, 312, "NO_ROUTE", record, frame_max=FRAME_MAX))
        for name in targets:
            key = (name, channel.publisher)
            sequence = channel.after + tag
            if channel.publisher and sequence <= cluster.sequences.get(key, 0):
                continue
            if channel.publisher:
                cluster.sequences[key] = sequence

            def enqueue(name: str = name) -> None:
                cluster.queues[name].ready.append((next(cluster.places), record, False))
                cluster.dispatch(name)

            if channel.transaction is not None:
                channel.transaction.append(enqueue)
            else:
                enqueue()
        if channel.confirms and not cluster.holds_confirms:
            self.confirm(channel, tag)

    def confirm(self, channel: FakeChannel, tag: int, *, multiple: bool = False) -> None:
        self.write(channel.number, spec.BasicAck(delivery_tag=tag, multiple=multiple))
