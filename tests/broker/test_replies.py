"""Direct reply-to: requesters, replies past all queues, and requesters on other nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from trio.testing import wait_all_tasks_blocked

from leveret.amqp import Properties, encode_record, encode_route, spec
from leveret.amqp.events import Ack, ContentReceived
from leveret.amqp.method import Method
from leveret.broker import replies
from leveret.broker.connections.messages import HungUp
from leveret.broker.replies import REPLY_QUEUE
from leveret.transport import NodeId
from tests.broker.node_lab import Client, Lab, lab
from tests.broker.test_connection import CHANNEL_CLOSE, declared

FAR = f"{REPLY_QUEUE}.2.7.secret"
"""The name of a requester on node 2."""
SECRET = "A" * 22
"""The lab's random bytes are zeros."""


async def listening(client: Client, *, tag: str = "r") -> None:
    """Have `client` consume its replies on channel 1."""
    client.says(1, spec.BasicConsume(queue=REPLY_QUEUE, consumer_tag=tag, no_ack=True))
    assert [spec.BasicConsumeOk(consumer_tag=tag)] == await client.hears_methods()


async def ask(client: Client, properties: Properties | None = None) -> None:
    """Publish a request to the queue `q`."""
    asked = properties or Properties(reply_to=REPLY_QUEUE)
    publish(client, "q", properties=asked)
    await wait_all_tasks_blocked()


async def asked_for(client: Client) -> Properties:
    """Take a request from the queue `q`."""
    client.says(1, spec.BasicGet(queue="q", no_ack=True))
    (got,) = [event for event in await client.hears() if isinstance(event, ContentReceived)]
    return Properties.decode(got.header)


def publish(
    client: Client,
    routing_key: str,
    body: bytes = b"x",
    *,
    mandatory: bool = False,
    properties: Properties | None = None,
) -> None:
    method = spec.BasicPublish(exchange="", routing_key=routing_key, mandatory=mandatory)
    header = (properties or Properties()).encode(len(body))
    client.send(client.own.send_content(1, method, header, body))


async def bodies(client: Client) -> list[bytes]:
    """What came with content, each as its method's kind would have it."""
    return [event.body for event in await client.hears() if isinstance(event, ContentReceived)]


async def error(client: Client) -> tuple[int, str]:
    (close,) = await client.hears_methods()
    assert isinstance(close, spec.ChannelClose | spec.ConnectionClose)
    return close.reply_code, close.reply_text


async def requester_and_name(node: Lab) -> tuple[Client, str]:
    """A client that consumes its replies, and the name under which it is known."""
    client = await node.connect()
    await declared(client)
    await listening(client)
    await ask(client)
    name = (await asked_for(client)).reply_to
    assert name is not None
    return client, name


def record(body: bytes = b"x") -> bytes:
    header = Properties().encode(len(body))
    return encode_record(encode_route("", "somewhere"), header, body)


def hears_of_node_2(node: Lab, *payload: object) -> None:
    node.links.handlers[replies.CHANNEL](NodeId(2), payload)


class Asked(NamedTuple):
    """What goes to the node of a requester."""

    verb: str
    number: int
    vhost: str
    key: str
    records: Sequence[bytes]


def asks_node_2(node: Lab) -> Asked:
    """The one thing that node 2 was asked."""
    ((to, payload),) = node.links.sent
    node.links.sent.clear()
    assert to == 2
    assert isinstance(payload, tuple)
    return Asked(*payload)


# ---- one node -----------------------------------------------------------------------------


async def test_a_reply_goes_to_who_asked_and_into_no_queue() -> None:
    async with lab() as node:
        requester, name = await requester_and_name(node)
        other = await node.connect()
        await listening(other)
        server = await node.connect()

        publish(server, name, b"reply")

        (event,) = await requester.hears()
        assert isinstance(event, ContentReceived)
        assert (
            spec.BasicDeliver(
                consumer_tag="r", delivery_tag=2, redelivered=False, exchange="", routing_key=name
            )
            == event.method
        )
        assert event.body == b"reply"
        assert await other.hears() == []
        assert node.shard_machine.live_entries() == []


async def test_the_rest_of_a_request_is_as_it_was_published() -> None:
    async with lab() as node:
        requester, name = await requester_and_name(node)
        properties = Properties(
            content_type="text/plain",
            headers={"hare": 1, "list": [1, "two", None]},
            delivery_mode=2,
            correlation_id="7",
            reply_to=REPLY_QUEUE,
            expiration="60000",
            message_id="",
            timestamp=1,
        )
        await ask(requester, properties)

        got = await asked_for(requester)

        assert name == got.reply_to
        properties.reply_to = name
        assert properties == got


async def test_a_reply_to_of_somebody_else_is_left_alone() -> None:
    async with lab() as node:
        requester, _ = await requester_and_name(node)
        await ask(requester, Properties(reply_to=f"{REPLY_QUEUE}.other"))

        assert (await asked_for(requester)).reply_to == f"{REPLY_QUEUE}.other"


async def test_a_reply_is_confirmed_at_once() -> None:
    async with lab() as node:
        _, name = await requester_and_name(node)
        server = await node.connect()
        server.says(1, spec.ConfirmSelect(nowait=True))
        publish(server, name)

        assert [Ack(1, 1, multiple=False)] == await server.hears()
        assert server.flow.in_flight_bytes == 0


@pytest.mark.parametrize(
    "ends", [CHANNEL_CLOSE, spec.BasicCancel(consumer_tag="r")], ids=["channel", "consumer"]
)
async def test_a_mandatory_reply_comes_back_if_who_asked_is_gone(ends: Method) -> None:
    async with lab() as node:
        requester, name = await requester_and_name(node)
        server = await node.connect()
        publish(server, name, b"in time", mandatory=True)
        assert await server.hears() == []

        requester.says(1, ends)
        await requester.hears()
        publish(server, name, b"late", mandatory=True)
        publish(server, name, b"dropped")

        (event,) = await server.hears()
        assert isinstance(event, ContentReceived)
        returned = spec.BasicReturn(
            reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key=name
        )
        assert (returned, b"late") == (event.method, event.body)


async def test_a_connection_that_is_gone_leaves_no_name_behind() -> None:
    async with lab() as node:
        requester, name = await requester_and_name(node)
        requester.ref.tell(HungUp())
        server = await node.connect()
        await wait_all_tasks_blocked()

        server.says(1, spec.QueueDeclare(queue=name, passive=True))

        assert await error(server) == (404, f"NOT_FOUND - no queue '{name}' in vhost '/'")


async def test_replies_to_a_requester_that_does_not_read_are_dropped_at_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replies, "WAITING_BYTES_MAX", 1_000)
    async with lab() as node:
        requester, name = await requester_and_name(node)
        requester.is_reading = type(requester.is_reading)()  # nothing more is taken from now on
        server = await node.connect()
        for body in (b"sent", b"1" * 1_001, b"2", b"3"):
            publish(server, name, body, mandatory=True)
            await wait_all_tasks_blocked()

        assert [b"2", b"3"] == await bodies(server)
        requester.is_reading.set()
        assert [b"sent", b"1" * 1_001] == await bodies(requester)
        publish(server, name, b"4", mandatory=True)
        assert [b"4"] == await bodies(requester)


async def test_replies_in_a_transaction_are_sent_at_its_commit() -> None:
    async with lab() as node:
        requester, name = await requester_and_name(node)
        server = await node.connect()
        server.says(1, spec.TxSelect())
        publish(server, name, b"reply")
        await server.hears()
        assert await bodies(requester) == []

        server.says(1, spec.TxCommit())

        assert await bodies(requester) == [b"reply"]


async def test_a_reply_of_another_virtual_host_finds_nobody() -> None:
    async with lab() as node:
        _, name = await requester_and_name(node)
        answers: list[bool] = []
        for vhost in ("other", "/"):
            node.directory.replies.look_up(vhost, name, answers.append)

        assert answers == [False, True]


async def test_consuming_ends_with_a_channel_that_closed_before_it_began() -> None:
    async with lab() as node:
        client = await node.connect()
        consume = spec.BasicConsume(queue=REPLY_QUEUE, consumer_tag="r", no_ack=True)
        # The publish to nowhere closes the channel while the consume is under way.
        client.says(1, consume, spec.QueueDeclare(queue="none", passive=True))
        client.ref.tell(HungUp())
        await wait_all_tasks_blocked()

        key = f"{REPLY_QUEUE}.1.1.{SECRET}"
        answers: list[bool] = []
        node.directory.replies.look_up("/", key, answers.append)
        assert answers == [False]


# ---- refusals -----------------------------------------------------------------------------


async def test_a_request_without_a_reply_consumer_is_refused() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        await ask(client)

        expected = (406, "PRECONDITION_FAILED - fast reply consumer does not exist")
        assert expected == await error(client)


async def test_a_reply_consumer_takes_no_acknowledgements() -> None:
    async with lab() as node:
        client = await node.connect()
        client.says(1, spec.BasicConsume(queue=REPLY_QUEUE))

        expected = (406, "PRECONDITION_FAILED - reply consumer cannot acknowledge")
        assert expected == await error(client)


async def test_a_channel_has_one_reply_consumer() -> None:
    async with lab() as node:
        client = await node.connect()
        await listening(client)
        client.says(1, spec.BasicConsume(queue=REPLY_QUEUE, consumer_tag="again", no_ack=True))

        expected = (406, "PRECONDITION_FAILED - reply consumer already set")
        assert expected == await error(client)


async def test_a_reply_consumer_needs_a_tag_of_its_own() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="r"))
        await client.hears()
        client.says(1, spec.BasicConsume(queue=REPLY_QUEUE, consumer_tag="r", no_ack=True))

        assert await error(client) == (530, "NOT_ALLOWED - attempt to reuse consumer tag 'r'")


async def test_a_cancelled_consumer_may_be_followed_by_another_with_another_name() -> None:
    async with lab() as node:
        client, first = await requester_and_name(node)
        client.says(1, spec.BasicCancel(consumer_tag="r"))
        assert [spec.BasicCancelOk(consumer_tag="r")] == await client.hears_methods()
        await listening(client)
        await ask(client)

        assert (await asked_for(client)).reply_to not in {first, REPLY_QUEUE, None}


async def test_a_tag_is_made_up_for_who_gives_none() -> None:
    async with lab() as node:
        client = await node.connect()
        client.says(1, spec.BasicConsume(queue=REPLY_QUEUE, no_ack=True))

        (ok,) = await client.hears_methods()

        assert isinstance(ok, spec.BasicConsumeOk)
        assert ok.consumer_tag.startswith("amq.ctag-")


# ---- declarations -------------------------------------------------------------------------


async def test_the_pseudo_queue_is_there_for_every_declaration() -> None:
    async with lab() as node:
        client, name = await requester_and_name(node)
        for queue in (REPLY_QUEUE, name):
            for method in (
                spec.QueueDeclare(queue=queue, passive=True),
                spec.QueueDeclare(queue=queue, durable=True, exclusive=True),
            ):
                client.says(1, method)
                expected = spec.QueueDeclareOk(queue=queue, message_count=0, consumer_count=1)
                assert [expected] == await client.hears_methods()
        assert node.catalog.model.queue("/", REPLY_QUEUE) is None


@pytest.mark.parametrize("suffix", ["x", ".", ".bogus", ".1.1.bogus", ".9.1.A", ".99999999.1.A"])
async def test_a_name_that_leads_nowhere_is_no_queue(suffix: str) -> None:
    async with lab() as node:
        client = await node.connect()
        queue = REPLY_QUEUE + suffix
        client.says(1, spec.QueueDeclare(queue=queue))

        assert await error(client) == (404, f"NOT_FOUND - no queue '{queue}' in vhost '/'")


async def test_an_empty_name_after_a_declaration_means_the_pseudo_queue() -> None:
    async with lab() as node:
        client = await node.connect()
        client.says(1, spec.QueueDeclare(queue=REPLY_QUEUE, nowait=True))
        client.says(1, spec.BasicConsume(queue="", consumer_tag="r", no_ack=True))

        assert [spec.BasicConsumeOk(consumer_tag="r")] == await client.hears_methods()


# ---- other nodes --------------------------------------------------------------------------


async def test_a_reply_to_a_requester_elsewhere_is_confirmed_when_its_node_has_it() -> None:
    async with lab() as node:
        node.links.connect(2)
        server = await node.connect()
        server.says(1, spec.ConfirmSelect(nowait=True))
        publish(server, FAR)
        assert await server.hears() == []
        verb, number, vhost, key, records = asks_node_2(node)
        assert (verb, vhost, key, len(records)) == ("bring", "/", "2.7.secret", 1)

        hears_of_node_2(node, "brought", number, True)

        assert [Ack(1, 1, multiple=False)] == await server.hears()


async def test_a_requester_is_found_by_a_reply_from_elsewhere() -> None:
    async with lab() as node:
        requester, name = await requester_and_name(node)
        node.links.connect(2)
        key = name.removeprefix(f"{REPLY_QUEUE}.")

        hears_of_node_2(node, "bring", 5, "/", key, (record(b"one"), record(b"two")))
        hears_of_node_2(node, "bring", 6, "/", f"{key}x", (record(b"three"),))

        assert [b"one", b"two"] == await bodies(requester)
        assert node.links.sent == [(2, ("brought", 5, True)), (2, ("brought", 6, False))]


async def test_mandatory_replies_come_back_from_a_node_that_knows_nobody() -> None:
    async with lab() as node:
        node.links.connect(2)
        server = await node.connect()
        publish(server, FAR, b"late", mandatory=True)
        await server.hears()
        _, number, *_ = asks_node_2(node)

        hears_of_node_2(node, "brought", number, False)

        assert [b"late"] == await bodies(server)


async def test_replies_for_a_node_that_is_gone_are_unroutable() -> None:
    async with lab() as node:
        server = await node.connect()
        publish(server, FAR, b"no link", mandatory=True)
        assert [b"no link"] == await bodies(server)
        node.links.connect(2)
        node.links.connect(3)
        publish(server, FAR, b"link lost", mandatory=True)
        publish(server, FAR, b"lost, too")
        assert await server.hears() == []

        node.links.cut(3)
        assert await server.hears() == []
        node.links.cut(2)

        assert [b"link lost"] == await bodies(server)
        assert server.flow.in_flight_bytes == 0


async def test_a_declaration_asks_the_node_of_the_requester() -> None:
    async with lab() as node:
        node.links.connect(2)
        client = await node.connect()
        for is_there in (True, False):
            client.says(1, spec.QueueDeclare(queue=FAR, passive=True))
            assert await client.hears() == []
            _, number, _, _, records = asks_node_2(node)
            assert records == ()
            hears_of_node_2(node, "brought", number, is_there)
            (answer,) = await client.hears_methods()
            assert isinstance(answer, spec.QueueDeclareOk) == is_there


async def test_what_another_node_says_out_of_place_is_passed_over() -> None:
    async with lab() as node:
        for payload in ((), ("brought", 9, True), ("bring", "x"), ("else", 1)):
            hears_of_node_2(node, *payload)
        assert node.links.sent == []
