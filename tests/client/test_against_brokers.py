"""The same client against a Leveret node, a Leveret cluster and RabbitMQ."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator

import pytest
import trio

from leveret.client import (
    AccessRefused,
    AuthenticationRefused,
    Channel,
    Connection,
    ConsumerCancelled,
    Message,
    NotFound,
    PreconditionFailed,
    Properties,
    ResourceLocked,
    Unroutable,
    VirtualHostRefused,
    connect,
)
from leveret.client.address import Address
from leveret.client.streams import Stream, dial
from tests.client.brokers import Target

pytestmark = pytest.mark.usefixtures("_within_a_minute")


@pytest.fixture
async def _within_a_minute() -> AsyncGenerator[None]:
    with trio.fail_after(60):
        yield


@pytest.fixture
async def connection(target: Target) -> AsyncGenerator[Connection]:
    target.heal()
    async with connect(target.url) as opened:
        yield opened


@pytest.fixture
async def channel(connection: Connection) -> AsyncGenerator[Channel]:
    async with connection.channel() as opened:
        yield opened


@pytest.fixture
async def queue(channel: Channel, name: str) -> AsyncGenerator[str]:
    await channel.declare_queue(name)
    yield name
    await channel.delete_queue(name)


async def comes_to_hold(channel: Channel, queue: str, count: int) -> None:
    """Wait until a queue has `count` messages ready: returned ones take their time."""
    while True:
        if (await channel.declare_queue(queue, passive=True)).message_count == count:
            return
        await trio.sleep(0.02)


async def taken(channel: Channel, queue: str, count: int) -> list[Message]:
    """Consume and acknowledge `count` messages."""
    messages: list[Message] = []
    async with channel.consume(queue) as deliveries:
        while len(messages) < count:
            messages.append(await anext(deliveries))
            await messages[-1].ack()
    return messages


async def test_a_message_arrives_with_its_properties(channel: Channel, queue: str) -> None:
    properties = Properties(
        content_type="text/plain",
        headers={"a": 1, "b": [True, None, "x"], "c": {"d": b"\0"}},
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="600000",
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        app_id="a",
    )
    await channel.publish(b"body", queue, properties=properties)
    [message] = await taken(channel, queue, 1)

    assert (b"body", "", queue, False) == (
        message.body, message.exchange, message.routing_key, message.redelivered
    )  # fmt: skip
    assert properties == message.properties


@pytest.mark.parametrize("size", [0, 1, 131_063, 131_064, 131_065, 3_000_000])
async def test_bodies_of_all_sizes_arrive_whole(channel: Channel, queue: str, size: int) -> None:
    body = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    await channel.publish(body[:size], queue)
    [message] = await taken(channel, queue, 1)

    assert body[:size] == message.body


async def test_a_window_of_publishes_is_confirmed_and_in_order(
    channel: Channel, queue: str
) -> None:
    async with channel.publisher(queue, window=100) as publisher:
        for number in range(2000):
            await publisher.send(b"%d" % number)
    messages = await taken(channel, queue, 2000)

    assert publisher.confirmed == 2000
    assert [b"%d" % number for number in range(2000)] == [message.body for message in messages]
    assert (await channel.declare_queue(queue, passive=True)).message_count == 0


async def test_many_tasks_publish_on_one_channel(channel: Channel, queue: str) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(channel.publish, b"%d" % number, queue)

    assert (await channel.declare_queue(queue, passive=True)).message_count == 200


async def test_a_mandatory_message_that_fits_no_queue_is_an_error(
    channel: Channel, name: str
) -> None:
    with pytest.raises(Unroutable) as raised:
        await channel.publish(b"lost", name, mandatory=True)

    assert (raised.value.reply_code, raised.value.routing_key, raised.value.body) == (
        312, name, b"lost",
    )  # fmt: skip
    await channel.publish(b"dropped", name)


async def test_of_many_mandatory_messages_those_that_fit_are_published(
    channel: Channel, queue: str, name: str
) -> None:
    publisher = channel.publisher(mandatory=True)
    for number in range(50):
        await publisher.send(b"%d" % number, queue if number % 5 else "nobody-has-this")
        if publisher.failed:
            break
    with pytest.raises(Unroutable):
        await publisher.flush()
    assert {b"%d" % n for n in range(0, 50, 5)} >= {body for body, _ in publisher.failed}


async def test_exchanges_route_to_what_is_bound(channel: Channel, queue: str, name: str) -> None:
    await channel.declare_exchange(name, "topic", durable=False)
    await channel.declare_exchange(f"{name}-2", "fanout", durable=False)
    await channel.bind_queue(queue, name, "a.*")
    await channel.bind_exchange(f"{name}-2", name, "b.#")
    await channel.bind_queue(queue, f"{name}-2")
    for key in ("a.b", "c.d", "b.c.d"):
        await channel.publish(key.encode(), key, exchange=name, mandatory=key != "c.d")
    await channel.unbind_queue(queue, name, "a.*")
    with pytest.raises(Unroutable):
        await channel.publish(b"a.b", "a.b", exchange=name, mandatory=True)
    await channel.unbind_exchange(f"{name}-2", name, "b.#")
    messages = await taken(channel, queue, 2)

    assert sorted(message.body for message in messages) == [b"a.b", b"b.c.d"]
    await channel.delete_exchange(name)
    await channel.delete_exchange(f"{name}-2")


async def test_get_purge_and_delete_tell_what_there_was(channel: Channel, name: str) -> None:
    await channel.declare_queue(name)
    assert await channel.get(name) is None
    for number in range(4):
        await channel.publish(b"%d" % number, name)
    message = await channel.get(name)
    assert message is not None
    assert (message.body, message.remaining) == (b"0", 3)
    await message.nack()
    again = await channel.get(name, no_ack=True)
    assert again is not None
    assert (again.body, again.redelivered) == (b"0", True)
    assert await channel.purge_queue(name) == 3
    await channel.publish(b"last", name)
    with pytest.raises(PreconditionFailed):
        await channel.delete_queue(name, if_empty=True)

    assert await channel.delete_queue(name) == 1
    assert await channel.delete_queue(name) == 0


async def test_prefetch_bounds_what_a_consumer_holds(channel: Channel, queue: str) -> None:
    for number in range(10):
        await channel.publish(b"%d" % number, queue)
    async with channel.consume(queue, prefetch=3) as deliveries:
        held = [await anext(deliveries) for _ in range(3)]
        await trio.sleep(0.2)
        assert deliveries.buffered == 0
        for message in held:
            await message.ack()

    await comes_to_hold(channel, queue, 7)


async def test_what_a_consumer_was_given_and_nobody_took_returns_in_order(
    connection: Connection, channel: Channel, queue: str
) -> None:
    for number in range(20):
        await channel.publish(b"%d" % number, queue)
    with trio.move_on_after(0.5):
        async with connection.channel() as other, other.consume(queue, prefetch=10) as deliveries:
            await (await anext(deliveries)).ack()
            await trio.sleep_forever()
    messages = await taken(channel, queue, 19)

    assert [b"%d" % number for number in range(1, 20)] == [message.body for message in messages]


async def test_nack_and_reject_return_or_drop(channel: Channel, queue: str) -> None:
    for number in range(6):
        await channel.publish(b"%d" % number, queue)
    async with channel.consume(queue) as deliveries:
        held = [await anext(deliveries) for _ in range(6)]
        await held[0].reject()
        await held[1].reject(requeue=True)
        await held[3].nack(multiple=True, requeue=False)
        await held[4].nack()
        await held[5].ack()
        bodies = {(await anext(deliveries)).body for _ in range(2)}

    assert bodies == {b"1", b"4"}


async def test_acknowledging_up_to_a_message_takes_those_before(
    channel: Channel, queue: str
) -> None:
    for number in range(5):
        await channel.publish(b"%d" % number, queue)
    async with channel.consume(queue) as deliveries:
        held = [await anext(deliveries) for _ in range(5)]
        await held[1].ack()
        await held[3].ack(multiple=True)
        await held[0].ack()  # it is done with already, which is not an error
        await held[4].ack()

    assert (await channel.declare_queue(queue, passive=True)).message_count == 0


async def test_an_exclusive_consumer_keeps_others_away(
    connection: Connection, channel: Channel, queue: str
) -> None:
    async with channel.consume(queue, exclusive=True), connection.channel() as other:
        with pytest.raises(AccessRefused, match="in exclusive use"):
            await anext(other.consume(queue))


async def test_a_consumer_is_told_when_its_queue_is_deleted(
    connection: Connection, channel: Channel, name: str
) -> None:
    await channel.declare_queue(name)
    async with channel.consume(name) as deliveries, connection.channel() as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.delete_queue, name)
            with pytest.raises(ConsumerCancelled, match=name):
                await anext(deliveries)


async def test_what_is_missing_is_said_and_the_channel_goes_on(channel: Channel, name: str) -> None:
    with pytest.raises(NotFound, match=f"no queue '{name}'"):
        await channel.declare_queue(name, passive=True)
    with pytest.raises(NotFound, match=f"no queue '{name}'"):
        await anext(channel.consume(name))
    with pytest.raises(NotFound, match=f"no exchange '{name}'"):
        await channel.publish(b"x", "k", exchange=name)
    with pytest.raises(NotFound):
        await channel.bind_queue(name, "amq.topic")
    await channel.declare_queue(name)
    await channel.delete_queue(name)


async def test_a_queue_with_other_arguments_is_said_with_what_differs(
    channel: Channel, queue: str
) -> None:
    with pytest.raises(PreconditionFailed) as raised:
        await channel.declare_queue(queue, durable=False)

    assert raised.value.differs == ("durable", "'false'", "'true'")
    assert "PRECONDITION_FAILED - inequivalent arg 'durable'" in raised.value.reply_text
    assert "you asked for 'false', it has 'true'" in str(raised.value)


async def test_an_exclusive_queue_is_locked_to_others(
    target: Target, channel: Channel, name: str
) -> None:
    await channel.declare_queue(name, exclusive=True)
    async with connect(target.url, robust=False) as other, other.channel() as elsewhere:
        with pytest.raises(ResourceLocked):
            await elsewhere.declare_queue(name, passive=True)


async def test_calls_find_their_replies(connection: Connection, channel: Channel) -> None:
    async with connection.channel() as other, trio.open_nursery() as nursery:
        requests = await other.declare_queue(exclusive=True)

        async def serve() -> None:
            async for request in other.consume(requests):
                await other.reply(request, request.body.upper())
                await request.ack()

        nursery.start_soon(serve)
        with trio.fail_after(20):
            replies: dict[str, bytes] = {}

            async def call(text: str) -> None:
                replies[text] = (await channel.call(text.encode(), requests.name)).body

            async with trio.open_nursery() as callers:
                for text in ("a", "b", "c"):
                    callers.start_soon(call, text)
        nursery.cancel_scope.cancel()

    assert replies == {"a": b"A", "b": b"B", "c": b"C"}


async def test_calls_and_replies_carry_properties(connection: Connection, channel: Channel) -> None:
    async with connection.channel() as other, trio.open_nursery() as nursery:
        requests = await other.declare_queue(exclusive=True)
        seen: list[tuple[str | None, object]] = []

        async def serve() -> None:
            async for request in other.consume(requests, no_ack=True):
                seen.append((request.properties.type, request.headers))
                await other.reply(request, b"", properties=Properties(type="answer"))

        nursery.start_soon(serve)
        with trio.fail_after(20):
            asked = Properties(type="question", headers={"hare": 1})
            reply = await channel.call(b"", requests.name, properties=asked)
        nursery.cancel_scope.cancel()

    assert (seen, reply.properties.type) == ([("question", {"hare": 1})], "answer")
    assert asked == Properties(type="question", headers={"hare": 1})


async def test_calls_make_no_queues(connection: Connection, channel: Channel) -> None:
    async with connection.channel() as other, trio.open_nursery() as nursery:
        requests = await other.declare_queue(exclusive=True)
        reply_to: list[str | None] = []

        async def serve() -> None:
            async for request in other.consume(requests, no_ack=True):
                reply_to.append(request.properties.reply_to)
                await other.reply(request, b"")

        nursery.start_soon(serve)
        with trio.fail_after(20):
            await channel.call(b"", requests.name)
        nursery.cancel_scope.cancel()

    assert str(reply_to[0]).startswith("amq.rabbitmq.reply-to.")


async def test_a_call_that_nobody_serves_is_unroutable(channel: Channel, name: str) -> None:
    with pytest.raises(Unroutable):
        await channel.call(b"hello?", name)


async def test_transactions_commit_and_roll_back(
    connection: Connection, channel: Channel, queue: str
) -> None:
    async with connection.channel(transactional=True) as tx:
        await tx.publish(b"gone", queue)
        await tx.rollback()
        async with tx.transaction():
            await tx.publish(b"1", queue)
            await tx.publish(b"2", queue)
            assert (await channel.declare_queue(queue, passive=True)).message_count == 0
        with pytest.raises(ZeroDivisionError):
            async with tx.transaction():
                await tx.publish(b"gone", queue)
                raise ZeroDivisionError
        messages = await taken(tx, queue, 2)
        await tx.commit()

    assert [message.body for message in messages] == [b"1", b"2"]


async def test_a_channel_without_confirms_publishes_too(
    connection: Connection, channel: Channel, queue: str
) -> None:
    async with connection.channel(confirms=False) as plain:
        for number in range(100):
            await plain.publish(b"%d" % number, queue)

    assert len(await taken(channel, queue, 100)) == 100


async def test_a_new_secret_is_taken(connection: Connection) -> None:
    await connection.update_secret("guest", "test")


async def test_heartbeats_keep_an_idle_connection(target: Target) -> None:
    async with connect(f"{target.url}?heartbeat=1", robust=False) as connection:
        async with connection.channel() as channel:
            await trio.sleep(3.5)
            await channel.declare_queue(exclusive=True)


async def test_a_wrong_password_is_refused(target: Target) -> None:
    with pytest.raises(AuthenticationRefused, match="Check user name 'guest'"):
        async with connect(target.url.replace("guest:guest@", "guest:wrong@")):
            pass


async def test_a_virtual_host_that_is_not_there_is_refused(target: Target) -> None:
    with pytest.raises(VirtualHostRefused, match="Check the virtual host 'nowhere'"):
        async with connect(f"{target.url}nowhere"):
            pass


class Deafened:
    """A transport that can be made to hear nothing any more, and then to break."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.is_deaf = False
        self.broken = trio.Event()

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self, size_max: int) -> bytes:
        data = await self._stream.receive(size_max)
        if self.is_deaf:
            await self.broken.wait()
            raise trio.BrokenResourceError
        return data

    def close(self) -> None:
        self._stream.close()


async def test_messages_whose_confirms_were_lost_are_there_as_often_as_promised(
    target: Target, channel: Channel, queue: str
) -> None:
    transports: list[Deafened] = []

    async def dial_deafened(
        address: Address, context: ssl.SSLContext | None, hostname: str | None
    ) -> Stream:
        transports.append(Deafened(await dial(address, context, hostname)))
        return transports[-1]

    async with connect(target.url, dial=dial_deafened) as ours, ours.channel() as publishing:
        async with publishing.publisher(queue) as publisher:
            transports[0].is_deaf = True
            for number in range(50):
                await publisher.send(b"%d" % number)
            await comes_to_hold(channel, queue, 50)
            assert publisher.confirmed == 0
            transports[0].broken.set()
        assert publisher.confirmed == 50
        once = [b"%d" % number for number in range(50)]
        expected = once if ours.guarantee == "exactly once" else once + once
    messages = await taken(channel, queue, len(expected))

    assert expected == [message.body for message in messages]
    assert await channel.get(queue) is None


async def test_the_guarantee_says_what_the_broker_can(
    target: Target, connection: Connection
) -> None:
    capabilities = connection.server_properties["capabilities"]
    assert isinstance(capabilities, dict)
    expected = "exactly once" if capabilities.get("publisher_deduplication") else "at least once"

    assert connection.guarantee == expected
    if target.kind == "rabbitmq":
        assert connection.guarantee == "at least once"


async def test_a_stream_is_read_from_an_offset_as_often_as_one_likes(
    channel: Channel, name: str
) -> None:
    await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "stream"})
    for number in range(20):
        await channel.publish(b"%d" % number, name)

    # What was sent ahead and not taken is not refused: a stream would close the connection.
    for start, first in (("first", 0), (7, 7), ("1h", 0), ("first", 0)):
        seen = []
        async with channel.consume(name, offset=start, prefetch=10) as deliveries:
            async for message in deliveries:
                seen.append((message.offset, message.body))
                await message.ack()
                if len(seen) == 3:
                    break
        assert [(n, b"%d" % n) for n in range(first, first + 3)] == seen

    await channel.delete_queue(name)
