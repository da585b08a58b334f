"""The nodes behind one `async with` of a test: made, started, and ended with it."""

from __future__ import annotations

import itertools
from random import Random
from typing import TYPE_CHECKING, Self

import trio

from leveret.client.streams import HOSTS_IN_MEMORY
from leveret.transport import Address

from .network import LOOPBACK, Host, Network
from .node import NodeUnderTest
from .outside import WallClock
from .settings import AMQP_PORT, node_configs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

_numbers: trio.lowlevel.RunVar[itertools.count[int]] = trio.lowlevel.RunVar(
    "leveret brokers under test"
)


class Group:
    """Nodes, numbered from 1, that live as long as an `async with`."""

    def __init__(
        self, size: int, *, loopback: bool, settings: Mapping[str, object] | None, seed: int
    ) -> None:
        self._size = size
        self._is_loopback = loopback
        self._settings = settings or {}
        self._seed = seed
        self._nodes: dict[int, NodeUnderTest] = {}
        self._names: list[str] = []
        self._nursery: AbstractAsyncContextManager[trio.Nursery] | None = None

    @property
    def url(self) -> str:
        """The URL, with all nodes, for clients to connect to."""
        hosts = ",".join(str(node.address) for node in self._nodes.values())
        return f"amqp://guest:guest@{hosts}/"

    async def __aenter__(self) -> Self:
        assert self._nursery is None, "a broker is entered once: make another one"
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        try:
            self._make_nodes(nursery)
            for node in self._nodes.values():
                node.start()
            for node in self._nodes.values():
                await node.until_ready()
        except BaseException as error:
            await self._end(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return await self._end(error)

    def _make_nodes(self, nursery: trio.Nursery) -> None:
        network, clock = Network(), WallClock()
        if self._is_loopback:
            addresses = [Address(LOOPBACK, 0)] * self._size
        else:
            # Names that no network has (RFC 6761), so that nobody else is taken for a broker.
            self._names = [f"broker-{_next_number()}.test" for _ in range(self._size)]
            addresses = [Address(name, AMQP_PORT) for name in self._names]
        for number, config in node_configs(addresses, self._settings).items():
            self._nodes[number] = NodeUnderTest(
                config,
                nursery=nursery,
                host=Host(network),
                clients=trio.socket if self._is_loopback else None,
                clock=clock,
                rng=Random(f"{self._seed}/{number}"),  # noqa: S311 - chance that can be repeated
            )
        connect = Host(network).connect
        HOSTS_IN_MEMORY.set({**HOSTS_IN_MEMORY.get(), **dict.fromkeys(self._names, connect)})

    async def _end(self, error: BaseException | None) -> bool:
        """End all nodes; whether `error` was but the cancellation by a node that failed.

        What the test raised goes on as it is, not in a group.
        """
        assert self._nursery is not None
        others = {
            name: connect
            for name, connect in HOSTS_IN_MEMORY.get().items()
            if name not in self._names
        }
        HOSTS_IN_MEMORY.set(others)
        for node in self._nodes.values():
            node.crash()
        try:
            kind, traceback = (type(error), error.__traceback__) if error else (None, None)
            return bool(await self._nursery.__aexit__(kind, error, traceback))
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            if group.exceptions[0] is error:
                return False
            raise _only(group) from None


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error in a group of groups; the group itself if there are several."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) != 1:
            return group
        error = error.exceptions[0]
    return error


def _next_number() -> int:
    """Return another number than for any broker before in this trio run."""
    try:
        numbers = _numbers.get()
    except LookupError:
        numbers = itertools.count(1)
        _numbers.set(numbers)
    return next(numbers)
