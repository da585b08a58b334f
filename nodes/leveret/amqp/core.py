"""The sans-IO connection that both roles share: octets in, events out; methods in, octets out.

It owns the receive buffer, the states (by the tables of `states`) and the content in assembly. It
knows no socket, no clock and no queue. What it must not do is lose anything: an error is an event
behind the events that were parsed before it, so `receive_data` never raises.

Rules of the loop:
- While it is our turn in the handshake nothing further is parsed: a peer that sends ahead
  (start-ok, tune-ok and open in one packet) is served once we have answered. Whoever answers then
  calls `receive_data(b"")` for what has been waiting.
- A whole publish that lies in the chunk is cut out in one step; everything else goes frame by
  frame. Bodies are copied once out of the chunk.
- The octets kept between calls are at most one frame, and before login at most 64 KiB.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from leveret.amqp import errors, frames, spec
from leveret.amqp.content import Assembly
from leveret.amqp.errors import AmqpError, ProtocolHeaderError
from leveret.amqp.events import (
    Ack,
    ChannelFailed,
    ConnectionFailed,
    ContentReceived,
    Delivery,
    Event,
    MethodReceived,
    Publish,
)
from leveret.amqp.properties import is_well_formed
from leveret.amqp.states import (
    ANSWERABLE,
    CHANNEL,
    CONNECTION,
    ENDING,
    SPEAKER,
    WORDS,
    ChannelState,
    ConnectionState,
    Role,
)

if TYPE_CHECKING:
    from leveret.amqp.method import Method

FRAME_MAX_INITIAL: Final = 4096
"""Octets a frame may have before tune-ok. Spec: 4.2.3, frame-min-size; RabbitMQ 3.10 the same."""

BUFFER_BEFORE_LOGIN_MAX: Final = 64 * 1024
"""Octets kept of a peer that is not logged in and sends ahead; more is error 506."""

MESSAGE_SIZE_MAX: Final = 128 * 1024 * 1024
"""Octets of a body, by default; a larger one is channel error 406. RabbitMQ 3's default, which a
client takes from any broker; a node has a smaller one of its own."""

PENDING_MESSAGES_MAX: Final = 16
"""Times the largest message: octets of unfinished bodies a connection may hold, over all channels.

Without it 2,047 channels could each hold one octet less than a message; beyond it: error 506.
"""

_MEMO_MAX: Final = 512
# A header that is not longer is remembered: the commonest publishers send the same one each time.
_MEMO_HEADER_MAX: Final = 96

_unpack_head: Final = Struct(">BHI").unpack_from
# An end octet and the next frame's type in one word, so that one comparison proves both.
_unpack_to_header: Final = Struct(">HHIIQ").unpack_from
_unpack_to_body: Final = Struct(">HHI").unpack_from
_unpack_ack: Final = Struct(">QB").unpack_from
_END_THEN_HEADER: Final = 0xCE02
_END_THEN_BODY: Final = 0xCE03
_BASIC_WEIGHTLESS: Final = 60 << 16
_PUBLISH: Final = spec.BasicPublish.ID.to_bytes(4, "big")
_ACK_ID: Final = spec.BasicAck.ID.to_bytes(4, "big")
_CLOSES: Final = frozenset((spec.ConnectionClose.ID, spec.ConnectionCloseOk.ID))


class _Channel:
    """A channel that is not closed: its state, and the content it is in the middle of."""

    __slots__ = ("content", "state")

    def __init__(self) -> None:
        self.state = ChannelState.OPEN
        self.content: Assembly | None = None


class Connection:
    """One end of an AMQP connection, without the network. Use one of its two subclasses.

    state: where the conversation stands; frame_max, channel_max: as negotiated, 0 = no limit.
    """

    role: Role

    def __init__(self, *, message_size_max: int = MESSAGE_SIZE_MAX) -> None:
        self.state = ConnectionState.NEW
        self.frame_max = FRAME_MAX_INITIAL
        self.channel_max = 0
        self._message_size_max = message_size_max
        self._pending_max = message_size_max * PENDING_MESSAGES_MAX
        self._pending = 0
        self.unfinished: dict[int, int] = {}
        """Messages that are begun and not whole yet, the oldest first: the octets that their bodies
        will have, by a number that grows with each."""
        self._begun = 0
        self._channels: dict[int, _Channel] = {}
        # Channels on which a method may come next: open, and not in the middle of content.
        self._idle: set[int] = set()
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._needed = 0
        # The stream lost its framing, or the conversation is over: nothing more is read.
        self._is_deaf = False
        self._payload_max = FRAME_MAX_INITIAL
        # Payload of a publish's method frame -> route, mandatory, immediate; and known headers.
        self._publishes: dict[bytes, tuple[bytes, bool, bool]] = {}
        self._headers: dict[bytes, bytes] = {}

    # Receiving

    @property
    def is_waiting_for_us(self) -> bool:
        """It is our turn in the handshake: nothing is parsed until we have answered."""
        return SPEAKER.get(self.state) is self.role

    @property
    def open_channels(self) -> int:
        """Channels that are open or closing."""
        return len(self._channels)

    def receive_data(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order; never raises.

        data: what the socket gave, of any size; b"" to go on after an answer in the handshake.
        """
        events: list[Event] = []
        if self._is_deaf:
            return events
        if self._kept:
            self._keep(data)
            if self._kept_size < self._needed:
                return events
            if self.is_waiting_for_us:
                self._limit_kept(events)
                return events
            data = b"".join(self._kept)
            self._kept = []
            self._kept_size = 0
        used = self._receive(data, events)
        if used < len(data) and not self._is_deaf:
            self._keep(data[used:] if used else data)
            self._limit_kept(events)
        return events

    def _limit_kept(self, events: list[Event]) -> None:
        """Refuse a peer that sends too much ahead of its turn in the handshake."""
        if self.state in SPEAKER and self._kept_size > BUFFER_BEFORE_LOGIN_MAX:
            self._is_deaf = True
            error = errors.resource_error(
                f"more than {BUFFER_BEFORE_LOGIN_MAX} octets sent before login"
            )
            events.append(self._connection_failed(error))

    def _keep(self, data: bytes) -> None:
        """Keep octets of an unfinished frame, small pieces merged."""
        if not data:
            return
        kept = self._kept
        if kept and len(kept[-1]) + len(data) < 4096:
            kept[-1] += data
        else:
            kept.append(data)
        self._kept_size += len(data)

    def _receive(self, data: bytes, events: list[Event]) -> int:
        """Parse `data` up to its last whole frame, or to our turn; the octets used."""
        used = 0
        if self.state is ConnectionState.NEW and self.role is Role.SERVER:
            if len(data) < 8:
                self._needed = 8
                return 0
            used = 8
            if data[:8] != spec.PROTOCOL_HEADER:
                return self._refuse_header(data, events)
            self._enter(ConnectionState.GREETED)
        while not self.is_waiting_for_us:
            try:
                return self._receive_frames(data, used, events)
            except _Interrupted as stop:
                used = stop.used
                if stop.error is not None:
                    if self.state in ENDING:
                        # One error is reported; who then sends rubbish is heard no more.
                        self._is_deaf = True
                    else:
                        events.append(self._failed(stop.error, stop.channel))
                if self._is_deaf:
                    return len(data)
        self._needed = 0
        return used

    def _receive_frames(self, data: bytes, used: int, events: list[Event]) -> int:
        """The loop over whole frames; interrupted by an error, or after a frame of channel 0.

        Flat, for speed: a call or an attribute more is a tenth of what parsing a message costs.
        A publish whose three frames lie in `data` is cut out in one step; where anything is
        unusual, frame by frame the way below knows what to do.
        """
        end = len(data)
        append = events.append
        idle = self._idle
        publish_of = self._publishes.get
        payload_max = self._payload_max
        while True:
            if end - used < 7:
                self._needed = 7
                return used
            kind, channel, size = _unpack_head(data, used)
            start = used + 7
            stop = start + size
            if size > payload_max:
                raise self._unframed(frames.frame_too_large(kind, size, self.frame_max), end)
            if stop >= end:
                self._needed = stop + 1 - used
                return used
            if kind == 1 and channel in idle:
                payload = data[start:stop]
                if size == 13 and payload[:4] == _ACK_ID and data[stop] == 0xCE:
                    tag, bits = _unpack_ack(payload, 4)
                    append(Ack(channel, tag, bits & 1 != 0))
                    used = stop + 1
                    continue
                publish = publish_of(payload) or self._learn(payload)
                if publish is not None and stop + 20 <= end:
                    content = self._content_at(data, stop, channel)
                    if content is not None:
                        header, body, used = content
                        route, mandatory, immediate = publish
                        append(Publish(channel, route, mandatory, immediate, header, body))
                        continue
            self._receive_frame(kind, channel, data, start, stop, events)
            used = stop + 1

    def _content_at(self, data: bytes, stop: int, channel: int) -> tuple[bytes, bytes, int] | None:
        """Header and body of the content whose frames lie whole behind a method, and their end.

        stop: where the method's end octet is. None if anything about it is unusual.
        """
        mark, same, size, basic, body_size = _unpack_to_header(data, stop)
        head = stop + 8
        tail = head + size
        payload_max = self._payload_max
        end = len(data)
        if (
            mark != _END_THEN_HEADER
            or same != channel
            or basic != _BASIC_WEIGHTLESS
            or tail + 8 > end
            or size > payload_max
            or not 0 < body_size <= self._message_size_max
        ):
            return None
        header = data[head:tail]
        header = self._headers.get(header) or self._checked(header)
        mark, same, size = _unpack_to_body(data, tail)
        tail += 8
        after = tail + size
        if (
            mark == _END_THEN_BODY
            and same == channel
            and size == body_size
            and size <= payload_max
            and after < end
            and data[after] == 0xCE
            and header
        ):
            return header, data[tail:after], after + 1
        return None

    def _receive_frame(
        self, kind: int, channel: int, data: bytes, start: int, stop: int, events: list[Event]
    ) -> None:
        """Take one frame, whose payload is `data[start:stop]`, by the states' rules."""
        if data[stop] != 0xCE:
            error = frames.wrong_end(kind, data[start:stop], data[stop])
            raise self._unframed(error, len(data))
        try:
            event = self._frame(kind, channel, data[start:stop])
        except AmqpError as error:
            raise _Interrupted(stop + 1, error, channel) from None
        if event is not None:
            events.append(event)
        if channel == 0:
            # The frame may have changed the limits, or made it our turn.
            raise _Interrupted(stop + 1, None, 0)

    def _checked(self, header: bytes) -> bytes:
        """`header` if it is well-formed, remembered if it is short; else b""."""
        if not is_well_formed(header):
            return b""
        if len(header) <= _MEMO_HEADER_MAX:
            if len(self._headers) >= _MEMO_MAX:
                self._headers.clear()
            self._headers[header] = header
        return header

    def _unframed(self, error: AmqpError, end: int) -> _Interrupted:
        """The end of all reading: where the next frame begins is no longer known."""
        interrupt = _Interrupted(end, error, 0)
        if self.state in ENDING:
            return interrupt
        self._is_deaf = True
        return interrupt

    def _learn(self, payload: bytes) -> tuple[bytes, bool, bool] | None:
        """Check the payload of a publish and remember its parts.

        None if it is malformed, or not a publish, or we are not its receiver.
        """
        size = len(payload)
        if payload[:4] != _PUBLISH or self.role is not Role.SERVER:
            return None
        # class, method, ticket: 6 octets; exchange; routing key; one octet of bits.
        if size < 9:
            return None
        key_at = 7 + payload[6]
        if key_at >= size or key_at + 1 + payload[key_at] != size - 1:
            return None
        if len(self._publishes) >= _MEMO_MAX:
            self._publishes.clear()
        bits = payload[-1]
        publish = (payload[6:-1], bits & 1 != 0, bits & 2 != 0)
        self._publishes[payload] = publish
        return publish

    # One frame

    def _frame(self, kind: int, channel: int, payload: bytes) -> Event | None:
        """Take one frame by the states' rules; the event it completes, if any."""
        if self.state in ENDING:
            return self._frame_while_ending(kind, channel, payload)
        if kind == 1:
            if len(payload) < 4:
                raise frames.unknown_frame(kind, payload)
            if channel == 0:
                return self._method_of_connection(payload)
        elif kind == 2:
            if len(payload) < 12:
                raise frames.unknown_frame(kind, payload)
        elif kind == 8 and not payload:
            if channel == 0:
                return None
        elif kind != 3:
            raise frames.unknown_frame(kind, payload)
        if channel == 0:
            raise frames.misplaced_frame(kind, payload)
        if kind == 8 or self.state is not ConnectionState.RUNNING:
            raise frames.misplaced_frame(kind, payload)
        return self._frame_of_channel(kind, channel, payload)

    def _frame_while_ending(self, kind: int, channel: int, payload: bytes) -> Event | None:
        """Once a close has been sent or received only closes count; the rest is dropped."""
        if kind != 1 or channel != 0 or int.from_bytes(payload[:4], "big") not in _CLOSES:
            return None
        method = spec.decode_method(payload)
        state = CONNECTION.get((self.state, self.role.peer, method.ID))
        if state is None:
            return None
        self._enter(state)
        return MethodReceived(0, method)

    def _method_of_connection(self, payload: bytes) -> Event:
        method = spec.decode_method(payload)
        state = CONNECTION.get((self.state, self.role.peer, method.ID))
        if state is None:
            raise errors.channel_error(
                f"unexpected method in connection state {WORDS[self.state]}",
                method.CLASS_ID,
                method.METHOD_ID,
            )
        self._check(method)
        self._enter(state)
        self._settle(method)
        return MethodReceived(0, method)

    def _frame_of_channel(self, kind: int, number: int, payload: bytes) -> Event | None:
        channel = self._channels.get(number)
        if channel is not None and channel.state is not ChannelState.OPEN:
            return self._frame_of_closing_channel(kind, number, channel, payload)
        if channel is not None and channel.content is not None:
            return self._content(kind, number, channel, payload)
        if kind != 1:
            raise errors.unexpected_frame("expected method frame, got non method frame instead")
        if channel is not None and payload[:4] == _PUBLISH and self.role is Role.SERVER:
            if self._learn(payload) is None:
                raise errors.malformed_arguments(payload[4:], 60, 40)
            self._expect_content(number, channel, Assembly(payload, 60, 40))
            return None
        method = spec.decode_method(payload)
        if channel is None:
            return self._open(number, method)
        self._check_sender(method)
        if method.HAS_CONTENT:
            assembly = Assembly(method, method.CLASS_ID, method.METHOD_ID)
            self._expect_content(number, channel, assembly)
            return None
        if isinstance(method, spec.BasicAck):
            return Ack(number, method.delivery_tag, method.multiple)
        self._move(number, self.role.peer, method)
        return MethodReceived(number, method)

    def _frame_of_closing_channel(
        self, kind: int, number: int, channel: _Channel, payload: bytes
    ) -> Event | None:
        """Everything is dropped but what moves the closing on."""
        if kind != 1:
            return None
        method_id = int.from_bytes(payload[:4], "big")
        if (channel.state, self.role.peer, method_id) not in CHANNEL:
            return None
        method = spec.decode_method(payload)
        self._move(number, self.role.peer, method)
        return MethodReceived(number, method)

    def _open(self, number: int, method: Method) -> Event:
        """A method on a channel that is not open."""
        opened = len(self._channels)
        if self.role is Role.SERVER and 0 < self.channel_max <= opened:
            # RabbitMQ counts channels and lets their numbers be any.
            raise errors.not_allowed(
                f"number of channels opened ({opened}) has reached the negotiated "
                f"channel_max ({self.channel_max})"
            )
        if self.role is Role.CLIENT or not isinstance(method, spec.ChannelOpen):
            raise errors.channel_error("expected 'channel.open'", method.CLASS_ID, method.METHOD_ID)
        self._move(number, Role.CLIENT, method)
        return MethodReceived(number, method)

    def _check_sender(self, method: Method) -> None:
        """Refuse a method on an open channel that this peer may not send now."""
        if isinstance(method, spec.ChannelOpen) and self.role is Role.SERVER:
            raise errors.channel_error(
                "second 'channel.open' seen", method.CLASS_ID, method.METHOD_ID
            )
        allowed = method.FROM_CLIENT if self.role is Role.SERVER else method.FROM_SERVER
        if (
            not allowed
            or method.CLASS_ID == spec.ConnectionOpen.CLASS_ID
            or isinstance(method, spec.ChannelCloseOk)
        ):
            raise spec.unimplemented(method)

    # Content

    def _expect_content(self, number: int, channel: _Channel, assembly: Assembly) -> None:
        channel.content = assembly
        self._idle.discard(number)

    def _content(self, kind: int, number: int, channel: _Channel, payload: bytes) -> Event | None:
        assembly = channel.content
        assert assembly is not None
        is_body = bool(assembly.header)
        whole = assembly.add(kind, payload, message_size_max=self._message_size_max)
        if not is_body:
            if not whole:
                self._begun += 1
                assembly.number = self._begun
                self.unfinished[assembly.number] = assembly.missing
        else:
            self._pending += len(payload)
            if self._pending > self._pending_max:
                raise errors.resource_error(
                    f"unfinished messages exceed {self._pending_max} octets"
                )
        if not whole:
            return None
        body = assembly.body()
        self._pending -= len(body)
        self.unfinished.pop(assembly.number, None)
        channel.content = None
        self._idle.add(number)
        if isinstance(assembly.method, bytes):
            publish = self._publishes.get(assembly.method) or self._learn(assembly.method)
            assert publish is not None, "it was checked when it came"
            return Publish(number, *publish, assembly.header, body)
        return self._content_received(number, assembly.method, assembly.header, body)

    def _content_received(
        self, number: int, method: Method, header: bytes, body: bytes
    ) -> ContentReceived | Delivery:
        """The event for content that came frame by frame; for the roles to refine."""
        return ContentReceived(number, method, header, body)

    # States

    def _enter(self, state: ConnectionState) -> None:
        """Change the connection's state; its end is the end of its channels."""
        self.state = state
        if state in ENDING:
            self._channels.clear()
            self._idle.clear()
            self._pending = 0
            self.unfinished.clear()
            self._is_deaf = self._is_deaf or state is ConnectionState.CLOSED

    def _move(self, number: int, sender: Role, method: Method) -> None:
        """Let `method` change the state of its channel, if it does."""
        channel = self._channels.get(number)
        before = ChannelState.CLOSED if channel is None else channel.state
        after = CHANNEL.get((before, sender, method.ID))
        if after is None or after is before:
            return
        if after is ChannelState.CLOSED:
            del self._channels[number]
            return
        if channel is None:
            channel = self._channels[number] = _Channel()
            self._idle.add(number)
        elif before is ChannelState.OPEN:
            self._idle.discard(number)
            if channel.content is not None:
                self._pending -= channel.content.received
                self.unfinished.pop(channel.content.number, None)
                channel.content = None
        channel.state = after

    def _check(self, method: Method) -> None:
        """Refuse what a method of the handshake proposes; for the roles to fill.

        Raises:
            AmqpError: the proposal is not acceptable.
        """

    def _settle(self, method: Method) -> None:
        """Adopt the limits that a tune-ok, sent or received, has settled."""
        if isinstance(method, spec.ConnectionTuneOk):
            self.frame_max = method.frame_max
            # RabbitMQ lets a payload have frame_max octets, eight more than the letter: some
            # clients count so. Without a limit a frame is as large as a message may be.
            self._payload_max = method.frame_max or max(self._message_size_max, FRAME_MAX_INITIAL)
            self.channel_max = method.channel_max

    # Failing

    def _refuse_header(self, data: bytes, events: list[Event]) -> int:
        error = ProtocolHeaderError(data[:8])
        self._enter(ConnectionState.CLOSED)
        events.append(ConnectionFailed(error, error.answer))
        return len(data)

    def _failed(self, error: AmqpError, number: int) -> Event:
        if number and error.scope == "channel":
            return ChannelFailed(number, error, self.fail(error, number))
        return self._connection_failed(error)

    def _connection_failed(self, error: AmqpError) -> Event:
        self._kept = []
        self._kept_size = 0
        return ConnectionFailed(error, self.fail(error))

    def fail(self, error: AmqpError, channel: int = 0) -> bytes:
        """Close what `error` closes, the channel or the connection; the octets to write.

        b"" if the connection is not far enough for an answer: then just close the socket. Also
        b"" if we closed it before, or the channel is gone.
        """
        close = (error.reply_code, error.reply_text, error.class_id, error.method_id)
        if channel and error.scope == "channel":
            known = self._channels.get(channel)
            if known is None or (known.state, self.role, spec.ChannelClose.ID) not in CHANNEL:
                return b""
            return self.send_method(channel, _close_of(spec.ChannelClose, *close))
        if self.state not in ANSWERABLE:
            if self.state not in ENDING:
                self._enter(ConnectionState.CLOSED)
            return b""
        return self.send_method(0, _close_of(spec.ConnectionClose, *close))

    # Sending

    def send_method(self, channel: int, method: Method) -> bytes:
        """The frame of a method without content; moves the states.

        Raises:
            ValueError: an argument does not fit its wire type.
        """
        octets = frames.encode_method(channel, method.encode())
        if channel:
            if method.CLASS_ID == spec.ChannelOpen.CLASS_ID:
                self._move(channel, self.role, method)
        else:
            state = CONNECTION.get((self.state, self.role, method.ID))
            # A close may cross the peer's; anything else out of order is our own mistake.
            assert state is not None or self.state in ENDING, (self.state, method)
            if state is not None:
                self._enter(state)
            self._settle(method)
        return octets

    def send_content(
        self, channel: int, method: Method, header: bytes, body: bytes | memoryview
    ) -> bytes:
        """The frames of a method with content, none longer than the negotiated frame_max.

        header: the content header payload, which states the size of `body`.
        """
        return frames.encode_content(channel, method.encode(), header, body, self.frame_max)


class _Interrupted(Exception):
    """The loop must stop at `used`: an error on `channel`, or a change of state."""

    def __init__(self, used: int, error: AmqpError | None, channel: int) -> None:
        super().__init__(used)
        self.used = used
        self.error = error
        self.channel = channel


def _close_of(
    cls: type[spec.ChannelClose | spec.ConnectionClose],
    reply_code: int,
    reply_text: str,
    class_id: int,
    method_id: int,
) -> Method:
    return cls(reply_code=reply_code, reply_text=reply_text, class_id=class_id, method_id=method_id)
