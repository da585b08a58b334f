"""Queues: their depths fit what came and went, and what is for one alone is one's alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from chaos.history import (
    Deliver,
    Depth,
    Ended,
    Event,
    Fault,
    Held,
    MessageId,
    Outcome,
    Publish,
    Settle,
)

FLIPS_A_FAULT = 3


def accounts(events: Iterable[Event]) -> Iterator[str]:
    """Complain of depths in the calm that do not fit what was published and acknowledged.

    At least there: what was confirmed, and no acknowledgement of it was sent. At most there: what
    was published and not returned, without what was acknowledged for sure, which is so if the
    consumer's session ended in order. More than that is a message stored twice, or a ghost.
    """
    published: Counter[str] = Counter()
    confirmed: dict[str, set[MessageId]] = {}
    queues: dict[MessageId, tuple[str, ...]] = {}
    held: dict[tuple[str, str, int], MessageId] = {}
    acked: dict[str, set[MessageId]] = {}
    by_session: dict[tuple[str, str], set[MessageId]] = {}
    settled: dict[str, set[MessageId]] = {}
    for event in events:
        match event:
            case Publish():
                queues[event.id] = event.queues
                published.update(event.queues)
            case Outcome(type="ok"):
                for queue in queues.get(event.id, ()):
                    confirmed.setdefault(queue, set()).add(event.id)
            case Outcome(type="returned"):
                published.subtract(queues.get(event.id, ()))
            case Deliver(id=MessageId() as id_):
                held[event.queue, event.session, event.tag] = id_
            case Settle(type="ack"):
                taken = held.pop((event.queue, event.session, event.tag), None)
                if taken is not None:
                    acked.setdefault(event.queue, set()).add(taken)
                    by_session.setdefault((event.queue, event.session), set()).add(taken)
            case Ended():
                done = by_session.pop((event.queue, event.session), set())
                settled.setdefault(event.queue, set()).update(done)
            case Depth(phase="calm"):
                queue = event.queue
                least = len(confirmed.get(queue, set()) - acked.get(queue, set()))
                most = published[queue] - len(settled.get(queue, ()))
                if event.count == -1:
                    yield f"accounts: node {event.node} did not tell the depth of {queue}"
                elif not least <= event.count <= most:
                    yield (
                        f"accounts: {queue} has {event.count} through node {event.node}, between"
                        f" {least} and {most} were left"
                    )


def exclusive(events: Iterable[Event], *, grace_s: float) -> Iterator[str]:
    """Complain of two clients that had the same exclusive queue at once, away from any fault.

    A client that is cut off does not hear at once that its queue was given up; so what touches a
    fault, or the `grace_s` behind it, is not judged.
    """
    events = list(events)
    faults = _blurred(events, grace_s=grace_s)
    latest: dict[str, Held] = {}
    for event in sorted((e for e in events if isinstance(e, Held)), key=lambda held: held.t):
        before = latest.get(event.name)
        if (
            before is not None
            and event.t < before.until
            and not any(begin <= event.t <= end for begin, end in faults)
        ):
            yield (
                f"exclusive: {event.client} had {event.name} at {event.t:.3f}, while"
                f" {before.client} had it until {before.until:.3f}"
            )
        if before is None or event.until > before.until:
            latest[event.name] = event


def single_active(
    events: Iterable[Event], *, queues: Iterable[str], grace_s: float
) -> Iterator[str]:
    """Complain of queues with a single active consumer that had two, or changed them too often.

    A session that was succeeded by another must not get messages again, away from any fault. Each
    has its turn; how often one may come back during faults has a bound.
    """
    events = list(events)
    faults = _blurred(events, grace_s=grace_s)
    watched = set(queues)
    active: dict[str, str] = {}
    former: dict[str, set[str]] = {queue: set() for queue in watched}
    flips: Counter[str] = Counter()
    for event in events:
        if not isinstance(event, Deliver) or event.queue not in watched:
            continue
        queue, session = event.queue, event.session
        before = active.get(queue)
        if before == session:
            continue
        is_blurred = any(begin <= event.t <= end for begin, end in faults)
        if session in former[queue] and not is_blurred:
            yield (
                f"single active: {session} got from {queue} at {event.t:.3f}, though {before} had"
                " succeeded it"
            )
        if session in former[queue]:
            flips[queue] += 1
        if before is not None:
            former[queue].add(before)
        active[queue] = session
    most = FLIPS_A_FAULT * (len(faults) + 1)
    for queue, count in flips.items():
        if count > most:
            yield f"single active: {queue} changed back {count} times, {most} at most"


def _blurred(events: Iterable[Event], *, grace_s: float) -> list[tuple[float, float]]:
    return [(event.t, event.until + grace_s) for event in events if isinstance(event, Fault)]
