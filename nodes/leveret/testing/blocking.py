"""Brokers for tests without trio: in a thread of their own, on free ports of 127.0.0.1.

For pika, kombu and Celery, for `leveret.client.blocking`, and for asyncio's clients: anything in
this process, its other threads or its children can connect.

    with broker() as b:
        connection = pika.BlockingConnection(pika.URLParameters(b.url))
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from . import brokers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

T = TypeVar("T")
G = TypeVar("G", brokers.Broker, brokers.Cluster)

__all__ = ["Broker", "Cluster", "broker", "cluster"]


@contextmanager
def broker(*, settings: Mapping[str, object] | None = None, seed: int = 0) -> Iterator[Broker]:
    """A broker for the length of a `with`: empty, and gone afterwards.

    settings, seed: as for `leveret.testing.broker`.

    Raises:
        ValueError: a setting is unknown or out of range.

    Example:
        >>> with broker() as b, connect(b.url) as connection:
        ...     print(connection.is_connected)
        True
    """
    with _Thread(brokers.broker(loopback=True, settings=settings, seed=seed)) as thread:
        yield Broker(thread)


@contextmanager
def cluster(
    nodes: int = 3, *, settings: Mapping[str, object] | None = None, seed: int = 0
) -> Iterator[Cluster]:
    """A cluster of brokers for the length of a `with`; its nodes are numbered from 1.

    Example:
        >>> with cluster(3) as c:
        ...     c.kill(1)
        ...     print(c.running)
        [2, 3]
    """
    group = brokers.cluster(nodes, loopback=True, settings=settings, seed=seed)
    with _Thread(group) as thread:
        yield Cluster(thread)


class _Thread(Generic[G]):
    """A thread with a trio run in which a broker or a cluster lives."""

    def __init__(self, group: G) -> None:
        self.group: G = group
        self._stop = trio.Event()
        self._token: Future[trio.lowlevel.TrioToken] = Future()
        self._thread = threading.Thread(target=self._work, name="leveret broker", daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> _Thread[G]:
        self._thread.start()
        self._token.result()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(trio.RunFinishedError):  # it failed before, which is told below
            self._token.result().run_sync_soon(self._stop.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def run(self, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Do `work` there, and return its result."""
        return trio.from_thread.run(work, *arguments, trio_token=self._token.result())

    def _work(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 - it goes to the thread of the test
            if self._token.done():
                self._failure = error
            else:
                self._token.set_exception(error)

    async def _serve(self) -> None:
        async with self.group:
            self._token.set_result(trio.lowlevel.current_trio_token())
            await self._stop.wait()


class Broker:
    """A single broker; make it with `broker`."""

    def __init__(self, thread: _Thread[brokers.Broker]) -> None:
        self._thread = thread

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return self._thread.group.url

    def kill(self) -> None:
        """End it at once, as SIGKILL would; `start` finds what was written."""
        self._thread.run(self._thread.group.kill)

    def stop(self) -> None:
        """End it in order: clients are told that it shuts down."""
        self._thread.run(self._thread.group.stop)

    def start(self) -> None:
        """Start it after a `kill` or `stop`, and wait until it serves clients."""
        self._thread.run(self._thread.group.start)

    def restart(self) -> None:
        """Kill it, and start it with what its disk holds: what a client sees of a crash."""
        self._thread.run(self._thread.group.restart)


class Cluster:
    """Nodes of one cluster, numbered from 1; make it with `cluster`."""

    def __init__(self, thread: _Thread[brokers.Cluster]) -> None:
        self._thread = thread

    @property
    def url(self) -> str:
        """One URL with all nodes, for clients that try one after the other."""
        return self._thread.group.url

    @property
    def urls(self) -> list[str]:
        """The URL of each node, in the order of their numbers."""
        return self._thread.group.urls

    @property
    def running(self) -> list[int]:
        """The numbers of the nodes that run."""
        return self._thread.group.running

    def kill(self, number: int) -> None:
        """End a node at once, as SIGKILL would; nothing if it does not run."""
        self._thread.run(self._thread.group.kill, number)

    def stop(self, number: int) -> None:
        """End a node in order, and wait for that; nothing if it does not run."""
        self._thread.run(self._thread.group.stop, number)

    def start(self, number: int) -> None:
        """Start a node with what its disk holds; that takes a majority of the nodes."""
        self._thread.run(self._thread.group.start, number)

    def restart(self, number: int) -> None:
        """Kill a node if it runs, and start it with what its disk holds."""
        self._thread.run(self._thread.group.restart, number)
