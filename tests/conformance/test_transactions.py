"""Transactions, by the clients that have them: pika, py-amqp and aio-pika."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aio_pika
import amqp
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker

Names = Callable[[], str]
Connect = Callable[..., pika.BlockingConnection]


def depth(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def get(channel: BlockingChannel, queue: str) -> tuple[int, bytes, bool]:
    method, _, body = channel.basic_get(queue)
    assert method is not None
    return method.delivery_tag, body, method.redelivered


# ---- pika ---------------------------------------------------------------------------------


def test_pika_publishes_count_from_commit_on(connect: Connect, name: Names, durable: bool) -> None:
    """transactions: publishes apply at commit, and are stored when it is answered."""
    channel, other, queue = connect().channel(), connect().channel(), name()
    other.queue_declare(queue, durable=durable)
    channel.tx_select()
    for number in range(100):
        channel.basic_publish("", queue, str(number).encode())
    channel.queue_declare(queue, passive=True)
    assert depth(other, queue) == 0

    channel.tx_commit()

    assert depth(other, queue) == 100
    got = [get(other, queue)[1] for _ in range(100)]
    assert got == [str(number).encode() for number in range(100)]


def test_pika_rollback_forgets_publishes(connect: Connect, name: Names, durable: bool) -> None:
    """transactions: rollback."""
    channel, queue = connect().channel(), name()
    channel.queue_declare(queue, durable=durable)
    channel.tx_select()
    channel.basic_publish("", queue, b"gone")
    channel.tx_rollback()
    channel.basic_publish("", queue, b"kept")
    channel.tx_commit()

    assert get(channel, queue)[1] == b"kept"
    assert depth(channel, queue) == 0


def test_pika_acknowledgements_count_from_commit_on(
    connect: Connect, name: Names, durable: bool
) -> None:
    """transactions: acks apply at commit; what was not committed comes again."""
    queue, connection, other = name(), connect(), connect().channel()
    other.queue_declare(queue, durable=durable)
    other.confirm_delivery()
    for body in (b"1", b"2", b"3"):
        other.basic_publish("", queue, body)
    channel = connection.channel()
    channel.tx_select()
    tags = [get(channel, queue)[0] for _ in range(3)]
    channel.basic_ack(tags[0])
    channel.tx_commit()
    channel.basic_ack(tags[2], multiple=True)
    connection.close()

    assert [get(other, queue)[1:] for _ in range(2)] == [(b"2", True), (b"3", True)]
    assert depth(other, queue) == 0


def test_pika_requeues_count_from_commit_on(connect: Connect, name: Names, durable: bool) -> None:
    """transactions: nack and reject."""
    channel, queue = connect().channel(), name()
    channel.queue_declare(queue, durable=durable)
    channel.basic_publish("", queue, b"again")
    channel.basic_publish("", queue, b"dropped")
    channel.tx_select()
    first, second = get(channel, queue)[0], get(channel, queue)[0]
    channel.basic_nack(first, requeue=True)
    channel.basic_reject(second, requeue=False)
    assert depth(channel, queue) == 0

    channel.tx_commit()

    assert get(channel, queue)[1:] == (b"again", True)
    assert depth(channel, queue) == 0


def test_pika_what_was_rolled_back_can_be_acknowledged_again(
    connect: Connect, name: Names, durable: bool
) -> None:
    """transactions: a rollback gives acknowledged messages back to the client, not the queue."""
    channel, queue = connect().channel(), name()
    channel.queue_declare(queue, durable=durable)
    for body in (b"1", b"2", b"3"):
        channel.basic_publish("", queue, body)
    channel.tx_select()
    tags = [get(channel, queue)[0] for _ in range(3)]
    channel.basic_ack(tags[1])
    channel.basic_nack(tags[0])
    channel.tx_rollback()
    assert depth(channel, queue) == 0

    channel.basic_ack(tags[1], multiple=True)
    channel.tx_commit()
    channel.basic_recover(requeue=True)

    assert get(channel, queue)[1:] == (b"3", True)
    assert depth(channel, queue) == 0


def test_pika_an_acknowledged_tag_is_unknown_before_the_commit(
    connect: Connect, name: Names
) -> None:
    """transactions: acks are checked when they come."""
    channel, queue = connect().channel(), name()
    channel.queue_declare(queue)
    channel.basic_publish("", queue, b"x")
    channel.tx_select()
    tag = get(channel, queue)[0]
    channel.basic_ack(tag)
    channel.basic_ack(tag)

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.tx_commit()

    assert caught.value.args == (406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")


def test_pika_returns_come_before_commit_ok(connect: Connect, name: Names) -> None:
    """transactions: mandatory."""
    channel = connect().channel()
    returned: list[tuple[int, bytes]] = []
    channel.add_on_return_callback(
        lambda _channel, method, _properties, body: returned.append((method.reply_code, body))
    )
    channel.tx_select()
    channel.basic_publish("", name(), b"nobody", mandatory=True)
    channel.basic_qos(prefetch_count=1)
    channel.connection.process_data_events(0)
    assert returned == []

    channel.tx_commit()
    channel.connection.process_data_events(0)

    assert returned == [(312, b"nobody")]


def test_pika_an_unknown_exchange_is_found_at_the_publish(connect: Connect, name: Names) -> None:
    """transactions: a publish that cannot be routed at all."""
    channel, exchange = connect().channel(), name()
    channel.tx_select()
    channel.basic_publish(exchange, "key", b"x")

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.tx_rollback()

    assert caught.value.args == (404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'")


def test_pika_a_channel_that_closes_takes_its_transaction_with_it(
    connect: Connect, name: Names, durable: bool
) -> None:
    """transactions: channel.close rolls back."""
    connection, queue = connect(), name()
    channel, other = connection.channel(), connection.channel()
    other.queue_declare(queue, durable=durable)
    other.confirm_delivery()
    other.basic_publish("", queue, b"x")
    channel.tx_select()
    channel.basic_ack(get(channel, queue)[0])
    channel.basic_publish("", queue, b"gone")
    channel.close()

    assert get(other, queue)[1:] == (b"x", True)
    assert depth(other, queue) == 0


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (("tx_rollback",), "channel is not transactional"),
        (("confirm_delivery", "tx_select"), "cannot switch from confirm to tx mode"),
    ],
)
def test_pika_what_does_not_go_together_closes_the_channel(
    channel: BlockingChannel, steps: tuple[str, ...], text: str
) -> None:
    """transactions: with confirms, or without tx.select."""
    for step in steps[:-1]:
        getattr(channel, step)()

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        getattr(channel, steps[-1])()

    assert caught.value.args == (406, f"PRECONDITION_FAILED - {text}")


def test_pika_selecting_again_keeps_the_transaction(connect: Connect, name: Names) -> None:
    """transactions: tx.select twice."""
    channel, queue = connect().channel(), name()
    channel.queue_declare(queue)
    channel.tx_select()
    channel.basic_publish("", queue, b"x")
    channel.tx_select()
    channel.tx_commit()

    assert depth(channel, queue) == 1


# ---- py-amqp ------------------------------------------------------------------------------


def test_py_amqp_moves_messages_in_transactions(broker: Broker, name: Names) -> None:
    """py-amqp: tx_select, tx_commit, tx_rollback."""
    source, target = name(), name()
    with amqp.Connection(
        f"{broker.host}:{broker.port}", broker.user, broker.password
    ) as connection:
        channel = connection.channel()
        for queue in (source, target):
            channel.queue_declare(queue, durable=True, auto_delete=False)
        channel.tx_select()
        channel.basic_publish(amqp.Message("work"), "", source)
        channel.tx_commit()
        for end in (channel.tx_rollback, channel.tx_commit):
            message = channel.basic_get(source)
            channel.basic_publish(amqp.Message(message.body), "", target)
            channel.basic_ack(message.delivery_tag)
            end()
            channel.basic_recover(requeue=True)

        assert channel.queue_declare(source, passive=True).message_count == 0
        assert channel.queue_declare(target, passive=True).message_count == 1
        assert message.delivery_info["redelivered"]


# ---- aio-pika -----------------------------------------------------------------------------


def test_aio_pika_transaction_is_committed_at_its_end_or_rolled_back(
    broker: Broker, name: Names
) -> None:
    """aio-pika: channel.transaction()."""
    queue_name = name()

    async def work() -> list[bytes]:
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel(publisher_confirms=False)
            queue = await channel.declare_queue(queue_name, durable=True)

            async def publish(body: bytes) -> None:
                await channel.default_exchange.publish(aio_pika.Message(body), queue_name)

            async with channel.transaction():
                await publish(b"one")
                await publish(b"two")
            with pytest.raises(ZeroDivisionError):
                async with channel.transaction():
                    await publish(b"gone")
                    raise ZeroDivisionError
            got = []
            async with channel.transaction():
                for _ in range(2):
                    message = await queue.get()
                    got.append(message.body)
                    await message.ack()
            assert await queue.get(fail=False) is None
            return got

    assert asyncio.run(asyncio.wait_for(work(), 30)) == [b"one", b"two"]
