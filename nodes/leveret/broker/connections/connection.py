"""The actor of one client connection, from connection.open on.

It owns the protocol's state and the channels.  Everything that is written while a batch is
handled leaves with one `send`: replies, collapsed confirms, deliveries.  If the client does not
read, that send waits, and with it this actor alone: what others may push to it meanwhile is
bounded by consumer windows and by the publisher's own flow.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from leveret.actors import Actor
from leveret.amqp import errors, spec
from leveret.amqp.events import Ack, ChannelFailed, ConnectionFailed, MethodReceived, Publish
from leveret.amqp.fields import Long
from leveret.amqp.frames import HEARTBEAT
from leveret.amqp.states import ConnectionState
from leveret.broker.access import ResourceRefused
from leveret.broker.channels.channel import Channel
from leveret.broker.channels.operations.asking import error_of_refusal
from leveret.broker.firehose import Origin
from leveret.broker.messages import (
    ConsumerCancelled,
    ConsumerTimedOut,
    Deliver,
    LeaderChanged,
    PublishRun,
    Returned,
    Written,
    tell,
)
from leveret.broker.numbering import parse_numbering
from leveret.broker.queues.dispatch import WINDOW, WINDOW_BYTES
from leveret.broker.replies import Replies
from leveret.catalog.catalog import ChangeRefused
from leveret.catalog.commands import DeleteQueue

from .descriptions import Describe
from .messages import Beat, Blocked, CloseNow, HungUp, OperationDone, Received, Shutdown
from .tallies import TooManyChannels

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from leveret.actors import Ref
    from leveret.amqp import ServerConnection
    from leveret.amqp.events import Event
    from leveret.amqp.fields import Value
    from leveret.amqp.method import Method
    from leveret.broker.access import ResourceKind, Right, TopicRight
    from leveret.catalog.model import Exchange, Queue

    from .flow import Flow
    from .session import ByteStream, Services, Session

log = logging.getLogger(__name__)

CLOSE_WITHIN_S: Final = 3.0
"""How long a client that was sent connection.close may take to answer before the socket goes."""


REPORT: Final = WINDOW // 8
REPORT_BYTES: Final = WINDOW_BYTES // 8
"""Messages written to a consumer's socket, or their bytes, of which its queue is told. A report is
a message to another node, and less than this leaves the window open far enough."""


class ConnectionActor(Actor[object]):
    """See the module."""

    def __init__(
        self,
        session: Session,
        protocol: ServerConnection,
        stream: ByteStream,
        flow: Flow,
        services: Services,
        operations: trio.Nursery,
        hang_up: Callable[[], None],
    ) -> None:
        """Serve `session`.

        hang_up: ends the reader; called once, when there is nothing more to say.
        """
        self.session = session
        self.user = session.user
        self.vhost = session.vhost
        self.number = session.number
        self.services = services
        self.out: list[bytes | memoryview] = []
        """Encoded frames of this batch."""
        self.exclusive_queues: dict[int, Queue] = {}
        self._protocol = protocol
        self._stream = stream
        self._flow = flow
        self._operations = operations
        self._hang_up = hang_up
        self._channels: dict[int, Channel] = {}
        self._epoch = 0
        self._written: list[tuple[Deliver, int, int]] = []
        self._sending = trio.CancelScope()
        """Around the send that is under way."""
        self._confirming: dict[int, Channel] = {}
        self._touched: dict[int, Channel] = {}
        self._sent_since_beat = False
        self._blocked_reason: str | None = None
        self._told_blocked = False
        self._is_over = False

    @property
    def frame_max(self) -> int:
        """The negotiated largest frame, in bytes."""
        return self._protocol.frame_max

    async def start(self) -> None:
        """Begin to beat."""
        if self.session.heartbeat_s:
            self._operations.start_soon(self._watch_heartbeats)

    def receive(self, message: object) -> None:
        """Handle one message; what it makes us write leaves with `flush`."""
        match message:
            case Received():
                for event in message.events:
                    self._event(event)
                self._flow.taken(message.size_bytes)
            case PublishRun():
                self._flow.came_home(message.cost_bytes)
                channel = self._channel_of(message)
                if channel is not None:
                    channel.publishing.run_home(message)
                    self._confirming[channel.number] = channel
            case Deliver():
                channel = self._channels.get(message.consumer.channel)
                if channel is not None:
                    channel.deliver(message)
            case OperationDone():
                self._operated(message)
            case Replies():
                message.consumer.waiting_bytes -= message.size_bytes
                channel = self._channels.get(message.consumer.channel)
                if channel is not None:
                    channel.deliver_replies(message)
            case Returned():
                channel = self._channel_of(message.run)
                if channel is not None:
                    channel.publishing.returned(message.run)
            case LeaderChanged():
                channel = self._channels.get(message.consumer.channel)
                if channel is not None:
                    channel.leader_changed(message.uid, message.consumer)
            case ConsumerTimedOut():
                channel = self._channels.get(message.consumer.channel)
                if channel is not None:
                    channel.timed_out(message)
            case ConsumerCancelled():
                channel = self._channels.get(message.consumer.channel)
                if channel is not None:
                    channel.cancelled(message.uid, message.consumer)
            case Beat():
                self._beat()
            case Blocked():
                self._blocked_reason = message.reason
                self._tell_blocked()
            case Shutdown():
                self._fail(errors.connection_forced(message.reason))
            case Describe():
                message.answer_for(
                    self._channels.values(),
                    is_open=self._protocol.state is ConnectionState.RUNNING,
                    is_held=self._is_held(),
                )
            case _Quiet():
                self._close_ok(message.channel)
            case HungUp() | CloseNow():
                self._end()

    async def flush(self) -> None:
        """Send what the batch wrote, then tell the queues that it is out."""
        for channel in self._touched.values():
            channel.publishing.send_run()
            channel.settle_now()
        self._touched.clear()
        for channel in self._confirming.values():
            channel.publishing.write_confirms()
        self._confirming.clear()
        if self.out:
            out, self.out = self.out, []
            self._sent_since_beat = True
            try:
                with trio.CancelScope() as self._sending:
                    await self._stream.send_all(b"".join(out))
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                self._end()
            if self._sending.cancelled_caught:
                self._end()
        written, self._written = self._written, []
        for message, count, size_bytes in written:
            self._report(message, count, size_bytes)
        if self._protocol.state is ConnectionState.CLOSED:
            self._end()

    def _report(self, message: Deliver, count: int, size_bytes: int) -> None:
        """Tell the queue what was written, once it is a part of the window that is worth it."""
        consumer = message.consumer
        report = consumer.unreported
        if report is None or report.attachment != message.attachment:
            report = consumer.unreported = Written(consumer, message.attachment, 0, 0)
        report.count += count
        report.size_bytes += size_bytes
        if report.count >= REPORT or report.size_bytes >= REPORT_BYTES:
            consumer.unreported = None
            ref = self.services.directory.queue(message.uid)
            if ref is not None:
                tell(ref, report)

    # For the channels

    def write(self, channel: int, method: Method) -> None:
        """Queue a method for the client."""
        self.out.append(self._protocol.send_method(channel, method))

    def operate(self, channel: Channel, operation: Awaitable[Method | None]) -> None:
        """Run an operation beside this actor; its outcome comes back as a message."""
        channel.operation = trio.CancelScope()
        self._operations.start_soon(self._operate, channel, channel.operation, operation)

    def check(self, kind: ResourceKind, name: str, right: Right) -> None:
        """Let the user do something with a queue or exchange.

        Raises:
            AmqpError: 403, its permissions do not allow it.
        """
        try:
            self.services.access.check(self.user, self.vhost, kind, name, right)
        except ResourceRefused as error:
            raise errors.access_refused(str(error)) from None

    def check_topic(self, exchange: Exchange, routing_key: str, right: TopicRight) -> None:
        """Let the user use a routing key with an exchange, which counts for topic exchanges.

        Raises:
            AmqpError: 403, its topic permissions do not allow it.
        """
        if exchange.type != "topic":
            return
        try:
            self.services.access.check_topic(
                self.user, self.vhost, exchange.name, routing_key, right
            )
        except ResourceRefused as error:
            raise errors.access_refused(str(error)) from None

    def publish_actor(self, exchange: str, routing_key: str) -> Ref[PublishRun] | None:
        """Return the actor to publish to, or None if this node knows no such exchange.

        Raises:
            AmqpError: 403, the user may not write to it, or not with this key, or it is internal.
        """
        known = self.services.catalog.model.exchange(self.vhost, exchange)
        if known is None:
            return None
        self.check("exchange", exchange, "write")
        if known.internal:
            message = f"cannot publish to internal exchange '{exchange}' in vhost '{self.vhost}'"
            raise errors.access_refused(message)
        self.check_topic(known, routing_key, "write")
        return self.services.directory.exchange(self.vhost, exchange)

    def origin(self, channel: int) -> Origin | None:
        """Return who the firehose is to say is behind a channel; None where nothing is traced."""
        if not self.services.directory.firehose.is_open(self.vhost):
            return None
        return Origin(self.vhost, self.session.place, channel, self.user)

    def facts_of(self, channel: int) -> dict[str, Value]:
        """Return what events tell of a channel."""
        name = f"{self.session.place} ({channel})"
        return {
            "name": name,
            "pid": name,
            "number": Long(channel),
            "connection": self.session.place,
            "user": self.user,
            "vhost": self.vhost,
        }

    def published(self, size_bytes: int) -> None:
        """Count bytes that wait for an operation."""
        self._flow.published(size_bytes)
        self._note_publisher()

    def sent(self, run: PublishRun) -> None:
        """Count a run that the queues have not taken yet."""
        run.count_in(self._flow.budget)
        self._flow.sent(run.cost_bytes)
        self._note_publisher()

    def unkept(self, size_bytes: int) -> None:
        """Count bytes that wait for no operation any more."""
        self._flow.taken(size_bytes)

    def held(self, size_bytes: int) -> None:
        """Count bytes that wait for tx.commit."""
        self._flow.held(size_bytes)
        self._note_publisher()

    def unheld(self, size_bytes: int) -> None:
        """Count bytes that wait for no tx.commit any more."""
        self._flow.held(-size_bytes)

    def check_held(self) -> None:
        """Let a transaction hold one more run of publishes.

        Raises:
            AmqpError: 406, the connection's transactions hold too much already.
        """
        if self._flow.held_bytes > self._flow.in_flight_bytes_max:
            raise errors.precondition_failed(
                f"transactions of this connection hold {self._flow.held_bytes} bytes, above "
                f"limits.in_flight_bytes ({self._flow.in_flight_bytes_max}): commit more often"
            )
        budget = self._flow.budget
        if budget.held_bytes > budget.bytes_max:
            raise errors.precondition_failed(
                f"transactions of all connections hold {budget.held_bytes} bytes, above "
                f"limits.in_flight_bytes_total ({budget.bytes_max}): commit more often"
            )

    def written(self, message: Deliver, count: int, size_bytes: int) -> None:
        """Note deliveries that leave with this batch, to the client or back to the queue."""
        self._written.append((message, count, size_bytes))

    def write_cancel(self, channel: int, tag: str) -> None:
        """Tell a client that wants to know that its consumer is no more."""
        if self.session.can_cancel:
            self.write(channel, spec.BasicCancel(consumer_tag=tag, nowait=True))

    def own(self, queue: Queue) -> None:
        """Take charge of an exclusive queue, which goes with this connection."""
        if self._is_over:
            self._delete(queue, _nothing)
        else:
            self.exclusive_queues[queue.uid] = queue

    # What the client says

    def _event(self, event: Event) -> None:
        match event:
            case Publish() | Ack():
                self._on_channel(event.channel, event)
            case MethodReceived(channel=0):
                self._connection_method(event.method)
            case MethodReceived():
                self._channel_method(event.channel, event.method)
            case ChannelFailed():
                self._log_failure(event.error, event.channel)
                self.out.append(event.reply)
                self._drop_channel(event.channel)
            case ConnectionFailed():
                self._log_failure(event.error, 0)
                self.out.append(event.reply)
                self._release()
                self._close_soon()

    def _connection_method(self, method: Method) -> None:
        match method:
            case spec.ConnectionClose():
                for channel in self._channels.values():
                    channel.publishing.send_run()
                    channel.settle_now()
                self._operations.start_soon(self._close_in_order)
            case spec.ConnectionCloseOk():
                self._end()
            case spec.ConnectionUpdateSecret():
                self.write(0, spec.ConnectionUpdateSecretOk())

    def _channel_method(self, number: int, method: Method) -> None:
        match method:
            case spec.ChannelOpen():
                self._open_channel(number, method)
            case spec.ChannelClose():
                channel = self._channels.get(number)
                if channel is None:  # our own channel.close crossed it
                    self.write(number, spec.ChannelCloseOk())
                else:
                    channel.publishing.send_run()
                    channel.settle_now()
                    self._operations.start_soon(self._close_channel_in_order, channel)
            case spec.ChannelCloseOk():
                pass
            case _:
                self._on_channel(number, method)

    def _open_channel(self, number: int, method: spec.ChannelOpen) -> None:
        try:
            numbering = parse_numbering(method.out_of_band)
            self.services.directory.tallies.open_channel(self.number)
        except errors.AmqpError as error:
            self._fail(_caused(error, method))
            return
        except TooManyChannels as error:
            self._fail(errors.not_allowed(str(error), method.CLASS_ID, method.METHOD_ID))
            return
        self._epoch += 1
        self._channels[number] = Channel(number, self._epoch, self, numbering=numbering)
        self.services.directory.news.tell("channel.created", self.facts_of(number))
        self.write(number, spec.ChannelOpenOk())

    def _on_channel(self, number: int, event: Publish | Ack | Method) -> None:
        channel = self._channels.get(number)
        if channel is None or self._is_over:
            return
        self._touched[number] = channel
        try:
            channel.receive(event)
        except errors.AmqpError as error:
            self._channel_error(channel, _caused(error, event))

    def _operated(self, message: OperationDone) -> None:
        channel = message.channel
        if self._channels.get(channel.number) is not channel or self._is_over:
            return
        self._touched[channel.number] = channel
        try:
            channel.operated(message.outcome)
        except errors.AmqpError as error:
            self._channel_error(channel, error)

    async def _operate(
        self, channel: Channel, scope: trio.CancelScope, operation: Awaitable[Method | None]
    ) -> None:
        outcome: Method | errors.AmqpError | None = None
        try:
            with scope:
                outcome = await operation
        except errors.AmqpError as error:
            outcome = error
        except ChangeRefused as error:
            outcome = error_of_refusal(error.refusal)
        except Exception:  # a bug ends this connection, not the node
            log.exception("operation failed", extra={"connection": self.session.name})
            outcome = errors.internal_error()
        tell(self.ref, OperationDone(channel, outcome))

    # Errors and ends

    def _channel_error(self, channel: Channel, error: errors.AmqpError) -> None:
        if error.scope == "connection":
            self._fail(error)
            return
        self._log_failure(error, channel.number)
        channel.publishing.write_confirms()
        self.write(
            channel.number,
            spec.ChannelClose(
                reply_code=error.reply_code,
                reply_text=error.reply_text,
                class_id=error.class_id,
                method_id=error.method_id,
            ),
        )
        self._drop_channel(channel.number)

    def _fail(self, error: errors.AmqpError) -> None:
        """Close the connection for `error`."""
        if self._is_over or self._protocol.state is not ConnectionState.RUNNING:
            return
        self._log_failure(error, 0)
        self.write(
            0,
            spec.ConnectionClose(
                reply_code=error.reply_code,
                reply_text=error.reply_text,
                class_id=error.class_id,
                method_id=error.method_id,
            ),
        )
        self._release()
        self._close_soon()

    def _log_failure(self, error: Exception, channel: int) -> None:
        log.warning(
            "client broke a rule" if channel else "connection closed by an error",
            extra={
                "connection": self.session.name,
                "channel": channel,
                "user": self.user,
                "vhost": self.vhost,
                "error": str(error),
            },
        )

    def _close_soon(self) -> None:
        self.services.timers.after(CLOSE_WITHIN_S, self.ref, CloseNow())

    async def _close_channel_in_order(self, channel: Channel) -> None:
        """Answer channel.close when all that was asked for before it is done."""
        with trio.move_on_after(CLOSE_WITHIN_S):
            await channel.idle()
        tell(self.ref, _Quiet(channel))

    async def _close_in_order(self) -> None:
        """Answer connection.close when nothing of it is under way any more.

        Whoever connects next finds what was published, and can declare the exclusive queues.
        """
        with trio.move_on_after(CLOSE_WITHIN_S):
            for channel in list(self._channels.values()):
                await channel.idle()
            await self._delete_exclusive_queues()
        tell(self.ref, _Quiet(None))

    def _close_ok(self, channel: Channel | None) -> None:
        """Answer channel.close, or connection.close if `channel` is None."""
        if channel is None:
            self._release()
            self.write(0, spec.ConnectionCloseOk())
        elif self._channels.get(channel.number) is channel:
            channel.publishing.write_confirms()
            self._drop_channel(channel.number)
            self.write(channel.number, spec.ChannelCloseOk())

    async def _delete_exclusive_queues(self) -> None:
        """Delete what only this connection could use."""
        queues, self.exclusive_queues = self.exclusive_queues, {}
        for queue in queues.values():
            gone = trio.Event()
            # In order of submission, so the last one to go is the last one to wait for.
            self._delete(queue, lambda _, gone=gone: gone.set())  # type: ignore[misc]
        if queues:
            await gone.wait()

    def _delete(self, queue: Queue, done: Callable[[object], None]) -> None:
        self.services.catalog.submit(DeleteQueue(queue.vhost, queue.name, queue.uid), done)

    def _drop_channel(self, number: int) -> None:
        channel = self._channels.pop(number, None)
        self._touched.pop(number, None)
        self._confirming.pop(number, None)
        if channel is not None:
            channel.close()
            self.services.directory.tallies.close_channel(self.number)
            self.services.directory.news.tell("channel.closed", self.facts_of(number))

    def _release(self) -> None:
        """Return everything that the client holds."""
        for number in list(self._channels):
            self._drop_channel(number)

    def _end(self) -> None:
        """Stop: the reader sees the closed socket and does the rest."""
        if not self._is_over:
            self._is_over = True
            self._release()
            for queue in self.exclusive_queues.values():
                self._delete(queue, _nothing)
            self.exclusive_queues.clear()
            self.ref.close()
            self._hang_up()

    def _channel_of(self, run: PublishRun) -> Channel | None:
        channel = self._channels.get(run.channel)
        return channel if channel is not None and channel.epoch == run.epoch else None

    # Heartbeats and alarms

    async def _watch_heartbeats(self) -> None:
        """Beat, and give the client up when it does not.

        A task of its own: a client that is gone may be what this actor's send waits for.
        """
        half_s = self.session.heartbeat_s / 2
        await trio.sleep(half_s)
        while not self._flow.is_silent():
            tell(self.ref, Beat())
            await trio.sleep(half_s)
        log.warning("missed heartbeats from client", extra={"connection": self.session.name})
        self._sending.cancel()
        tell(self.ref, HungUp())

    def _beat(self) -> None:
        if not self._sent_since_beat:
            self.out.append(HEARTBEAT)
        self._sent_since_beat = False

    def _note_publisher(self) -> None:
        """From its first publish on a connection is told of alarms."""
        if not self._flow.publishes:
            self._flow.publishes = True
            self._tell_blocked()

    def _is_held(self) -> bool:
        """Whether an alarm has this publisher wait."""
        return self._flow.publishes and self._blocked_reason is not None

    def _tell_blocked(self) -> None:
        """Tell a publisher of alarms, and stop reading it; others are left in peace."""
        blocks = self._is_held()
        self._flow.block(blocked=blocks)
        if blocks == self._told_blocked or not self.session.can_block:
            return
        self._told_blocked = blocks
        if blocks:
            self.write(0, spec.ConnectionBlocked(reason=self._blocked_reason or ""))
        else:
            self.write(0, spec.ConnectionUnblocked())


class _Quiet:
    """To the actor itself: nothing of a closing channel is under way any more.

    None: nor of any other; it is the connection that closes.
    """

    __slots__ = ("channel",)

    def __init__(self, channel: Channel | None) -> None:
        self.channel = channel


def _nothing(_: object) -> None:
    pass


def _caused(error: errors.AmqpError, event: Publish | Ack | Method) -> errors.AmqpError:
    """Return `error` with the method that caused it, if it does not name one."""
    if error.class_id:
        return error
    if isinstance(event, Publish):
        cause: tuple[int, int] = (spec.BasicPublish.CLASS_ID, spec.BasicPublish.METHOD_ID)
    elif isinstance(event, Ack):
        cause = (spec.BasicAck.CLASS_ID, spec.BasicAck.METHOD_ID)
    else:
        cause = (event.CLASS_ID, event.METHOD_ID)
    return error.caused_by(*cause)
