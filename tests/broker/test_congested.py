"""Deliveries to another node wait while too much is on its way to it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.amqp import spec
from leveret.amqp.events import ContentReceived
from leveret.amqp.fields import encode_table
from leveret.catalog.commands import DeclareQueue
from tests.broker.node_lab import HEADER, Lab, lab

QUEUE = b""
STREAM = encode_table({"x-queue-type": "stream"})
ATTACH = ("attach", 1, 4, True, 0, False, False, 0, 0, None, 0, ())
FOLLOW = ("follow", 1, 4, True, 10, ("first", None), ())


def delivered(node: Lab) -> list[int]:
    """The numbers of what was sent to consumers on other nodes."""
    bodies = [payload[1] for _, payload in node.links.sent]  # type: ignore[index]
    return [number for body in bodies if body[0] == "deliver" for number in body[3]]


@pytest.mark.parametrize(("arguments", "consume"), [(QUEUE, ATTACH), (STREAM, FOLLOW)])
async def test_deliveries_to_a_congested_node_go_on_when_it_is_not(
    arguments: bytes, consume: tuple[object, ...], autojump_clock: MockClock
) -> None:
    async with lab() as node:
        node.links.connect(2)
        await node.change(DeclareQueue("/", "q", True, False, False, arguments, 1, 1, 0))
        node.links.full = {2}
        node.links.says(2, node.queue("q").uid, *consume)
        client = await node.connect()
        client.publishes("q", count=3)
        await trio.sleep(5)
        assert delivered(node) == []

        node.links.full = set()
        await trio.sleep(0.1)

        assert delivered(node) == [1, 2, 3]


async def test_consumers_of_this_node_get_what_a_congested_one_cannot_take() -> None:
    async with lab() as node:
        node.links.connect(2)
        await node.change(DeclareQueue("/", "q", True, False, False, QUEUE, 1, 1, 0))
        node.links.full = {2}
        node.links.says(2, node.queue("q").uid, *ATTACH)
        client = await node.connect()
        client.publishes("q", count=3)
        await wait_all_tasks_blocked()

        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))

        assert 3 == sum(isinstance(event, ContentReceived) for event in await client.hears())
        assert delivered(node) == []


async def test_a_clock_that_is_put_back_holds_up_no_deliveries(autojump_clock: MockClock) -> None:
    async with lab() as node:
        node.links.connect(2)
        await node.change(DeclareQueue("/", "q", True, False, False, QUEUE, 1, 1, 0))
        node.links.full = {2}
        node.links.says(2, node.queue("q").uid, *ATTACH)
        client = await node.connect()
        client.publishes("q", count=3)
        await wait_all_tasks_blocked()
        node.clock_ahead_ms -= 10
        await trio.sleep(5)

        node.links.full = set()
        await trio.sleep(0.1)

        assert delivered(node) == [1, 2, 3]


async def test_a_queue_that_waits_for_a_congested_node_sets_no_more_alarms(
    autojump_clock: MockClock,
) -> None:
    async with lab() as node:
        node.links.connect(2)
        arguments = encode_table({"x-message-ttl": 3_600_000})
        await node.change(DeclareQueue("/", "q", True, False, False, arguments, 1, 1, 0))
        node.links.full = {2}
        node.links.says(2, node.queue("q").uid, *ATTACH)
        client = await node.connect()
        client.publishes("q", count=3)
        await wait_all_tasks_blocked()
        before = sum(map(len, node.timers._slots.values()))
        await trio.sleep(60)

        assert sum(map(len, node.timers._slots.values())) <= before


async def test_consumers_together_are_sent_no_more_than_a_node_takes() -> None:
    size = 1_500_000
    async with lab() as node:
        node.links.connect(2)
        await node.change(DeclareQueue("/", "q", True, False, False, QUEUE, 1, 1, 0))
        client = await node.connect()
        method = spec.BasicPublish(exchange="", routing_key="q")
        header = HEADER[:4] + size.to_bytes(8, "big") + b"\x00\x00"
        client.send(client.own.send_content(1, method, header, bytes(size)) * 10)
        await wait_all_tasks_blocked()
        node.links.congested = lambda _: len(delivered(node)) > 1  # type: ignore[assignment,method-assign]

        for number in range(10):
            attach = ("attach", number, number, True, 1, False, False, 0, 0, None, 0, ())
            node.links.says(2, node.queue("q").uid, *attach)
        await wait_all_tasks_blocked()

        assert 2 <= len(delivered(node)) <= 4
