"""A policy that changes: which queues are told, which actors come to be for it, and its counts."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.amqp import Properties, encode_record, encode_route
from leveret.amqp.fields import encode_table
from leveret.broker.messages import FeaturesChanged, QueueMessage
from leveret.broker.queues import machine
from leveret.broker.queues.features import QueueFeatures
from leveret.broker.queues.queue import QueueActor
from leveret.catalog import commands as c
from leveret.catalog.commands import ClearPolicy, DeclareQueue, SetPolicy
from tests.broker.node_lab import Lab, lab


def set_policy(pattern: str, definition: str, *, is_operator: bool = False) -> SetPolicy:
    return SetPolicy("/", is_operator, "p", pattern, "all", 0, definition.encode())


def declare(name: str, *, durable: bool = True, **arguments: int) -> DeclareQueue:
    table = encode_table({f"x-{key.replace('_', '-')}": value for key, value in arguments.items()})
    return DeclareQueue("/", name, durable, False, False, table, 1, 1, 0)


def fill(node: Lab, name: str, count: int) -> None:
    """Have messages in a queue, as a node finds them at its start."""
    record = encode_record(encode_route("", name), Properties().encode(1), b"x")
    command = machine.enqueue(node.queue(name).uid, [record] * count)
    node.shard_group.entries.append(command)
    node.shard_machine.apply(len(node.shard_group.entries), 0, command, 0)
    node.shard_machine.take_effects()


def actor(node: Lab, name: str) -> QueueActor:
    assert node.directory.queue(node.queue(name).uid) is not None
    found = node.spawner.actors[f"queue {name!r} in '/'"]
    assert isinstance(found, QueueActor)
    return found


def features(node: Lab, name: str) -> QueueFeatures:
    return actor(node, name)._features


async def test_a_queue_goes_by_the_policy_from_its_setting_to_its_clearing() -> None:
    async with lab() as node:
        await node.change(declare("q", max_length=7))
        assert node.directory.queue(node.queue("q").uid) is not None
        await wait_all_tasks_blocked()
        assert features(node, "q").max_length == 7

        for command, length in (
            (set_policy("^q$", '{"max-length":5}'), 5),
            (set_policy("^q$", '{"max-length":9}'), 7),
            (set_policy("^q$", '{"max-length":3}', is_operator=True), 3),
            (ClearPolicy("/", True, "p"), 7),
            (set_policy("^other$", '{"max-length":1}'), 7),
        ):
            await node.change(command)
            await wait_all_tasks_blocked()
            assert features(node, "q").max_length == length


async def test_only_queues_for_which_something_changes_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    receive = QueueActor.receive

    def count(self: QueueActor, message: QueueMessage) -> None:
        if isinstance(message, FeaturesChanged):
            told.append(message.features.name)
        receive(self, message)

    monkeypatch.setattr(QueueActor, "receive", count)
    async with lab() as node:
        for name in ("a1", "a2", "b1"):
            await node.change(declare(name))
            assert node.directory.queue(node.queue(name).uid) is not None

        await node.change(set_policy("^a", '{"max-length":5}'))
        await node.change(SetPolicy("/", False, "q", "^a1", "all", 1, b'{"max-length":5}'))
        await node.change(SetPolicy("/", False, "q", "^b", "all", 1, b'{"max-length":5}'))
        await wait_all_tasks_blocked()

        # By the second policy a1 does what it did.
        assert sorted(told) == ["a1", "a2", "b1"]


async def test_a_lower_limit_drops_the_oldest_though_nobody_has_to_do_with_the_queue() -> None:
    async with lab() as node:
        await node.change(declare("q"))
        fill(node, "q", 5)
        uid = node.queue("q").uid
        assert uid not in node.directory._queues

        await node.change(set_policy("^q$", '{"max-length":2}'))
        await wait_all_tasks_blocked()

        state = node.shard_machine.queues[uid]
        assert [sequence for sequence, _ in state.live_from(1)] == [4, 5]


async def test_a_new_leader_drops_what_a_policy_made_too_much() -> None:
    async with lab() as node:
        await node.change(declare("q"))
        node.shard_group.lose_leader()
        fill(node, "q", 5)
        await node.change(set_policy("^q$", '{"max-length":2}'))
        await wait_all_tasks_blocked()
        uid = node.queue("q").uid
        assert node.shard_machine.queues[uid].live == 5

        node.shard_group.find_leader()
        await wait_all_tasks_blocked()

        assert node.shard_machine.queues[uid].live == 2


async def test_a_queue_expires_by_a_policy_counted_from_its_setting(
    autojump_clock: MockClock,
) -> None:
    async with lab() as node:
        for name, durable in (("d", True), ("t", False)):
            await node.change(declare(name, durable=durable))
        await trio.sleep(10)

        await node.change(set_policy("", '{"expires":500}'))
        await trio.sleep(0.4)
        assert {queue.name for queue in node.catalog.model.queues("/")} == {"d", "t"}
        await node.change(set_policy("", '{"expires":600}'))
        await trio.sleep(0.4)
        assert {queue.name for queue in node.catalog.model.queues("/")} == {"d", "t"}
        await trio.sleep(0.4)
        assert not node.catalog.model.queues("/")


async def test_a_cleared_policy_lets_a_queue_live(autojump_clock: MockClock) -> None:
    async with lab() as node:
        await node.change(declare("q"))
        await node.change(set_policy("", '{"expires":500}'))
        await trio.sleep(0.4)
        await node.change(ClearPolicy("/", False, "p"))
        await trio.sleep(10)

        assert node.catalog.model.queue("/", "q") is not None


async def test_a_restored_catalog_is_gone_by_at_once() -> None:
    async with lab() as node:
        await node.change(declare("q"))
        before = node.catalog_machine.snapshot()
        await node.change(set_policy("", '{"max-length":5}'))
        assert node.directory.queue(node.queue("q").uid) is not None
        await wait_all_tasks_blocked()
        assert features(node, "q").max_length == 5

        node.catalog_machine.restore(before)
        node.catalog_group.submit(b"", lambda _: None)
        await wait_all_tasks_blocked()

        assert features(node, "q").max_length is None


async def test_of_ten_thousand_queues_each_is_looked_at_once_a_change() -> None:
    async with lab() as node:
        for number in range(10_000):
            node.catalog_group.submit(c.encode(declare(f"q{number}")), lambda _: None)
        await wait_all_tasks_blocked()
        looked: list[int] = []
        definition = node.directory.policies.definition

        def count(queue: object) -> object:
            looked.append(1)
            return definition(queue)  # type: ignore[arg-type]  # a queue

        node.directory.policies.definition = count  # type: ignore[method-assign,assignment]
        await node.change(set_policy("^q1", '{"max-length":5}'))
        await wait_all_tasks_blocked()

        # Once each, and once more where a policy counts and its leader is here.
        ones = sum(str(number).startswith("1") for number in range(10_000))
        assert 10_000 <= len(looked) <= 10_000 + ones
        assert node.directory._queues == {}


async def test_a_limit_of_bytes_counts_what_was_there_before_it() -> None:
    async with lab() as node:
        await node.change(declare("q"))
        uid = node.queue("q").uid
        fill(node, "q", 2_500)

        await node.change(set_policy("^q$", '{"max-length-bytes":3}'))
        await wait_all_tasks_blocked()

        state = node.shard_machine.queues[uid]
        assert [sequence for sequence, _ in state.live_from(1)] == [2498, 2499, 2500]
        assert state.body_bytes == 3


async def test_a_full_queue_that_refuses_counts_the_bytes_of_what_was_there() -> None:
    async with lab() as node:
        await node.change(declare("q"))
        uid = node.queue("q").uid
        fill(node, "q", 4)
        client = await node.connect()
        client.publishes("q")
        await wait_all_tasks_blocked()
        assert node.shard_machine.queues[uid].live == 5

        await node.change(set_policy("", '{"max-length-bytes":6,"overflow":"reject-publish"}'))
        await wait_all_tasks_blocked()
        client.publishes("q", count=3)
        await wait_all_tasks_blocked()

        assert node.shard_machine.queues[uid].live == 6
