"""Barriers pass however long the way to the leader is, and never by what was asked before them."""

from __future__ import annotations

import trio.testing

from leveret.consensus.reads import Readers
from tests.consensus.replicas_world import ALL, until, world


def asking(readers: Readers, *names: str, now_s: float = 0.0, passed: list[str]) -> int:
    """Let readers come and ask; return the number of their request."""
    for name in names:
        readers.add(lambda name=name: passed.append(name))  # type: ignore[misc]
    number = readers.ask(now_s)
    assert number is not None
    return number


def tell(readers: Readers, applied_index: int) -> None:
    for read in readers.reached(applied_index):
        read()


def test_a_grant_counts_that_comes_after_its_request_was_made_anew() -> None:
    readers, passed = Readers(boot=1), list[str]()
    first = asking(readers, "early", passed=passed)
    readers.rewind()
    again = asking(readers, "later", passed=passed)

    readers.granted(first, 7)
    tell(readers, 7)
    assert ["early"] == passed

    readers.granted(again, 8)
    tell(readers, 8)
    assert ["early", "later"] == passed
    assert readers.is_empty


def test_a_grant_to_a_request_that_was_made_anew_is_for_all_that_asked_before() -> None:
    readers, passed = Readers(boot=1), list[str]()
    first = asking(readers, "one", passed=passed)
    readers.rewind()
    again = readers.ask(0.0)
    assert again is not None

    readers.granted(again, 7)
    tell(readers, 7)
    readers.granted(first, 6)

    assert ["one"] == passed
    assert readers.is_empty
    assert readers.ask(0.0) is None


def test_a_reader_waits_until_all_is_applied_that_it_may_read() -> None:
    readers, passed = Readers(boot=1), list[str]()
    readers.granted(asking(readers, "one", passed=passed), 7)
    tell(readers, 6)
    assert [] == passed

    tell(readers, 7)
    assert ["one"] == passed


def test_a_grant_to_a_former_life_of_the_node_is_for_nobody() -> None:
    before, readers, passed = Readers(boot=1), Readers(boot=2), list[str]()
    for _ in range(1000):
        number = asking(before, "gone", passed=passed)
    asking(readers, "here", passed=passed)

    readers.granted(number, 7)
    tell(readers, 7)

    assert [] == passed


async def test_a_barrier_passes_where_its_answer_takes_longer_than_one_waits_to_ask_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        follower = next(it[node] for node in ALL if it[node] is not leader)
        # To the leader, from it to the others, back, and back to the asker.
        it.net.late_s = dict.fromkeys(ALL, 0.3)
        assert 4 * 0.3 > it.config.group.stall_s
        await trio.sleep(10)
        passed: list[None] = []

        follower.group.barrier(lambda: passed.append(None))

        await until(lambda: bool(passed))
