"""What the groups of a node cost, counted: messages, entries, syncs and wake-ups, never time."""

from __future__ import annotations

from collections import Counter

import trio
import trio.testing

from leveret.transport import NodeId
from tests.consensus.replicas_world import ALL, ONE, World, until, world

GROUPS = 9


def count_messages(it: World) -> Counter[str]:
    """Return a count of messages by channel that goes on."""
    counts: Counter[str] = Counter()
    transmit = it.net.transmit

    def counted(source: NodeId, target: NodeId, channel: str, payload: object) -> bool:
        counts[channel] += 1
        return transmit(source, target, channel, payload)

    it.net.transmit = counted  # type: ignore[method-assign]
    return counts


def batches(it: World) -> int:
    """Return how often the groups' actors have worked."""
    return sum(group.ref.statistics().batches for node in ALL for group in it[node].replicas.groups)


async def quiet(it: World) -> None:
    await trio.sleep(5)


async def test_idle_groups_cost_a_message_a_link_and_tick_and_wake_no_actor(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(groups=GROUPS) as it:
        await quiet(it)
        counts, before = count_messages(it), batches(it)

        await trio.sleep(10)

        assert {"beats"} == set(counts)
        directed_links, ticks = 6, 10 / it.config.tick_s
        assert counts["beats"] <= directed_links * (ticks + 1)
        assert before == batches(it)


async def test_a_barrier_costs_a_round_of_messages_and_no_entry(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        follower = next(it[node] for node in ALL if it[node] is not leader)
        await quiet(it)
        counts = count_messages(it)
        entries = leader.group.status().last_index
        passed: list[None] = []

        for _ in range(10):
            follower.group.barrier(lambda: passed.append(None))
        await until(lambda: len(passed) == 10)

        # To the leader and back; from it to both followers and back.
        assert counts["raft"] <= 6
        assert entries == leader.group.status().last_index


async def test_a_follower_s_barrier_waits_for_what_the_leader_has_committed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        follower = next(it[node] for node in ALL if it[node] is not leader)
        await quiet(it)
        lines: list[list[bytes]] = []
        leader.group.submit(b"a", lambda _: None)
        await until(lambda: leader.book.lines == [b"a"])

        follower.group.barrier(lambda: lines.append(list(follower.book.lines)))
        await until(lambda: bool(lines))

        assert [[b"a"]] == lines


async def test_barriers_outlive_their_leader(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as it:
        leader = await it.leader()
        others = [it[node] for node in ALL if it[node] is not leader]
        passed: list[NodeId] = []
        it.net.lose = lambda _, target, __: target == leader.node
        for node in others:
            node.group.barrier(lambda node=node: passed.append(node.node))  # type: ignore[misc]
        await trio.sleep(0.05)
        assert [] == passed

        await it.kill(leader.node)

        await until(lambda: {node.node for node in others} == set(passed))
        assert 2 == len(passed)


async def test_a_barrier_does_not_pass_on_a_node_that_is_cut_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        passed: list[str] = []
        # Silent links: it goes on believing that it leads for a while.
        it.net.lose = lambda source, target, _: leader.node in (source, target)

        leader.group.barrier(lambda: passed.append("cut off"))
        await trio.sleep(20)

        assert [] == passed
        it.net.lose = lambda *_: False
        await until(lambda: passed == ["cut off"])


async def test_submitted_waits_for_what_has_been_submitted_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        node = it[ONE]
        passed: list[str] = []
        node.group.submitted(lambda: passed.append("nothing"))
        assert ["nothing"] == passed

        node.group.submit(b"late", lambda _: passed.append("late"), is_urgent=False)
        node.group.submitted(lambda: passed.append("written"))
        await until(lambda: passed == ["nothing", "late", "written"])
