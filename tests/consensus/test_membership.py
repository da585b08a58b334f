"""Who belongs to a group: the steps of a change, and members that come, go and are replaced."""

from __future__ import annotations

import itertools

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from leveret.consensus import BadEntry, Configuration, GroupConfig, ReplicasConfig
from leveret.consensus.installs import LEND_S
from leveret.consensus.membership import (
    Configurations,
    decode_configuration,
    encode_configuration,
    next_configuration,
)
from leveret.transport import NodeId
from tests.consensus.replicas_world import ALL, ONE, THREE, TWO, Submitter, World, until, world

FOUR, FIVE = NodeId(4), NodeId(5)
TRIMMED_SOON = ReplicasConfig(
    group=GroupConfig(snapshot_entries=10), snapshot_check_s=0.1, spread_s=1e6
)

members = st.dictionaries(st.integers(1, 6).map(NodeId), st.integers(0, 3), max_size=5)
configurations = st.builds(
    lambda voters, learners: Configuration(
        voters, {node: i for node, i in learners.items() if node not in voters}
    ),
    st.dictionaries(st.integers(1, 6).map(NodeId), st.integers(0, 3), min_size=1, max_size=5),
    members,
)


@given(configurations)
def test_a_configuration_survives_the_wire(configuration: Configuration) -> None:
    assert configuration == decode_configuration(encode_configuration(configuration))


@given(st.binary(max_size=60))
def test_rubbish_is_no_configuration(data: bytes) -> None:
    try:
        decode_configuration(data)
    except BadEntry:
        return


@given(configurations, members, st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6)))
def test_each_step_changes_one_voter_and_keeps_a_majority_in_reach(
    now: Configuration, desired: dict[NodeId, int], linked: set[int], ahead: set[int]
) -> None:
    following = next_configuration(
        now,
        desired,
        is_linked=lambda node: node in linked,
        is_caught_up=lambda node: node in ahead,
    )
    if following is None:
        return

    assert following != now
    assert following.voters
    before, after = set(now.voters.items()), set(following.voters.items())
    assert len(before ^ after) <= 1
    assert len(linked & following.voters.keys()) * 2 > len(following.voters)
    for node, incarnation in after - before:
        assert now.learners[node] == incarnation
        assert node in ahead


@given(configurations, members.filter(bool))
def test_the_steps_lead_to_what_is_desired(now: Configuration, desired: dict[NodeId, int]) -> None:
    # Incarnations only grow, and one voter stays: who leads hands over before it goes.
    desired = {node: max(i, now.incarnation(node) or 0) for node, i in desired.items()}
    staying = min(now.voters)
    desired[staying] = now.voters[staying]
    for _ in range(30):
        following = next_configuration(
            now, desired, is_linked=lambda _: True, is_caught_up=lambda _: True
        )
        if following is None:
            break
        now = following

    assert Configuration(desired) == now


def test_who_is_gone_is_removed_when_the_leader_cannot_go_first() -> None:
    now, desired = Configuration(dict.fromkeys(ALL, 0), {FOUR: 0}), {ONE: 0, FOUR: 0}

    following = next_configuration(
        now, desired, is_linked=lambda node: node != THREE, is_caught_up=lambda _: False
    )

    assert Configuration({ONE: 0, TWO: 0}, {FOUR: 0}) == following


def test_a_cut_takes_back_what_it_cuts() -> None:
    known = Configurations(0, Configuration())
    first, second = Configuration({ONE: 1}), Configuration({ONE: 1}, {TWO: 1})
    known.add(7, second)
    known.add(2, first)

    assert second == known.latest
    assert first == known.at(6)
    known.cut_from(7)
    assert (first, 2) == (known.latest, known.latest_index)
    known.cut_from(1)
    assert Configuration() == known.latest


async def settled(it: World, desired: dict[NodeId, int]) -> None:
    it.desired = desired
    await until(
        lambda: all(
            it[node].group.configuration == Configuration(desired)
            and it[node].book.lines == it[min(desired)].book.lines
            for node in desired
        )
    )


def kind_of(payload: object) -> object:
    """Return the number of a message's kind, see `messages`."""
    assert isinstance(payload, tuple)
    return payload[1]


async def join(it: World, node: NodeId) -> None:
    await it.boot(node)
    it.net.connect(*it.nodes)


@pytest.mark.parametrize("size", [2, 5, 7])
async def test_a_single_node_grows_to_a_cluster(
    size: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with world((ONE,)) as it:
        work = Submitter()
        work.submit(it[ONE], 20)
        await until(work.is_done)
        for node in range(2, size + 1):
            await join(it, NodeId(node))
        await settled(it, dict.fromkeys(map(NodeId, range(1, size + 1)), 0))
        work.submit(it[NodeId(size)], 20)
        await until(work.is_done)
        await settled(it, it.desired)

        assert sorted(work.sent) == sorted(it[NodeId(size)].book.lines)


async def test_a_learner_counts_for_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with world((ONE, TWO)) as it:
        it.net.lose = lambda source, _, payload: source == THREE and kind_of(payload) == 2
        await join(it, THREE)
        it.desired = dict.fromkeys(ALL, 0)
        await until(lambda: THREE in it[ONE].group.configuration.learners)
        await until(lambda: it[THREE].group.leader is not None)
        leader = await it.leader(ONE, TWO)
        other = next(node for node in (ONE, TWO) if node != leader.node)
        it.net.isolate(other)
        work = Submitter()
        work.submit(leader)
        await trio.sleep(20)

        assert not work.done
        assert not it[THREE].group.is_leader


async def test_a_learner_that_holds_nothing_does_not_become_a_voter(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It would give no vote: it does not know yet that it is a member."""
    async with world((ONE, TWO)) as it:
        it.net.lose = lambda _, target, payload: target == THREE and kind_of(payload) == 1
        await join(it, THREE)
        it.desired = dict.fromkeys(ALL, 0)
        await until(lambda: THREE in it[ONE].group.configuration.learners)
        await trio.sleep(20)
        assert THREE not in it[ONE].group.configuration.voters

        it.net.lose = lambda *_: False
        await settled(it, it.desired)


async def test_a_learner_that_is_late_under_load_becomes_a_voter(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world((ONE, TWO)) as it:
        it.net.late_s[THREE] = 0.2
        leader = await it.leader(ONE, TWO)
        lags: list[int] = []

        async def load() -> None:
            work = Submitter()
            while True:
                work.submit(leader)
                peers = leader.group.status().peers
                if THREE in peers:
                    lags.append(peers[THREE].lag)
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await join(it, THREE)
            it.desired = dict.fromkeys(ALL, 0)
            await until(lambda: THREE in leader.group.configuration.voters)
            assert min(lags[-100:]) > 64
            nursery.cancel_scope.cancel()


async def test_an_empty_disk_does_not_vote_until_it_is_a_member_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The wiped member and the one that lags would together elect the lagging one."""
    async with world() as it:
        leader = await it.leader()
        acked, lagging = (node for node in ALL if node != leader.node)
        it.net.isolate(lagging)
        work = Submitter()
        work.submit(leader, 5)
        await until(work.is_done)
        await it.kill(leader.node)
        await it.wipe(acked)
        it.net.connect(acked, lagging)
        await trio.sleep(20)
        assert not it[lagging].group.is_leader

        await it.boot(leader.node)
        it.net.connect(*ALL)
        it.desired = {node: it.incarnation(node) for node in ALL}
        await settled(it, it.desired)
        assert work.sent == it[acked].book.lines == it[lagging].book.lines


async def test_a_wiped_member_comes_back_as_learner_and_then_votes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        work = Submitter()
        leader = await it.leader()
        victim = next(node for node in ALL if node != leader.node)
        work.submit(leader, 10)
        await until(work.is_done)
        await it.kill(victim)
        await it.wipe(victim)
        it.net.connect(*ALL)
        await settled(it, {node: it.incarnation(node) for node in ALL})
        await it.kill(leader.node)
        work.submit(it[victim], 10)
        await until(work.is_done)

        assert work.sent == it[victim].book.lines


async def test_a_wiped_member_is_no_voter_by_what_a_snapshot_says_of_its_lost_disk(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A node serves clients once it votes; so whoever sees it serve may let another one go."""
    async with world(config=TRIMMED_SOON) as it:
        leader = await it.leader()
        victim = next(node for node in ALL if node != leader.node)
        work = Submitter()
        for _ in range(40):
            work.submit(leader)
            await until(work.is_done)
        await until(lambda: leader.group.status().first_index > 20)
        await it.kill(victim)
        await it.wipe(victim)
        # It gets a snapshot of the time before, and for a while nothing behind it.
        it.net.lose = lambda _, target, payload: (
            target == victim
            and kind_of(payload) == 1
            and bool(it[victim].group.configuration.voters)
        )
        it.net.connect(*ALL)
        it.desired = {node: it.incarnation(node) for node in ALL}
        await until(lambda: victim in it[victim].group.configuration.voters)

        assert not it[victim].replicas.are_voters([victim])
        assert victim not in leader.group.configuration.voters

        it.net.lose = lambda *_: False
        await until(lambda: it[victim].replicas.are_voters([victim]))
        assert 1 == leader.group.configuration.voters[victim]


async def test_a_leader_that_is_to_leave_hands_over_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        term = leader.group.term
        rest = [node for node in ALL if node != leader.node]
        work = Submitter()
        work.submit(leader, 10)
        await settled(it, dict.fromkeys(rest, 0))
        successor = await it.leader(*rest)
        work.submit(successor, 10)
        await until(work.is_done)

        assert term + 1 == successor.group.term
        assert 20 == len(successor.book.lines)
        assert leader.node not in successor.group.configuration.nodes


async def test_nobody_is_removed_who_is_needed_for_a_majority(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as it:
        leader = await it.leader()
        away, unwanted = (node for node in ALL if node != leader.node)
        it.net.isolate(away)
        it.desired = dict.fromkeys((leader.node, away), 0)
        await trio.sleep(20)
        assert unwanted in leader.group.configuration.voters

        it.net.connect(*ALL)
        await settled(it, it.desired)


async def test_a_member_that_was_away_for_long_gets_a_snapshot_and_all_that_lives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(config=TRIMMED_SOON) as it:
        leader = await it.leader()
        away = it[next(node for node in ALL if node != leader.node)]
        own = Submitter()
        own.submit(away, 3)
        await until(own.is_done)
        it.net.isolate(away.node)
        work = Submitter()
        for _ in range(80):
            work.submit(leader)
            await until(work.is_done)
        await until(lambda: leader.group.status().first_index > 40)

        it.net.connect(*ALL)
        own.submit(away, 3)
        await until(own.is_done)
        await until(lambda: away.book.lines == leader.book.lines)

        assert 86 == len(away.book.lines)
        assert away.group.status().first_index > 40
        for (index, offset), line in zip(away.book.places, away.book.lines, strict=True):
            entry = away.group.entry(index)
            assert line == bytes(entry[offset : offset + len(line)])


async def test_a_snapshot_that_takes_long_is_not_outdated_when_it_is_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The log behind it stays meanwhile, though the others have trimmed far more often since."""
    async with world(config=TRIMMED_SOON) as it:
        leader = await it.leader()
        away = next(node for node in ALL if node != leader.node)
        it.net.isolate(away)
        work = Submitter()

        async def load() -> None:
            while True:
                work.submit(leader)
                await trio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await until(lambda: leader.group.status().first_index > 100)
            it.net.late_s[away] = 0.3
            it.net.connect(*ALL)
            await until(lambda: leader.group.status().peers[away].match_index > 100)
            nursery.cancel_scope.cancel()
        await until(lambda: it[away].book.lines == leader.book.lines)
        first_index = leader.group.status().first_index
        # Nobody asks any more: the log is trimmed as ever.
        await trio.sleep(LEND_S + 1)
        work.submit(leader, 40)
        await until(lambda: leader.group.status().first_index > first_index)


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
async def test_a_crash_at_any_moment_of_an_install_leaves_a_member_that_goes_on(
    power: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with world(config=TRIMMED_SOON) as it:
        leader = await it.leader()
        away = next(node for node in ALL if node != leader.node)
        work = Submitter()
        interrupted = 0
        for round_ in range(12):
            it.net.isolate(away)
            known = it[away].group.status().last_index
            while leader.group.status().first_index <= known:
                work.submit(leader)
                await until(work.is_done)
            it.net.connect(*ALL)
            await trio.sleep(0.002 * (1 + round_))
            interrupted += it[away].group.status().is_installing
            await it.kill(away, power=power)
            await it.boot(away)
            it.net.connect(*ALL)
        await until(lambda: it[away].book.lines == leader.book.lines)

        assert interrupted > 3
        assert work.sent == it[away].book.lines
        for index in it[away].book.live_entries():
            assert it[away].group.entry(index)


async def test_a_command_that_only_a_snapshot_tells_of_is_answered_unknown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(config=TRIMMED_SOON) as it:
        leader = await it.leader()
        away = it[next(node for node in ALL if node != leader.node)]
        # It hears nothing of what is appended, but is heard.
        it.net.lose = lambda _, target, payload: target == away.node and kind_of(payload) == 1
        replies: list[object] = []
        away.group.submit(b"once", replies.append)
        await until(lambda: b"once" in leader.book.lines)
        it.net.isolate(away.node)
        work = Submitter()
        for _ in range(80):
            work.submit(leader)
            await until(work.is_done)
        await until(lambda: leader.group.status().first_index > 40)
        it.net.lose = lambda *_: False
        it.net.connect(*ALL)
        await until(lambda: bool(replies))

        assert ["unknown"] == [getattr(reply, "value", reply) for reply in replies]
        assert 1 == leader.book.lines.count(b"once")


@pytest.mark.parametrize("snapshot_entries", [10, 10_000])
async def test_members_change_while_nodes_fall(
    snapshot_entries: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Rolling replacement of every disk, with submissions all the time."""
    config = ReplicasConfig(
        group=GroupConfig(snapshot_entries=snapshot_entries), snapshot_check_s=0.1, spread_s=1e6
    )
    async with world(config=config) as it:
        work = Submitter()
        for victim, _ in itertools.product(ALL, range(2)):
            helper = it[next(node for node in ALL if node != victim)]
            work.submit(helper, 5)
            await it.kill(victim)
            for _ in range(40):
                work.submit(helper)
                await until(work.is_done)
            await it.wipe(victim)
            it.net.connect(*ALL)
            work.submit(helper, 5)
            await settled(it, {node: it.incarnation(node) for node in ALL})
        await until(work.is_done)

        assert sorted(work.sent) == sorted(it[ONE].book.lines)
