"""How much a node does a second: its counters, looked at once a second."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from .replies import Rates, Totals

if TYPE_CHECKING:
    from leveret.broker.connections.counters import Counters

LOOK_S: Final = 0.5
WINDOW: Final = 4
"""Looks that a rate is over: two seconds, as long as one remembers what the number was before."""


class RateMeter:
    """The rates of one node's counters."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._looks: deque[tuple[float, Totals]] = deque(maxlen=WINDOW + 1)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._looks.append((trio.current_time(), self.totals()))
            await trio.sleep(LOOK_S)

    def totals(self) -> Totals:
        """Return what was counted since the node started."""
        counters = self._counters
        return Totals(
            published=counters.published,
            confirmed=counters.confirmed,
            delivered=counters.delivered,
            settled=counters.settled,
        )

    def rates(self) -> Rates:
        """Return how much that was a second lately."""
        if len(self._looks) < 2:
            return Rates(published=0.0, confirmed=0.0, delivered=0.0, settled=0.0)
        (since_s, before), (until_s, now) = self._looks[0], self._looks[-1]
        span_s = until_s - since_s
        return Rates(
            published=(now.published - before.published) / span_s,
            confirmed=(now.confirmed - before.confirmed) / span_s,
            delivered=(now.delivered - before.delivered) / span_s,
            settled=(now.settled - before.settled) / span_s,
        )
