"""The actors of a node by name, and what reaches them when."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.amqp import Properties, encode_record, encode_route, spec
from leveret.amqp.events import Ack
from leveret.amqp.fields import encode_table
from leveret.broker.messages import Count
from leveret.broker.queues import machine
from leveret.broker.queues.features import QueueFeatures
from leveret.broker.queues.incoming import Origin
from leveret.broker.queues.message_life import read_lives
from leveret.catalog import CatalogMachine
from leveret.catalog.commands import DeclareQueue, DeleteExchange, DeleteQueue, RegisterNode, encode
from tests.broker.node_lab import Lab, lab

DURABLE = DeclareQueue("/", "q", True, False, False, b"", 1, 1, 0)
FAR = DeclareQueue("/", "far", False, False, False, b"", 2, 1, 0)
"""A queue that lives on node 2."""


def next_uid(node: Lab) -> int:
    return node.catalog.model.uid_next


def replies(node: Lab) -> list[tuple[object, ...]]:
    return [payload[1] for _, payload in node.links.sent]  # type: ignore[index]


async def test_what_another_node_says_of_a_queue_not_yet_known_is_said_when_it_is() -> None:
    async with lab() as node:
        node.links.connect(2)
        uid = next_uid(node)
        node.links.says(2, uid, "count", 5)
        await wait_all_tasks_blocked()
        assert replies(node) == []

        await node.change(DURABLE)
        await wait_all_tasks_blocked()

        assert replies(node) == [("reply", 5, "count", 0, 0, 0)]
        assert not node.directory._early


async def test_what_was_said_early_over_a_link_that_broke_is_forgotten() -> None:
    async with lab() as node:
        node.links.connect(2)
        uid = next_uid(node)
        node.links.says(2, uid, "attach", 1, 4, True, 0, False, False, 0, 0, None, 0, ())
        node.links.cut(2)
        node.links.connect(2)

        await node.change(DURABLE)
        client = await node.connect()
        client.says(1, spec.QueueDeclare(queue="q", passive=True))

        (ok,) = await client.hears_methods()
        assert isinstance(ok, spec.QueueDeclareOk)
        assert ok.consumer_count == 0


async def test_what_is_said_of_a_deleted_queue_is_passed_over() -> None:
    async with lab() as node:
        node.links.connect(2)
        uid = next_uid(node)
        await node.change(DURABLE)
        await node.change(DeleteQueue("/", "q", uid))

        node.links.says(2, uid, "count", 5)
        node.links.says(2, uid, "apply", 6, machine.drop(uid))
        await wait_all_tasks_blocked()

        assert replies(node) == [("applied", 6, "gone")]
        assert not node.directory._early
        assert node.directory.queue_numbers() == (0, 0)


async def test_a_snapshot_lets_be_heard_what_was_said_early() -> None:
    async with lab() as node:
        node.links.connect(2)
        uid = next_uid(node)
        node.links.says(2, uid, "count", 5)
        # The queue arrives with a snapshot of the catalog, without an event of its own.
        catalog_machine = node.catalog._machine
        before = catalog_machine.snapshot()
        await node.change(RegisterNode(2, "two", (), 1))
        async with lab() as other:
            await other.change(DURABLE)
            state = other.catalog._machine.snapshot()
        assert before != state
        catalog_machine.restore(state)
        node.catalog._tell_listeners()
        await wait_all_tasks_blocked()

        assert replies(node) == [("reply", 5, "count", 0, 0, 0)]


async def test_a_snapshot_ends_what_it_does_not_hold() -> None:
    async with lab() as node:
        client = await node.connect()
        await node.change(DURABLE)
        uid = node.queue("q").uid
        client.publishes("q", count=3)
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        client.says(1, spec.ExchangeDeclare(exchange="x", type="fanout"))
        client.publishes("", exchange="x")
        await client.hears()
        assert node.directory.queue_numbers() == (2, 1)
        later = CatalogMachine()
        later.restore(node.catalog._machine.snapshot())
        for command in (DeleteQueue("/", "q", uid), DeleteExchange("/", "x", False)):
            later.apply(1, 0, encode(command), 0)

        node.catalog._machine.restore(later.snapshot())
        node.catalog._tell_listeners()

        assert [spec.BasicCancel] == [type(m) for m in await client.hears_methods()]
        assert node.directory.queue_numbers() == (1, 0)
        assert uid not in node.shard_machine.queues


async def test_publishes_under_way_to_a_far_queue_come_home_when_it_is_deleted() -> None:
    async with lab() as node:
        node.links.connect(2)
        await node.change(RegisterNode(2, "two", (), 1))
        uid = next_uid(node)
        await node.change(FAR)
        client = await node.connect()
        client.says(1, spec.ConfirmSelect())
        client.publishes("far", count=3)
        assert not [e for e in await client.hears() if isinstance(e, Ack)]

        await node.change(DeleteQueue("/", "far", uid))

        assert [3] == [e.delivery_tag for e in await client.hears() if isinstance(e, Ack)]
        assert client.flow.in_flight_bytes == 0


async def test_publishes_under_way_to_a_far_queue_are_refused_when_its_link_breaks() -> None:
    async with lab() as node:
        node.links.connect(2)
        await node.change(RegisterNode(2, "two", (), 1))
        await node.change(FAR)
        client = await node.connect()
        client.says(1, spec.ConfirmSelect())
        client.publishes("far", count=2)
        await client.hears()

        node.links.cut(2)

        nacks = [m for m in await client.hears_methods() if isinstance(m, spec.BasicNack)]
        assert [1, 2] == [nack.delivery_tag for nack in nacks]


async def test_acknowledgements_to_a_far_queue_are_told_again_after_a_break() -> None:
    async with lab() as node:
        node.links.connect(2)
        await node.change(RegisterNode(2, "two", (), 1))
        uid = next_uid(node)
        await node.change(FAR)
        client = await node.connect()
        client.says(1, spec.BasicConsume(queue="far", consumer_tag="c"))
        await client.hears()
        number = replies(node)[-1][1]
        record = b"\x05\x00\x00\x03far\x0e\x00\x00\x00" + bytes(14) + b"x"
        node.links.says(2, uid, "reply", number, "ok")
        attach = replies(node)[-1]
        node.links.says(2, uid, "deliver", attach[2], number, (1,), (False,), (record,))
        await client.hears()
        client.says(1, spec.BasicAck(delivery_tag=1))
        await client.hears()

        node.links.cut(2)
        await wait_all_tasks_blocked()
        node.links.sent.clear()
        node.links.connect(2)
        await wait_all_tasks_blocked()

        settles = [body for body in replies(node) if body[0] == "apply"]
        assert [machine.settle(uid, [(1, 1)])] == [body[2] for body in settles]
        attached = [body for body in replies(node) if body[0] == "attach"]
        assert [()] == [body[-1] for body in attached]


async def test_no_actor_is_made_once_the_node_stops() -> None:
    async with lab() as node:
        await node.change(DURABLE)
        uid = node.queue("q").uid
        node.supervisor._is_stopping = True

        assert node.directory.queue(uid) is None
        assert node.directory.exchange("/", "amq.direct") is None
        node.links.says(2, uid, "count", 5)
        node.supervisor._is_stopping = False


async def test_a_queues_actor_ends_with_it() -> None:
    async with lab() as node:
        await node.change(DURABLE)
        uid = node.queue("q").uid
        ref = node.directory.queue(uid)
        assert ref is not None
        await ref.ask(Count(), within_s=1)

        await node.change(DeleteQueue("/", "q", uid))
        await ref.stopped()

        assert node.directory.queue_numbers() == (0, 0)
        assert uid not in node.shard_machine.queues


def queue_with(**arguments: int) -> DeclareQueue:
    table = encode_table({f"x-{key.replace('_', '-')}": value for key, value in arguments.items()})
    return DeclareQueue("/", "q", True, False, False, table, 1, 1, 0)


def one_message(node: Lab) -> bytes:
    """A command that some other node submits: here nobody has had to do with the queue."""
    features = QueueFeatures(message_ttl_ms=500)
    records = [encode_record(encode_route("", "q"), Properties().encode(1), b"x")]
    lives = read_lives(records, features)
    return machine.enqueue_lives(node.queue("q").uid, records, [Origin("", 0, 1)], lives)


def ignore(_: object) -> None:
    pass


async def test_what_comes_from_other_nodes_expires_where_nobody_asks(
    autojump_clock: MockClock,
) -> None:
    async with lab() as node:
        await node.change(queue_with(message_ttl=500))
        uid = node.queue("q").uid

        node.shard_group.submit(one_message(node), ignore)
        await wait_all_tasks_blocked()
        assert node.shard_machine.queues[uid].live == 1
        await trio.sleep(1)

        assert node.shard_machine.queues[uid].live == 0


async def test_a_new_leader_lets_expire_what_it_finds(autojump_clock: MockClock) -> None:
    async with lab() as node:
        await node.change(queue_with(message_ttl=500))
        uid = node.queue("q").uid
        node.shard_group.lose_leader()
        node.shard_group.submit(one_message(node), ignore)
        await wait_all_tasks_blocked()
        assert uid not in node.directory._queues

        node.shard_group.find_leader()
        await trio.sleep(1)

        assert node.shard_machine.queues[uid].live == 0


async def test_a_queue_that_nobody_used_since_the_start_expires(
    autojump_clock: MockClock,
) -> None:
    async with lab() as node:
        node.shard_group.lose_leader()
        await node.change(queue_with(expires=500))
        assert node.directory._queues == {}

        node.shard_group.find_leader()
        await trio.sleep(1)

        assert node.catalog.model.queue("/", "q") is None


async def test_a_new_leader_makes_no_actors_for_queues_at_rest() -> None:
    async with lab() as node:
        node.shard_group.lose_leader()
        await node.change(queue_with(max_length=5))

        node.shard_group.find_leader()
        await wait_all_tasks_blocked()

        assert node.directory._queues == {}
