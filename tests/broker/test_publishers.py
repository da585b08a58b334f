"""Numbers of publishers, and the machine that stores each once, against sets that do the same."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.amqp.errors import AmqpError
from leveret.broker.numbering import ID_OCTETS_MAX, NUMBER_MAX, Numbering, parse_numbering
from leveret.broker.queues.incoming import Origin
from leveret.broker.queues.machine import (
    GONE,
    INVALID,
    OK,
    Enqueued,
    ShardMachine,
    drop,
    enqueue,
    enqueue_numbered,
    settle,
)
from leveret.broker.queues.publishers import (
    PUBLISHERS_MAX,
    RANGES_MAX,
    SILENCE_MAX_MS,
    Numbers,
    Publishers,
)

UID = 7


def command(*runs: tuple[str, int, int], mark: str = "") -> bytes:
    """A command with runs of (publisher, first number, count); `mark` tells copies apart."""
    records = [
        f"{publisher}{first + i}{mark}".encode() for publisher, first, n in runs for i in range(n)
    ]
    return enqueue_numbered(UID, records, [Origin(p, first, first + n) for p, first, n in runs])


def bodies(machine: ShardMachine, log: list[bytes]) -> list[str]:
    """What the queue holds, read from where the machine says it lies."""
    queue = machine.queues[UID]
    return [log[e - 1][o : o + n].decode() for _, (e, o, n) in queue.live_from(1)]


# Numbers


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), max_size=25))
def test_numbers_agree_with_a_set(steps: list[tuple[int, int]]) -> None:
    numbers = Numbers(0)
    model: set[int] = set()
    for first, count in steps:
        added = set(range(first, first + count))

        new = [n for begin, end in numbers.add(first, first + count) for n in range(begin, end)]

        assert sorted(added - model) == new
        model |= added
        bounds = numbers.bounds.tolist()
        assert sorted(set(bounds)) == bounds
        ranges = zip(bounds[::2], bounds[1::2], strict=True)
        assert model == {n for begin, end in ranges for n in range(begin, end)}


def test_numbers_in_a_row_are_one_range() -> None:
    numbers = Numbers(0)
    for first in range(1, 10_000, 10):
        numbers.add(first, first + 10)

    assert [1, 10_001] == numbers.bounds.tolist()


def test_beyond_the_bound_the_lowest_gap_counts_as_stored() -> None:
    numbers = Numbers(0)
    for number in range(1, 2 * RANGES_MAX + 1, 2):
        numbers.add(number, number + 1)
    assert [(2, 3)] == Numbers(0, numbers.bounds).add(2, 3)

    numbers.add(2 * RANGES_MAX + 1, 2 * RANGES_MAX + 2)

    assert len(numbers.bounds) == 2 * RANGES_MAX
    assert [] == numbers.add(2, 3)
    assert [(4, 5)] == numbers.add(4, 5)


def test_what_was_silent_for_longest_is_forgotten_first() -> None:
    publishers = Publishers()
    for i in range(PUBLISHERS_MAX):
        publishers.add(f"p{i}", 1, 2, i)
    publishers.add("p0", 2, 3, PUBLISHERS_MAX)

    publishers.add("one more", 1, 2, PUBLISHERS_MAX)

    assert len(publishers) == PUBLISHERS_MAX
    assert [] == publishers.add("p0", 1, 3, PUBLISHERS_MAX)
    assert [(1, 2)] == publishers.add("p1", 1, 2, PUBLISHERS_MAX)


def test_a_publisher_is_forgotten_after_a_long_silence() -> None:
    publishers = Publishers()
    publishers.add("silent", 1, 2, 1_000)
    publishers.add("other", 1, 2, 1_000 + SILENCE_MAX_MS)
    assert len(publishers) == 2

    publishers.add("other", 2, 3, 1_001 + SILENCE_MAX_MS)

    assert len(publishers) == 1


# The machine

run_lists = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(1, 30), st.integers(1, 12)),
    min_size=1,
    max_size=5,
)


@given(
    st.lists(
        st.one_of(
            run_lists,
            st.just("snapshot"),
            st.tuples(st.integers(1, 60), st.integers(0, 20)),
        ),
        max_size=15,
    )
)
def test_the_machine_stores_each_number_once_whatever_is_repeated(
    steps: list[list[tuple[str, int, int]] | str | tuple[int, int]],
) -> None:
    machine = ShardMachine()
    log: list[bytes] = []
    stored: list[str] = []
    seen: set[tuple[str, int]] = set()
    gone: set[int] = set()
    for step in steps:
        if isinstance(step, str):
            copy = ShardMachine()
            copy.restore(machine.snapshot())
            assert machine.snapshot() == copy.snapshot()
            machine = copy
            continue
        if isinstance(step, tuple):
            log.append(settle(UID, [(step[0], step[0] + step[1])]))
            gone |= set(range(step[0], step[0] + step[1] + 1)) & set(range(1, len(stored) + 1))
            machine.apply(len(log), len(log), log[-1], 0)
            machine.take_effects()
            continue
        mark = f"/{len(log)}"
        before = len(stored)
        for publisher, first, count in step:
            for number in range(first, first + count):
                if not publisher or (publisher, number) not in seen:
                    stored.append(f"{publisher}{number}{mark}")
                    seen.add((publisher, number))
        log.append(command(*step, mark=mark))

        assert machine.apply(len(log), len(log), log[-1], 0) == OK

        effects = [(e.first, e.count) for e in machine.take_effects() if isinstance(e, Enqueued)]
        new = len(stored) - before
        assert effects == ([(before + 1, new)] if new else [])
        alive = [body for i, body in enumerate(stored, 1) if i not in gone]
        assert alive == bodies(machine, log)


def test_a_purge_does_not_forget_and_a_deletion_does() -> None:
    machine = ShardMachine()
    machine.apply(1, 0, command(("a", 1, 3)), 0)
    machine.apply(2, 0, settle(UID, [(1, 3)]), 0)

    assert machine.apply(3, 0, command(("a", 1, 3)), 0) == OK

    assert machine.queues[UID].live == 0
    machine.apply(4, 0, drop(UID), 0)
    assert machine.apply(5, 0, command(("a", 1, 3)), 0) == GONE


def test_a_command_whose_counts_do_not_fit_is_refused() -> None:
    machine = ShardMachine()
    wrong = enqueue_numbered(UID, [b"x", b"y"], [Origin("a", 1, 4)])

    assert machine.apply(1, 0, wrong, 0) == INVALID
    assert machine.take_effects() == []


def test_a_snapshot_without_publishers_is_one_that_earlier_programs_read() -> None:
    machine = ShardMachine()
    machine.apply(1, 0, enqueue(UID, [b"x"]), 0)
    version, _, [queue] = msgpack.unpackb(machine.snapshot())
    assert (version, len(queue)) == (1, 4)

    machine.apply(2, 0, command(("a", 1, 1)), 0)

    version, _, [queue] = msgpack.unpackb(machine.snapshot())
    assert (version, queue[4]) == (2, [["a", 0, [1, 2]]])


def test_a_snapshot_of_a_later_program_is_refused() -> None:
    with pytest.raises(ValueError, match="has version 6, this program reads up to 5"):
        ShardMachine().restore(msgpack.packb([6, [], []]))


# What a client says


def test_a_numbering_is_read() -> None:
    assert Numbering("ab.1", 0) == parse_numbering("publisher=ab.1 after=0")
    longest = "x" * ID_OCTETS_MAX
    assert Numbering(longest, NUMBER_MAX) == parse_numbering(
        f"publisher={longest} after={NUMBER_MAX}"
    )


@pytest.mark.parametrize("text", ["", "anything", "Publisher=a after=1", " publisher=a after=1"])
def test_anything_else_is_ignored(text: str) -> None:
    assert parse_numbering(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "publisher=",
        "publisher=a",
        "publisher= after=1",
        "publisher=a after=",
        "publisher=a after=-1",
        "publisher=a after=1 more",
        "publisher=a  after=1",
        "publisher=a after=\u0663",
        f"publisher=a after={NUMBER_MAX + 1}",
        f"publisher={'x' * (ID_OCTETS_MAX + 1)} after=1",
    ],
)
def test_what_begins_like_a_numbering_and_is_none_is_an_error(text: str) -> None:
    with pytest.raises(AmqpError) as caught:
        parse_numbering(text)

    assert caught.value.reply_code == 502
    assert "publisher=ID after=N" in caught.value.reply_text
