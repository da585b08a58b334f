"""The sizes of bodies that were not counted when they came."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from leveret.broker.queues import machine
from leveret.broker.queues.machine import ShardMachine
from leveret.broker.queues.state import CHUNK_MESSAGES, QueueState

UID = 7
BODY = 5


def filled(counted: list[bool]) -> QueueState:
    """A queue of messages, of which the sizes of some are known to be `BODY`."""
    state = QueueState(UID)
    for number, is_counted in enumerate(counted, 1):
        traits = {"body": array("I", [BODY])} if is_counted else {}
        state.append(number, 0, array("I", [100]), traits)  # type: ignore[arg-type]
    return state


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_what_lives_and_is_not_known_is_measured_once(messages: list[tuple[bool, bool]]) -> None:
    state = filled([is_counted for is_counted, _ in messages])
    living = [number for number, (_, lives) in enumerate(messages, 1) if lives]
    state.settle((n, n) for n, (_, lives) in enumerate(messages, 1) if not lives)
    unknown = [number for number in living if not messages[number - 1][0]]
    assert [sequence for sequence, _ in state.unmeasured(1)] == unknown

    state.measure(1, [BODY] * len(messages))

    assert [sequence for sequence, _ in state.unmeasured(1)] == []
    assert state.body_bytes == BODY * len(living)
    state.measure(1, [2 * BODY] * len(messages))
    assert state.body_bytes == BODY * len(living)


def test_replicas_agree_on_what_was_measured_and_keep_it_in_a_snapshot() -> None:
    replica, restored = ShardMachine(), ShardMachine()
    count = CHUNK_MESSAGES + 10
    replica.apply(1, 0, machine.enqueue(UID, [b"message"] * count), 0)
    replica.apply(2, 0, machine.measure(UID, 5, array("I", [3] * CHUNK_MESSAGES)), 0)

    restored.restore(replica.snapshot())

    state = restored.queues[UID]
    assert state.body_bytes == 3 * CHUNK_MESSAGES
    assert [s for s, _ in state.unmeasured(1)] == [1, 2, 3, 4, *range(count - 5, count + 1)]
    assert restored.snapshot() == replica.snapshot()


def test_a_measure_of_what_is_gone_changes_nothing() -> None:
    replica = ShardMachine()
    measure = machine.measure(UID, 1, array("I", [3, 3]))
    assert replica.apply(1, 0, measure, 0) == machine.GONE

    replica.apply(2, 0, machine.enqueue(UID, [b"m"]), 0)
    replica.apply(3, 0, machine.settle(UID, [(1, 1)]), 0)
    before = replica.snapshot()
    assert replica.apply(4, 0, measure, 0) == machine.OK
    assert replica.snapshot() == before
