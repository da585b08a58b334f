"""What a client is told of is known to all nodes in reach, and none can hold that up for long."""

from __future__ import annotations

from collections.abc import Callable

import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from leveret.catalog.everywhere import WITHIN_S, Everywhere
from tests.catalog.links import Links


class Progress:
    """How far one node has applied its log."""

    def __init__(self) -> None:
        self.applied_index = 0
        self._listeners: list[Callable[[], None]] = []

    def on_applied(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def apply(self, index: int) -> None:
        self.applied_index = index
        for listener in self._listeners:
            listener()


class Node:
    """A node of three."""

    def __init__(self) -> None:
        self.progress, self.links = Progress(), Links()
        self.links.up = {2, 3}
        self.everywhere = Everywhere(self.progress, self.links)
        self.was_heard = 0

    async def wait(self) -> None:
        await self.everywhere.wait()
        self.was_heard += 1

    def asked(self) -> list[tuple[int, object]]:
        sent, self.links.sent = self.links.sent, []
        return sorted(sent)


async def test_the_wait_ends_when_the_last_node_has_come_as_far() -> None:
    node = Node()
    node.progress.apply(7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.wait)
        await wait_all_tasks_blocked()
        assert node.asked() == [(2, ("tell", 7)), (3, ("tell", 7))]

        node.links.hears(2, ("reached", 7))
        node.links.hears(3, ("reached", 6))
        await wait_all_tasks_blocked()
        assert not node.was_heard

        node.links.hears(3, ("reached", 9))

    assert node.was_heard


async def test_nobody_is_asked_what_is_known() -> None:
    node = Node()
    node.progress.apply(7)
    for peer in (2, 3):
        node.links.hears(peer, ("reached", 8))

    await node.wait()

    assert node.asked() == []


async def test_a_node_answers_when_it_has_applied_as_much_and_once() -> None:
    node = Node()
    node.progress.apply(5)
    for index in (4, 6, 7):
        node.links.hears(2, ("tell", index))
    assert node.asked() == [(2, ("reached", 5))]

    node.progress.apply(7)
    node.progress.apply(8)

    assert node.asked() == [(2, ("reached", 7))]


async def test_a_node_whose_link_breaks_is_not_waited_for() -> None:
    node = Node()
    node.progress.apply(7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.wait)
        await wait_all_tasks_blocked()
        node.links.hears(2, ("reached", 7))
        node.links.cut(3)

    assert node.was_heard


async def test_a_node_that_came_back_is_asked_anew() -> None:
    node = Node()
    node.progress.apply(7)
    for peer in (2, 3):
        node.links.hears(peer, ("reached", 7))
    node.links.cut(3)
    node.links.up.add(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.wait)
        await wait_all_tasks_blocked()
        assert node.asked() == [(3, ("tell", 7))]
        node.links.hears(3, ("reached", 7))


async def test_a_silent_node_is_waited_for_once_until_it_speaks_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node()
    node.links.up = {3}
    node.progress.apply(7)

    await node.wait()
    assert WITHIN_S == trio.current_time()
    await node.wait()
    assert WITHIN_S == trio.current_time()

    node.links.hears(3, ("reached", 7))
    node.progress.apply(8)
    await node.wait()
    assert trio.current_time() == 2 * WITHIN_S
