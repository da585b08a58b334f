"""Judges the history of a run with real processes: complaints, and figures beside them. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.checkers import cluster, messages, queues
from chaos.checkers.linear import linearizable
from chaos.checkers.silence import Gap, gaps, gaps_of_any_fault, silence
from chaos.history import Event, Fault, Recovered, counts_of

_COUNTED = re.compile(r"[a-z ]+: (\d+), such as ")


@dataclass(frozen=True)
class Limits:
    """What is promised beside safety, and depends on the machine.

    silence_s: without a confirm of a queue while a majority of the nodes is there.
    recovery_s: from the end of a fault until all nodes serve all queues.
    grace_s: behind a fault, for clients that hear late that they lost what was theirs alone.
    """

    silence_s: float = 30.0
    recovery_s: float = 60.0
    grace_s: float = 20.0


@dataclass
class Verdict:
    """What a run proved.

    complaints: broken promises in words; none is a pass.
    counts: of complaints by their first words, of messages, and of faults by kind.
    """

    complaints: list[str]
    wrong: Counter[str]
    counts: Counter[str]
    faults: Counter[str]
    gaps: list[Gap]
    """The longest silence of each queue while a majority was there."""
    gaps_of_any_fault: list[Gap] = field(default_factory=list)
    """The same, also when no majority was there."""
    recoveries_s: list[float] = field(default_factory=list)
    """How long it took after each step's faults until all nodes served all queues, rising."""

    @property
    def slowest(self) -> float | None:
        """The longest recovery, in seconds."""
        return max(self.recoveries_s, default=None)

    @property
    def is_pass(self) -> bool:
        """Whether all promises were kept."""
        return not self.complaints

    def line(self, seed: int) -> str:
        """Return the last line of a run."""
        gap = max((gap.long_s for gap in self.gaps), default=0.0)
        counts, wrong = self.counts, self.wrong
        return (
            f"{'PASS' if self.is_pass else 'FAIL'} seed={seed} faults={self.faults.total()}"
            f" confirmed={counts['confirmed']:,} lost={wrong['lost']} phantom={wrong['phantom']}"
            f" dup={wrong['unmarked duplicate']}+{counts['redelivered']:,}"
            f" order={wrong['out of order']} depth={wrong['depth'] + wrong['accounts']}"
            f" other={_others(wrong)} gap={gap:.1f}s"
            f" recovery={'-' if self.slowest is None else f'{self.slowest:.1f}s'}"
        )


_NAMED = {"lost", "phantom", "unmarked duplicate", "out of order", "depth", "accounts"}


def _others(wrong: Counter[str]) -> int:
    return sum(count for kind, count in wrong.items() if kind not in _NAMED)


def judge(
    events: Sequence[Event],
    *,
    nodes: int,
    limits: Limits,
    one_consumer: Sequence[str],
    single_active: Sequence[str] = (),
    failures: Sequence[str] = (),
) -> Verdict:
    """Have all checkers look at a history.

    one_consumer: queues that never had two consumers at a time.
    single_active: queues of which one consumer at a time is to get messages.
    failures: what the runner saw of the processes, in words.
    """
    complaints = [
        *messages.lost(events),
        *messages.refused(events),
        *messages.phantom(events),
        *messages.unmarked(events),
        *messages.disorder(events, one_consumer=one_consumer),
        *queues.accounts(events),
        *queues.exclusive(events, grace_s=limits.grace_s),
        *queues.single_active(events, queues=single_active, grace_s=limits.grace_s),
        *cluster.depth(events),
        *cluster.recovery(events, within_s=limits.recovery_s),
        *cluster.replicas(events),
        *silence(events, nodes=nodes, within_s=limits.silence_s),
        *linearizable(events),
        *(f"process: {failure}" for failure in failures),
    ]
    wrong: Counter[str] = Counter()
    for complaint in complaints:
        counted = _COUNTED.match(complaint)
        wrong[complaint.split(":")[0]] += int(counted[1]) if counted else 1
    return Verdict(
        complaints,
        wrong,
        counts_of(events),
        Counter(event.kind for event in events if isinstance(event, Fault)),
        gaps(events, nodes=nodes),
        gaps_of_any_fault(events),
        _recoveries(events),
    )


def _recoveries(events: Sequence[Event]) -> list[float]:
    """Return how long each recovery took until the last node served the last queue, rising."""
    slowest: dict[float, float] = {}
    for event in events:
        if isinstance(event, Recovered) and event.after_s is not None:
            since = round(event.t - event.after_s, 2)
            slowest[since] = max(slowest.get(since, 0.0), event.after_s)
    return sorted(slowest.values())
