"""A connection over all its transports: handshake, restoring, and who gets what comes.

The states, over the life of a connection in robust mode:

    DOWN → SHAKING → RESTORING → READY → DOWN → …           until CLOSING → CLOSED

Channel 1 is ours: on it the topology is declared again before any other channel begins. What
fails there is forgotten, with a warning in the log; it then fails where the program uses it.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from leveret.amqp import ClientConnection, Delivery, spec
from leveret.amqp.blocked import is_cut_off
from leveret.amqp.events import (
    Ack,
    ChannelFailed,
    ConnectionFailed,
    ContentReceived,
    Event,
    MethodReceived,
    Publish,
)
from leveret.amqp.fields import encode_shortstr
from leveret.amqp.frames import HEARTBEAT, encode_method
from leveret.client.errors import (
    AuthenticationRefused,
    BrokerError,
    ChannelClosed,
    ClientError,
    ConnectionClosed,
    ConnectionLost,
    Misuse,
    ResourceLocked,
    VirtualHostRefused,
    again,
    connection_error,
)

from .channel import Call, ChannelCore
from .outcome import Outcome
from .topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from leveret.amqp import Method
    from leveret.amqp.fields import Value

    from .consumer import ConsumerCore
    from .login import Login
    from .message import BaseMessage

log = logging.getLogger("leveret.client")

MESSAGE_SIZE_MAX: Final = 512 * 1024 * 1024
"""Octets of a body that we accept from a broker: the most that any version of RabbitMQ lets be."""
_CONTROL: Final = 1
_NUMBERS_MAX: Final = 65_535

M = TypeVar("M", bound="BaseMessage")


class State(Enum):
    """Where a connection stands, see the module's first lines."""

    DOWN = auto()
    SHAKING = auto()
    RESTORING = auto()
    READY = auto()
    CLOSING = auto()
    CLOSED = auto()


class ConnectionCore:
    """One connection, without I/O. `wake` is called when there is something to be written.

    out: what is to be written, gathered; out_bytes: its size, about.
    """

    def __init__(
        self,
        message_type: type[BaseMessage],
        *,
        is_robust: bool,
        publisher: str,
        wake: Callable[[], None],
    ) -> None:
        self.is_robust = is_robust
        self.publisher = publisher
        """What the ids of this connection's publishers begin with; nobody else has it."""
        self.wake = wake
        self.lock: AbstractContextManager[object] = nullcontext()
        """What a face with threads holds whenever it calls the core."""
        self.state = State.DOWN
        self.error: ClientError | None = None
        """Why it is closed for good."""
        self.topology = Topology()
        self.channels: dict[int, ChannelCore] = {}
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.payload_max = 0
        self.heartbeat_s = 0
        self.server_properties: dict[str, Value] = {}
        self.body_max = MESSAGE_SIZE_MAX
        """Octets of a body that the broker takes, as far as is known."""
        self.removes_duplicates = False
        """The broker stores a message once that is published again with its number."""
        self.blocked: str | None = None
        """Why the broker takes no publishes now."""
        self.unblocked: list[Outcome[None]] = []
        self.ready: Outcome[None] = Outcome()
        """Done when the connection is usable, or never will be."""
        self.ended: list[Outcome[None]] = []
        """Who wants to know when it is closed for good."""
        self.was_ready = False
        """The present, or last, transport came as far as being usable."""
        self.delivered = 0
        self.recoveries = 0
        """How often the conversation was taken up on another transport."""
        self._message_type = message_type
        self._login: Login | None = None
        self._protocol = ClientConnection()
        self._touched: dict[int, ChannelCore] = {}
        self._is_woken = False
        self._secrets: list[Call] = []
        self._control: ChannelCore | None = None
        self._failure: ClientError | None = None
        self._to_restore = 0
        self._publishers = 0

    @property
    def is_running(self) -> bool:
        """Whether channels can talk."""
        return self.state is State.READY

    @property
    def is_closed(self) -> bool:
        """Whether it is closed for good."""
        return self.state is State.CLOSED

    @property
    def is_full(self) -> bool:
        """Whether consumers without acknowledgements have so much that reading should wait."""
        return any(
            consumer.is_full
            for channel in self.channels.values()
            for consumer in channel.consumers.values()
        )

    @property
    def is_cut_off(self) -> bool:
        """Whether the broker has said that it is away from the rest of its cluster."""
        return is_cut_off(self.blocked)

    @property
    def has_direct_reply_to(self) -> bool:
        """Whether the broker brings replies past all queues."""
        capabilities = self.server_properties.get("capabilities")
        return isinstance(capabilities, dict) and capabilities.get("direct_reply_to") is True

    # The transport

    def attach(self, login: Login) -> None:
        """A transport is there: begin the handshake on it."""
        assert self.state is State.DOWN
        self._login = login
        self._failure = None
        self.was_ready = False
        self._protocol = ClientConnection(
            message_size_max=MESSAGE_SIZE_MAX, delivery_type=self._message_type
        )
        self.state = State.SHAKING
        self._put(self._protocol.begin())

    def receive(self, data: bytes) -> None:
        """Take what the transport gave. See `failure` afterwards."""
        for event in self._protocol.receive_data(data):
            if isinstance(event, Delivery):
                channel = self.channels.get(event.channel)
                consumer = channel and channel.consumers.get(event.consumer_tag)
                if not consumer:
                    if channel:
                        channel.return_stray(event)
                    continue
                message: BaseMessage = event  # type: ignore[assignment]  # as we ask the parser
                channel = consumer.channel
                message._channel = channel
                self.delivered += 1
                if consumer.no_ack:
                    message._life = None
                    channel.life.skip(event.delivery_tag)
                else:
                    message._life = channel.life
                consumer.take(message)
                if consumer.notify is not None:
                    consumer.tell()
            else:
                self._event(event)

    @property
    def failure(self) -> ClientError | None:
        """Why the transport is of no use any more; None while it is."""
        return self._failure

    def closed_silently(self) -> str:
        """Why the broker may have closed the transport without a word."""
        if self.state is not State.SHAKING:
            return "the broker closed the connection without a word"
        return (
            "the broker closed the connection during the handshake: it may refuse the user or the "
            "virtual host, want TLS, or not speak AMQP 0-9-1"
        )

    def broken(self, reason: str) -> None:
        """Give the transport up for something that the broker should not have sent."""
        if self._failure is None:
            self._failure = ConnectionLost(f"{reason}: the connection is given up")

    def take_output(self) -> bytes:
        """What is to be written now, all in one piece; b"" if nothing."""
        self._is_woken = False
        if self._touched:
            touched, self._touched = self._touched, {}
            for channel in touched.values():
                channel.flush_acks()
        out = self.out
        if not out:
            return b""
        self.out = []
        self.out_bytes = 0
        return out[0] if len(out) == 1 else b"".join(out)

    def beat(self) -> None:
        """Have a heartbeat written."""
        if self.state in {State.READY, State.RESTORING}:
            self._put(HEARTBEAT)

    def lost(self, error: ClientError) -> None:
        """The transport has gone, for `error`, unless there is a better reason."""
        error = self._failure or error
        self._failure = error
        self.out = []
        self.out_bytes = 0
        self._touched.clear()
        was = self.state
        if was is State.CLOSED:
            return
        self.state = State.DOWN
        self._control = None
        for secret in self._secrets:
            secret.fail(ConnectionLost(f"{error}\nIt broke while the secret was being updated."))
        self._secrets.clear()
        if was is State.CLOSING or not self.is_robust or is_final(error):
            self.end(_closed_by_program() if was is State.CLOSING else error)
            return
        if was is State.READY:
            self.ready = Outcome()
            self.recoveries += 1
        for channel in list(self.channels.values()):
            channel.lose(error)
        self._unblock()

    def end(self, error: ClientError) -> None:
        """Close for good: all that waits fails with `error`."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.error = error
        for channel in list(self.channels.values()):
            channel.end(error)
        self.ready.fail(error)
        if self.ready.error is None:
            self.ready = Outcome()
            self.ready.fail(error)
        self._unblock()
        ended, self.ended = self.ended, []
        for outcome in ended:
            outcome.succeed(None)

    # Verbs

    def check(self) -> None:
        """Raises ClientError if the connection is closed."""
        if self.error is not None:
            raise again(self.error)
        if self.state is State.CLOSING:
            raise _closed_by_program()

    def open_channel(self, *, confirms: bool, transactional: bool) -> ChannelCore:
        """Open a channel; see `opened` of what is returned.

        Raises:
            ClientError: the connection is closed, or has no channel left.
        """
        self.check()
        most = self._protocol.channel_max or _NUMBERS_MAX
        number = next((n for n in range(2, most + 1) if n not in self.channels), None)
        if number is None:
            raise Misuse(
                f"all {most - 1} channels of this connection are open: close some, open another "
                "connection, or raise channel_max at the broker"
            )
        self._publishers += 1
        channel = ChannelCore(
            self,
            number,
            confirms=confirms,
            transactional=transactional,
            publisher=f"{self.publisher}.{self._publishers}",
        )
        self.channels[number] = channel
        if self.is_running:
            channel.begin()
        return channel

    def update_secret(self, secret: str, reason: str) -> Call:
        """Tell the broker a new password or token before the old one expires."""
        self.check()
        method = spec.ConnectionUpdateSecret(new_secret=secret.encode(), reason=reason)
        call = Call(method, spec.ConnectionUpdateSecretOk)
        if self.is_running:
            self._secrets.append(call)
            self.write(0, method)
        else:
            call.succeed(None)  # the next login says it
        return call

    def close(self) -> None:
        """Say goodbye; the state is CLOSED when the broker has answered."""
        if self.state in {State.READY, State.RESTORING}:
            for channel in self.channels.values():
                channel.flush_acks()
            self.state = State.CLOSING
            self.write(0, _goodbye())
        else:
            self.end(_closed_by_program())

    def forked(self, publisher: str) -> None:
        """Begin anew in a forked process: what was under way belongs to the parent."""
        self.publisher = publisher
        error = ConnectionLost(
            "the process was forked: what was under way on this connection goes on in the parent"
        )
        self.lost(error)
        self.topology.forget_exclusive()
        for channel in self.channels.values():
            channel.forked(error, f"{publisher}.{channel.number}")

    # For the channels

    def write(self, channel: int, method: Method) -> None:
        """Have a method written."""
        if channel and method.CLASS_ID != spec.ChannelOpen.CLASS_ID:
            # The states have nothing to do with it, so it need not go through them.
            self._put(encode_method(channel, method.encode()))
        else:
            self._put(self._protocol.send_method(channel, method))

    def wrote(self, size: int) -> None:
        """Note that about `size` octets were added to `out`."""
        self.out_bytes += size
        if not self._is_woken:
            self._is_woken = True
            self.wake()

    def touch(self, channel: ChannelCore) -> None:
        """Note that a channel has acknowledgements to write."""
        self._touched[channel.number] = channel
        if not self._is_woken:
            self._is_woken = True
            self.wake()

    def forget_channel(self, channel: ChannelCore) -> None:
        """A channel is closed for good: its number is free."""
        if self.channels.get(channel.number) is channel:
            del self.channels[channel.number]
        self._touched.pop(channel.number, None)

    def lets_begin(self, channel: ChannelCore) -> bool:
        """Whether a channel that was closed may begin again at once."""
        return self.state is State.READY or (
            self.state is State.RESTORING and channel is self._control
        )

    def is_control(self, channel: ChannelCore) -> bool:
        """Whether it is the channel for restoring."""
        return channel is self._control

    def message_of(
        self, channel: ChannelCore, event: ContentReceived, method: spec.BasicGetOk
    ) -> BaseMessage:
        """The message that a get brought."""
        message = self._message_type(
            event.channel,
            b"",
            method.delivery_tag,
            method.redelivered,
            encode_shortstr(method.exchange) + encode_shortstr(method.routing_key),
            event.header,
            event.body,
        )
        message._channel = channel
        message._life = channel.life
        message.remaining = method.message_count
        return message

    def revive(self, channel: ChannelCore, consumer: ConsumerCore) -> None:
        """Find out whether the queue of a cancelled consumer still is, and consume again.

        A queue that lives on one node goes with it; if it was declared here it is declared again.
        One that is replicated was deleted by somebody, who meant it.
        """
        control = self._control
        if control is None or control.error is not None:
            channel.lose_consumer(consumer)
            return
        life = channel.life
        look = spec.QueueDeclare(queue=self.topology.resolve(consumer.queue), passive=True)

        def looked(call: Call) -> None:
            if call.error is None:
                channel.resume(consumer, life)
                return
            known = self.topology.known(consumer.queue)
            if known is None or (known.durable and not (known.exclusive or known.auto_delete)):
                channel.lose_consumer(consumer, f"\n{call.error}")
                return
            asked = [
                control.ask(method, _ANSWERS)
                for method in self.topology.queue_with_bindings(consumer.queue)
            ]
            asked[0].done = declared
            asked[-1].notify = lambda _: channel.resume(consumer, life)

        def declared(call: Call) -> None:
            if call.error is None:
                self._note_name(consumer.queue, call)
            else:
                channel.lose_consumer(consumer, f"\n{call.error}")

        control.ask(look, spec.QueueDeclareOk).done = looked

    # What the broker says

    def _event(self, event: Event) -> None:
        if isinstance(event, ConnectionFailed):
            self._put(event.reply)
            self._failure = ConnectionLost(f"the broker broke the protocol: {event.error}")
        elif isinstance(event, ChannelFailed):
            self._put(event.reply)
            channel = self.channels.get(event.channel)
            if channel is not None:
                channel.end(ChannelClosed(f"the broker broke the protocol: {event.error}"))
        elif isinstance(event, MethodReceived) and event.channel == 0:
            self._connection_method(event.method)
        elif isinstance(event, MethodReceived):
            self._on_channel(event.channel, event.method)
        elif not isinstance(event, Publish):
            self._on_channel(event.channel, event)

    def _on_channel(self, number: int, event: Ack | ContentReceived | Method | Delivery) -> None:
        channel = self._control if number == _CONTROL else self.channels.get(number)
        if channel is not None and not isinstance(event, Delivery):
            channel.receive(event)

    def _connection_method(self, method: Method) -> None:
        login = self._login
        assert login is not None
        match method:
            case spec.ConnectionStart():
                self._started(method, login)
            case spec.ConnectionTune():
                answer = login.tune_ok(method)
                self.heartbeat_s = answer.heartbeat
                self._say(answer)
                self.payload_max = max((answer.frame_max or 1 << 30) - 8, 1)
                self._say(spec.ConnectionOpen(virtual_host=login.vhost))
            case spec.ConnectionOpenOk():
                self._restore()
            case spec.ConnectionSecure():
                self._failure = AuthenticationRefused(
                    "the broker asks for more than user and password, which is not supported"
                )
            case spec.ConnectionClose():
                self._closed(method, login)
            case spec.ConnectionCloseOk():
                self.end(_closed_by_program())
            case spec.ConnectionBlocked():
                self.blocked = method.reason or "no reason given"
                log.warning("broker blocks publishers", extra={"reason": self.blocked})
            case spec.ConnectionUnblocked():
                self._unblock()
            case spec.ConnectionUpdateSecretOk() if self._secrets:
                self._secrets.pop(0).succeed(None)
            case _:
                self.broken(f"the broker sent {method.NAME} that nobody asked for")

    def _started(self, start: spec.ConnectionStart, login: Login) -> None:
        self.server_properties = dict(start.server_properties)
        capabilities = start.server_properties.get("capabilities")
        known = capabilities if isinstance(capabilities, dict) else {}
        self.removes_duplicates = self.is_robust and known.get("publisher_deduplication") is True
        try:
            answer = login.start_ok(start)
        except AuthenticationRefused as error:
            self._failure = error
        else:
            self._say(answer)

    def _say(self, method: Method) -> None:
        """Answer in the handshake, and go on with what has been waiting for that."""
        self._put(self._protocol.send_method(0, method))
        self.receive(b"")

    def _closed(self, close: spec.ConnectionClose, login: Login) -> None:
        """The broker closes the connection."""
        self._put(self._protocol.send_method(0, spec.ConnectionCloseOk()))
        error = connection_error(close.reply_code, close.reply_text)
        code, text = close.reply_code, close.reply_text
        if self.state is State.SHAKING:
            kind: type[BrokerError] = ConnectionClosed
            words = f"{code} {text}"
            if code == 403:
                kind = AuthenticationRefused
                words += f"\nCheck user name {login.user!r} and its password."
            elif code in {402, 530}:
                kind = VirtualHostRefused
                words += f"\nCheck the virtual host {login.vhost!r} and the user's permissions."
            error = kind(words, reply_code=code, reply_text=text)
        self._failure = error
        for channel in list(self.channels.values()):
            if channel.is_to_blame((close.class_id, close.method_id)):
                channel.blame(error)
                # The others are taken up again, so this is not the connection's end.
                self._failure = ConnectionLost(str(error), reply_code=code, reply_text=text)
                return

    def _unblock(self) -> None:
        self.blocked = None
        waiting, self.unblocked = self.unblocked, []
        for outcome in waiting:
            outcome.succeed(None)

    # Restoring

    def _restore(self) -> None:
        """Declare everything again on a channel of our own, then have the channels begin."""
        self.state = State.RESTORING
        self._control = ChannelCore(
            self, _CONTROL, confirms=False, transactional=False, publisher=""
        )
        if self.is_robust:
            self._control.begin()
        self._ask_all(list(self.topology.entities()), self._restore_bindings)

    def _restore_bindings(self) -> None:
        self._ask_all([("", method) for method in self.topology.bindings()], self._restored)

    def _ask_all(self, entities: list[tuple[str, Method]], then: Callable[[], None]) -> None:
        """Ask for all of `entities` at once, and do `then` when all are answered."""
        control = self._control
        assert control is not None
        if not entities:
            then()
            return
        left = len(entities)

        def answered(call: Call, *, name: str) -> None:
            nonlocal left
            left -= 1
            if isinstance(call.error, ResourceLocked):
                # Our former self still holds it, until the broker has noticed that it is gone.
                self._failure = ConnectionLost(f"{call.error}\nThe broker has not noticed yet …")
            elif call.error is not None:
                log.warning(
                    "cannot declare again", extra={"what": repr(call.method), "why": call.error}
                )
                self.topology.forget(call.method)
            elif name:
                self._note_name(name, call)
            if not left and self._failure is None:
                then()

        for name, method in entities:
            call = control.ask(method, _ANSWERS)
            call.done = partial(answered, name=name)

    def _note_name(self, name: str, call: Call) -> None:
        """Note what the broker calls a queue that it named."""
        answer = call.result()
        if isinstance(answer, spec.QueueDeclareOk):
            self.topology.renamed(name, answer.queue)

    def _restored(self) -> None:
        self.state = State.READY
        self.was_ready = True
        for channel in list(self.channels.values()):
            if channel.error is None:
                channel.begin()
        self.ready.succeed(None)

    def _put(self, octets: bytes) -> None:
        if octets:
            self.out.append(octets)
            self.wrote(len(octets))


def is_final(error: ClientError) -> bool:
    """Whether another transport would meet the same refusal."""
    return isinstance(error, AuthenticationRefused | VirtualHostRefused)


def _closed_by_program() -> ConnectionClosed:
    return ConnectionClosed("the connection was closed by the program: open another one")


def _goodbye() -> spec.ConnectionClose:
    return spec.ConnectionClose(reply_code=200, reply_text="", class_id=0, method_id=0)


_ANSWERS: Final = (
    spec.ExchangeDeclareOk,
    spec.QueueDeclareOk,
    spec.QueueBindOk,
    spec.ExchangeBindOk,
)
