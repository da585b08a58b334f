"""Looking at a queue's messages without touching them: nothing is delivered, marked or moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from leveret.amqp.delivery import Record
from leveret.broker.messages import LeadAction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .dispatch import ConsumerKey
    from .lead import Lead
    from .stream_lead import StreamLead

Place = Literal["ready", "unacknowledged", "delayed", "leaving"]
"""leaving: its end, its dead letter or its return is on the way through the log."""

PEEK_MAX: Final = 100
"""Messages of one answer: each may have to be read from the disk."""
PEEK_BYTES_MAX: Final = 256 * 1024
"""Of headers and bodies in one answer, but for the first message; then it ends early."""


class Peeked(NamedTuple):
    """A message as the queue's leader sees it; times are in milliseconds since 1970."""

    position: int
    """Among the live messages, in the order in which they came; the first is 0."""
    sequence: int
    place: Place
    redelivered: bool
    returns: int
    """How often consumers gave it back, where the queue counts that."""
    due_ms: int
    """0: it is not delayed."""
    expires_ms: int
    """0: never."""
    holder: ConsumerKey | None
    held_since_ms: int
    route: bytes
    header: bytes
    body_size: int
    body: bytes
    """The beginning of it."""


class Peek(LeadAction["list[Peeked]"]):
    """Tell of the live messages from position `offset` on."""

    def __init__(self, *, offset: int, count: int, body_bytes: int, only_delayed: bool) -> None:
        super().__init__()
        self._offset = offset
        self._count = min(count, PEEK_MAX)
        self._body_bytes = body_bytes
        self._only_delayed = only_delayed

    def carry_out(self, lead: Lead) -> None:
        """Answer at once."""
        lead.note_lives()
        if self._only_delayed:
            first_due = lead.dispatcher.delayed(self._offset + self._count)
            chosen = list(enumerate(first_due))[self._offset :]
        else:
            first = lead.state.nth_live(self._offset)
            live = lead.state.live_from(first)
            chosen = [
                (self._offset + at, sequence)
                for at, (sequence, _) in zip(range(self._count), live, strict=False)
            ]
        self._answer(self._look(lead, position, sequence) for position, sequence in chosen)

    def carry_out_on_stream(self, lead: StreamLead) -> None:
        """Answer at once; nothing of a stream is delayed, or in anybody's hands."""
        if self._only_delayed:
            self.reply([])
            return
        live = lead.state.live_from(lead.state.nth_live(self._offset))
        self._answer(
            self._described(self._offset + at, sequence, "ready", Record(lead.record(location)))
            for at, (sequence, location) in zip(range(self._count), live, strict=False)
        )

    def _answer(self, looks: Iterable[Peeked | None]) -> None:
        seen: list[Peeked] = []
        size = 0
        for peeked in looks:
            if peeked is None:
                continue
            size += len(peeked.header) + len(peeked.body)
            if seen and size > PEEK_BYTES_MAX:
                break
            seen.append(peeked)
        self.reply(seen)

    def _look(self, lead: Lead, position: int, sequence: int) -> Peeked | None:
        state, dispatcher = lead.state, lead.dispatcher
        location = state.locate(sequence)
        if location is None:
            return None
        holder = dispatcher.holder(sequence)
        place: Place = "leaving"
        if holder is not None:
            place = "unacknowledged"
        elif dispatcher.is_delayed(sequence):
            place = "delayed"
        elif dispatcher.is_ready(sequence):
            place = "ready"
        return self._described(position, sequence, place, Record(lead.record(location)))._replace(
            redelivered=dispatcher.is_redelivered(sequence),
            returns=state.returns.get(sequence, 0),
            due_ms=state.trait("due", sequence) if place == "delayed" else 0,
            expires_ms=state.trait("deadline", sequence),
            holder=None if holder is None else holder.key,
            held_since_ms=0 if holder is None else holder.held[sequence],
        )

    def _described(self, position: int, sequence: int, place: Place, record: Record) -> Peeked:
        return Peeked(
            position=position,
            sequence=sequence,
            place=place,
            redelivered=False,
            returns=0,
            due_ms=0,
            expires_ms=0,
            holder=None,
            held_since_ms=0,
            route=record.route,
            header=record.header,
            body_size=record.body_size,
            body=record.body_start(self._body_bytes),
        )
