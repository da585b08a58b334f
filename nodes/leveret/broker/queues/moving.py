"""Moving messages from one queue to another, each once, whoever leads them meanwhile.

Within a shard one entry of the log takes messages out of one queue and puts them into the other.
Into another log they are published, under numbers of the source's own, and then settled here.  The
hold (see `operating`) says what is on its way: should the leader be no more, its successor goes on
with that under the same numbers, and the destination stores no number twice.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from leveret.amqp.delivery import Record
from leveret.broker.messages import LeadAction, NotForStreams, PublishRun, QueueGone, tell
from leveret.broker.numbering import Numbering

from . import machine
from .message_life import has_life, read_lives, without_delay
from .operating import Busy, hold
from .ranges import to_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from leveret.actors import Ref
    from leveret.broker.messages import ConnectionMessage, QueueMessage

    from .features import QueueFeatures
    from .lead import Lead
    from .state import Location

    _Located = tuple[int, int, Location]
    """The number under which a message is published, its own, and where it is."""

MOVE_MAX: Final = 1_000
MOVE_BYTES_MAX: Final = 4 << 20
"""Messages, and their bytes, of one action; one message may go over."""


class Destination(NamedTuple):
    """The queue to which messages go."""

    uid: int
    ref: Ref[QueueMessage]
    features: QueueFeatures
    is_in_same_log: bool


class Moved(NamedTuple):
    """What an action moved, and whether the destination took no more."""

    messages: int
    is_full: bool


class DestinationGone(Exception):
    """There is no such queue to move to (any more)."""


class Interrupted(Exception):
    """The leader changed: what was under way is moved by the next one, or stays."""


class Move(LeadAction[Moved]):
    """Move the first ready messages to another queue, `MOVE_MAX` at most."""

    def __init__(self, destination: int, count: int) -> None:
        super().__init__()
        self._destination = destination
        self._count = min(count, MOVE_MAX)

    def carry_out(self, lead: Lead) -> None:
        """Answer when all that goes is there.

        Raises (through the answer):
            Busy, DestinationGone, Interrupted, NotForStreams
        """
        destination = lead.destination(self._destination)
        if destination is None:
            self.fail(DestinationGone())
            return
        if destination.features.stream is not None:
            self.fail(NotForStreams())
            return
        if lead.is_acting:
            self.fail(Busy())
            return
        chosen = _choose(lead, self._count)
        if not chosen:
            self.reply(Moved(0, is_full=False))
            return
        _Moving(lead, destination, chosen, self).begin()


class Transfer(PublishRun):
    """Messages on their way into another log, which come home with how many were stored."""

    is_transfer = True

    def __init__(
        self, source: int, first: int, records: list[bytes], home: Callable[[Transfer], None]
    ) -> None:
        """Publish `records` under the numbers of queue `source` from `first` on."""
        super().__init__(
            connection=cast("Ref[ConnectionMessage]", _Home(home)),
            channel=0,
            epoch=0,
            exchange="",
            routing_key="",
            mandatory=False,
            first_confirm=1,
            # No client's publisher has a name with a space.
            numbering=Numbering(f"move {source}", first - 1),
        )
        self.records = records
        self.size_bytes = sum(map(len, records))
        self.has_lives = any(has_life(Record(record).header) for record in records)
        self.waiting = 1

    def gone(self) -> None:
        """Note that nothing was stored: nobody deletes what only passes by."""
        self.answer(taken=0)


class _Home:
    """Where a transfer comes home to, in the place of a connection."""

    def __init__(self, home: Callable[[Transfer], None]) -> None:
        self._home = home

    def tell(self, run: Transfer) -> None:
        self._home(run)


class _Moving:
    """One action on its way."""

    def __init__(
        self, lead: Lead, destination: Destination, chosen: list[int], action: Move
    ) -> None:
        self._lead = lead
        self._destination = destination
        self._chosen = chosen
        self._action = action
        self._marks = {sequence: lead.dispatcher.is_redelivered(sequence) for sequence in chosen}

    def begin(self) -> None:
        lead, destination = self._lead, self._destination
        lead.dispatcher.withdraw(self._chosen)
        if destination.is_in_same_log:
            hold(lead, self._move_here, self._lost)
        else:
            bounds = [bound for pair in to_ranges(self._chosen) for bound in pair]
            hold(lead, self._publish, self._lost, (destination.uid, bounds))

    def _lost(self, error: Exception) -> None:
        self._action.fail(error if isinstance(error, QueueGone) else Interrupted())

    def _move_here(self, number: int, _: int) -> None:
        lead, features = self._lead, self._destination.features
        located = [location for s in self._chosen if (location := lead.state.locate(s)) is not None]
        if len(located) < len(self._chosen):  # purged, or settled by whom nobody knew to hold it
            self._chosen = [s for s in self._chosen if lead.state.locate(s) is not None]
        lives = read_lives([bytes(lead.record(location)) for location in located], features)
        lives.forget_delays()
        command = machine.move(
            lead.uid,
            number,
            to_ranges(self._chosen),
            self._destination.uid,
            lives,
            (features.max_length, features.max_length_bytes),
        )
        replies: list[object] = []
        lead.submit(command, replies.append)
        lead.submit(machine.let_go(lead.uid, number), lambda _: self._moved_here(replies[0]))

    def _moved_here(self, reply: object) -> None:
        match reply:
            case ("done", int(count)):
                self._end(count)
            case machine.ABSENT:
                self._bring_back()
                self._action.fail(DestinationGone())
            case _:
                self._lead.is_acting = False
                self._lost(QueueGone() if reply == machine.GONE else Interrupted())

    def _publish(self, number: int, before: int) -> None:
        numbered = list(enumerate(self._chosen, before + 1))
        _publish(self._lead, self._destination, numbered, self._published, number)

    def _published(self, count: int | None) -> None:
        if count is None:
            self._lost(Interrupted())
        elif count == 0 and self._lead.destination(self._destination.uid) is None:
            self._bring_back()
            self._action.fail(DestinationGone())
        else:
            self._end(count)

    def _end(self, count: int) -> None:
        is_full = self._bring_back() > 0
        self._action.reply(Moved(count, is_full=is_full))

    def _bring_back(self) -> int:
        """Make ready again what did not go; return how many messages that are."""
        lead = self._lead
        lead.is_acting = False
        rest = [s for s in self._chosen if lead.state.locate(s) is not None]
        for was_delivered in (False, True):
            back = [s for s in rest if self._marks[s] == was_delivered]
            lead.dispatcher.bring_back(back, delivered=was_delivered)
        lead.wake()
        return len(rest)


def resume(lead: Lead) -> None:
    """Finish what the hold says that an earlier leader, or instance, was doing; then let go."""
    state = lead.state
    number = state.hold
    if state.intent is not None:
        uid, before, bounds = state.intent
        sequences = [
            s
            for low, high in zip(bounds[::2], bounds[1::2], strict=True)
            for s in range(low, high + 1)
        ]
        numbered = list(enumerate(sequences, before + 1))
        left = [s for s in sequences if state.locate(s) is not None]
        destination = lead.destination(uid)
        if left and destination is not None:
            lead.is_acting = True
            lead.dispatcher.withdraw(left)

            def done(_: int | None) -> None:
                lead.is_acting = False
                rest = [s for s in left if state.locate(s) is not None]
                lead.dispatcher.bring_back(rest, delivered=False)
                lead.wake()

            _publish(lead, destination, numbered, done, number)
            return
    lead.submit(machine.let_go(lead.uid, number), lambda _: None)


def _choose(lead: Lead, count: int) -> list[int]:
    lead.note_lives()
    chosen: list[int] = []
    size = 0
    for sequence in islice(lead.dispatcher.in_order(), count):
        location = lead.state.locate(sequence)
        if location is None:
            continue
        size += location.size
        if chosen and size > MOVE_BYTES_MAX:
            break
        chosen.append(sequence)
    return sorted(chosen)


def _publish(
    lead: Lead,
    destination: Destination,
    numbered: Sequence[tuple[int, int]],
    done: Callable[[int | None], None],
    hold_number: int,
) -> None:
    """Publish messages under their numbers; settle what is stored, let go, and tell how many.

    It tells None if the lead was lost: the next leader does it all once more.
    """
    stored: list[int] = []
    runs: dict[Transfer, list[int]] = {}

    def home(run: Transfer) -> None:
        sequences = runs.pop(run)
        stored.extend(sequences[: run.taken])
        if runs:
            return
        if not lead.is_current:
            done(None)
            return
        lead.submit(machine.settle(lead.uid, to_ranges(stored)), lambda _: None)
        lead.submit(machine.let_go(lead.uid, hold_number), lambda _: done(len(stored)))

    located = [
        (number, sequence, location)
        for number, sequence in numbered
        if (location := lead.state.locate(sequence)) is not None
    ]
    for stretch in _stretches(located):
        records = [without_delay(lead.record(location)) for _, _, location in stretch]
        run = Transfer(lead.uid, stretch[0][0], records, home)
        runs[run] = [sequence for _, sequence, _ in stretch]
    if not runs:
        lead.submit(machine.let_go(lead.uid, hold_number), lambda _: done(0))
    for run in list(runs):
        if not tell(destination.ref, run):
            run.gone()


def _stretches(located: Iterable[_Located]) -> list[list[_Located]]:
    """Return messages in lists whose numbers follow on each other."""
    stretches: list[list[_Located]] = []
    for one in located:
        if stretches and stretches[-1][-1][0] == one[0] - 1:
            stretches[-1].append(one)
        else:
            stretches.append([one])
    return stretches
