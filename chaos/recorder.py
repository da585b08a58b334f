"""A history that is on disk as soon as it happened, with counts of how it stands now.

Any thread may add. The file outlives a runner that is killed, and holds an hour's millions of
events, which would slow the clients down if they were kept in their memory. The counts are what
a run waits for and what its screen shows; the judges read the events afterwards.
"""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.history import (
    Deliver,
    Event,
    MessageId,
    Outcome,
    Publish,
    event_of,
    line_of,
)


class Recorder:
    """Appends each event to a file, one line of JSON. A context manager, which closes the file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()
        self._queues: dict[MessageId, tuple[str, ...]] = {}
        self._early: set[tuple[str, MessageId]] = set()
        self.counts: Counter[str] = Counter()
        """Of events, by what they say: published, confirmed, delivered, redelivered."""
        self.missing: set[tuple[str, MessageId]] = set()
        """What is confirmed and was not delivered yet, by queue."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, event: Event) -> None:
        """Append an event."""
        with self._lock:
            self._file.write(line_of(event) + "\n")
            self._count(event)

    def _count(self, event: Event) -> None:
        match event:
            case Publish():
                self.counts["published"] += 1
                self._queues[event.id] = event.queues
            case Outcome(type="ok"):
                self.counts["confirmed"] += 1
                places = {(queue, event.id) for queue in self._queues.pop(event.id)}
                self.missing |= places - self._early
                self._early -= places
            case Deliver(id=MessageId() as id_):
                self.counts["redelivered" if event.redelivered else "delivered"] += 1
                place = event.queue, id_
                if place in self.missing:
                    self.missing.remove(place)
                elif id_ in self._queues:
                    # The confirm is still on its way to the publisher.
                    self._early.add(place)


def read(path: Path) -> Iterator[Event]:
    """Return the events of a file, which may be compressed.

    Raises:
        ValueError: a line is no event.
    """
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            yield event_of(line)
