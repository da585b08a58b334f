"""Messages on their way from one queue to another: each arrives once, whatever crashes."""

from __future__ import annotations

from array import array
from typing import cast

import pytest
from trio.testing import wait_all_tasks_blocked

from leveret.actors import Ref
from leveret.amqp.delivery import Record, encode_record, encode_route
from leveret.amqp.properties import Properties
from leveret.broker.messages import LeadAction
from leveret.broker.queues import machine
from leveret.broker.queues.machine import ShardMachine
from leveret.broker.queues.message_life import Lives, without_delay
from leveret.broker.queues.moving import Move, Moved
from leveret.broker.queues.state import QueueState
from leveret.catalog.commands import DeclareQueue
from tests.broker.node_lab import Lab, lab

NEAR = DeclareQueue("/", "near", True, False, False, b"", 1, 1, 0)
SOURCE = DeclareQueue("/", "source", True, False, False, b"", 1, 1, 0)
ELSEWHERE = DeclareQueue("/", "elsewhere", False, False, False, b"", 1, 1, 0)
"""A queue whose log is another one."""

HEADER = Properties().encode(1)


def state(node: Lab, name: str) -> QueueState:
    found = node.directory.state(node.queue(name).uid)
    assert found is not None
    return found


async def with_messages(node: Lab, count: int) -> None:
    for declare in (SOURCE, NEAR, ELSEWHERE):
        await node.change(declare)
    client = await node.connect()
    client.publishes("source", count=count)
    await wait_all_tasks_blocked()


def begin(node: Lab, destination: str, count: int = 100) -> Move:
    action = Move(node.queue(destination).uid, count)
    ref = node.directory.queue(node.queue("source").uid)
    assert ref is not None
    cast("Ref[LeadAction[Moved]]", ref).tell(action)
    return action


def stop_after(node: Lab, operation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the shard commit nothing more when it has applied a command of this kind."""
    apply = node.shard_machine.apply

    def applied(index: int, stamp_ms: int, command: bytes, offset: int) -> object:
        if command[5] == operation:  # behind the head's length and the array's mark
            node.shard_group.hold()
        return apply(index, stamp_ms, command, offset)

    monkeypatch.setattr(node.shard_machine, "apply", applied)


@pytest.mark.parametrize("destination", ["near", "elsewhere"])
async def test_messages_go_once_and_the_rest_stays_ready(destination: str) -> None:
    async with lab() as node:
        await with_messages(node, 5)
        action = begin(node, destination, 3)
        await wait_all_tasks_blocked()

        assert action._result is not None
        assert Moved(3, is_full=False) == action._result.unwrap()
        assert (3, 2) == live(node, destination)
        rest = begin(node, destination)
        await wait_all_tasks_blocked()
        assert rest._result is not None
        assert Moved(2, is_full=False) == rest._result.unwrap()
        assert (5, 0) == live(node, destination)


def live(node: Lab, destination: str) -> tuple[int, int]:
    return state(node, destination).live, state(node, "source").live


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "late"])
async def test_what_a_crash_leaves_on_its_way_arrives_once(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab() as node:
        await with_messages(node, 3)
        stop_after(node, machine.HOLD, monkeypatch)
        begin(node, "elsewhere")
        await wait_all_tasks_blocked()
        # They are stored there, and their end here is on its way.
        assert (3, 3) == live(node, "elsewhere")
        monkeypatch.undo()

        node.crash_queue("source")
        await wait_all_tasks_blocked()
        if lost:
            del node.shard_group._pending[:-1]  # all but what the new instance says
        node.shard_group.release()
        await wait_all_tasks_blocked()

        assert (3, 0) == live(node, "elsewhere")
        assert (0, None) == (state(node, "source").hold, state(node, "source").intent)


def shard_with(source: int, target: int) -> ShardMachine:
    shard = ShardMachine()
    shard.apply(1, 0, machine.enqueue(1, [record(b"%d" % n) for n in range(source)]), 0)
    shard.apply(2, 0, machine.enqueue(2, [record(b"t")] * target), 0)
    return shard


def record(body: bytes, **headers: int) -> bytes:
    header = Properties(headers=dict(headers)).encode(len(body)) if headers else HEADER
    return encode_record(encode_route("", "q"), header, body)


def lives(count: int) -> Lives:
    none = Lives()
    none.ttls = array("Q", bytes(8 * count))
    none.delays = array("Q", bytes(8 * count))
    none.priorities = array("B", bytes(count))
    none.bodies = array("I", [1] * count)
    return none


def test_one_entry_takes_messages_out_of_one_queue_and_puts_them_into_the_other() -> None:
    shard = shard_with(4, 1)
    shard.apply(3, 0, machine.settle(1, [(2, 2)]), 0)
    places = [shard.queues[1].locate(sequence) for sequence in (1, 3)]
    (_, number, _) = cast("tuple[str, int, int]", shard.apply(4, 0, machine.hold(1, None), 0))
    shard.take_effects()

    reply = shard.apply(5, 0, machine.move(1, number, [(1, 3)], 2, lives(3), (None, None)), 0)

    assert ("done", 2) == reply
    assert (1, 3) == (shard.queues[1].live, shard.queues[2].live)
    assert places == [shard.queues[2].locate(sequence) for sequence in (2, 3)]
    assert ["Enqueued", "Settled"] == [type(effect).__name__ for effect in shard.take_effects()]
    assert [1, 2] == shard.live_entries()


@pytest.mark.parametrize("limit", [(3, None), (None, 2)], ids=["messages", "bytes"])
def test_a_move_stops_at_the_limit(limit: tuple[int | None, int | None]) -> None:
    shard = shard_with(4, 1)
    shard.apply(3, 0, machine.hold(1, None), 0)

    reply = shard.apply(4, 0, machine.move(1, 1, [(1, 4)], 2, lives(4), limit), 0)

    assert ("done", 2) == reply
    assert (2, 3) == (shard.queues[1].live, shard.queues[2].live)


def test_a_move_under_a_hold_that_was_replaced_does_nothing() -> None:
    shard = shard_with(2, 1)
    shard.apply(3, 0, machine.hold(1, None), 0)
    shard.apply(4, 0, machine.hold(1, None), 0)

    command = machine.move(1, 1, [(1, 2)], 2, lives(2), (None, None))

    assert machine.STALE == shard.apply(5, 0, command, 0)
    assert (2, 1) == (shard.queues[1].live, shard.queues[2].live)


def test_a_move_to_a_queue_that_was_deleted_does_nothing() -> None:
    shard = shard_with(2, 1)
    shard.apply(3, 0, machine.hold(1, None), 0)
    shard.apply(4, 0, machine.drop(2), 0)

    command = machine.move(1, 1, [(1, 2)], 2, lives(2), (None, None))

    assert machine.ABSENT == shard.apply(5, 0, command, 0)
    assert 2 == shard.queues[1].live


def test_numbers_of_messages_on_their_way_follow_on_each_other_and_are_in_a_snapshot() -> None:
    shard, copy = shard_with(5, 1), ShardMachine()

    assert ("held", 1, 0) == shard.apply(3, 0, machine.hold(1, (2, [1, 2, 4, 4])), 0)
    assert ("held", 2, 3) == shard.apply(4, 0, machine.hold(1, (2, [5, 5])), 0)
    copy.restore(shard.snapshot())

    assert (4, (2, 3, (5, 5))) == (copy.queues[1].moves, copy.queues[1].intent)
    assert shard.snapshot() == copy.snapshot()


def test_a_message_that_has_waited_says_so() -> None:
    moved = Record(without_delay(record(b"x", **{"x-delay": 5, "other": 1})))

    assert {"x-delay": -5, "other": 1} == Properties.decode(moved.header).headers
    assert record(b"x") == without_delay(record(b"x"))
