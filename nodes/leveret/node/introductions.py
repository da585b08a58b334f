"""What linked nodes tell of themselves beside their hello: name, address, whether they are new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from leveret.transport import NodeId

if TYPE_CHECKING:
    from collections.abc import Callable

CHANNEL: Final = "member"


class Links(Protocol):
    """What is needed of the links to the other nodes."""

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
        self._listeners: list[Callable[[], None]] = []
        links.on_message(CHANNEL, self._heard)
        links.on_up(self._introduce)
        links.on_down(self._gone)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after a node has introduced itself or is gone."""
        self._listeners.append(listener)

    def _introduce(self, node: NodeId) -> None:
        self._links.send(node, CHANNEL, (self._name, self._peer, self._is_fresh()))

    def _heard(self, node: NodeId, payload: object) -> None:
        match payload:
            case (str(name), str(peer), bool(is_fresh)):
                self.known[node] = Introduction(name, peer, is_fresh, self._links.incarnation(node))
                self._tell()
            case _:
                pass  # of a later version

    def _gone(self, node: NodeId) -> None:
        if self.known.pop(node, None) is not None:
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
