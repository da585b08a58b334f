"""Silence: while a majority of the nodes is there, every queue goes on confirming."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chaos.history import Event, Fault, MessageId, Outcome, Publish, Recovered


@dataclass(frozen=True)
class Gap:
    """The longest time without a confirm that a queue owed."""

    queue: str
    began: float
    long_s: float


def silence(events: Iterable[Event], *, nodes: int, within_s: float) -> Iterator[str]:
    """Complain of queues that were silent for too long although a majority was there."""
    for gap in gaps(events, nodes=nodes):
        if gap.long_s > within_s:
            yield (
                f"silence: {gap.queue} confirmed nothing for {gap.long_s:.1f} s"
                f" from {gap.began:.3f}"
            )


def gaps(events: Iterable[Event], *, nodes: int) -> list[Gap]:
    """Return the longest gap of each queue that touches no loss of a majority.

    A gap is a time without a confirm while one was owed: from the confirm before it, or from the
    publish that ended a time in which nothing was owed. What was published through a node that
    was down meanwhile is not owed: its client waits for that node, or looks for another one.
    nodes: of the cluster; a fault names those that it took down.
    """
    events = list(events)
    return _longest(
        events,
        not_owed=_through_lost_nodes(events),
        not_judged=_Times(without_majority(events, nodes=nodes)),
    )


def gaps_of_any_fault(events: Iterable[Event]) -> list[Gap]:
    """Return the longest gap of each queue, whatever was lost meanwhile; for the report alone."""
    events = list(events)
    answered = {event.id for event in events if isinstance(event, Outcome)}
    never = {event.id for event in events if isinstance(event, Publish)} - answered
    return _longest(events, not_owed=never, not_judged=_Times([]))


def _longest(events: Sequence[Event], *, not_owed: set[MessageId], not_judged: _Times) -> list[Gap]:
    owed: dict[str, set[MessageId]] = {}
    queues: dict[MessageId, tuple[str, ...]] = {}
    heard: dict[str, float] = {}
    longest: dict[str, Gap] = {}
    for event in events:
        match event:
            case Publish():
                queues[event.id] = event.queues
                if event.id in not_owed:
                    continue
                for queue in event.queues:
                    waiting = owed.setdefault(queue, set())
                    if not waiting:
                        heard[queue] = event.t
                    waiting.add(event.id)
            case Outcome():
                for queue in queues.pop(event.id, ()):
                    waiting = owed.setdefault(queue, set())
                    if not waiting:
                        continue
                    gap = Gap(queue, heard[queue], event.t - heard[queue])
                    heard[queue] = event.t
                    waiting.discard(event.id)
                    before = longest.get(queue)
                    if before is not None and before.long_s >= gap.long_s:
                        continue
                    if not not_judged.touch(gap.began, event.t):
                        longest[queue] = gap
    return [longest[queue] for queue in sorted(longest)]


def _through_lost_nodes(events: Iterable[Event]) -> set[MessageId]:
    """Return what waited for its answer from a node that was down meanwhile.

    What was never answered is there too: its connection was lost.
    """
    events = list(events)
    down: dict[int, list[tuple[float, float]]] = {}
    for begin, end, node in _downs(events):
        down.setdefault(node, []).append((begin, end))
    times = defaultdict(lambda: _Times([]), {node: _Times(spans) for node, spans in down.items()})
    answered = {event.id: event.t for event in events if isinstance(event, Outcome)}
    return {
        event.id
        for event in events
        if isinstance(event, Publish)
        and (event.id not in answered or times[event.node].touch(event.t, answered[event.id]))
    }


def without_majority(events: Iterable[Event], *, nodes: int) -> list[tuple[float, float]]:
    """Return the times in which so many nodes were down that no majority was left.

    A node counts as down until the cluster was seen to serve after its fault.
    """
    changes = sorted(
        change
        for begin, end, node in _downs(events)
        for change in ((begin, 1, node), (end, -1, node))
    )
    down: dict[int, int] = {}
    found: list[tuple[float, float]] = []
    since: float | None = None
    for t, step, node in changes:
        down[node] = down.get(node, 0) + step
        lost = sum(count > 0 for count in down.values())
        if lost > (nodes - 1) // 2:
            since = t if since is None else since
        elif since is not None:
            found.append((since, t))
            since = None
    return found


def _downs(events: Iterable[Event]) -> list[tuple[float, float, int]]:
    """Return when each node was down: from its fault until the cluster was seen to serve again."""
    events = list(events)
    served = sorted(event.t for event in events if isinstance(event, Recovered))
    return [
        (event.t, _next(served, event.until), node)
        for event in events
        if isinstance(event, Fault) and event.is_down
        for node in event.nodes
    ]


def _next(times: list[float], t: float) -> float:
    """Return the first of the times from `t` on: a node that was started does not serve at once."""
    at = bisect_left(times, t)
    return times[at] if at < len(times) else t


class _Times:
    """Times from a begin to an end, which may overlap; looked through for each of a million."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        for begin, end in sorted(spans):
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def touch(self, begin: float, end: float) -> bool:
        """Tell whether one of them has a moment in common with the time between these two."""
        at = bisect_right(self._ends, begin)
        return at < len(self._begins) and self._begins[at] < end
