"""Requests of one node to another: the same lines as on the control socket, over the links.

So an operator may ask any node: it asks on where another one must answer, the leader of a group
for example. Links authenticate nodes, and each member may do what an operator may.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection
from typing import Final, Protocol, TypeVar

import outcome
import trio

from leveret.transport import NodeId

from .controls import ControlError, Controls, decode_answer, encode_error, encode_request

R = TypeVar("R")

log = logging.getLogger(__name__)

CHANNEL: Final = "admin"
ASKED_MAX: Final = 64
"""Requests of other nodes that are carried out at once; a further one is refused."""


class Links(Protocol):
    """What this needs of `transport.Peers`; see there."""

    @property
    def up(self) -> Collection[NodeId]: ...
    def send(self, node: NodeId, channel: str, payload: object) -> bool: ...
    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None: ...
    def on_down(self, handler: Callable[[NodeId], None]) -> None: ...


class _Asked:
    """A request that another node has not answered yet."""

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.answered = trio.Event()
        self.answer: outcome.Outcome[bytes] | None = None

    def end(self, answer: outcome.Outcome[bytes]) -> None:
        self.answer = answer
        self.answered.set()


class Admin:
    """Asks the nodes of the cluster, this one included; `run` must run to answer theirs."""

    def __init__(self, node: NodeId, links: Links, controls: Controls) -> None:
        self.node = node
        self._links = links
        self._controls = controls
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._arrived: tuple[
            trio.MemorySendChannel[tuple[NodeId, int, bytes]],
            trio.MemoryReceiveChannel[tuple[NodeId, int, bytes]],
        ] = trio.open_memory_channel(ASKED_MAX)
        self._running = 0
        links.on_message(CHANNEL, self._heard)
        links.on_down(self._lost)

    @property
    def others(self) -> list[NodeId]:
        """The other nodes that can be asked, in order."""
        return sorted(self._links.up)

    async def run(self) -> None:
        """Answer other nodes until cancelled."""
        async with trio.open_nursery() as nursery:
            async for sender, number, request in self._arrived[1]:
                if self._running >= ASKED_MAX:
                    error = ControlError("unavailable", f"node {self.node} has too much to answer")
                    self._links.send(sender, CHANNEL, ("answer", number, encode_error(error)))
                else:
                    self._running += 1
                    nursery.start_soon(self._answer, sender, number, request)

    async def ask(
        self, node: NodeId, do: str, kind: type[R], /, *, within_s: float, **arguments: object
    ) -> R:
        """Have `node` do something; return what it answers.

        Raises:
            ControlError: it cannot be reached, did not answer in time, or answered with an error.
        """
        request = encode_request(do, arguments)
        if node == self.node:
            answer = await self._controls.answer(request)
        else:
            answer = await self._ask(node, request, within_s)
        return decode_answer(answer, kind)

    async def _ask(self, node: NodeId, request: bytes, within_s: float) -> bytes:
        number, asked = next(self._numbers), _Asked(node)
        self._asked[number] = asked
        try:
            if not self._links.send(node, CHANNEL, ("ask", number, request)):
                raise _unreachable(node)
            with trio.move_on_after(within_s):
                await asked.answered.wait()
        finally:
            del self._asked[number]
        if asked.answer is None:
            raise ControlError("timeout", f"node {node} did not answer within {within_s:g} s")
        return asked.answer.unwrap()

    def _heard(self, sender: NodeId, payload: object) -> None:
        match payload:
            case ("ask", int(number), bytes(request)):
                try:
                    self._arrived[0].send_nowait((sender, number, request))
                except trio.WouldBlock:
                    log.warning("too many requests of a node", extra={"peer": sender})
            case ("answer", int(number), bytes(answer)):
                asked = self._asked.get(number)
                if asked is not None and asked.node == sender:
                    asked.end(outcome.Value(answer))
            case _:
                log.warning("malformed message dropped", extra={"peer": sender})

    def _lost(self, node: NodeId) -> None:
        for asked in self._asked.values():
            if asked.node == node and asked.answer is None:
                asked.end(outcome.Error(_unreachable(node)))

    async def _answer(self, sender: NodeId, number: int, request: bytes) -> None:
        try:
            answer = await self._controls.answer(request)
            self._links.send(sender, CHANNEL, ("answer", number, answer))
        finally:
            self._running -= 1


def _unreachable(node: NodeId) -> ControlError:
    return ControlError(
        "unavailable",
        f"node {node} cannot be reached",
        remedy="see that it runs, and that the nodes reach each other",
    )
