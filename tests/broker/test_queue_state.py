"""The replicated state of a queue against a dict that does the same."""

from __future__ import annotations

from array import array

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.broker.queues.machine import (
    DROP,
    GONE,
    INVALID,
    OK,
    TOMBSTONE_MS,
    Enqueued,
    Marked,
    Settled,
    ShardMachine,
    drop,
    enqueue,
    mark,
    settle,
)
from leveret.broker.queues.state import CHUNK_MESSAGES, QueueState

# ("append", messages, 0) or ("settle", first, how many more)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 2_500), st.just(0)),
        st.tuples(st.just("settle"), st.integers(1, 6_000), st.integers(0, 3_000)),
        st.tuples(st.just("settle"), st.integers(1, 6_000), st.just(0)),
    ),
    max_size=12,
)


@given(operations)
@settings(max_examples=150)
def test_state_agrees_with_a_dict_of_live_messages(steps: list[tuple[str, int, int]]) -> None:
    state = QueueState(7)
    model: dict[int, tuple[int, int, int]] = {}
    entry = 0
    for kind, number, span in steps:
        if kind == "append":
            entry += 1
            sizes = array("I", [10 + (i % 7) for i in range(number)])
            offset = 3
            first = state.append(entry, offset, sizes)
            for i, size in enumerate(sizes):
                model[first + i] = (entry, offset, size)
                offset += size
        else:
            killed = state.settle([(number, number + span)])
            gone = [s for s in sorted(model) if number <= s <= number + span]
            for sequence in gone:
                del model[sequence]

            assert gone == [s for a, b in killed for s in range(a, b + 1)]

        assert len(model) == state.live
        assert sum(size for _, _, size in model.values()) == state.size_bytes

    assert model == {s: tuple(location) for s, location in state.live_from(1)}
    assert {e for e, _, _ in model.values()} == set(state.live_entries())
    for sequence in (1, CHUNK_MESSAGES, CHUNK_MESSAGES + 1, 2_000):
        assert state.live_count_from(sequence) == sum(s >= sequence for s in model)
        assert (state.locate(sequence) is None) == (sequence not in model)
        assert list(state.live_from(sequence)) == [
            (s, model[s]) for s in sorted(model) if s >= sequence
        ]
    packed = msgpack.packb(state.to_wire())
    copy = QueueState.from_wire(msgpack.unpackb(packed, use_list=False))
    assert packed == msgpack.packb(copy.to_wire())
    assert (state.live, state.size_bytes, state.next) == (copy.live, copy.size_bytes, copy.next)


def test_a_million_messages_cost_few_bytes_each() -> None:
    state = QueueState(1)
    for entry in range(1, 20_001):
        state.append(entry, 40, array("I", [1_100] * 5))

    columns = sum(
        chunk.entries.buffer_info()[1] * 8
        + chunk.offsets.buffer_info()[1] * 4
        + chunk.sizes.buffer_info()[1] * 4
        for chunk in state._chunks
    )
    assert columns / 100_000 <= 17


def test_messages_lie_where_the_command_put_them() -> None:
    machine = ShardMachine()
    records = [b"first", b"second message", b""]
    command = enqueue(9, records)
    entry = b"some header" + command

    assert machine.apply(5, 0, command, len(b"some header")) == OK

    located = [entry[o : o + n] for _, (_, o, n) in machine.queues[9].live_from(1)]
    assert located == records


def test_effects_tell_what_changed_once() -> None:
    machine = ShardMachine()
    machine.apply(1, 0, enqueue(9, [b"a", b"b", b"c"]), 0)
    machine.apply(2, 0, settle(9, [(2, 2), (2, 3), (90, 99)]), 0)
    machine.apply(3, 0, settle(9, [(2, 3)]), 0)
    machine.apply(4, 0, mark(9, 50), 0)

    enqueued, settled, marked = machine.take_effects()

    assert isinstance(enqueued, Enqueued)
    assert (enqueued.first, enqueued.count) == (1, 3)
    assert isinstance(settled, Settled)
    assert settled.ranges == [(2, 2), (3, 3)]
    assert isinstance(marked, Marked)
    assert marked.sequence == 50
    assert machine.take_effects() == []


def test_a_dropped_queue_is_not_brought_back_by_a_late_message() -> None:
    machine = ShardMachine()
    machine.apply(1, 1_000, enqueue(9, [b"a"]), 0)
    assert machine.apply(2, 1_000, drop(9), 0) == 1

    assert machine.apply(3, 2_000, enqueue(9, [b"late"]), 0) == GONE
    assert machine.apply(4, 2_000, mark(9, 5), 0) == GONE
    assert machine.apply(5, 2_000, settle(9, [(1, 1)]), 0) == GONE
    assert 9 not in machine.queues
    machine.apply(6, 1_001 + TOMBSTONE_MS, drop(10), 0)
    assert list(machine.dropped) == [10]


def test_a_command_of_a_later_program_is_refused_not_raised() -> None:
    head = msgpack.packb((DROP + 50, 9))

    assert ShardMachine().apply(1, 0, len(head).to_bytes(4, "little") + head, 0) == INVALID


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40), st.integers(1, 60)), max_size=20))
def test_a_snapshot_rebuilds_an_equal_machine(steps: list[tuple[int, int, int]]) -> None:
    machine = ShardMachine()
    for index, (uid, kind, number) in enumerate(steps, 1):
        if kind < 20:
            command = enqueue(uid, [b"x" * number] * (kind + 1))
        elif kind < 38:
            command = settle(uid, [(number, number + kind)])
        else:
            command = mark(uid, number) if kind < 40 else drop(uid)
        machine.apply(index, index, command, 0)
    copy = ShardMachine()

    copy.restore(machine.snapshot())

    assert machine.snapshot() == copy.snapshot()
    assert machine.live_entries() == copy.live_entries()
