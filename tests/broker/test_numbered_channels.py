"""Channels whose publishes have numbers: what comes again is confirmed and stored once."""

from __future__ import annotations

import pytest

from leveret.amqp import spec
from leveret.amqp.events import Ack
from leveret.broker.connections.handshake import CAPABILITIES
from leveret.broker.messages import PublishRun
from leveret.broker.numbering import Numbering, origins_of
from tests.broker.node_lab import Client, Lab, lab


async def numbered(
    node: Lab, publisher: str, after: int, *, channel: int = 2, client: Client | None = None
) -> Client:
    """A client with a channel whose publishes are `publisher`'s from `after` + 1 on."""
    client = client or await node.connect()
    client.says(
        channel,
        spec.ChannelOpen(out_of_band=f"publisher={publisher} after={after}"),
        spec.ConfirmSelect(),
    )
    opened = await client.hears_methods()
    assert [spec.ChannelOpenOk, spec.ConfirmSelectOk] == [type(method) for method in opened]
    return client


async def declare(node: Lab, *names: str, durable: bool = True) -> None:
    client = await node.connect()
    for name in names:
        client.says(1, spec.QueueDeclare(queue=name, durable=durable))
        client.says(1, spec.QueueBind(queue=name, exchange="amq.fanout", routing_key=""))
    answers = await client.hears_methods()
    assert len(answers) == 2 * len(names)


async def confirmed(client: Client, channel: int = 2) -> int:
    """The highest number confirmed, where all below it are."""
    events = [event for event in await client.hears() if isinstance(event, Ack)]
    assert all(event.channel == channel for event in events)
    assert all(event.multiple or event.delivery_tag == 1 for event in events[:1])
    return events[-1].delivery_tag if events else 0


async def depth(node: Lab, name: str) -> int:
    client = await node.connect()
    client.says(1, spec.QueueDeclare(queue=name, passive=True))
    (answer,) = await client.hears_methods()
    assert isinstance(answer, spec.QueueDeclareOk)
    return answer.message_count


def test_the_capability_is_announced() -> None:
    assert CAPABILITIES["publisher_deduplication"] is True


@pytest.mark.parametrize("durable", [True, False], ids=["replicated", "transient"])
async def test_what_is_sent_again_is_confirmed_and_stored_once(durable: bool) -> None:
    async with lab() as node:
        await declare(node, "q", durable=durable)
        first = await numbered(node, "p", 0)
        first.publishes("q", channel=2, count=5)
        assert await confirmed(first) == 5

        second = await numbered(node, "p", 2)
        second.publishes("q", channel=2, count=6)

        assert await confirmed(second) == 6
        assert await depth(node, "q") == 8


async def test_without_numbers_what_is_sent_again_is_there_twice() -> None:
    async with lab() as node:
        await declare(node, "q")
        for _ in range(2):
            client = await node.connect()
            client.says(2, spec.ChannelOpen(out_of_band="anything"), spec.ConfirmSelect())
            await client.hears()
            client.publishes("q", channel=2, count=5)
            assert await confirmed(client) == 5

        assert await depth(node, "q") == 10


async def test_the_numbers_of_other_publishers_do_not_matter() -> None:
    async with lab() as node:
        await declare(node, "q")
        for publisher in ("p", "r"):
            client = await numbered(node, publisher, 0)
            client.publishes("q", channel=2, count=5)
            assert await confirmed(client) == 5

        assert await depth(node, "q") == 10


async def test_publishes_before_confirm_select_have_no_number() -> None:
    async with lab() as node:
        await declare(node, "q")
        for _ in range(2):
            client = await node.connect()
            client.says(2, spec.ChannelOpen(out_of_band="publisher=p after=0"))
            client.publishes("q", channel=2, count=2)
            client.says(2, spec.ConfirmSelect())
            client.publishes("q", channel=2, count=3)
            await client.hears()

        assert await depth(node, "q") == 7


async def test_each_queue_behind_an_exchange_stores_it_once() -> None:
    async with lab() as node:
        await declare(node, "q", "r")
        first = await numbered(node, "p", 0)
        first.publishes("", exchange="amq.fanout", channel=2, count=3)
        assert await confirmed(first) == 3
        await declare(node, "new")

        second = await numbered(node, "p", 0)
        second.publishes("", exchange="amq.fanout", channel=2, count=4)

        assert await confirmed(second) == 4
        assert [4, 4, 4] == [await depth(node, name) for name in ("q", "r", "new")]


async def test_what_was_meant_for_a_queue_that_is_gone_is_stored_where_it_is_routed_now() -> None:
    async with lab() as node:
        await declare(node, "q")
        first = await numbered(node, "p", 0)
        # Number 1 got nowhere, 2 is in the queue; now both go there.
        first.publishes("gone", channel=2)
        first.publishes("q", channel=2)
        assert await confirmed(first) == 2

        second = await numbered(node, "p", 0)
        second.publishes("q", channel=2, count=2)

        assert await confirmed(second) == 2
        assert await depth(node, "q") == 2


async def test_a_headers_exchange_keeps_each_messages_number() -> None:
    async with lab() as node:
        await declare(node, "q")
        client = await node.connect()
        client.says(1, spec.QueueBind(queue="q", exchange="amq.headers", routing_key=""))
        await client.hears()
        for after in (0, 1):
            client = await numbered(node, "p", after)
            client.publishes("", exchange="amq.headers", channel=2, count=3)
            assert await confirmed(client) == 3

        assert await depth(node, "q") == 4


async def test_what_a_lost_connection_still_hands_in_and_its_repeat_are_stored_once() -> None:
    async with lab() as node:
        await declare(node, "q")
        node.shard_group.hold()
        first = await numbered(node, "p", 0)
        first.publishes("q", channel=2, count=5)
        assert await confirmed(first) == 0
        second = await numbered(node, "p", 0)
        second.publishes("q", channel=2, count=7)
        assert await confirmed(second) == 0

        node.shard_group.release()

        assert await confirmed(second) == 7
        assert await depth(node, "q") == 7


async def test_a_purge_does_not_bring_repeats_back() -> None:
    async with lab() as node:
        await declare(node, "q")
        first = await numbered(node, "p", 0)
        first.publishes("q", channel=2, count=3)
        assert await confirmed(first) == 3
        first.says(1, spec.QueuePurge(queue="q"))
        await first.hears()

        second = await numbered(node, "p", 0)
        second.publishes("q", channel=2, count=3)

        assert await confirmed(second) == 3
        assert await depth(node, "q") == 0


async def test_a_malformed_numbering_closes_the_connection_and_says_what_it_should_be() -> None:
    async with lab() as node:
        client = await node.connect()

        client.says(2, spec.ChannelOpen(out_of_band="publisher=p"))

        (close,) = await client.hears_methods()
        assert isinstance(close, spec.ConnectionClose)
        assert (502, 20, 10) == (close.reply_code, close.class_id, close.method_id)
        assert close.reply_text.startswith(
            "SYNTAX_ERROR - out_of_band must be 'publisher=ID after=N'"
        )


def run(connection: object, publisher: str, first: int, count: int) -> PublishRun:
    made = PublishRun(
        connection=connection,  # type: ignore[arg-type]  # nobody is told
        channel=1,
        epoch=1,
        exchange="",
        routing_key="q",
        mandatory=False,
        first_confirm=first,
        numbering=Numbering(publisher, 100) if publisher else None,
    )
    made.records += [b"x"] * count
    return made


def test_runs_that_follow_on_each_other_are_one_origin() -> None:
    runs = [
        run(None, "", 0, 2),
        run(None, "", 1, 3),
        run(None, "p", 1, 2),
        run(None, "p", 3, 2),
        run(None, "p", 9, 1),
        run(None, "r", 10, 1),
    ]

    assert [("", 0, 5), ("p", 101, 105), ("p", 109, 110), ("r", 110, 111)] == origins_of(runs)
