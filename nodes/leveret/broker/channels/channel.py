"""One channel: what its methods mean.

A plain object inside its connection's actor.  Methods are handled in the order in which they
come; one that must wait (a declare for the catalog, a consume for the queue's leader) runs as an
*operation* beside the actor, and what follows on the channel waits behind it.  Deliveries and
confirms go on meanwhile.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING

import trio

from leveret.amqp import errors, spec
from leveret.amqp.delivery import Record, encode_get_ok, header_with_long
from leveret.amqp.events import Ack, Publish
from leveret.amqp.fields import Long
from leveret.amqp.method import Method
from leveret.broker.connections.descriptions import ChannelDescription, describe_consumers
from leveret.broker.messages import (
    MESSAGE_BYTES,
    Adjust,
    Attach,
    Credit,
    Deliver,
    Detach,
    GiveBack,
    Got,
    LocalConsumer,
    Reject,
    Settle,
    StreamPosition,
    tell,
    unseen,
)
from leveret.broker.stream_arguments import OFFSET, not_supported

from .confirms import Confirms
from .entries import ConsumerEntry
from .operations import operation_of
from .operations.exchanges import find_exchange
from .publishing import Publishing
from .transaction import Settlement, Transaction
from .unacked import NOWHERE, Unacked, UnackedMessages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from leveret.amqp.fields import Value
    from leveret.broker.connections.connection import ConnectionActor
    from leveret.broker.messages import ConsumerTimedOut
    from leveret.broker.numbering import Numbering
    from leveret.broker.replies import Replies, ReplyConsumer

    from .transaction import End

ToQueue = Adjust | Attach | Credit | Detach | Settle | Reject | GiveBack


class Channel:
    """See the module."""

    def __init__(
        self,
        number: int,
        epoch: int,
        connection: ConnectionActor,
        *,
        numbering: Numbering | None = None,
    ) -> None:
        self.number = number
        self.epoch = epoch
        """Tells this opening of the number from earlier ones, for what comes late."""
        self.connection = connection
        self._counters = connection.services.counters
        self.last_queue = ""
        """The queue declared last: what an empty name means."""
        self.prefetch = 0
        """For consumers to come."""
        self.consumers: dict[str, ConsumerEntry] = {}
        self.holders: dict[tuple[int, bool], ConsumerEntry] = {}
        self.replies: ReplyConsumer | None = None
        """The consumer of direct reply-to."""
        self.operation = trio.CancelScope()
        """Around the operation that is under way."""
        self.is_closed = False
        self._leaving: dict[LocalConsumer, int] = {}
        """Consumers that are cancelled, but hold messages; with their queues."""
        self.publishing = Publishing(self, numbering)
        self.transaction: Transaction | None = None
        """What is held until tx.commit; None: the channel is not transactional."""
        self._backlog: deque[Publish | Ack | Method] = deque()
        self._operating: type[Method] | None = None
        """The method whose operation is under way; what comes behind it is kept."""
        self._untold_cancels: list[str] = []
        """Consumers that the client hears of behind the answer to the operation."""
        self._tag = 0
        self._unacked = UnackedMessages()
        self._limit = 0
        """Unacknowledged messages of the whole channel; 0 is unlimited."""
        self._is_paused = False
        self._idle = trio.Event()
        self._to_settle: dict[int, list[int]] = {}
        self._read: dict[LocalConsumer, tuple[int, list[int]]] = {}
        """What is acknowledged of streams, which are not told yet, with its queue."""

    # What the client says

    def receive(self, event: Publish | Ack | Method) -> None:
        """Handle a method or a publish, or keep it until the operation before it is done.

        Raises:
            AmqpError: it closes the channel or the connection, as its scope says.
        """
        if self._operating is not None:
            self._backlog.append(event)
            self.connection.published(_kept_bytes(event))
        elif type(event) is Publish:
            self.publishing.publish(event)
        elif type(event) is Ack:
            self._take_end(event.delivery_tag, "ack", multiple=event.multiple)
        elif isinstance(event, Method):
            self.publishing.send_run()
            self._method(event)

    def operated(self, outcome: Method | errors.AmqpError | None) -> None:
        """Take the outcome of the operation, and go on with what waits behind it.

        Raises:
            AmqpError: the operation's, or that of one of the methods behind it.
        """
        operated, self._operating = self._operating, None
        if isinstance(outcome, errors.AmqpError):
            if outcome.class_id or operated is None:
                raise outcome
            raise outcome.caused_by(operated.CLASS_ID, operated.METHOD_ID)
        if outcome is not None:
            if isinstance(outcome, spec.BasicCancelOk):
                self.forget_consumer(outcome.consumer_tag)
                if outcome.consumer_tag in self._untold_cancels:
                    self._untold_cancels.remove(outcome.consumer_tag)
            self.write(outcome)
            if isinstance(outcome, spec.BasicConsumeOk):
                self.consumer_ready(outcome.consumer_tag)
        untold, self._untold_cancels = self._untold_cancels, []
        for tag in untold:
            self.connection.write_cancel(self.number, tag)
        while self._backlog and self._operating is None:
            event = self._backlog.popleft()
            self.connection.unkept(_kept_bytes(event))
            self.receive(event)
        self.look_if_idle()

    def write(self, method: Method) -> None:
        """Send a method on this channel."""
        self.connection.write(self.number, method)

    def _method(self, method: Method) -> None:
        match method:
            case spec.BasicNack():
                self._take_end(
                    method.delivery_tag,
                    "requeue" if method.requeue else "reject",
                    multiple=method.multiple,
                )
            case spec.BasicReject():
                self._take_end(
                    method.delivery_tag,
                    "requeue" if method.requeue else "reject",
                    multiple=False,
                )
            case spec.BasicQos():
                self._qos(method)
            case spec.ConfirmSelect():
                if self.transaction is not None:
                    raise errors.precondition_failed("cannot switch from tx to confirm mode")
                if self.publishing.confirms is None:
                    self.publishing.confirms = Confirms()
                if not method.nowait:
                    self.write(spec.ConfirmSelectOk())
            case spec.BasicRecover() | spec.BasicRecoverAsync():
                if not method.requeue:
                    raise errors.not_implemented("requeue=false")
                self._refuse_streams("basic.recover", self._unacked.values())
                self._return_all()
                if isinstance(method, spec.BasicRecover):
                    self.write(spec.BasicRecoverOk())
            case spec.ChannelFlow():
                if not method.active:
                    raise errors.not_implemented("active=false")
                self.write(spec.ChannelFlowOk(active=True))
            case spec.TxSelect():
                if self.publishing.confirms is not None:
                    raise errors.precondition_failed("cannot switch from confirm to tx mode")
                if self.transaction is None:
                    self.transaction = Transaction()
                self.write(spec.TxSelectOk())
            case spec.TxRollback():
                self._roll_back()
                self.write(spec.TxRollbackOk())
            case _:
                operation = operation_of(self, method)
                if operation is None:
                    raise errors.not_implemented(method.NAME)
                self._operating = type(method)
                self.settle_now()
                self.connection.operate(self, operation(self, method))

    async def idle(self) -> None:
        """Wait until all that the client asked for on this channel is done."""
        while (
            self.publishing.under_way or self._operating is not None or self._backlog
        ) and not self.is_closed:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()

    def look_if_idle(self) -> None:
        """Wake whoever waits for `idle`, if nothing is under way."""
        if not self.publishing.under_way and self._operating is None:
            self._idle.set()

    def find_exchange_of(self, event: Publish) -> None:
        """Wait until the catalog knows of the exchange, and publish again behind that."""
        self._operating = spec.BasicPublish
        self._backlog.appendleft(event)
        self.connection.published(_kept_bytes(event))
        self.connection.operate(self, find_exchange(self, event.exchange))

    # Consuming

    def deliver(self, message: Deliver) -> None:
        """Write deliveries, as far as the channel's limit allows."""
        consumer = message.consumer
        entry = self.consumers.get(consumer.tag or "")
        if entry is None or entry.consumer is not consumer:
            self._refuse(message)
            return
        if consumer.stream is not None:
            self._deliver_of_stream(entry, consumer.stream, message)
            return
        if not entry.is_ready:
            entry.early.append(message)
            return
        sequences, records, redelivered = message.sequences, message.records, message.redelivered
        if self._limit and not consumer.no_ack:
            room = max(self._limit - self._unsettled_count(), 0)
            if room < len(sequences):
                self._refuse(message, room)
                self._pause(paused=True)
                sequences, records = sequences[:room], records[:room]
        out, frame_max, tag = self.connection.out, self.connection.frame_max, self._tag
        encoder = entry.encoder
        assert encoder is not None
        size_bytes = 0
        for sequence, record, again in zip(sequences, records, redelivered, strict=False):
            tag += 1
            encoder.append(out, tag, again, record, frame_max)
            size_bytes += len(record)
            if not consumer.no_ack:
                self._unacked[tag] = Unacked(message.uid, sequence, consumer)
        self._tag = tag
        self._counters.delivered += len(sequences)
        self.connection.written(message, len(sequences), size_bytes)
        self._trace(message.uid, records, redelivered)

    def _trace(
        self, uid: int, records: Sequence[bytes | memoryview], redelivered: Sequence[bool]
    ) -> None:
        """Have the firehose copy what is delivered, where it is open."""
        origin = self.connection.origin(self.number)
        if origin is not None:
            services = self.connection.services
            queue = services.catalog.model.queue_by_uid(uid)
            name = "" if queue is None else queue.name
            services.directory.firehose.delivered(origin, name, records, redelivered)

    def _deliver_of_stream(
        self, entry: ConsumerEntry, position: StreamPosition, message: Deliver
    ) -> None:
        """Write deliveries with their offsets, but for what came before.

        The channel's own limit does not count: it would have to give some back, and others would
        overtake them.
        """
        consumer, records = message.consumer, message.records
        repeated = position.take(message)
        if repeated:
            size_bytes = sum(map(len, records[: len(repeated)]))
            self.connection.written(message, len(repeated), size_bytes)
            held = {u.sequence for u in self._unsettled() if u.consumer is consumer}
            held.update(s for early in entry.early for s in early.sequences)
            # The leader believes that it holds them; it may have acknowledged them since.
            settled = [sequence for sequence in repeated if sequence not in held]
            self._tell_queue(message.uid, Credit(consumer, settled))
        if entry.is_ready:
            self._write_of_stream(entry, message)
        else:
            entry.early.append(message)

    def _write_of_stream(self, entry: ConsumerEntry, message: Deliver) -> None:
        out, frame_max = self.connection.out, self.connection.frame_max
        encoder = entry.encoder
        assert encoder is not None
        size_bytes = 0
        for sequence, octets in zip(message.sequences, message.records, strict=True):
            self._tag += 1
            record = Record(octets)
            header = header_with_long(record, OFFSET, sequence - 1)
            encoder.append_changed(out, self._tag, record, header, frame_max)
            size_bytes += len(octets)
            self._unacked[self._tag] = Unacked(message.uid, sequence, message.consumer)
        self._counters.delivered += len(message.sequences)
        self.connection.written(message, len(message.sequences), size_bytes)
        self._trace(message.uid, message.records, message.redelivered)

    def deliver_replies(self, message: Replies) -> None:
        """Write replies, unless their consumer is cancelled meanwhile."""
        if message.consumer is not self.replies:
            return
        encoder, frame_max = message.consumer.encoder, self.connection.frame_max
        for record in message.records:
            self._tag += 1
            encoder.append(self.connection.out, self._tag, False, record, frame_max)
        self._counters.delivered += len(message.records)

    def holder(self, uid: int, *, no_ack: bool) -> ConsumerEntry:
        """Return what holds the messages that basic.get takes from a queue."""
        entry = self.holders.get((uid, no_ack))
        if entry is None:
            consumer = LocalConsumer(
                number=self.connection.services.directory.next_consumer_number(),
                connection=self.connection.ref,
                channel=self.number,
                tag=None,
                no_ack=no_ack,
                exclusive=False,
                prefetch=0,
                priority=0,
            )
            entry = self.holders[uid, no_ack] = ConsumerEntry(uid, consumer, None, 0)
        return entry

    def write_got(self, entry: ConsumerEntry, got: Got) -> None:
        """Send the message that basic.get took."""
        self._tag += 1
        self._counters.delivered += 1
        if not entry.consumer.no_ack:
            self._unacked[self._tag] = Unacked(entry.uid, got.sequence, entry.consumer)
        self.connection.out.append(
            encode_get_ok(
                self.number,
                self._tag,
                got.record,
                redelivered=got.redelivered,
                message_count=got.ready,
                frame_max=self.connection.frame_max,
            )
        )
        self._trace(entry.uid, [got.record], [got.redelivered])

    def leader_changed(self, uid: int, consumer: LocalConsumer) -> None:
        """Attach a consumer at its queue's new leader, with what it holds here."""
        entry = self._entry(uid, consumer)
        if entry is None and consumer not in self._leaving:
            return  # its `Detach` is on the way
        held = [
            u.sequence for u in self._unsettled() if u.consumer is consumer and u.uid != NOWHERE
        ]
        if entry is not None:
            held += [s for message in entry.early for s in message.sequences]
        self._tell_queue(uid, Attach(consumer, held, again=True))
        if self._is_paused and not consumer.no_ack:
            self._tell_queue(uid, Adjust(consumer, paused=True))

    def forget_consumer(self, tag: str) -> ConsumerEntry | None:
        """Take a consumer out; what the client holds of it can still be settled."""
        entry = self.consumers.pop(tag, None)
        if entry is not None:
            if entry.is_ready:
                self._tell_of_consumer("consumer.deleted", entry)
            for message in entry.early:
                self._refuse(message)
            self._leaving[entry.consumer] = entry.uid
            self._detach_leaving()
        return entry

    def forget_replies(self) -> None:
        """Take the consumer of direct reply-to out, if there is one."""
        if self.replies is not None:
            self.connection.services.directory.replies.forget(self.replies)
            self.replies = None

    def cancelled(self, uid: int, consumer: LocalConsumer) -> None:
        """Take out a consumer that its queue does not serve any more, and tell the client."""
        entry = self._entry(uid, consumer)
        if entry is None:
            return
        if consumer.tag is None:
            del self.holders[uid, consumer.no_ack]
            return
        self.forget_consumer(consumer.tag)
        if not entry.is_ready:
            return
        if self._operating is None:
            self.connection.write_cancel(self.number, consumer.tag)
        else:
            # Who deletes the queue hears that first, as of RabbitMQ: py-amqp's consumers fail else.
            self._untold_cancels.append(consumer.tag)

    def timed_out(self, message: ConsumerTimedOut) -> None:
        """Take out a consumer that held messages for too long, and those messages from it.

        The client may settle them as if they were its own; that means nothing any more.
        """
        lost = set(message.sequences)
        for unacked in self._unsettled():
            if unacked.consumer is message.consumer and unacked.sequence in lost:
                unacked.uid = NOWHERE
        self.cancelled(message.uid, message.consumer)

    def close(self) -> None:
        """Return everything that is not settled, and forget the rest."""
        self.is_closed = True
        self.operation.cancel()
        self.publishing.send_run()
        self.settle_now()
        self.forget_replies()
        for consumer, uid in self._leaving.items():
            self._tell_queue(uid, Detach(consumer))
        for entry in self.consumers.values():
            if entry.is_ready:
                self._tell_of_consumer("consumer.deleted", entry)
        for entry in (*self.consumers.values(), *self.holders.values()):
            self._tell_queue(entry.uid, Detach(entry.consumer))
        self.consumers.clear()
        self.holders.clear()
        self._leaving.clear()
        self._unacked.clear()
        if self.transaction is not None:
            self.connection.unheld(self.transaction.cost_bytes)
            self.transaction = Transaction()
        self.connection.unkept(sum(map(_kept_bytes, self._backlog)))
        self._backlog.clear()
        self.publishing.close()
        self._idle.set()

    def consumer_ready(self, tag: str) -> None:
        """Let deliveries flow: the client knows of the consumer."""
        entry = self.consumers.get(tag)
        if entry is None:  # its queue was deleted while consume-ok was on the way
            self.connection.write_cancel(self.number, tag)
            return
        entry.is_ready = True
        self._tell_of_consumer("consumer.created", entry)
        early, entry.early = entry.early, []
        for message in early:
            if entry.consumer.stream is not None:
                self._write_of_stream(entry, message)
            else:
                self.deliver(message)
        if self._is_paused:
            self._tell_queue(entry.uid, Adjust(entry.consumer, paused=True))

    def _tell_of_consumer(self, key: str, entry: ConsumerEntry) -> None:
        news = self.connection.services.directory.news
        if not news.is_heard:
            return
        consumer = entry.consumer
        queue = self.connection.services.catalog.model.queue_by_uid(entry.uid)
        facts: dict[str, Value] = {
            "consumer_tag": consumer.tag or "",
            "queue": "" if queue is None else queue.name,
            "vhost": self.connection.vhost,
            "channel": self.connection.facts_of(self.number)["pid"],
        }
        if key == "consumer.created":
            facts["exclusive"] = consumer.exclusive
            facts["ack_required"] = not consumer.no_ack
            facts["prefetch_count"] = Long(entry.own_prefetch)
        news.tell(key, facts)

    # Settling

    def settle_now(self) -> None:
        """Tell the queues what was settled since the last time."""
        to_settle, self._to_settle = self._to_settle, {}
        for uid, sequences in to_settle.items():
            self._counters.settled += len(sequences)
            self._tell_queue(uid, Settle(sequences))
        if self._read:
            read, self._read = self._read, {}
            for consumer, (uid, sequences) in read.items():
                self._counters.settled += len(sequences)
                self._tell_queue(uid, Credit(consumer, sequences))
        if self._leaving:
            self._detach_leaving()
        if self._is_paused and (not self._limit or self._unsettled_count() < self._limit):
            self._pause(paused=False)

    def _take_end(self, tag: int, end: End, *, multiple: bool) -> None:
        """Take what the client says of deliveries, or keep it until the commit."""
        transaction = self.transaction
        if transaction is None:
            taken = self._unacked.take(tag, multiple=multiple)
            self._check_end(end, taken)
            self._bring_to(end, taken)
            return
        tags = [tag]
        if multiple:
            tags = list(takewhile(lambda one: not tag or one <= tag, self._unacked))
        taken = self._unacked.take(tag, multiple=multiple)
        self._check_end(end, taken)
        transaction.settlements.append(Settlement(end, dict(zip(tags, taken, strict=True))))

    def _check_end(self, end: End, taken: Iterable[Unacked]) -> None:
        """Refuse what streams do not do: they take nothing back, and bury nothing.

        Raises:
            AmqpError: 540.
        """
        if end != "ack":
            self._refuse_streams("basic.nack and basic.reject", taken)

    def _refuse_streams(self, what: str, taken: Iterable[Unacked]) -> None:
        for unacked in taken:
            if unacked.consumer.stream is not None:
                queue = self.connection.services.catalog.model.queue_by_uid(unacked.uid)
                if queue is not None:
                    raise not_supported(what, queue)

    def _bring_to(self, end: End, taken: Iterable[Unacked]) -> None:
        if end == "ack":
            for unacked in taken:
                if unacked.consumer.stream is None:
                    self._to_settle.setdefault(unacked.uid, []).append(unacked.sequence)
                else:
                    known = self._read.setdefault(unacked.consumer, (unacked.uid, []))
                    known[1].append(unacked.sequence)
            return
        by_consumer: dict[LocalConsumer, tuple[int, list[int]]] = {}
        for unacked in taken:
            by_consumer.setdefault(unacked.consumer, (unacked.uid, []))[1].append(unacked.sequence)
        for consumer, (uid, sequences) in by_consumer.items():
            if end == "requeue":
                self._give_back(uid, consumer, sequences, delivered=True)
            else:
                self._counters.settled += len(sequences)
                self._tell_queue(uid, Reject(consumer, sequences))

    def _return_all(self) -> None:
        self._bring_to("requeue", self._unacked.take_all())

    def _unsettled(self) -> Iterator[Unacked]:
        """Yield what the queues have not been told of yet, settled in a transaction or not."""
        yield from self._unacked.values()
        if self.transaction is not None:
            for _, unacked in self.transaction.settled():
                yield unacked

    def _unsettled_count(self) -> int:
        in_transaction = 0 if self.transaction is None else self.transaction.settled_count
        return len(self._unacked) + in_transaction

    def _entry(self, uid: int, consumer: LocalConsumer) -> ConsumerEntry | None:
        """Return the channel's entry of `consumer`, if it still has one."""
        if consumer.tag is None:
            entry = self.holders.get((uid, consumer.no_ack))
        else:
            entry = self.consumers.get(consumer.tag)
        return entry if entry is not None and entry.consumer is consumer else None

    def _detach_leaving(self) -> None:
        """Let go of cancelled consumers that hold nothing any more."""
        holding = {unacked.consumer for unacked in self._unsettled()}
        for consumer in [c for c in self._leaving if c not in holding]:
            self._tell_queue(self._leaving.pop(consumer), Detach(consumer))

    def _refuse(self, message: Deliver, start: int = 0) -> None:
        """Give deliveries from position `start` on back unseen."""
        for was_delivered, sequences in unseen(message, start):
            self._give_back(message.uid, message.consumer, sequences, delivered=was_delivered)
        records = message.records[start:]
        self.connection.written(message, len(records), sum(map(len, records)))

    def _give_back(
        self, uid: int, consumer: LocalConsumer, sequences: Sequence[int], *, delivered: bool
    ) -> None:
        self._tell_queue(uid, GiveBack(consumer, sequences, delivered=delivered))

    # Transactions

    def commit_settlements(self) -> None:
        """Settle what the transaction settles.

        Raises:
            AmqpError: nothing is settled. 406, a queue refused a publish of the transaction.
        """
        transaction = self.transactional()
        if transaction.is_partial:
            raise errors.precondition_failed("partial tx completion")
        settlements, transaction.settlements = transaction.settlements, []
        for end, messages in settlements:
            self._bring_to(end, messages.values())

    def _roll_back(self) -> None:
        """Forget what was published, and take what was settled as not settled."""
        transaction = self.transactional()
        self.connection.unheld(transaction.cost_bytes)
        if transaction.settlements:
            # Settling up to a tag goes by the order of tags.
            self._unacked = UnackedMessages(
                sorted([*self._unacked.items(), *transaction.settled()])
            )
        self.transaction = Transaction()

    def transactional(self) -> Transaction:
        """Return the transaction.

        Raises:
            AmqpError: 406, the channel has none.
        """
        if self.transaction is None:
            raise errors.precondition_failed("channel is not transactional")
        return self.transaction

    # Limits

    def _qos(self, method: spec.BasicQos) -> None:
        if method.prefetch_size:
            message = f"prefetch_size!=0 ({method.prefetch_size})"
            raise errors.not_implemented(message)
        if method.is_global:
            self._limit = method.prefetch_count
            self._is_paused = False
            for entry in self.consumers.values():
                if entry.consumer.stream is None:
                    entry.consumer.prefetch = self.prefetch_of(entry.own_prefetch)
            self._adjust_consumers()
        else:
            self.prefetch = method.prefetch_count
        self.write(spec.BasicQosOk())

    def prefetch_of(self, own: int) -> int:
        """Return what a consumer with prefetch `own` may hold: never more than the channel."""
        return min(own or self._limit, self._limit or own)

    def describe(self) -> ChannelDescription:
        """Return what an operator is told of it."""
        return ChannelDescription(
            number=self.number,
            confirm=self.publishing.confirms is not None,
            transactional=self.transaction is not None,
            unacknowledged=len(self._unacked),
            prefetch=self.prefetch,
            global_prefetch=self._limit,
            consumers=describe_consumers(self),
        )

    def _pause(self, *, paused: bool) -> None:
        self._is_paused = paused
        self._adjust_consumers()

    def _adjust_consumers(self) -> None:
        for entry in self.consumers.values():
            if not entry.consumer.no_ack and entry.consumer.stream is None:
                self._tell_queue(entry.uid, Adjust(entry.consumer, paused=self._is_paused))

    def _tell_queue(self, uid: int, message: ToQueue) -> None:
        ref = self.connection.services.directory.queue(uid)
        if ref is not None:
            tell(ref, message)


def _kept_bytes(event: Publish | Ack | Method) -> int:
    """Return what an event counts while it waits behind an operation."""
    return MESSAGE_BYTES + (len(event.body) if type(event) is Publish else 0)
