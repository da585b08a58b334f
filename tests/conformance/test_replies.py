"""Direct reply-to: pika's and aio-pika's request and reply, and what is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import aio_pika
import pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.patterns import RPC
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from tests.conformance.conftest import Broker

REPLY_QUEUE = "amq.rabbitmq.reply-to"
WITHIN_S = 30

Names = Callable[[], str]
Connect = Callable[..., pika.BlockingConnection]


def serve_once(broker: Broker, queue: str) -> None:
    """Answer one request, as pika's tutorial does."""
    connection = broker.connect()
    channel = connection.channel()
    for method, properties, body in channel.consume(queue, inactivity_timeout=WITHIN_S):
        assert method is not None, "no request came"
        channel.basic_publish(
            "",
            properties.reply_to,
            body.upper(),
            pika.BasicProperties(correlation_id=properties.correlation_id),
        )
        channel.basic_ack(method.delivery_tag)
        break
    connection.close()


def name_of_requester(channel: BlockingChannel, queue: str) -> str:
    """Consume replies on `channel`, and return the name to which they go."""
    channel.basic_consume(REPLY_QUEUE, lambda *_: None, auto_ack=True, consumer_tag="replies")
    channel.basic_publish("", queue, b"", pika.BasicProperties(reply_to=REPLY_QUEUE))
    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    assert properties is not None
    return str(properties.reply_to)


def process_until(connection: pika.BlockingConnection, is_so: Callable[[], bool]) -> None:
    """Take what comes until something has come about."""
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline
        connection.process_data_events(1)


def channel_error(connection: pika.BlockingConnection, channel: BlockingChannel) -> tuple[int, str]:
    """What the broker closes the channel with."""
    reasons: list[Exception] = []
    channel._impl.add_on_close_callback(lambda _, reason: reasons.append(reason))
    process_until(connection, lambda: bool(reasons))
    error = reasons[0]
    assert isinstance(error, ChannelClosedByBroker)
    return error.reply_code, error.reply_text


# ---- request and reply --------------------------------------------------------------------


def test_pika_asks_and_is_answered(
    broker: Broker, connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """pika: its example of direct reply-to."""
    server = threading.Thread(target=serve_once, args=(broker, queue))
    server.start()
    answers = []

    def on_reply(
        _channel: BlockingChannel,
        method: pika.spec.Basic.Deliver,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        answers.append((method.consumer_tag, method.exchange, properties.correlation_id, body))

    channel.basic_consume(REPLY_QUEUE, on_reply, auto_ack=True, consumer_tag="replies")
    properties = pika.BasicProperties(reply_to=REPLY_QUEUE, correlation_id="7")
    channel.basic_publish("", queue, b"hare", properties)
    process_until(connection, lambda: bool(answers))
    server.join()

    assert answers == [("replies", "", "7", b"HARE")]


def test_pika_asks_again_after_a_cancel(channel: BlockingChannel, queue: str) -> None:
    """consuming: basic.cancel."""
    first = name_of_requester(channel, queue)
    channel.basic_cancel("replies")

    second = name_of_requester(channel, queue)

    assert first != second
    assert {first[:22], second[:22]} == {f"{REPLY_QUEUE}."}


def test_aio_pika_asks_and_is_answered(broker: Broker, name: Names) -> None:
    """aio-pika: a requester with direct reply-to, and a server with a robust connection."""
    queue_name = name()

    async def conversation() -> tuple[bytes, str | None]:
        answered: asyncio.Future[AbstractIncomingMessage] = (
            asyncio.get_running_loop().create_future()
        )
        async with (
            await aio_pika.connect_robust(broker.url) as asking,
            await aio_pika.connect_robust(broker.url) as serving,
        ):
            server = await serving.channel()
            requests = await server.declare_queue(queue_name)

            async def serve(request: AbstractIncomingMessage) -> None:
                async with request.process():
                    assert request.reply_to is not None
                    reply = aio_pika.Message(
                        request.body.upper(), correlation_id=request.correlation_id
                    )
                    await server.default_exchange.publish(reply, request.reply_to, mandatory=False)

            await requests.consume(serve)
            channel = await asking.channel()
            replies = await channel.get_queue(REPLY_QUEUE)
            await replies.consume(answered.set_result, no_ack=True)  # type: ignore[arg-type]
            request = aio_pika.Message(b"hare", reply_to=REPLY_QUEUE, correlation_id="7")
            await channel.default_exchange.publish(request, queue_name)
            reply = await asyncio.wait_for(answered, WITHIN_S)
            return reply.body, reply.correlation_id

    assert asyncio.run(conversation()) == (b"HARE", "7")


def test_aio_pika_rpc_pattern_calls_a_function(broker: Broker, name: Names) -> None:
    """aio-pika: patterns.RPC."""
    method = name()

    async def double(*, number: int) -> int:
        return 2 * number

    async def conversation() -> object:
        async with await aio_pika.connect_robust(broker.url) as connection:
            rpc = await RPC.create(await connection.channel())
            await rpc.register(method, double, auto_delete=True)
            answer = await asyncio.wait_for(rpc.call(method, {"number": 21}), WITHIN_S)
            await rpc.close()
            return answer

    assert asyncio.run(conversation()) == 42


# ---- what is refused, and in which words --------------------------------------------------


def test_a_request_without_a_reply_consumer_is_refused(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """publishing: reply_to."""
    properties = pika.BasicProperties(reply_to=REPLY_QUEUE, user_id="nobody")
    channel.basic_publish("", queue, b"", properties)

    expected = (406, "PRECONDITION_FAILED - fast reply consumer does not exist")
    assert expected == channel_error(connection, channel)


def test_a_request_to_no_exchange_is_refused_for_that(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Names, broker: Broker
) -> None:
    """publishing: reply_to, exchange."""
    exchange = name()
    channel.basic_publish(exchange, "", b"", pika.BasicProperties(reply_to=REPLY_QUEUE))

    expected = (404, f"NOT_FOUND - no exchange '{exchange}' in vhost '{broker.vhost}'")
    assert expected == channel_error(connection, channel)


def test_a_channel_has_one_reply_consumer(channel: BlockingChannel) -> None:
    """consuming: twice."""
    channel.basic_consume(REPLY_QUEUE, lambda *_: None, auto_ack=True)
    with pytest.raises(ChannelClosedByBroker) as refused:
        channel.basic_consume(REPLY_QUEUE, lambda *_: None, auto_ack=True)

    assert refused.value.args == (406, "PRECONDITION_FAILED - reply consumer already set")


def test_a_reply_consumer_needs_a_tag_of_its_own(channel: BlockingChannel, queue: str) -> None:
    """consuming: consumer tag."""
    channel.basic_consume(queue, lambda *_: None, consumer_tag="taken")
    channel._consumer_infos.clear()  # pika would refuse it itself
    channel._impl._consumers.clear()
    with pytest.raises(ConnectionClosedByBroker) as refused:
        channel.basic_consume(REPLY_QUEUE, lambda *_: None, auto_ack=True, consumer_tag="taken")

    assert refused.value.args == (530, "NOT_ALLOWED - attempt to reuse consumer tag 'taken'")


# ---- the pseudo-queue and requesters' names -----------------------------------------------


def test_the_pseudo_queue_is_there_for_every_declaration(channel: BlockingChannel) -> None:
    """queues: declare, passive or not."""
    for arguments in ({"passive": True}, {}, {"durable": True, "exclusive": True}):
        method = channel.queue_declare(REPLY_QUEUE, **arguments).method
        assert (method.queue, method.message_count, method.consumer_count) == (REPLY_QUEUE, 0, 1)


def test_a_requester_is_a_queue_to_declarations_while_it_listens(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """queues: declare of a requester's name."""
    requester = name_of_requester(channel, queue)
    other = connection.channel()
    for arguments in ({"passive": True}, {"durable": True}):
        method = other.queue_declare(requester, **arguments).method
        assert (method.queue, method.message_count, method.consumer_count) == (requester, 0, 1)

    channel.close()

    with pytest.raises(ChannelClosedByBroker) as refused:
        other.queue_declare(requester, passive=True)
    assert refused.value.reply_code == 404


@pytest.mark.parametrize("suffix", ["x", ".bogus"])
@pytest.mark.parametrize("passive", [True, False])
def test_a_name_that_leads_nowhere_is_no_queue(
    broker: Broker, channel: BlockingChannel, suffix: str, passive: bool
) -> None:
    """queues: declare of a name that looks like a requester's."""
    with pytest.raises(ChannelClosedByBroker) as refused:
        channel.queue_declare(REPLY_QUEUE + suffix, passive=passive)

    text = f"NOT_FOUND - no queue '{REPLY_QUEUE}{suffix}' in vhost '{broker.vhost}'"
    assert refused.value.args == (404, text)


@pytest.mark.parametrize(
    "use",
    [
        lambda channel: channel.basic_get(REPLY_QUEUE),
        lambda channel: channel.queue_purge(REPLY_QUEUE),
        lambda channel: channel.queue_bind(REPLY_QUEUE, "amq.direct", "key"),
    ],
    ids=["get", "purge", "bind"],
)
def test_other_methods_find_no_such_queue(
    broker: Broker, channel: BlockingChannel, use: Callable[[BlockingChannel], object]
) -> None:
    """queues: get, purge, bind of the pseudo-queue."""
    with pytest.raises(ChannelClosedByBroker) as refused:
        use(channel)

    text = f"NOT_FOUND - no queue '{REPLY_QUEUE}' in vhost '{broker.vhost}'"
    assert refused.value.args == (404, text)


def test_a_mandatory_reply_comes_back_when_who_asked_is_gone(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """publishing: mandatory."""
    requester = name_of_requester(channel, queue)
    channel.close()
    server = connection.channel()
    server.confirm_delivery()

    with pytest.raises(pika.exceptions.UnroutableError) as returned:
        server.basic_publish("", requester, b"late", mandatory=True)

    (message,) = returned.value.messages
    assert (message.method.reply_code, message.method.reply_text) == (312, "NO_ROUTE")
    server.basic_publish("", requester, b"dropped")


def test_only_the_default_exchange_leads_to_requesters(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    """publishing: exchange."""
    requester = name_of_requester(channel, queue)
    server = connection.channel()
    server.confirm_delivery()

    with pytest.raises(pika.exceptions.UnroutableError):
        server.basic_publish("amq.direct", requester, b"astray", mandatory=True)
