"""Large entries: what they take of a link and of time costs nobody else anything."""

from __future__ import annotations

import trio

from leveret.consensus import GroupConfig, ReplicasConfig
from leveret.consensus.entries import Batch
from leveret.consensus.installs import LEND_S
from leveret.consensus.replicas import LOG, SUBMIT
from leveret.consensus.sessions import Outbox
from leveret.transport import NodeId
from tests.consensus.replicas_world import ALL, ONE, Submitter, until, world

MIB = 1 << 20
APPEND, STATE_PART, ENTRIES_PART = 1, 15, 17  # kinds of `messages`
TRIMMED_SOON = ReplicasConfig(
    group=GroupConfig(snapshot_entries=10), snapshot_check_s=0.1, spread_s=1e6
)


async def test_an_append_that_takes_long_unseats_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        term, work = leader.group.term, Submitter()
        it.net.slow_s[f"{LOG} 0"] = 20.0

        work.submit(leader, 1)
        since = trio.current_time()
        await until(work.is_done, within_s=60)

        assert trio.current_time() - since >= 20
        assert leader.group.is_leader
        assert term == leader.group.term


async def test_a_submission_that_takes_long_holds_up_no_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        follower = next(it[node] for node in ALL if it[node] is not leader)
        term, large, small = leader.group.term, Submitter(), Submitter()
        it.net.slow_s[f"{SUBMIT} 0"] = 20.0

        large.submit(follower, 1)
        since = trio.current_time()
        small.submit(leader, 1)
        await until(small.is_done)
        assert trio.current_time() - since < 1
        await until(large.is_done, within_s=60)

        assert term == leader.group.term


async def test_an_append_that_was_dropped_is_sent_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        work = Submitter()
        dropped: list[object] = []

        def drop_first(source: NodeId, target: NodeId, payload: object) -> bool:
            is_append = isinstance(payload, tuple) and payload[1] == APPEND and bool(payload[-1])
            if is_append and len(dropped) < len(ALL) - 1:
                dropped.append(payload)
                return True
            return False

        it.net.lose = drop_first
        work.submit(leader, 1)
        await until(work.is_done)

        assert len(ALL) - 1 == len(dropped)


async def test_a_congested_node_gets_entries_again_when_it_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        behind = next(it[node] for node in ALL if it[node] is not leader)
        term, work = leader.group.term, Submitter()
        it.net.congested = {behind.node}
        work.submit(leader, 3)
        await until(work.is_done)
        await trio.sleep(5)

        assert not behind.book.lines
        it.net.congested = set()
        await until(lambda: behind.book.lines == work.sent)
        assert term == leader.group.term


async def test_nothing_is_submitted_over_a_congested_link(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        follower = next(it[node] for node in ALL if it[node] is not leader)
        work = Submitter()
        it.net.congested = {leader.node}
        work.submit(follower, 3)
        await trio.sleep(5)

        assert not leader.book.lines
        it.net.congested = set()
        await until(work.is_done)


async def test_a_congested_node_is_sent_no_snapshot_until_it_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(config=TRIMMED_SOON) as it:
        leader = await it.leader()
        away = next(node for node in ALL if it[node] is not leader)
        it.net.isolate(away)
        work = Submitter()
        for _ in range(80):
            work.submit(leader)
            await until(work.is_done)
        await until(lambda: leader.group.status().first_index > 40)
        parts: list[object] = []

        def note(_: NodeId, target: NodeId, payload: object) -> bool:
            is_part = isinstance(payload, tuple) and payload[1] in {STATE_PART, ENTRIES_PART}
            if target == away and is_part:
                parts.append(payload)
            return False

        it.net.lose = note
        it.net.congested = {away}
        it.net.connect(*ALL)
        await trio.sleep(2 * LEND_S)
        assert not parts
        it.net.congested = set()
        await until(lambda: it[away].book.lines == leader.book.lines)
        assert parts


def test_large_batches_are_sent_a_few_at_a_time() -> None:
    outbox = Outbox(ONE, 1)
    outbox.add(bytes(10 * MIB), lambda _: None)
    outbox.add(bytes(10 * MIB), lambda _: None)
    outbox.add(bytes(10 * MIB), lambda _: None)

    assert [1, 2] == sequences(outbox.to_send(0.0))
    assert [3] == sequences(outbox.to_send(0.0))
    assert [] == sequences(outbox.to_send(0.0))
    outbox.rewind()
    assert [1, 2] == sequences(outbox.to_send(0.0))


def sequences(batches: list[Batch]) -> list[int]:
    return [batch.sequence for batch in batches]
