"""Three nodes in one loop: what a group promises to those who submit."""

from __future__ import annotations

import random

import pytest
import trio

from leveret.consensus import GroupConfig, MachineFailed, ReplicasConfig
from leveret.consensus.entries import decode_entry
from leveret.transport import NodeId
from tests.consensus.replicas_world import ALL, ONE, THREE, TWO, Submitter, World, until, world


async def test_a_node_alone_serves(autojump_clock: trio.testing.MockClock) -> None:
    async with world((ONE,)) as it:
        work = Submitter()
        work.submit(it[ONE], 3)
        await until(work.is_done)

        assert work.sent == it[ONE].book.lines == work.done


async def test_every_node_submits_and_all_apply_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        works = {node: Submitter() for node in ALL}
        for _ in range(20):
            for node, work in works.items():
                work.submit(it[node], 7)
            await trio.sleep(0.01)
        await until(lambda: all(work.is_done() for work in works.values()))
        await until(lambda: all(len(it[node].book.lines) == 420 for node in ALL))

        assert it[ONE].book.lines == it[TWO].book.lines == it[THREE].book.lines
        for node, work in works.items():
            own = [line for line in it[ONE].book.lines if line.startswith(b"%d-" % node)]
            assert work.sent == own == work.done


async def test_a_fallen_leader_costs_its_submitters_nothing_but_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        follower = next(it[node] for node in ALL if node != leader.node)
        work = Submitter()
        for round_ in range(60):
            work.submit(follower, 3)
            if round_ == 20:
                await it.kill(leader.node, power=True)
            await trio.sleep(0.003)
        await until(work.is_done)

        assert work.sent == work.done == follower.book.lines

        await it.boot(leader.node)
        it.net.connect(*ALL)
        await until(lambda: len(it[leader.node].book.lines) == len(work.sent))
        assert work.sent == it[leader.node].book.lines


async def test_a_leader_that_is_cut_off_and_returns_keeps_its_submissions(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        others = [node for node in ALL if node != leader.node]
        work = Submitter()
        work.submit(leader, 5)
        await until(work.is_done)
        it.net.isolate(leader.node)
        work.submit(leader, 5)
        await it.leader(*others)
        await trio.sleep(3)
        assert 5 == len(work.done)

        it.net.connect(*ALL)
        await until(work.is_done)

        assert work.sent == work.done == it[others[0]].book.lines


async def test_lost_forwards_are_sent_again(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as it:
        leader = await it.leader()
        follower = next(it[node] for node in ALL if node != leader.node)
        rng = random.Random(3)
        it.net.lose = lambda *message: message[2][1:2] == (9,) and rng.random() < 0.4
        work = Submitter()
        for _ in range(30):
            work.submit(follower, 2)
            await trio.sleep(0.05)
        await until(work.is_done)

        assert work.sent == work.done == follower.book.lines


async def test_leaders_are_spread(autojump_clock: trio.testing.MockClock) -> None:
    async with world(groups=6, config=ReplicasConfig()) as it:
        await until(
            lambda: all(
                it[ALL[number % 3]].replicas.groups[number].is_leader for number in range(6)
            )
        )


async def terms(it: World, *nodes: NodeId) -> list[list[int]]:
    """Return the terms of all groups on some nodes, once they have been quiet for a while."""
    await trio.sleep(5)
    return [[group.term for group in it[node].replicas.groups] for node in nodes]


async def test_a_node_that_hands_over_leaves_without_an_election(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(groups=6, config=ReplicasConfig()) as it:
        await until(lambda: it[ONE].replicas.groups[3].is_leader)
        [before] = await terms(it, ONE)
        led = [group.number for group in it[ONE].replicas.groups if group.is_leader]
        assert [0, 3] == led
        start_s = trio.current_time()

        await it[ONE].replicas.hand_over(2)

        assert trio.current_time() - start_s < 0.5
        successors = {it[TWO].replicas.groups[number].leader for number in led}
        assert {TWO, THREE} == successors
        await it.kill(ONE)
        # One step for each group handed over, none because the node is gone.
        expected = [term + (number in led) for number, term in enumerate(before)]
        assert [expected, expected] == await terms(it, TWO, THREE)


async def test_a_node_that_hands_over_does_not_take_its_groups_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(groups=6, config=ReplicasConfig()) as it:
        await until(lambda: it[ONE].replicas.groups[3].is_leader)

        await it[ONE].replicas.hand_over(2)
        await trio.sleep(60)

        assert not [group for group in it[ONE].replicas.groups if group.is_leader]


async def test_submissions_go_on_while_a_node_hands_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        works = {node: Submitter() for node in ALL}
        async with trio.open_nursery() as nursery:
            for round_ in range(60):
                for node, work in works.items():
                    work.submit(it[node], 3)
                if round_ == 20:
                    nursery.start_soon(leader.replicas.hand_over, 2)
                await trio.sleep(0.003)
        await until(lambda: all(work.is_done() for work in works.values()))

        assert leader.group.leader != leader.node
        for node, work in works.items():
            own = [line for line in it[ONE].book.lines if line.startswith(b"%d-" % node)]
            assert work.sent == own == work.done


async def test_a_member_that_is_behind_is_not_handed_to_while_another_keeps_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        behind, abreast = [node for node in ALL if node != leader.node]
        it.net.lose = lambda source, target, _: target == behind and source == leader.node
        work = Submitter()
        for _ in range(30):
            work.submit(leader)
            await until(work.is_done)

        await leader.replicas.hand_over(2)

        assert abreast == leader.group.leader


@pytest.mark.parametrize("members", [(ONE,), ALL])
async def test_where_nobody_could_take_over_nobody_waits(
    members: tuple[NodeId, ...], autojump_clock: trio.testing.MockClock
) -> None:
    async with world(members) as it:
        leader = await it.leader()
        it.net.isolate(leader.node)
        start_s = trio.current_time()

        await leader.replicas.hand_over(2)

        assert trio.current_time() == start_s


async def test_all_nodes_that_stop_at_once_do_not_wait_for_each_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(groups=6, config=ReplicasConfig()) as it:
        await until(lambda: it[ONE].replicas.groups[3].is_leader)
        await terms(it, ONE)
        start_s = trio.current_time()

        async with trio.open_nursery() as nursery:
            for node in ALL:
                nursery.start_soon(it[node].replicas.hand_over, 2)

        assert trio.current_time() - start_s < 1


async def test_a_node_that_is_preferred_leads(autojump_clock: trio.testing.MockClock) -> None:
    async with world(groups=2, config=ReplicasConfig()) as it:
        await until(lambda: it[TWO].replicas.groups[1].is_leader)

        for node in ALL:
            it[node].replicas.prefer(1, THREE)
        await until(lambda: it[THREE].replicas.groups[1].is_leader)
        await trio.sleep(60)
        assert it[THREE].replicas.groups[1].is_leader

        for node in ALL:
            it[node].replicas.prefer(1, None)
        await until(lambda: it[TWO].replicas.groups[1].is_leader)


async def test_snapshots_trim_the_log_and_survive_a_power_cut_of_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = ReplicasConfig(
        group=GroupConfig(snapshot_entries=10), snapshot_check_s=0.1, spread_s=1e6
    )
    async with world(config=config) as it:
        leader = await it.leader()
        absent = next(node for node in ALL if node != leader.node)
        work = Submitter()
        it.net.isolate(absent)
        for _ in range(40):
            work.submit(leader)
            await until(work.is_done)
        await until(lambda: leader.group.status().snapshot_index > 30)

        it.net.connect(*ALL)
        await until(lambda: all(it[node].group.status().first_index > 30 for node in ALL))

        for node in ALL:
            await it.kill(node, power=True)
        for node in ALL:
            await it.boot(node)
        it.net.connect(*ALL)
        again = await it.leader()
        more = Submitter()
        more.submit(again, 3)
        await until(more.is_done)
        await until(lambda: all(len(it[node].book.lines) == 43 for node in ALL))
        for node in ALL:
            assert work.sent + more.sent == it[node].book.lines


async def test_a_command_is_found_where_the_machine_was_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world((ONE,)) as it:
        work = Submitter()
        work.submit(it[ONE], 5)
        await until(work.is_done)

        for line, (index, offset) in zip(it[ONE].book.lines, it[ONE].book.places, strict=True):
            entry = it[ONE].group.entry(index)
            assert line == bytes(entry[offset : offset + len(line)])
            assert decode_entry(bytes(entry)).batches


async def test_stamps_never_go_back_with_a_leader_of_a_slower_clock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        leader.clock_ms = 9_000_000
        work = Submitter()
        work.submit(leader)
        await until(work.is_done)
        await it.kill(leader.node)
        successor = await it.leader(*[node for node in ALL if node != leader.node])
        more = Submitter()
        more.submit(successor)
        await until(more.is_done)

        assert [9_000_000, 9_000_000] == successor.book.stamps


async def test_a_barrier_passes_only_with_a_majority(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        passed: list[str] = []
        leader.group.barrier(lambda: passed.append("first"))
        await until(lambda: bool(passed))
        it.net.isolate(leader.node)
        leader.group.barrier(lambda: passed.append("second"))
        await trio.sleep(10)
        assert ["first"] == passed

        it.net.connect(*ALL)
        await until(lambda: len(passed) == 2)
        assert [] == leader.book.lines


async def test_listeners_hear_of_roles_and_of_applied_batches(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        heard: list[tuple[NodeId | None, bool]] = []
        applied: list[int] = []
        for node in ALL:
            group = it[node].group
            group.on_role(lambda g=group: heard.append((g.leader, g.is_leader)))  # type: ignore[misc]
        leader = await it.leader()
        assert leader.group.transfer(TWO if leader.node == ONE else ONE)
        await until(lambda: not leader.group.is_leader)
        leader = await it.leader()
        leader.group.on_applied(lambda: applied.append(len(leader.book.lines)))
        work = Submitter()
        work.submit(leader, 50)
        await until(work.is_done)

        assert (leader.node, True) in heard
        assert applied[-1] == 50
        assert len(applied) < 10


async def test_room_waits_until_enough_is_applied(autojump_clock: trio.testing.MockClock) -> None:
    config = ReplicasConfig(group=GroupConfig(pending_bytes_high=1000), spread_s=1e6)
    async with world(config=config) as it:
        leader = await it.leader()
        it.net.isolate(leader.node)
        await leader.group.room()
        work = Submitter()
        work.submit(leader, 200)
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(5):
                await leader.group.room()

        it.net.connect(*ALL)
        with trio.fail_after(10):
            await leader.group.room()
        assert leader.group.pending_bytes <= 500


async def test_a_raising_machine_ends_the_node(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        async with world((ONE,)) as it:
            it[ONE].group.submit(b"bang", lambda _: None)
            await trio.sleep(10)

    assert find(raised.value, MachineFailed)


def find(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(find(inner, kind) for inner in error.exceptions)
    if isinstance(error, kind):
        return True
    return error.__cause__ is not None and find(error.__cause__, kind)
