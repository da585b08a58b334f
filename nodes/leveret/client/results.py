"""What calls return: small values with names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .core.connection import ConnectionCore
    from .core.topology import Topology

Guarantee = Literal["exactly once", "at least once", "at most once"]
"""How often the broker may have a message whose publish was answered by a confirm.

- exactly once: what is sent again after a loss is recognised by its number.
- at least once: it is sent again, and may be there twice.
- at most once: it is not sent again; the program hears `ConnectionLost`.
"""


@dataclass(frozen=True)
class Queue:
    """A declared queue. `name` is the present one: a queue that the broker named gets a new name
    when it has to be declared again after a loss.

    Example:
        >>> from leveret.client.core.topology import Topology
        >>> Queue("hello", 3, 0, Topology()).name
        'hello'
    """  # noqa: D205 - the first sentence and its reason belong together

    declared_as: str
    message_count: int
    consumer_count: int
    _topology: Topology = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The present name."""
        return self._topology.resolve(self.declared_as)

    def __str__(self) -> str:
        return self.name


def name_of(queue: str | Queue) -> str:
    """The name by which the program knows a queue.

    Example:
        >>> name_of("hello")
        'hello'
    """
    return queue if isinstance(queue, str) else queue.declared_as


@dataclass(frozen=True)
class ConnectionStatistics:
    """Counters of a connection, and how it is now.

    Example:
        >>> ConnectionStatistics("READY", 2, 10, 9, 1, 5, 0, 0, None, "at least once").published
        10
    """

    state: str
    channels: int
    published: int
    """Messages that were published since the start, on channels that are open."""
    confirmed: int
    """Those of them that the broker confirmed."""
    unconfirmed: int
    """Those that wait for their confirm."""
    delivered: int
    """Messages that came to consumers."""
    stale: int
    """Acknowledgements that were of no use, because the message's transport had gone."""
    recoveries: int
    """How often the connection was lost and taken up again."""
    blocked: str | None
    """Why the broker takes no publishes, if so."""
    guarantee: Guarantee


def statistics_of(core: ConnectionCore) -> ConnectionStatistics:
    """The counters of a connection, of either face."""
    channels = core.channels.values()
    guarantee: Guarantee = "at most once"
    if core.is_robust:
        guarantee = "exactly once" if core.removes_duplicates else "at least once"
    return ConnectionStatistics(
        state=core.state.name,
        channels=len(channels),
        published=sum(channel.published for channel in channels),
        confirmed=sum(channel.window.confirmed for channel in channels),
        unconfirmed=sum(len(channel.window) for channel in channels),
        delivered=core.delivered,
        stale=sum(channel.stale for channel in channels),
        recoveries=core.recoveries,
        blocked=core.blocked,
        guarantee=guarantee,
    )
