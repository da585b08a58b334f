"""Messages: none lost, none made up, none twice without the mark, none out of order.

What is promised: a confirmed message is delivered until it is acknowledged, at least once; a second
delivery is marked; deliveries that are not marked keep the order of publishing, per publisher's
connection and queue. What no answer came for may be there or not.

Of two clients the one that was sent a message first may hear of it last: a former leader's
delivery can be late on its way while the next leader's, which is marked, is not. So between two
sessions it is promised that at most one delivery is unmarked, and within one that it is the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chaos.history import Deliver, Event, MessageId, Outcome, Publish, StreamDeclared

SHOWN = 3
"""How many examples a complaint names."""


def lost(events: Iterable[Event]) -> Iterator[str]:
    """Complain of messages that were confirmed and never delivered, by the end of a drain.

    Of streams, from which nothing is taken, `streams` looks after.
    """
    streams: set[str] = set()
    queues: dict[MessageId, tuple[str, ...]] = {}
    confirmed: dict[MessageId, float] = {}
    delivered: set[tuple[str, MessageId]] = set()
    for event in events:
        match event:
            case StreamDeclared():
                streams.add(event.queue)
            case Publish():
                queues[event.id] = event.queues
            case Outcome(type="ok"):
                confirmed[event.id] = event.t
            case Deliver(id=MessageId() as id_):
                delivered.add((event.queue, id_))
    missing = [
        f"{shown(id_)} in {queue}, confirmed at {t:.3f}"
        for id_, t in confirmed.items()
        for queue in queues[id_]
        if queue not in streams and (queue, id_) not in delivered
    ]
    yield from complaint("lost", missing)


def refused(events: Iterable[Event]) -> Iterator[str]:
    """Complain of messages that were returned or refused although their queues were there."""
    yield from complaint(
        "refused",
        [
            f"{shown(event.id)} {event.type} at {event.t:.3f}"
            for event in events
            if isinstance(event, Outcome) and event.type in {"returned", "nack"}
        ],
    )


def phantom(events: Iterable[Event]) -> Iterator[str]:
    """Complain of deliveries that nobody published there, or that are damaged."""
    queues: dict[MessageId, tuple[str, ...]] = {}
    found = []
    for event in events:
        match event:
            case Publish():
                queues[event.id] = event.queues
            case Deliver(id=None):
                found.append(f"damaged in {event.queue} at {event.t:.3f}")
            case Deliver(id=MessageId() as id_) if event.queue not in queues.get(id_, ()):
                found.append(f"{shown(id_)} in {event.queue} at {event.t:.3f}")
    yield from complaint("phantom", found)


def unmarked(events: Iterable[Event]) -> Iterator[str]:
    """Complain of second deliveries that are not marked as redelivered."""
    unmarked: dict[tuple[str, MessageId], Deliver] = {}
    first: dict[tuple[str, MessageId], Deliver] = {}
    found = []
    for event in events:
        if not isinstance(event, Deliver) or event.id is None:
            continue
        before = first.setdefault((event.session, event.id), event)
        if event.redelivered:
            continue
        if before is event:
            before = unmarked.setdefault((event.queue, event.id), event)
        if before is not event:
            found.append(
                f"{shown(event.id)} from {event.queue} to {before.session} at"
                f" {before.t:.3f} and to {event.session} at {event.t:.3f}"
            )
    yield from complaint("unmarked duplicate", found)


def disorder(events: Iterable[Event], *, one_consumer: Iterable[str]) -> Iterator[str]:
    """Complain of unmarked deliveries behind a later one of the same publisher's connection.

    one_consumer: queues that never had two consumers at a time, whose deliveries have one order;
        with several consumers only those of one session do.
    """
    alone = set(one_consumer)
    newest: dict[tuple[str, str, str, int], Deliver] = {}
    found = []
    for event in events:
        if not isinstance(event, Deliver) or event.id is None or event.redelivered:
            continue
        session = "" if event.queue in alone else event.session
        stream = event.queue, session, event.id.publisher, event.id.epoch
        before = newest.get(stream)
        if before is not None and before.id is not None and event.id.number < before.id.number:
            found.append(
                f"{shown(event.id)} from {event.queue} at {event.t:.3f} behind"
                f" {before.id.number} at {before.t:.3f}"
            )
        else:
            newest[stream] = event
    yield from complaint("out of order", found)


def shown(id_: MessageId) -> str:
    """Return a message's id for people."""
    return f"{id_.publisher}/{id_.epoch}/{id_.number}"


def complaint(what: str, found: list[str]) -> Iterator[str]:
    """Make one complaint of all that was found of a kind; none of nothing."""
    if found:
        yield f"{what}: {len(found)}, such as {'; '.join(found[:SHOWN])}"
