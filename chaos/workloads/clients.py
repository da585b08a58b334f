"""What all clients of a run share: the queues, the cluster's addresses, the history, the clock."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from chaos.history import MessageId, body_of
from chaos.members import Members
from chaos.recorder import Recorder

ORDERS: Final = "orders"
"""One consumer at a time, of either kind: the order of all its deliveries can be told."""
WORK: Final = "work"
"""Two consumers, one of each kind."""
KEPT: Final = "kept"
"""Nobody consumes from it until the faults are over; all its messages are published exactly once,
whatever its publisher had to send again."""
SINGLE: Final = "single"
"""Two consumers, of which the broker lets one at a time have messages."""
QUEUES: Final = (ORDERS, WORK, KEPT, SINGLE)
ONE_CONSUMER: Final = (ORDERS, KEPT)
EXCHANGE: Final = "both"
SIZES: Final = (60, 60, 200, 200, 1000, 6000)
"""Octets of bodies."""


class Pace(NamedTuple):
    """How a publisher publishes: messages a second, and how many of them at once."""

    rate: float
    bursts: tuple[int, ...] = (1, 1, 2, 5, 12, 40)

    def pause_s(self, rng: Random) -> float:
        """Draw the time until the next burst."""
        return rng.expovariate(self.rate * len(self.bursts) / sum(self.bursts))


class Route(NamedTuple):
    """Where a message may be published to."""

    exchange: str
    routing_key: str
    queues: tuple[str, ...]


ROUTES: Final = (
    Route("", ORDERS, (ORDERS,)),
    Route("", WORK, (WORK,)),
    Route(EXCHANGE, "", (ORDERS, WORK)),
)
KEPT_ROUTES: Final = (Route("", KEPT, (KEPT,)),)
ALL_ROUTES: Final = (*ROUTES, *KEPT_ROUTES, Route("", SINGLE, (SINGLE,)))


@dataclass
class Clients:
    """The clients of one run. Those in threads read the flags, too.

    run: in all bodies, so that another run's messages are known.
    """

    cluster: Members
    history: Recorder
    run: str
    seed: int
    publishing: bool = True
    consuming: bool = True
    is_draining: bool = False
    """Consumers acknowledge at once and stay."""
    confirmed_by: Counter[int] = field(default_factory=Counter)
    """Confirms by the number of the node through which they came."""
    trouble: Counter[str] = field(default_factory=Counter)
    """Errors that clients met and went on from, by their kind; for the report alone."""
    began_s: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Return the time since the begin of the run, in any thread."""
        return round(time.monotonic() - self.began_s, 6)

    def rng(self, name: str) -> Random:
        """Return the source of all that the client of this name draws."""
        return Random(f"chaos/{self.seed}/{name}")

    def body(self, id_: MessageId, queues: tuple[str, ...], rng: Random) -> bytes:
        """Return the body of a message."""
        return body_of(self.run, id_, queues, rng.choice(SIZES))
