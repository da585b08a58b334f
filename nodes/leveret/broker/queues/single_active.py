"""Which consumer of a queue with a single active one is that.

The first one that came stays active while it is there, unless one with a higher priority comes:
then nobody gets anything until the active one holds nothing, and the other takes over.  So no two
consumers ever have messages of the queue that neither is marked as redelivered.

The choice is the leader's soft state.  A consumer's own node is told of it, and tells the next
leader, which gives consumers a moment to come back before it chooses: a change of leader alone
does not make another one active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .dispatch import Consumer

RECALL_MS: Final = 1_000
"""How long a new leader waits for the consumer that was active before."""


class SingleActive:
    """The active consumer, as the queue's leader chooses it."""

    def __init__(self) -> None:
        self.recall_until_ms = 0
        """Until then (ms) nobody is chosen but who was active before."""
        self._active: Consumer | None = None
        self._news: list[Consumer] = []
        self._stamp = 0

    def choose(self, waiting: Iterable[Consumer], now_ms: int) -> Consumer | None:
        """Return who may get messages now; None: nobody.

        waiting: the consumers that take turns, who has been here longest first.
        """
        there = list(waiting)
        if self._active not in there:
            self._active = None
        if not there:
            return None
        active = self._active
        if active is None:
            known = max(there, key=_activated)
            if known.activated:
                return self._activate(known, now_ms)
            if now_ms < self.recall_until_ms:
                return None
        best = max(there, key=_priority)  # of equals the first
        if active is None:
            return self._activate(best, now_ms)
        if best.priority <= active.priority:
            return active
        if active.held:
            return None
        active.activated = 0
        self._news.append(active)
        return self._activate(best, now_ms)

    def news(self) -> list[Consumer]:
        """Return who became active, or is not any more, since the last call."""
        news, self._news = self._news, []
        return news

    def _activate(self, consumer: Consumer, now_ms: int) -> Consumer:
        self._active = consumer
        self._stamp = consumer.activated = max(self._stamp + 1, consumer.activated + 1, now_ms)
        self._news.append(consumer)
        return consumer


def _activated(consumer: Consumer) -> int:
    return consumer.activated


def _priority(consumer: Consumer) -> int:
    return consumer.priority
