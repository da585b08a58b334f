"""What connections, exchanges and queues tell each other.

Messages cross a mailbox in batches: a `PublishRun` carries all consecutive publishes of one
channel with the same route, a `Deliver` all messages that one consumer gets in one turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, TypeVar

from leveret.actors import ActorStopped, Ref, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .budget import Budget
    from .firehose import Origin
    from .numbering import Numbering
    from .queues.features import QueueFeatures
    from .queues.lead import Lead
    from .queues.machine import Effect
    from .queues.stream_lead import StreamLead

M = TypeVar("M")
R = TypeVar("R")

ALL: Final = 1 << 62
"""More messages than a run has."""

MESSAGE_BYTES: Final = 256
"""What a message under way counts besides its bytes: bounds how many small ones there may be."""


class PublishRun:
    """Consecutive messages of one channel with one exchange and routing key.

    It travels connection → exchange → queues, and comes home to the connection when every
    queue has it (or when nothing was bound to take it).
    """

    __slots__ = (
        "budget",
        "channel",
        "connection",
        "copies",
        "epoch",
        "exchange",
        "first_confirm",
        "follower",
        "has_lives",
        "is_routed",
        "is_told",
        "mandatory",
        "numbering",
        "origin",
        "records",
        "routing_key",
        "size_bytes",
        "taken",
        "waiting",
    )
    visited: frozenset[str] = frozenset()
    """Queues that must not get it."""
    is_unroutable = False
    """No queue was to take it; asked only of dead letters."""
    is_transfer = False
    """It comes from another queue: what is too much stays there, whatever happens at the limit."""

    def __init__(
        self,
        *,
        connection: Ref[ConnectionMessage],
        channel: int,
        epoch: int,
        exchange: str,
        routing_key: str,
        mandatory: bool,
        first_confirm: int,
        numbering: Numbering | None = None,
    ) -> None:
        self.connection = connection
        self.channel = channel
        self.epoch = epoch
        """Which opening of the channel number this belongs to."""
        self.exchange = exchange
        self.routing_key = routing_key
        self.mandatory = mandatory
        self.first_confirm = first_confirm
        """The first message's confirm number; 0 without confirms."""
        self.numbering = numbering
        """Whose numbers the messages have, for queues to store each once; None: nobody's."""
        self.records: list[bytes] = []
        """The messages in their stored form."""
        self.size_bytes = 0
        self.waiting = 0
        """Queues that have not answered yet."""
        self.is_told = False
        """It is in its exchange's mailbox, or further."""
        self.is_routed = False
        self.follower: tuple[Ref[PublishRun], PublishRun] | None = None
        """The channel's next run, for another exchange: it goes there when this one is routed.
        So a queue gets a channel's messages in order, though exchanges work side by side."""
        self.taken = ALL
        """A queue could not take the messages from this one on: the publisher gets a nack."""
        self.has_lives = False
        """Some message expires, or is delayed."""
        self.copies: tuple[str, ...] = ()
        """Further routing keys, of a run of one message."""
        self.origin: Origin | None = None
        """Who published it, if its virtual host is traced."""
        self.budget: Budget | None = None
        """Where it is counted until it comes home, though its connection may be gone by then."""

    @property
    def cost_bytes(self) -> int:
        """What it counts in its publisher's flow."""
        return self.size_bytes + MESSAGE_BYTES * len(self.records)

    @property
    def refused(self) -> bool:
        """Whether some queue could not take some of it."""
        return self.taken < len(self.records)

    @property
    def first_number(self) -> int:
        """The publisher's number of the first message, if there is a numbering."""
        assert self.numbering is not None
        return self.numbering.after + self.first_confirm

    def split(self) -> list[PublishRun]:
        """Return a run of its own for each message."""
        runs = []
        for position, record in enumerate(self.records):
            run = PublishRun(
                connection=self.connection,
                channel=self.channel,
                epoch=self.epoch,
                exchange=self.exchange,
                routing_key=self.routing_key,
                mandatory=self.mandatory,
                first_confirm=self.first_confirm and self.first_confirm + position,
                numbering=self.numbering,
            )
            run.records.append(record)
            run.size_bytes = len(record)
            run.has_lives = self.has_lives
            run.copies = self.copies
            run.origin = self.origin
            run.budget = self.budget
            runs.append(run)
        return runs

    def goes_before(self, other: PublishRun, exchange: Ref[PublishRun]) -> None:
        """Have `other`, the channel's next run, routed by `exchange` after this one."""
        if self.is_routed or (self.is_told and self.exchange == other.exchange):
            other.is_told = True
            if not tell(exchange, other):
                other.lose()
        else:
            self.follower = (exchange, other)

    def routed(self) -> None:
        """Note that the queues have it in their mailboxes, and let the next runs go."""
        self.is_routed = True
        before = self
        # A loop, since there may be thousands of them, and none of their exchanges left.
        while before.follower is not None:
            exchange, run = before.follower
            if not before.is_routed and before.exchange != run.exchange:
                break
            before.follower = None
            run.is_told = True
            if not tell(exchange, run):
                run.taken = 0
                run.go_home()
                run.is_routed = True
            before = run

    def turn_away(self, queues: int) -> None:
        """Note that so many queues would have got it, and must not; for who asks for that."""

    def end(self) -> None:
        """Send it home without a queue: its exchange is gone."""
        self.go_home()
        self.routed()

    def lose(self) -> None:
        """Send it home unconfirmed: its exchange's actor is no more, as when the node ends.

        An exchange that is deleted takes no message either, but its publisher is not to be told
        that a message is safe because an actor was not there to look for queues.
        """
        self.taken = 0
        self.end()

    def count_in(self, budget: Budget) -> None:
        """Count it until it goes home."""
        self.budget = budget
        budget.take(self.cost_bytes)

    def go_home(self) -> None:
        """Tell the connection that every queue has it, or refused it; called once."""
        if self.budget is not None:
            self.budget.give(self.cost_bytes)
            self.budget = None
        tell(self.connection, self)

    def gone(self) -> None:
        """Note that one queue is deleted, so that nothing has to be stored there."""
        self.answer()

    def answer(self, *, taken: int = ALL) -> None:
        """Note that one queue took the first `taken` messages; the last one sends the run home."""
        self.taken = min(self.taken, taken)
        self.waiting -= 1
        if self.waiting <= 0:
            self.go_home()


class Returned:
    """To the connection: nothing was bound to take these mandatory messages."""

    __slots__ = ("run",)

    def __init__(self, run: PublishRun) -> None:
        self.run = run


Start = tuple[str, int]
"""Where a consumer of a stream begins: what `stream_arguments` says, or at a `SEQUENCE`."""

SEQUENCE: Final = "sequence"


class StreamPosition:
    """How far a consumer of a stream is on its channel."""

    __slots__ = ("origin", "start")

    def __init__(self, start: Start) -> None:
        self.start = self.origin = start
        """Where the leader is to have it go on, and where it began."""

    @property
    def is_known(self) -> bool:
        """Whether some leader has said where the consumer begins."""
        return self.start[0] == SEQUENCE

    def began(self, sequence: int) -> None:
        """Note what the leader took `start` for: the next leader must not take it for another."""
        if not self.is_known:
            self.start = self.origin = (SEQUENCE, sequence)

    def take(self, message: Deliver) -> Sequence[int]:
        """Go on behind `message`; take out, and return, what the channel had before.

        That was handed out twice: by one attachment, and by the next one that did not know yet.
        """
        known = bisect_left(message.sequences, self.start[1]) if self.is_known else 0
        repeated = message.sequences[:known]
        message.sequences = message.sequences[known:]
        message.records = message.records[known:]
        if message.sequences:
            self.start = (SEQUENCE, message.sequences[-1] + 1)
        return repeated


class LocalConsumer:
    """A consumer on its channel's node; the channel owns it, the queue's actor refers to it."""

    __slots__ = (
        "activated",
        "channel",
        "connection",
        "default_timeout_ms",
        "exclusive",
        "no_ack",
        "number",
        "prefetch",
        "priority",
        "stream",
        "tag",
        "takes_turns",
        "timeout_ms",
        "unreported",
    )

    def __init__(
        self,
        *,
        number: int,
        connection: Ref[ConnectionMessage],
        channel: int,
        tag: str | None,
        no_ack: bool,
        exclusive: bool,
        prefetch: int,
        priority: int,
        stream: StreamPosition | None = None,
    ) -> None:
        self.number = number
        """Unique on this node until it restarts."""
        self.connection = connection
        self.channel = channel
        self.tag = tag
        """None: not a consumer but the holder of what basic.get took."""
        self.takes_turns = tag is not None
        """False once it is cancelled: it only holds what is not acknowledged yet."""
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = prefetch
        self.priority = priority
        self.stream = stream
        """None: its queue is not a stream."""
        self.timeout_ms: int | None = None
        """How long it may hold a message, if it said so; 0: for ever."""
        self.default_timeout_ms = 0
        """The same, where neither it nor its queue says anything."""
        self.activated = 0
        """By which number it is the single active one of its queue; 0: it is not."""
        self.unreported: Written | None = None
        """What was written, and is not worth telling yet."""


class Deliver:
    """To the connection: messages for one of its consumers."""

    __slots__ = ("attachment", "consumer", "records", "redelivered", "sequences", "uid")

    def __init__(
        self,
        uid: int,
        consumer: LocalConsumer,
        attachment: int,
        sequences: Sequence[int],
        redelivered: Sequence[bool],
        records: Sequence[bytes | memoryview],
    ) -> None:
        self.uid = uid
        self.consumer = consumer
        self.attachment = attachment
        """Of the consumer, by which the leader handed them out; `Written` gives it back."""
        self.sequences = sequences
        self.redelivered = redelivered
        self.records = records


def unseen(message: Deliver, start: int = 0) -> list[tuple[bool, list[int]]]:
    """Return what to give back of `message` from position `start` on: delivered before or not.

    Who was delivered before stays marked as redelivered, though nobody saw it this time.
    """
    pairs = list(zip(message.sequences, message.redelivered, strict=True))[start:]
    fresh = [sequence for sequence, again in pairs if not again]
    old = [sequence for sequence, again in pairs if again]
    return [(again, part) for again, part in ((False, fresh), (True, old)) if part]


class LeaderChanged:
    """To the connection: attach this consumer again, with what its channel holds."""

    __slots__ = ("consumer", "uid")

    def __init__(self, uid: int, consumer: LocalConsumer) -> None:
        self.uid = uid
        self.consumer = consumer


class ConsumerCancelled:
    """To the connection: the queue of this consumer is gone."""

    __slots__ = ("consumer", "uid")

    def __init__(self, uid: int, consumer: LocalConsumer) -> None:
        self.uid = uid
        self.consumer = consumer


class ConsumerTimedOut(ConsumerCancelled):
    """To the connection: this consumer held messages for too long, and gets no others."""

    __slots__ = ("sequences",)

    def __init__(self, uid: int, consumer: LocalConsumer, sequences: Sequence[int]) -> None:
        super().__init__(uid, consumer)
        self.sequences = sequences
        """What was taken from it; its client may still try to settle that."""


class QueueGone(Exception):
    """The queue was deleted while the request was under way."""


class ExclusiveUse(Exception):
    """A consumer has, or wants, the queue for itself and there is another."""


class QueueRequest(Request[R]):
    """What only the queue's leader can answer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_withdrawn = False
        """Nobody waits for the answer any more: it is not to be sent again."""


class Attach(QueueRequest[None]):
    """Register a consumer; asked when new, told `again` after a change of leader.

    Raises (through the answer):
        ExclusiveUse, QueueGone
    """

    def __init__(
        self, consumer: LocalConsumer, held: Sequence[int] = (), *, again: bool = False
    ) -> None:
        super().__init__()
        self.consumer = consumer
        self.held = held
        """Sequence numbers that the channel holds from before."""
        self._start = None if consumer.stream is None else consumer.stream.start
        self.again = again
        """Nobody waits for the answer."""

    def goes_on_as(self, other: Attach) -> None:
        """Take over from a later telling of the same consumer what its channel has."""
        self.held, self._start = other.held, other._start

    @property
    def start(self) -> Start:
        """Where a consumer of a stream begins: of the moment when `held` was true."""
        stream = self.consumer.stream
        assert stream is not None
        assert self._start is not None
        # If nobody knew then where it begins, it had nothing.
        return self._start if self._start[0] == SEQUENCE else stream.origin


class Cancel(QueueRequest[None]):
    """Take a consumer out; the answer comes behind its last delivery."""

    def __init__(self, consumer: LocalConsumer) -> None:
        super().__init__()
        self.consumer = consumer


class Detach:
    """The channel is done with the consumer: what it holds is ready again."""

    __slots__ = ("consumer",)

    def __init__(self, consumer: LocalConsumer) -> None:
        self.consumer = consumer


class Settle:
    """These messages are done with: acknowledged or dropped."""

    __slots__ = ("sequences",)

    def __init__(self, sequences: Sequence[int]) -> None:
        self.sequences = sequences


class Credit:
    """The client is done with these messages of a stream, and has room for as many others."""

    __slots__ = ("consumer", "sequences")

    def __init__(self, consumer: LocalConsumer, sequences: Sequence[int]) -> None:
        self.consumer = consumer
        self.sequences = sequences


class Reject:
    """The client does not want these messages, and nobody else shall have them."""

    __slots__ = ("consumer", "sequences")

    def __init__(self, consumer: LocalConsumer, sequences: Sequence[int]) -> None:
        self.consumer = consumer
        self.sequences = sequences


class GiveBack:
    """These messages return to their places; `delivered` is False if no client ever saw them."""

    __slots__ = ("consumer", "delivered", "sequences")

    def __init__(
        self, consumer: LocalConsumer, sequences: Sequence[int], *, delivered: bool
    ) -> None:
        self.consumer = consumer
        self.sequences = sequences
        self.delivered = delivered


class Written:
    """This many messages of the consumer's left for its socket, or were given back unseen.

    Each message of a `Deliver` is told so once, several of them together: the consumer's window
    opens by it.
    """

    __slots__ = ("attachment", "consumer", "count", "size_bytes")

    def __init__(
        self, consumer: LocalConsumer, attachment: int, count: int, size_bytes: int
    ) -> None:
        self.consumer = consumer
        self.attachment = attachment
        self.count = count
        self.size_bytes = size_bytes


class Adjust:
    """The consumer's prefetch changed, or its channel is at its own limit, or has room again."""

    __slots__ = ("consumer", "paused")

    def __init__(self, consumer: LocalConsumer, *, paused: bool) -> None:
        self.consumer = consumer
        self.paused = paused


class Got:
    """The answer to `Get` with a message."""

    __slots__ = ("ready", "record", "redelivered", "sequence")

    def __init__(
        self, sequence: int, record: bytes | memoryview, *, redelivered: bool, ready: int
    ) -> None:
        self.sequence = sequence
        self.record = record
        self.redelivered = redelivered
        self.ready = ready
        """Ready messages that are left."""


class Get(QueueRequest["Got | None"]):
    """Take one message, for `holder` unless `holder.no_ack`."""

    def __init__(self, holder: LocalConsumer) -> None:
        super().__init__()
        self.consumer = holder


class QueueCounts:
    """How full a queue is: what queue.declare-ok and delete-ok report."""

    __slots__ = ("consumers", "ready", "unacked")

    def __init__(self, ready: int, unacked: int, consumers: int) -> None:
        self.ready = ready
        self.unacked = unacked
        self.consumers = consumers


class Count(QueueRequest[QueueCounts]):
    """Ask how full the queue is."""


class Purge(QueueRequest[int]):
    """Remove all ready messages; the answer is how many there were."""


class NotLeading(Exception):
    """Another node leads the queue, or none does now."""


class NotForStreams(Exception):
    """The queue is a stream, with which this cannot be done."""


class LeadAction(Request[R], ABC):
    """To the queue: do what an operator wants of its leader, where that is this node.

    Raises (through the answer):
        NotLeading, QueueGone, NotForStreams
    """

    @abstractmethod
    def carry_out(self, lead: Lead) -> None:
        """Do it, between two batches; answer now, or when the log has it."""

    def carry_out_on_stream(self, lead: StreamLead) -> None:
        """As `carry_out`, on a stream; most of what is done to queues means nothing there."""
        del lead
        self.fail(NotForStreams())


class RoleChanged:
    """To the queue: its shard's leader changed, or became known."""


class Applied:
    """To the queue: its shard applied these effects, all of this queue."""

    __slots__ = ("effects",)

    def __init__(self, effects: list[Effect]) -> None:
        self.effects = effects


class PeerMessage:
    """To the queue: another node's actor of the same queue says `body`."""

    __slots__ = ("body", "node")

    def __init__(self, node: int, body: tuple[object, ...]) -> None:
        self.node = node
        self.body = body


class PeerUp:
    """To the queue: the link to a node is there (again)."""

    __slots__ = ("node",)

    def __init__(self, node: int) -> None:
        self.node = node


class PeerDown:
    """To the queue: the link to a node broke; nothing of it comes any more."""

    __slots__ = ("node",)

    def __init__(self, node: int) -> None:
        self.node = node


class FeaturesChanged:
    """To the queue: a policy makes it have other features from now on."""

    __slots__ = ("features",)

    def __init__(self, features: QueueFeatures) -> None:
        self.features = features


class Wake:
    """To the queue: the time came at which its lead has something to do."""


class AskAgain:
    """To the queue: a node that took no deliveries may take some now."""


class Deleted:
    """To the queue: it was deleted from the catalog."""


QueueMessage = (
    PublishRun
    | Attach
    | Cancel
    | Detach
    | Settle
    | Credit
    | Reject
    | GiveBack
    | Written
    | Adjust
    | Get
    | Count
    | Purge
    | LeadAction[Any]
    | RoleChanged
    | Applied
    | PeerMessage
    | PeerUp
    | PeerDown
    | FeaturesChanged
    | Wake
    | AskAgain
    | Deleted
)
ConnectionMessage = object
"""A connection takes runs that come home, `Returned`, `Deliver`, `LeaderChanged`,
`ConsumerCancelled`, and what its own edges tell it (see `connection`)."""


def tell(ref: Ref[M], message: M) -> bool:
    """Tell an actor that may be gone; False if it is, and then nobody needs the message."""
    try:
        ref.tell(message)
    except ActorStopped:
        return False
    return True
