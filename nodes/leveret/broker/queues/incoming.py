"""The messages of one command, and how those that are new and fit come into a queue. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .publishers import Publishers

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator

    from .publishers import Stretch
    from .state import Columns, QueueState


Limit = tuple[int | None, int | None]
"""The most messages, and bytes of their bodies, that a queue takes; None: any."""


class Origin(NamedTuple):
    """Whose numbers the next messages of a command have."""

    publisher: str
    """Empty if nobody numbered them."""
    first: int
    stop: int
    """The number behind the last one."""


class Incoming:
    """Messages that lie one behind the other in a log entry."""

    __slots__ = ("_entry", "_offset", "_sizes", "_stamp_ms", "traits")

    def __init__(self, entry: int, offset: int, sizes: array[int], stamp_ms: int) -> None:
        """Take messages from byte `offset` of log entry `entry`, of `sizes` bytes each."""
        self._entry = entry
        self._offset = offset
        self._sizes = sizes
        self._stamp_ms = stamp_ms
        self.traits: Columns = {}
        """What they have besides their bytes."""

    def append(self, queue: QueueState, origins: Iterable[Origin]) -> None:
        """Append those messages to `queue` whose numbers it has not stored yet."""
        new: list[list[int]] = []
        for start, stop in self._new(queue, origins):
            if new and new[-1][1] == start:
                new[-1][1] = stop
            else:
                new.append([start, stop])
        self._append_stretches(queue, new)

    def append_limited(self, queue: QueueState, origins: Iterable[Origin], limit: Limit) -> int:
        """Do as `append` until the queue is full; return how many were new and fit, or known.

        The first one that does not fit is the end: what comes behind it must not overtake it.
        """
        count_max, bytes_max = limit
        bodies = self.traits.get("body")
        done = 0
        for origin in origins:
            for number in range(origin.first, origin.stop):
                body = 0 if bodies is None else bodies[done]
                is_full = (count_max is not None and queue.live - queue.spared + 1 > count_max) or (
                    bytes_max is not None
                    and queue.body_bytes - queue.spared_bytes + body > bytes_max
                )
                if is_full:
                    return done
                single = [Origin(origin.publisher, number, number + 1)]
                for _ in self._new(queue, single):
                    self._append_stretches(queue, [[done, done + 1]])
                done += 1
        return done

    def _new(self, queue: QueueState, origins: Iterable[Origin]) -> Iterator[Stretch]:
        """Yield the stretches of messages, by position, that `queue` has not stored yet."""
        position = 0
        for publisher, first, behind in origins:
            stretches = [(first, behind)]
            if publisher:
                if queue.publishers is None:
                    queue.publishers = Publishers()
                stretches = queue.publishers.add(publisher, first, behind, self._stamp_ms)
            for begin, end in stretches:
                yield position + begin - first, position + end - first
            position += behind - first

    def _append_stretches(self, queue: QueueState, stretches: Iterable[Iterable[int]]) -> None:
        offset, passed = self._offset, 0
        for start, stop in stretches:
            offset += sum(self._sizes[passed:start])
            queue.append(
                self._entry,
                offset,
                self._sizes[start:stop],
                {trait: column[start:stop] for trait, column in self.traits.items()},
            )
            passed = start
