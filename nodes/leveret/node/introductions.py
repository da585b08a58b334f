"""What linked nodes tell of themselves beside their hello: name, address, whether they are new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from leveret.transport import NodeId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

CHANNEL: Final = "member"
LOOK_S: Final = 0.05
"""How often a new node looks whether its data folder is still empty."""


class Links(Protocol):
    """What is needed of the links to the other nodes."""

    @property
    def up(self) -> Collection[NodeId]:
        """The nodes whose links are there."""

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        """Queue a message; False when the link is down."""

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        """Have `handler` called with what comes on `channel`."""

    def on_up(self, handler: Callable[[NodeId], None]) -> None:
        """Call when a link is there."""

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        """Call when a link broke."""

    def incarnation(self, node: NodeId) -> int:
        """Return the incarnation at the other end of a link that is up."""


@dataclass(frozen=True)
class Introduction:
    """A linked node: its name, where others reach it, and whether its data folder is empty."""

    name: str
    peer: str
    is_fresh: bool
    incarnation: int


class Introductions:
    """Who is linked and has introduced itself; `known` is by node number."""

    def __init__(self, links: Links, *, name: str, peer: str, is_fresh: Callable[[], bool]) -> None:
        self.known: dict[NodeId, Introduction] = {}
        self._links = links
        self._name = name
        self._peer = peer
        self._is_fresh = is_fresh
        links.on_message(CHANNEL, self._heard)
        links.on_up(self._introduce)
        links.on_down(self._gone)

    async def run(self) -> None:
        """Introduce this node again to all once it holds data; returns then.

        Whoever took it for empty for longer could begin another history of the cluster.
        """
        while self._is_fresh():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(LOOK_S)
        for node in self._links.up:
            self._introduce(node)

    def _introduce(self, node: NodeId) -> None:
        self._links.send(node, CHANNEL, (self._name, self._peer, self._is_fresh()))

    def _heard(self, node: NodeId, payload: object) -> None:
        match payload:
            case (str(name), str(peer), bool(is_fresh)):
                self.known[node] = Introduction(name, peer, is_fresh, self._links.incarnation(node))
            case _:
                pass  # of a later version

    def _gone(self, node: NodeId) -> None:
        self.known.pop(node, None)
