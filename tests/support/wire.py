"""A bare AMQP 0-9-1 client made of bytes: what no client library lets a test do.

It knows no states and checks nothing by itself, so that a test can break every rule on purpose,
and compare what comes back octet for octet.
It shares no code with the broker: a mistake in `leveret.amqp` must not hide itself here.
"""

from __future__ import annotations

import socket
import struct
import time
from types import TracebackType
from typing import NamedTuple, Self

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE

CONNECTION_START = (10, 10)
CONNECTION_START_OK = (10, 11)
CONNECTION_TUNE = (10, 30)
CONNECTION_TUNE_OK = (10, 31)
CONNECTION_OPEN = (10, 40)
CONNECTION_OPEN_OK = (10, 41)
CONNECTION_CLOSE = (10, 50)
CONNECTION_CLOSE_OK = (10, 51)
CHANNEL_OPEN = (20, 10)
CHANNEL_OPEN_OK = (20, 11)
CHANNEL_CLOSE = (20, 40)
CHANNEL_CLOSE_OK = (20, 41)
QUEUE_DECLARE = (50, 10)
QUEUE_DECLARE_OK = (50, 11)
BASIC_CONSUME = (60, 20)
BASIC_CONSUME_OK = (60, 21)
BASIC_CANCEL = (60, 30)
BASIC_PUBLISH = (60, 40)
BASIC_RETURN = (60, 50)
BASIC_DELIVER = (60, 60)
BASIC_GET = (60, 70)
BASIC_GET_OK = (60, 71)
BASIC_GET_EMPTY = (60, 72)
BASIC_ACK = (60, 80)
CONFIRM_SELECT = (85, 10)
CONFIRM_SELECT_OK = (85, 11)


class Closed(Exception):
    """The broker closed the socket."""


class Frame(NamedTuple):
    """One frame as it came; `method` is (class, method) for a method frame, else None."""

    type: int
    channel: int
    payload: bytes

    @property
    def method(self) -> tuple[int, int] | None:
        if self.type != METHOD:
            return None
        class_id, method_id = struct.unpack_from(">HH", self.payload)
        return class_id, method_id

    @property
    def arguments(self) -> bytes:
        """The payload behind the class and method numbers."""
        return self.payload[4:]


class CloseReason(NamedTuple):
    """The arguments of connection.close or channel.close."""

    code: int
    text: str
    class_id: int
    method_id: int


class Tune(NamedTuple):
    """The limits of connection.tune; heartbeat in seconds."""

    channel_max: int
    frame_max: int
    heartbeat: int


def shortstr(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(">B", len(raw)) + raw


def longstr(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(raw)) + raw


def table(*items: bytes) -> bytes:
    """A field table of items made by `field`."""
    return longstr(b"".join(items))


def field(name: str, tag: bytes, value: bytes) -> bytes:
    """One item of a table: `tag` is its type octet, `value` its octets."""
    return shortstr(name) + tag + value


def method(class_method: tuple[int, int], arguments: bytes = b"") -> bytes:
    return struct.pack(">HH", *class_method) + arguments


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([FRAME_END])


def content_header(body_size: int, flags: int = 0, properties: bytes = b"") -> bytes:
    """The payload of a content header frame of class basic; `flags` are the property flags."""
    return struct.pack(">HHQH", 60, 0, body_size, flags) + properties


def publish(exchange: str, routing_key: str, *, bits: int = 0) -> bytes:
    """The payload of basic.publish; bit 0 is mandatory, bit 1 immediate."""
    arguments = struct.pack(">H", 0) + shortstr(exchange) + shortstr(routing_key)
    return method(BASIC_PUBLISH, arguments + bytes([bits]))


def close_reason(arguments: bytes) -> CloseReason:
    """Read the arguments of connection.close or channel.close."""
    code, size = struct.unpack_from(">HB", arguments)
    text = arguments[3 : 3 + size].decode(errors="replace")
    class_id, method_id = struct.unpack_from(">HH", arguments, 3 + size)
    return CloseReason(code, text, class_id, method_id)


CLIENT_CAPABILITIES = table(
    field("authentication_failure_close", b"t", b"\x01"),
    field("consumer_cancel_notify", b"t", b"\x01"),
    field("basic.nack", b"t", b"\x01"),
)
CLIENT_PROPERTIES = table(field("capabilities", b"F", CLIENT_CAPABILITIES))


class Wire:
    """One TCP connection to a broker; every wait has the deadline `timeout_s`."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 15.0) -> None:
        self.timeout_s = timeout_s
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_method(
        self, channel: int, class_method: tuple[int, int], arguments: bytes = b""
    ) -> None:
        self.send(frame(METHOD, channel, method(class_method, arguments)))

    def _need(self, size: int, deadline: float) -> None:
        while len(self._buffer) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no whole frame within {self.timeout_s} s: {self._buffer!r}")
            self.socket.settimeout(left)
            try:
                chunk = self.socket.recv(262144)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise Closed(self._buffer)
            self._buffer += chunk

    def read_exactly(self, size: int) -> bytes:
        self._need(size, time.monotonic() + self.timeout_s)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_frame(self) -> Frame:
        """Return the next frame, heartbeats too.

        Raises:
            Closed: the broker closed the socket before a whole frame came.
        """
        deadline = time.monotonic() + self.timeout_s
        self._need(7, deadline)
        kind, channel, size = struct.unpack_from(">BHI", self._buffer)
        self._need(size + 8, deadline)
        payload, end = self._buffer[7 : 7 + size], self._buffer[7 + size]
        assert end == FRAME_END
        self._buffer = self._buffer[size + 8 :]
        return Frame(kind, channel, payload)

    def read_until_closed(self) -> list[Frame]:
        """Return the frames that come before the broker closes the socket."""
        frames = []
        while True:
            try:
                frames.append(self.read_frame())
            except Closed:
                return frames

    def expect(self, class_method: tuple[int, int], channel: int | None = None) -> bytes:
        """Return the arguments of the next method, which must be `class_method`.

        Heartbeats are passed over.
        """
        while True:
            got = self.read_frame()
            if got.type != HEARTBEAT:
                break
        if got.method in (CONNECTION_CLOSE, CHANNEL_CLOSE) and got.method != class_method:
            raise AssertionError(f"closed instead: {close_reason(got.arguments)}")
        assert got.method == class_method, got
        if channel is not None:
            assert got.channel == channel, got
        return got.arguments

    def expect_content(self) -> tuple[bytes, bytes, list[int]]:
        """Return a content's header payload, its body and the sizes of its body frames."""
        header = self.read_frame()
        assert header.type == HEADER, header
        (size,) = struct.unpack_from(">Q", header.payload, 4)
        parts: list[bytes] = []
        while sum(map(len, parts)) < size:
            part = self.read_frame()
            assert part.type == BODY, part
            parts.append(part.payload)
        return header.payload, b"".join(parts), [len(part) for part in parts]

    def start(self) -> bytes:
        """Send the protocol header; return the arguments of connection.start."""
        self.send(PROTOCOL_HEADER)
        return self.expect(CONNECTION_START, 0)

    def start_ok(
        self, mechanism: str, response: bytes, *, properties: bytes = CLIENT_PROPERTIES
    ) -> None:
        arguments = properties + shortstr(mechanism) + longstr(response) + shortstr("en_US")
        self.send_method(0, CONNECTION_START_OK, arguments)

    def tune(self) -> Tune:
        return Tune(*struct.unpack(">HIH", self.expect(CONNECTION_TUNE, 0)))

    def tune_ok(self, tune: Tune) -> None:
        self.send_method(0, CONNECTION_TUNE_OK, struct.pack(">HIH", *tune))

    def open(self, vhost: str) -> None:
        """Send connection.open and nothing more."""
        self.send_method(0, CONNECTION_OPEN, shortstr(vhost) + shortstr("") + b"\x00")

    def connect(
        self,
        user: str,
        password: str,
        vhost: str = "/",
        *,
        channel_max: int | None = None,
        frame_max: int | None = None,
        heartbeat: int = 0,
        properties: bytes = CLIENT_PROPERTIES,
    ) -> Tune:
        """Do the whole handshake; what is None is taken as the broker proposed it."""
        self.start()
        self.start_ok("PLAIN", f"\0{user}\0{password}".encode(), properties=properties)
        offered = self.tune()
        tune = Tune(
            offered.channel_max if channel_max is None else channel_max,
            offered.frame_max if frame_max is None else frame_max,
            heartbeat,
        )
        self.tune_ok(tune)
        self.open(vhost)
        self.expect(CONNECTION_OPEN_OK, 0)
        return tune

    def open_channel(self, channel: int = 1) -> None:
        self.send_method(channel, CHANNEL_OPEN, shortstr(""))
        self.expect(CHANNEL_OPEN_OK, channel)

    def declare_queue(self, name: str, *, bits: int = 0b01000, channel: int = 1) -> None:
        """Declare a queue; bits from the lowest: passive, durable, exclusive, auto-delete."""
        arguments = struct.pack(">H", 0) + shortstr(name) + bytes([bits]) + table()
        self.send_method(channel, QUEUE_DECLARE, arguments)
        self.expect(QUEUE_DECLARE_OK, channel)

    def expect_connection_close(self) -> CloseReason:
        """Return why the broker closes the connection, and see it close the socket."""
        reason = close_reason(self.expect(CONNECTION_CLOSE, 0))
        self.send_method(0, CONNECTION_CLOSE_OK)
        assert self.read_until_closed() == []
        return reason

    def expect_channel_close(self, channel: int = 1) -> CloseReason:
        """Return why the broker closes the channel, and answer it."""
        reason = close_reason(self.expect(CHANNEL_CLOSE, channel))
        self.send_method(channel, CHANNEL_CLOSE_OK)
        return reason
