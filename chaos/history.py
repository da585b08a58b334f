"""What happened in a run, as data: the one thing that the checkers read. Pure.

Each message is published once and never again, so that its id says all about it. A body carries
all that a checker wants to compare: run, publisher, connection, number, queue and a checksum.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import NamedTuple, get_args


class MessageId(NamedTuple):
    """One publish: who, in which of its connections (`epoch`, rising), its how-manieth."""

    publisher: str
    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class Publish:
    """A publish was sent, to these queues.

    node: through which; 0 if that is not known.
    """

    t: float
    id: MessageId
    queues: tuple[str, ...]
    node: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a publish: "ok" confirmed, "nack", "returned"; without one it is unknown."""

    t: float
    id: MessageId
    type: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """A consumer got a message.

    session: the consumer, anew for each time that it began to consume.
    id: None if the body is not one of ours or damaged.
    """

    t: float
    queue: str
    session: str
    redelivered: bool
    id: MessageId | None
    tag: int


@dataclass(frozen=True, slots=True)
class Settle:
    """A consumer sent an acknowledgement ("ack") or gave back ("requeue")."""

    t: float
    queue: str
    session: str
    tag: int
    type: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A consumer ended in order, on its first connection: its acknowledgements have been taken."""

    t: float
    queue: str
    session: str


@dataclass(frozen=True, slots=True)
class StreamDeclared:
    """A queue is a stream.

    max_bytes: what it keeps at most; None: all.
    """

    t: float
    queue: str
    max_bytes: int | None


@dataclass(frozen=True, slots=True)
class Following:
    """A reader of a stream was told that it reads from now on.

    session: the reader, anew for each time that it began.
    start: "first", "next", "last" or an offset.
    asked: when it asked for that.
    """

    t: float
    queue: str
    session: str
    start: str | int
    prefetch: int
    asked: float


@dataclass(frozen=True, slots=True)
class Read:
    """A reader of a stream got a message.

    offset: -1 if it was told none.
    id: None if the body is not one of ours or damaged.
    size: bytes of the body.
    """

    t: float
    queue: str
    session: str
    offset: int
    id: MessageId | None
    size: int
    tag: int


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """A reader of a stream ended, after nobody published and it had time to read all there was."""

    t: float
    queue: str
    session: str


@dataclass(frozen=True, slots=True)
class Held:
    """A client had an exclusive queue for itself, from `t` to `until`."""

    t: float
    until: float
    client: str
    name: str


@dataclass(frozen=True, slots=True)
class Depth:
    """A passive declare through a node told how many messages wait in a queue.

    phase: "calm", when nobody publishes and nobody consumes; "drained", after consumers have
        taken all; "restarted", after all nodes were killed then.
    count: -1 if it did not tell.
    """

    t: float
    phase: str
    node: int
    queue: str
    count: int


@dataclass(frozen=True, slots=True)
class Operation:
    """A metadata client did something with an object.

    kind: "declare", "delete" or "look" (a passive declare).
    result: "ok", "missing", or "unknown" if no answer came; then `ended` is endless.
    """

    began: float
    ended: float
    client: str
    kind: str
    name: str
    result: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was broken, from `t` to `until`.

    is_down: whether the nodes could not serve meanwhile; else they were only disturbed.
    """

    t: float
    until: float
    kind: str
    nodes: tuple[int, ...]
    is_down: bool = True


@dataclass(frozen=True, slots=True)
class Recovered:
    """After the faults a fresh client had a publish to a queue confirmed through a node.

    after_s: since the faults were over; None if it did not succeed in time.
    """

    t: float
    node: int
    queue: str
    after_s: float | None


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica's state when all had applied the same: a hash of its machine's snapshot."""

    node: int
    group: int
    applied_index: int
    digest: str


Event = (
    Publish
    | Outcome
    | Deliver
    | Settle
    | Ended
    | StreamDeclared
    | Following
    | Read
    | CaughtUp
    | Held
    | Depth
    | Operation
    | Fault
    | Recovered
    | Replica
)
_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
_FIELDS: dict[type, tuple[str, ...]] = {
    kind: tuple(one.name for one in fields(kind)) for kind in get_args(Event)
}


@dataclass
class History:
    """The events of one run in their order."""

    events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Append an event."""
        self.events.append(event)

    def lines(self) -> Iterator[str]:
        """Return one line of JSON an event."""
        return map(line_of, self.events)


def counts_of(events: Iterable[Event]) -> Counter[str]:
    """Return how many messages were published, confirmed, delivered (again), read from streams."""
    counts: Counter[str] = Counter()
    for event in events:
        match event:
            case Publish():
                counts["published"] += 1
            case Outcome(type="ok"):
                counts["confirmed"] += 1
            case Deliver(id=MessageId()):
                counts["redelivered" if event.redelivered else "delivered"] += 1
            case Read():
                counts["read"] += 1
    return counts


def line_of(event: Event) -> str:
    """Return an event as one line of JSON."""
    # Some thousand a second: `asdict`, which copies all values, would be half of a run's own cost.
    kind = type(event)
    return json.dumps(
        {"event": kind.__name__, **{name: getattr(event, name) for name in _FIELDS[kind]}}
    )


def event_of(line: str) -> Event:
    """Return the event that `line_of` made a line of.

    Raises:
        ValueError: it is no such line.
    """
    fields = json.loads(line)
    try:
        kind = _KINDS[fields.pop("event")]
        if fields.get("id") is not None:
            fields["id"] = MessageId(*fields["id"])
        for name in ("queues", "nodes"):
            if name in fields:
                fields[name] = tuple(fields[name])
        return kind(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a line of a history: {line[:200]!r}: {error!r}") from None


def body_of(run: str, id_: MessageId, queues: Iterable[str], size_bytes: int) -> bytes:
    """Return the body of a message, at least `size_bytes` long."""
    text = f"{run}|{id_.publisher}|{id_.epoch}|{id_.number}|{','.join(queues)}|".encode()
    text = text.ljust(size_bytes - 8, b".")
    return text + b"%08x" % zlib.crc32(text)


def id_of(run: str, queue: str, body: bytes) -> MessageId | None:
    """Return whose body it is; None if it is damaged, of another run or for another queue."""
    text, check = body[:-8], body[-8:]
    try:
        if int(check, 16) != zlib.crc32(text):
            return None
        its_run, publisher, epoch, number, queues, _ = text.decode().split("|", 5)
        found = MessageId(publisher, int(epoch), int(number))
    except ValueError:
        return None
    return found if its_run == run and queue in queues.split(",") else None
