"""The cluster after the faults: it works again, its queues are empty, its replicas are equal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chaos.history import Depth, Event, Recovered, Replica


def depth(events: Iterable[Event]) -> Iterator[str]:
    """Complain of queues that are not empty after the drain, or not any more after a restart."""
    for event in events:
        match event:
            case Depth(phase="calm"):
                pass  # `accounts` looks at it
            case Depth(count=-1):
                yield f"depth: node {event.node} did not tell that of {event.queue} ({event.phase})"
            case Depth(phase="drained") if event.count:
                yield (
                    f"depth: {event.queue} has {event.count} through node {event.node} after"
                    " the drain"
                )
            case Depth() if event.count:
                yield (
                    f"resurrected: {event.queue} has {event.count} through node {event.node}"
                    f" ({event.phase})"
                )


def recovery(events: Iterable[Event], *, within_s: float) -> Iterator[str]:
    """Complain of nodes through which a queue did not confirm soon after the faults were over."""
    for event in events:
        if isinstance(event, Recovered) and (event.after_s is None or event.after_s > within_s):
            after = "never" if event.after_s is None else f"after {event.after_s:.1f} s"
            yield f"recovery: {event.queue} through node {event.node} confirmed {after}"


def replicas(events: Iterable[Event]) -> Iterator[str]:
    """Complain of replicas that differ in what they applied last or in their state then."""
    first: dict[int, Replica] = {}
    for event in events:
        if isinstance(event, Replica):
            one = first.setdefault(event.group, event)
            if (one.applied_index, one.digest) != (event.applied_index, event.digest):
                yield (
                    f"replicas: group {event.group} is at {one.applied_index} {one.digest} on node"
                    f" {one.node}, at {event.applied_index} {event.digest} on node {event.node}"
                )
