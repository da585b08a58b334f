"""When a node takes it that it is cut off from the majority."""

from __future__ import annotations

import trio
import trio.testing

from leveret.node.majority import Majority

TIMEOUT_S = 2.0


class Links:
    def __init__(self, *up: int) -> None:
        self.up = set(up)


class Group:
    def __init__(self, leader: int | None) -> None:
        self.leader = leader


def majority(links: Links, group: Group, *, nodes: int) -> Majority:
    """Return what node 1 of so many sees."""
    return Majority(
        node=1,
        links=links,
        group=group,
        voters=lambda: range(1, nodes + 1),
        timeout_s=TIMEOUT_S,
    )


async def lasts(watched: Majority) -> bool:
    """Say whether the majority is lost after what just happened has lasted for a while."""
    assert not watched.is_lost(), "at once, although it may be a change of leader"
    await trio.sleep(TIMEOUT_S + 0.1)
    return watched.is_lost()


async def test_a_leader_that_steps_down_for_want_of_a_majority_has_lost_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, group = Links(2, 3), Group(1)
    watched = majority(links, group, nodes=3)
    assert not await lasts(watched)

    group.leader = None

    assert await lasts(watched)


async def test_a_follower_whose_leader_has_no_link_has_lost_it_until_there_is_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, group = Links(2, 3), Group(2)
    watched = majority(links, group, nodes=3)

    assert not watched.is_lost()
    links.up = {3}
    assert await lasts(watched)

    group.leader = 3
    assert not watched.is_lost()


async def test_a_link_to_the_leader_is_not_enough_when_the_two_are_a_minority(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, group = Links(2, 3, 4, 5), Group(2)
    watched = majority(links, group, nodes=5)

    links.up = {2, 3}
    assert not await lasts(watched)
    links.up = {2}
    assert await lasts(watched)


async def test_nodes_that_do_not_vote_do_not_count(autojump_clock: trio.testing.MockClock) -> None:
    links, group = Links(2, 4, 5), Group(2)
    watched = majority(links, group, nodes=3)
    assert not await lasts(watched)

    links.up = {4, 5}

    assert await lasts(watched)


async def test_a_change_of_leader_is_no_loss(autojump_clock: trio.testing.MockClock) -> None:
    links, group = Links(2, 3), Group(2)
    watched = majority(links, group, nodes=3)
    for leader in (3, 1, 2):
        links.up, group.leader = {3}, None
        assert not watched.is_lost()
        await trio.sleep(TIMEOUT_S - 0.5)
        assert not watched.is_lost()
        links.up, group.leader = {2, 3}, leader
        assert not watched.is_lost()


async def test_a_node_alone_is_its_own_majority(autojump_clock: trio.testing.MockClock) -> None:
    assert not await lasts(majority(Links(), Group(1), nodes=1))


async def test_a_node_that_starts_has_lost_nothing(autojump_clock: trio.testing.MockClock) -> None:
    links, group = Links(), Group(None)
    watched = majority(links, group, nodes=3)
    assert not await lasts(watched)

    links.up, group.leader = {2}, 2
    assert not watched.is_lost()
    links.up = set()
    assert await lasts(watched)
