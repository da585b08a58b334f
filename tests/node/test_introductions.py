"""What nodes tell each other of themselves."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.testing import MockClock

from leveret.node.introductions import Introduction, Introductions
from leveret.transport import NodeId

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


class Links:
    """Links of one node, each to a node that is given what is sent at once."""

    def __init__(self, node: NodeId, known: dict[NodeId, Links]) -> None:
        self.node, self._known = node, known
        self.up: list[NodeId] = []
        known[node] = self

    def connect(self, other: Links) -> None:
        for here, there in ((self, other), (other, self)):
            here.up.append(there.node)
        for here, there in ((self, other), (other, self)):
            here._told_up(there.node)

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        assert channel == "member"
        self._known[node]._take(self.node, payload)
        return True

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        self._take = handler

    def on_up(self, handler: Callable[[NodeId], None]) -> None:
        self._told_up = handler

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        self.told_down = handler

    def incarnation(self, node: NodeId) -> int:
        return 7


async def test_a_node_tells_all_that_it_is_no_longer_empty(autojump_clock: MockClock) -> None:
    """Else one that heard of it before could begin the cluster's history a second time."""
    known: dict[NodeId, Links] = {}
    links = [Links(node, known) for node in (ONE, TWO, THREE)]
    is_fresh = dict.fromkeys(known, True)
    all_of_them = {
        each.node: Introductions(
            each,
            name=f"n{each.node}",
            peer=f"h:{each.node}",
            is_fresh=lambda node=each.node: is_fresh[node],  # type: ignore[misc]
        )
        for each in links
    }
    links[0].connect(links[1])
    links[1].connect(links[2])
    assert Introduction("n2", "h:2", True, 7) == all_of_them[ONE].known[TWO]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(all_of_them[TWO].run)
        await trio.sleep(1)
        assert all_of_them[ONE].known[TWO].is_fresh
        is_fresh[TWO] = False

    assert not all_of_them[ONE].known[TWO].is_fresh
    assert not all_of_them[THREE].known[TWO].is_fresh
    assert all_of_them[TWO].known[ONE].is_fresh
