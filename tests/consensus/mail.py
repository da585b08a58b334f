"""A network of `Mail`s in memory: first in, first out, a short delay, links that break."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import trio

from leveret.transport import NodeId


class Mail:
    """One node's links; see `leveret.consensus.replicas.Mail`."""

    def __init__(self, net: Net, node: NodeId) -> None:
        self._net, self.node = net, node
        self.up: frozenset[NodeId] = frozenset()
        self.handlers: dict[str, Callable[[NodeId, object], None]] = {}
        self.up_handlers: list[Callable[[NodeId], None]] = []
        self.down_handlers: list[Callable[[NodeId], None]] = []

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        return self._net.transmit(self.node, node, channel, payload)

    def congested(self, node: NodeId) -> bool:
        return node in self._net.congested

    def incarnation(self, node: NodeId) -> int:
        return self._net.incarnations.get(node, 0)

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        self.handlers[channel] = handler

    def on_up(self, handler: Callable[[NodeId], None]) -> None:
        self.up_handlers.append(handler)

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        self.down_handlers.append(handler)


class Net:
    """All links. Delays are drawn; order on a link is kept; it dies with what is under way."""

    def __init__(self, nursery: trio.Nursery, seed: int = 0) -> None:
        self._nursery = nursery
        self._rng = random.Random(seed)
        self._mails: dict[NodeId, Mail] = {}
        self._links: dict[tuple[NodeId, NodeId], object] = {}
        self._arrival: dict[tuple[NodeId, NodeId, str], float] = {}
        self.incarnations: dict[NodeId, int] = {}
        self.late_s: dict[NodeId, float] = {}
        """How much longer what is sent to a node takes."""
        self.slow_s: dict[str, float] = {}
        """How much longer what is sent on a channel takes; the others pass it."""
        self.congested: set[NodeId] = set()
        """Nodes to which so much is on its way that others hold back."""
        self.lose: Callable[[NodeId, NodeId, object], bool] = lambda *_: False

    def mail(self, node: NodeId) -> Mail:
        self._mails[node] = Mail(self, node)
        return self._mails[node]

    def connect(self, *nodes: NodeId) -> None:
        for one, other in itertools.permutations(nodes, 2):
            if other not in self._mails[one].up:
                self._links[one, other] = object()
                self._mails[one].up |= {other}
                for handler in self._mails[one].up_handlers:
                    handler(other)

    def isolate(self, node: NodeId) -> None:
        for other in list(self._mails[node].up):
            for here, there in ((node, other), (other, node)):
                del self._links[here, there]
                self._mails[here].up -= {there}
                for handler in self._mails[here].down_handlers:
                    handler(there)

    def transmit(self, source: NodeId, target: NodeId, channel: str, payload: object) -> bool:
        link = self._links.get((source, target))
        if link is None:
            return False
        if self.lose(source, target, payload):
            return True
        slow_s = self.slow_s.get(channel, 0.0)
        lane = source, target, channel if slow_s else ""
        late_s = slow_s + self.late_s.get(target, 0.0)
        at = max(
            trio.current_time() + self._rng.uniform(0.0005, 0.003) + late_s,
            self._arrival.get(lane, 0.0) + 1e-6,
        )
        self._arrival[lane] = at

        async def arrive() -> None:
            await trio.sleep_until(at)
            if self._links.get((source, target)) is link:
                self._mails[target].handlers[channel](source, payload)

        self._nursery.start_soon(arrive)
        return True
