"""A channel over all the transports of its connection: what it asks, publishes and consumes.

Three things are kept so that they can be taken up again on another transport: calls that were not
answered, publishes that were not confirmed, consumers. Each incarnation begins with `begin`, which
writes everything in one go: the broker takes the methods of a channel in order, so nothing has to
wait for the answer to anything. When the broker closes the channel, the one call, consumer or
publish that was to blame fails, and in robust mode the channel begins again without it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from leveret.amqp import spec
from leveret.amqp.events import Ack, ContentReceived
from leveret.client.errors import (
    ChannelClosed,
    ClientError,
    ConnectionLost,
    ConsumerCancelled,
    MessageTooLarge,
    Misuse,
    ReplyLost,
    TransactionLost,
    again,
    channel_error,
)

from .consumer import ConsumerCore
from .outcome import Outcome
from .requests import Requests
from .settlements import Life
from .window import PendingPublish, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leveret.amqp import Delivery, Method, Properties
    from leveret.amqp.fields import Table

    from .connection import ConnectionCore
    from .message import BaseMessage

_BLAMELESS_MAX: Final = 8
"""Closings for which nothing can be blamed that end a channel for good, in a row: without an
answer or a confirm between them. What is to blame for one is told and not asked again; but what
cannot be found (a publish without confirms, a limit of the broker) may come again for ever."""
_FORMER_MAX: Final = 32

Replies: TypeAlias = "type[Method] | tuple[type[Method], ...]"


class Call(Outcome[object]):
    """A method that is to be answered, by one of `replies`.

    is_repeatable: asking again on another transport does no harm and gives the same.
    """

    __slots__ = ("done", "is_repeatable", "method", "replies")

    def __init__(
        self,
        method: Method,
        replies: Replies,
        *,
        is_repeatable: bool = True,
        done: Callable[[Call], None] | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.replies = replies
        self.is_repeatable = is_repeatable
        self.done = done
        """Called in the core when it is done, before whoever waits is told."""

    def _finish(self) -> None:
        if self.done is not None:
            self.is_done = True
            self.done(self)
        super()._finish()


class ChannelCore:
    """One channel. `number` stays the same over all incarnations.

    confirms: publishes are numbered and confirmed; transactional: they count from the commit on.
    """

    def __init__(
        self,
        connection: ConnectionCore,
        number: int,
        *,
        confirms: bool,
        transactional: bool,
        publisher: str,
    ) -> None:
        self.connection = connection
        self.number = number
        self.confirms = confirms
        self.transactional = transactional
        self.publisher = publisher
        """Who publishes here, for brokers that store each numbered message once."""
        self.life = Life(number)
        self.is_live = False
        """There is a transport, and the channel is open on it."""
        self.error: ClientError | None = None
        """Why the channel is closed for good."""
        self.opened: Outcome[None] = Outcome()
        self.consumers: dict[bytes, ConsumerCore] = {}
        self._former: dict[bytes, ConsumerCore] = {}
        """Consumers that were cancelled lately: something may still come for them."""
        self.requests = Requests()
        self.replies: ConsumerCore | None = None
        self.is_in_transaction = False
        """Something was published or acknowledged since the last commit."""
        self.is_transaction_lost = False
        self.window = Window(connection, number)
        self.published = 0
        self.stale = 0
        """Acknowledgements of messages whose transport had gone."""
        self._qos: spec.BasicQos | None = None
        self._expected: deque[Call] = deque()
        self._waiting: deque[Call] = deque()
        self._blameless = 0
        self._tags = 0

    # Incarnations

    def begin(self) -> None:
        """Open the channel on the present transport, and take up what it was doing."""
        connection = self.connection
        self.window.renumber(keeps_numbers=connection.removes_duplicates)
        self.life = Life(self.number, collapses=not self.transactional)
        self._former.clear()
        self.is_live = True
        token = ""
        if self.confirms and connection.removes_duplicates:
            token = f"publisher={self.publisher} after={self.window.offset}"
        self._ask(Call(spec.ChannelOpen(out_of_band=token), spec.ChannelOpenOk, done=self._open_ok))
        if self.transactional:
            self._ask(Call(spec.TxSelect(), spec.TxSelectOk))
        elif self.confirms:
            self._ask(Call(spec.ConfirmSelect(), spec.ConfirmSelectOk))
        if self._qos is not None:
            self._ask(Call(self._qos, spec.BasicQosOk))
        for consumer in self.consumers.values():
            self._consume(consumer)
        self.window.write_all()
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            self._ask(call)

    def _open_ok(self, call: Call) -> None:
        if call.error is None:
            self.opened.succeed(None)

    def lose(self, error: ClientError) -> None:
        """The transport has gone."""
        was_live, self.is_live = self.is_live, False
        self.life.is_over = True
        self.life.acks.clear()
        for consumer in self.consumers.values():
            consumer.drop()
        if self.is_in_transaction:
            self.is_in_transaction = False
            self.is_transaction_lost = True
        expected, self._expected = self._expected, deque()
        if not was_live:
            return
        for call in reversed(expected):
            if self._is_own(call):
                continue  # `begin` asks it anew
            if call.is_repeatable and not call.is_done:
                self._waiting.appendleft(call)
            else:
                call.fail(self._lost(call, error))
        text = f"{error}\nThe connection broke between the request and its reply."
        self.requests.fail_all(ReplyLost(text))

    def _lost(self, call: Call, error: ClientError) -> ConnectionLost:
        if isinstance(call.method, spec.TxCommit):
            self.is_transaction_lost = False
            return ConnectionLost(
                f"{error}\nThe connection broke while the transaction was being committed: "
                "look whether it was, and repeat it if not."
            )
        return ConnectionLost(f"{error}\nThe connection broke before {call.method.NAME} was done.")

    def _is_own(self, call: Call) -> bool:
        """Whether `begin` asks this anew in each incarnation."""
        return isinstance(
            call.method,
            spec.ChannelOpen
            | spec.TxSelect
            | spec.ConfirmSelect
            | spec.BasicQos
            | spec.BasicConsume,
        )

    def end(self, error: ClientError) -> None:
        """Close for good: all that waits fails with `error`."""
        if self.error is not None:
            return
        self.error = error
        self.is_live = False
        self.life.is_over = True
        self.connection.forget_channel(self)
        self.opened.fail(error)
        for call in (*self._expected, *self._waiting):
            call.fail(again(error))
        self._expected.clear()
        self._waiting.clear()
        self.window.fail_all(error)
        self.requests.fail_all(error)
        for consumer in self.consumers.values():
            consumer.drop()
            consumer.end(error)
        self.consumers.clear()

    # Asking

    def ask(self, method: Method, replies: Replies, *, is_repeatable: bool = True) -> Call:
        """Ask the broker for something; the outcome is its answer.

        Raises:
            ClientError: the channel is closed.
        """
        self.check()
        call = Call(method, replies, is_repeatable=is_repeatable)
        if self.is_live:
            self._ask(call)
        else:
            self._waiting.append(call)
        return call

    def check(self) -> None:
        """Raises ClientError if the channel is closed."""
        if self.error is not None:
            raise again(self.error)

    def set_qos(self, count: int) -> Call:
        """Limit what all consumers together may hold unacknowledged."""
        self._qos = spec.BasicQos(prefetch_count=count, is_global=True)
        return self.ask(self._qos, spec.BasicQosOk)

    def close(self, error: ChannelClosed) -> Outcome[object]:
        """Close the channel in order; `error` is what later callers get."""
        call = Call(_CLOSE, spec.ChannelCloseOk, is_repeatable=False)
        if not self.is_live:
            self.end(error)
            call.succeed(None)
            return call
        self.flush_acks()
        call.done = lambda _: self.end(error)
        self._ask(call)
        return call

    def _ask(self, call: Call) -> None:
        self._expected.append(call)
        method = call.method
        if self.life.acks:
            self.flush_acks()
        self.connection.write(self.number, self.connection.topology.on_wire(method))

    # Publishing

    def publish(
        self, exchange: str, routing_key: str, header: bytes, body: bytes, *, mandatory: bool
    ) -> PendingPublish:
        """Publish; without confirms the outcome is done at once.

        Raises:
            MessageTooLarge: the broker would not take it.
            ClientError: the channel is closed.
        """
        if self.error is not None:
            raise again(self.error)
        if len(body) > self.connection.body_max:
            raise MessageTooLarge(
                f"the message has {len(body)} octets, the broker takes {self.connection.body_max} "
                "at most: split it, or store it elsewhere and send a reference"
            )
        pending = PendingPublish(exchange, routing_key, header, body, mandatory)
        self.published += 1
        if self.confirms:
            self.window.add(pending)
            if self.is_live:
                self.window.write(pending)
        else:
            self.is_in_transaction = self.transactional
            self.window.write(pending)
            pending.is_done = True
        return pending

    # Transactions

    def check_transaction(self) -> None:
        """Raises TransactionLost, once, if the broker has rolled the transaction back."""
        if self.is_transaction_lost:
            self.is_transaction_lost = False
            raise TransactionLost(
                "the connection broke within the transaction, which the broker has rolled back: "
                "repeat the whole transaction"
            )

    def end_transaction(self, method: Method, answer: type[Method]) -> Call:
        """Commit or roll back.

        Raises:
            Misuse: the channel is not transactional. TransactionLost: see `check_transaction`.
        """
        if not self.transactional:
            raise Misuse("the channel has no transactions: connection.channel(transactional=True)")
        self.check_transaction()
        return self.ask(method, answer, is_repeatable=False)

    # Requests

    def begin_request(
        self, properties: Properties | None
    ) -> tuple[Properties, Outcome[BaseMessage]]:
        """The properties for a request, and the outcome that will be its reply.

        `listen` comes before it, and `requests.end` behind it, whatever happens.
        """
        reply_to = self.connection.topology.resolve(self.requests.reply_to)
        return self.requests.begin(self.publisher, reply_to, properties)

    def listen(self, reply_to: str) -> None:
        """Begin to consume replies, unless somebody has begun meanwhile."""
        if self.replies is None:
            self.requests.reply_to = reply_to
            self.replies = self.consume(
                reply_to, no_ack=True, exclusive=False, prefetch=0, arguments={}
            )
            self.replies.take = self.requests.take

    # Consuming

    def consume(
        self,
        queue: str,
        *,
        no_ack: bool,
        exclusive: bool,
        prefetch: int,
        arguments: Table,
        tag: str = "",
    ) -> ConsumerCore:
        """Begin to consume; see `started` of what is returned.

        Raises:
            ClientError: the channel is closed.
        """
        self.check()
        self._tags += 1
        consumer = ConsumerCore(
            self,
            tag or f"ctag{self.number}.{self._tags}",
            queue,
            no_ack=no_ack,
            exclusive=exclusive,
            prefetch=prefetch,
            arguments=arguments,
        )
        self.consumers[consumer.key] = consumer
        if self.is_live:
            self._consume(consumer)
        return consumer

    def _consume(self, consumer: ConsumerCore) -> None:
        if not consumer.no_ack:
            # It holds for the consumers that come after it, so for this one.
            qos = spec.BasicQos(prefetch_count=consumer.prefetch)
            self._ask(Call(qos, spec.BasicQosOk, is_repeatable=False))
        method = spec.BasicConsume(
            queue=consumer.queue,
            consumer_tag=consumer.tag,
            no_ack=consumer.no_ack,
            exclusive=consumer.exclusive,
            arguments=consumer.arguments,
        )

        def done(call: Call) -> None:
            if call.error is None:
                consumer.started.succeed(None)
            elif isinstance(call.error, ClientError):
                self.consumers.pop(consumer.key, None)
                consumer.end(call.error)

        self._ask(Call(method, spec.BasicConsumeOk, is_repeatable=False, done=done))

    def cancel(self, consumer: ConsumerCore) -> Outcome[object]:
        """End a consumer; what it holds and nobody took returns to the queue."""
        call = Call(
            spec.BasicCancel(consumer_tag=consumer.tag), spec.BasicCancelOk, is_repeatable=False
        )
        if not self.is_live or consumer.key not in self.consumers:
            self.consumers.pop(consumer.key, None)
            consumer.drop()
            consumer.end(None)
            call.succeed(None)
            return call

        def done(_: Call) -> None:
            self.consumers.pop(consumer.key, None)
            self._former[consumer.key] = consumer
            if len(self._former) > _FORMER_MAX:
                del self._former[next(iter(self._former))]
            if self.is_live and not consumer.no_ack:
                self.return_messages(consumer)
            consumer.drop()
            consumer.end(None)

        call.done = done
        self._ask(call)
        return call

    def return_messages(self, consumer: ConsumerCore) -> None:
        """Give what the program has not taken back to its queue, at its old place."""
        for message in consumer.ready:
            if not message.is_settled and not message.is_stale:
                message._settle(refuse=not consumer.reads_stream)

    def return_stray(self, delivery: Delivery) -> None:
        """Give back what RabbitMQ still sends to a consumer after it has answered its cancel."""
        former = self._former.get(delivery.consumer_tag)
        if former is not None and not former.no_ack and self.is_live:
            refuse = not former.reads_stream
            self.settle(delivery.delivery_tag, multiple=False, refuse=refuse, requeue=True)

    def touch(self) -> None:
        """Note that there are acknowledgements to be told."""
        self.is_in_transaction = self.transactional
        self.connection.touch(self)

    def settle(self, tag: int, *, multiple: bool, refuse: bool, requeue: bool) -> None:
        """Settle a delivery by a frame of its own, behind what was acknowledged before it."""
        self.flush_acks()
        self.is_in_transaction = self.transactional
        if self.life.is_past(tag):
            return
        method: Method
        if not refuse:
            method = spec.BasicAck(delivery_tag=tag, multiple=multiple)
        elif multiple:
            method = spec.BasicNack(delivery_tag=tag, multiple=True, requeue=requeue)
        else:
            method = spec.BasicReject(delivery_tag=tag, requeue=requeue)
        self.connection.write(self.number, method)
        if multiple:
            self.life.skip_through(tag)
        else:
            self.life.skip(tag)

    def flush_acks(self) -> None:
        """Write the acknowledgements that were gathered."""
        self.life.write_acks(self.connection.out)

    # Ends that are particular

    def is_to_blame(self, cause: tuple[int, int]) -> bool:
        """Whether the broker closed the whole connection for what this channel asked first."""
        first = self._expected[0].method if self._expected else None
        return first is not None and cause == (first.CLASS_ID, first.METHOD_ID)

    def blame(self, error: ClientError) -> None:
        """Fail what the connection was closed for, so that it is not asked again."""
        call = self._expected.popleft()
        call.fail(error)
        if isinstance(call.method, spec.TxSelect | spec.ConfirmSelect | spec.ChannelOpen):
            self.end(error)

    def forked(self, error: ClientError, publisher: str) -> None:
        """Keep nothing of what was under way in the parent process."""
        self.publisher = publisher
        calls, self._waiting = self._waiting, deque()
        for call in calls:
            call.fail(again(error))
        self.window.fail_all(error)
        for consumer in self.consumers.values():
            consumer.end(error)
        self.consumers.clear()
        self.replies = None
        self.is_transaction_lost = False

    # What the broker says

    def receive(self, event: Ack | ContentReceived | Method) -> None:
        """Take what is not a delivery."""
        if isinstance(event, Ack):
            self._blameless = 0
            self.window.confirm(event.delivery_tag, multiple=event.multiple, refused=False)
        elif isinstance(event, ContentReceived):
            self._content(event)
        elif isinstance(event, spec.BasicNack):
            self.window.confirm(event.delivery_tag, multiple=event.multiple, refused=True)
        elif isinstance(event, spec.ChannelClose):
            self.connection.write(self.number, spec.ChannelCloseOk())
            self.closed(channel_error(event.reply_code, event.reply_text), event)
        elif isinstance(event, spec.ChannelCloseOk):
            self._close_ok()
        elif isinstance(event, spec.BasicCancel):
            self._cancelled(event)
        elif isinstance(event, spec.ChannelFlow):
            self.connection.write(self.number, spec.ChannelFlowOk(active=event.active))
        else:
            self._answered(event, event)

    def _content(self, event: ContentReceived) -> None:
        method = event.method
        if isinstance(method, spec.BasicReturn):
            self.window.note_return(method, event.header, event.body)
        elif isinstance(method, spec.BasicGetOk):
            asked = self._expected[0].method if self._expected else None
            message = self.connection.message_of(self, event, method)
            if isinstance(asked, spec.BasicGet) and asked.no_ack:
                self.life.skip(message.delivery_tag)
                message._life = None
            self._answered(method, message)

    def _answered(self, method: Method, value: object) -> None:
        """Give the first unanswered call its answer."""
        if not self._expected or not isinstance(method, self._expected[0].replies):
            self.connection.broken(f"the broker sent {method.NAME} that nobody asked for")
            return
        call = self._expected.popleft()
        if not self._is_own(call):
            self._blameless = 0
        if isinstance(method, spec.BasicGetEmpty):
            value = None
        elif self.connection.is_robust and not self.connection.is_control(self):
            self.connection.topology.note(call.method, method)
        if isinstance(call.method, spec.TxCommit | spec.TxRollback):
            self.is_in_transaction = False
        call.succeed(value)

    def _close_ok(self) -> None:
        """The channel is closed, as we asked; what was asked before it may stay unanswered."""
        closing = next((c for c in self._expected if isinstance(c.method, spec.ChannelClose)), None)
        if closing is not None:
            self._expected.remove(closing)
            closing.succeed(None)

    def _cancelled(self, method: spec.BasicCancel) -> None:
        """The broker ended a consumer: its queue is gone, or has moved."""
        if not method.nowait:
            self.connection.write(self.number, spec.BasicCancelOk(consumer_tag=method.consumer_tag))
        consumer = self.consumers.get(method.consumer_tag.encode())
        if consumer is None:
            return
        if self.connection.is_robust:
            self.connection.revive(self, consumer)
        else:
            self.lose_consumer(consumer)

    def lose_consumer(self, consumer: ConsumerCore, reason: str = "") -> None:
        """Tell the program that a consumer is over."""
        self.consumers.pop(consumer.key, None)
        consumer.end(
            ConsumerCancelled(
                f"the broker ended the consumer of queue {consumer.queue!r}, which was deleted or "
                f"is not available. Declare the queue and consume again.{reason}"
            )
        )

    def resume(self, consumer: ConsumerCore, life: Life) -> None:
        """Consume again in the same incarnation `life`, if it still is."""
        if self.life is life and self.is_live and consumer.key in self.consumers:
            self._consume(consumer)

    def closed(self, error: ChannelClosed, close: spec.ChannelClose | None) -> None:
        """The channel was closed for an error, by the broker or, in its name, by the protocol."""
        cause = (close.class_id, close.method_id) if close is not None else (0, 0)
        first = self._expected[0] if self._expected else None
        if first is not None and isinstance(first.method, spec.ChannelClose):
            self.end(error)
            return
        guilty: Sequence[Outcome[object] | PendingPublish] = []
        if first is not None and cause == (first.method.CLASS_ID, first.method.METHOD_ID):
            guilty = [self._expected.popleft()]
        elif cause == _PUBLISH:
            guilty = self.window.guilty(error)
        if not guilty:
            self._blameless += 1
        if isinstance(error, MessageTooLarge):
            self.connection.body_max = error.size_max or self.connection.body_max
        # First it is lost, so that who is told of the failure and asks again has to wait.
        self.lose(error)
        for outcome in guilty:
            outcome.fail(again(error))
        if not self.connection.is_robust or self._blameless > _BLAMELESS_MAX:
            self.end(error)
        elif self.error is None and self.connection.lets_begin(self):
            self.begin()


_PUBLISH: Final = (spec.BasicPublish.CLASS_ID, spec.BasicPublish.METHOD_ID)
_CLOSE: Final = spec.ChannelClose(reply_code=200, reply_text="", class_id=0, method_id=0)
