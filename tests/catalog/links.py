"""Links between the catalogs of a test's nodes: messages wait until the test hands them on."""

from __future__ import annotations

from collections.abc import Callable

from leveret.transport import NodeId


class Links:
    """One node's end; by itself it reaches nobody."""

    def __init__(self) -> None:
        self.up: set[int] = set()
        self.sent: list[tuple[int, object]] = []
        self._handler: Callable[[NodeId, object], None] | None = None
        self._down: list[Callable[[NodeId], None]] = []

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        if node in self.up:
            self.sent.append((node, payload))
        return node in self.up

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        self._handler = handler

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        self._down.append(handler)

    def hears(self, node: int, payload: object) -> None:
        """Let `node` say something."""
        assert self._handler is not None
        self._handler(NodeId(node), payload)

    def cut(self, node: int) -> None:
        """Break the link to `node`."""
        self.up.discard(node)
        for listener in self._down:
            listener(NodeId(node))
