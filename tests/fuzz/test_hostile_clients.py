"""Whatever a client sends: the protocol's own answer or close, no complaint, and others are served.

A node in memory gets frames that are whole, mutated or made up, in any order: methods with
arguments that fit what is there, contents that fit or do not, octets of no meaning.
"""

from __future__ import annotations

import contextlib
import operator
import struct
from collections.abc import Awaitable, Callable, Mapping
from socket import SHUT_WR

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from leveret.amqp import Method, spec
from leveret.amqp.fields import Value
from leveret.client import connect
from leveret.client.address import parse_url
from leveret.client.streams import GONE, TcpStream, dial
from leveret.testing import broker
from tests.amqp.peers import frame
from tests.amqp.strategies import methods, properties, tables
from tests.fuzz.search import LASTING
from tests.support.wire import (
    CHANNEL_CLOSE_OK,
    CHANNEL_OPEN,
    CLIENT_PROPERTIES,
    CONNECTION_CLOSE,
    CONNECTION_OPEN,
    CONNECTION_START_OK,
    CONNECTION_TUNE_OK,
    METHOD,
    PROTOCOL_HEADER,
    close_reason,
    longstr,
    method,
    shortstr,
)
from tests.support.wire import frame as wire_frame

ANSWER_WITHIN_S = 60.0
"""In the run's virtual time."""
PATIENCE_S = 20.0
"""How long the broker may wait for more, likewise."""
CHANNELS = st.sampled_from([1, 1, 1, 1, 2, 2])
ANY_CHANNEL = st.sampled_from([0, 1, 2, 3, 2047, 65535])
NAMES = st.sampled_from(["", "q", "r", "x", "amq.topic", "amq.rabbitmq.reply-to", "amq.foo", "é"])
REPLY_CODES = set(range(300, 600))

HANDSHAKE = (
    PROTOCOL_HEADER
    + wire_frame(
        METHOD,
        0,
        method(
            CONNECTION_START_OK,
            CLIENT_PROPERTIES + shortstr("PLAIN") + longstr(b"\0guest\0guest") + shortstr("en_US"),
        ),
    )
    + wire_frame(METHOD, 0, method(CONNECTION_TUNE_OK, struct.pack(">HIH", 2047, 131072, 0)))
    + wire_frame(METHOD, 0, method(CONNECTION_OPEN, shortstr("/") + b"\0\0"))
    + wire_frame(METHOD, 1, method(CHANNEL_OPEN, b"\0"))
    + wire_frame(METHOD, 2, method(CHANNEL_OPEN, b"\0"))
)


ARGUMENTS: st.SearchStrategy[Mapping[str, Value]] = (
    st.fixed_dictionaries(
        {},
        optional={
            "x-message-ttl": st.integers(-1, 2**40) | st.text(max_size=3),
            "x-expires": st.integers(0, 2**33),
            "x-max-length": st.integers(-1, 2),
            "x-max-length-bytes": st.integers(0, 10),
            "x-max-priority": st.integers(0, 256),
            "x-overflow": st.sampled_from(["drop-head", "reject-publish", "reject-publish-dlx"]),
            "x-dead-letter-exchange": NAMES,
            "x-dead-letter-routing-key": NAMES,
            "x-delivery-limit": st.integers(-2, 3),
            "x-single-active-consumer": st.booleans() | st.none(),
            "x-queue-type": st.sampled_from(["classic", "quorum", "stream", "?"]),
            "x-delayed-type": st.sampled_from(["direct", "topic", "?"]),
            "x-priority": st.integers(-5, 5) | st.text(max_size=2),
            "x-match": st.sampled_from(["all", "any", "?"]),
            "alternate-exchange": NAMES,
        },
    )
    | tables
)
RARELY = st.integers(0, 7).map(lambda drawn: drawn == 7)
FITTING: dict[str, st.SearchStrategy[object]] = {
    "queue": NAMES,
    "exchange": NAMES,
    "source": NAMES,
    "destination": NAMES,
    "routing_key": NAMES,
    "consumer_tag": st.sampled_from(["", "t", "u"]),
    "type": st.sampled_from(["direct", "fanout", "topic", "headers", "x-delayed-message", "?"]),
    "delivery_tag": st.integers(0, 4) | st.integers(0, 2**64 - 1),
    "prefetch_size": st.just(0),
    "prefetch_count": st.integers(0, 3),
    "arguments": ARGUMENTS,
    "ticket": st.just(0),
    "immediate": RARELY,
    "passive": RARELY,
    "internal": RARELY,
    "exclusive": RARELY,
    "requeue": RARELY.map(operator.not_),
}


def _aimed(cls: type[Method]) -> st.SearchStrategy[bytes]:
    """Return a method with names and tables that may well fit what is there."""
    fields = {name: FITTING.get(name, st.booleans()) for name in cls.__slots__}
    return st.fixed_dictionaries(fields).map(lambda chosen: cls(**chosen).encode())


SENT_BY_CLIENTS = (
    *(spec.ExchangeDeclare, spec.ExchangeDelete, spec.ExchangeBind, spec.ExchangeUnbind),
    *(spec.QueueDeclare, spec.QueueBind, spec.QueueUnbind, spec.QueuePurge, spec.QueueDelete),
    *(spec.BasicQos, spec.BasicConsume, spec.BasicCancel, spec.BasicGet, spec.BasicRecover),
    *(spec.BasicAck, spec.BasicNack, spec.BasicReject, spec.ConfirmSelect),
    *(spec.TxSelect, spec.TxCommit, spec.TxRollback),
)


PUBLISH = _aimed(spec.BasicPublish)


@st.composite
def _contents(draw: st.DrawFn) -> bytes:
    """A publish with its header and bodies, which may be too short or too long."""
    channel = draw(CHANNELS)
    body = draw(st.binary(max_size=30))
    size = len(body) if draw(st.integers(0, 9)) else draw(st.integers(0, 2**64 - 1))
    head = draw(properties).encode(size)
    cut = draw(st.integers(0, len(body)))
    return (
        frame(1, channel, draw(PUBLISH))
        + frame(2, channel, head)
        + b"".join(frame(3, channel, part) for part in (body[:cut], body[cut:]) if part)
    )


@st.composite
def _spoilt(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Frames of which some octets are others, are missing or come twice."""
    octets = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(octets) - 1)))
        match draw(st.sampled_from(["other", "missing", "twice", "added"])):
            case "other" if octets:
                octets[at] = draw(st.integers(0, 255))
            case "missing":
                del octets[at : at + draw(st.integers(1, 8))]
            case "twice":
                octets[at:at] = octets[at : at + draw(st.integers(1, 40))]
            case _:
                octets[at:at] = draw(st.binary(min_size=1, max_size=4))
    return bytes(octets)


AIMED = st.one_of([st.builds(frame, st.just(1), CHANNELS, _aimed(n)) for n in SENT_BY_CLIENTS])
REOPENED = CHANNELS.map(
    lambda channel: (
        wire_frame(METHOD, channel, method(CHANNEL_CLOSE_OK))
        + wire_frame(METHOD, channel, method(CHANNEL_OPEN, b"\0"))
    )
)
DECLARED = st.sampled_from([1, 2]).flatmap(
    lambda channel: st.sampled_from("qr").flatmap(
        lambda queue: ARGUMENTS.map(
            lambda arguments: frame(
                1, channel, spec.QueueDeclare(queue=queue, arguments=dict(arguments)).encode()
            )
        )
    )
)
CONTENTS = _contents()
GOOD = st.one_of(AIMED, DECLARED, CONTENTS, CONTENTS, CONTENTS, REOPENED, REOPENED, REOPENED)
BAD = st.one_of(
    _spoilt(GOOD),
    st.builds(
        lambda channel, value: frame(1, channel, value.encode()),
        ANY_CHANNEL,
        st.one_of([methods[name] for name in sorted(methods)]),
    ),
    st.builds(frame, st.integers(0, 9), ANY_CHANNEL, st.binary(max_size=30)),
    st.binary(max_size=40),
)
SESSIONS = st.builds(
    lambda *parts: b"".join(piece for part in parts for piece in part),
    st.lists(DECLARED, min_size=1, max_size=2),
    st.lists(GOOD, min_size=5, max_size=30),
    st.lists(BAD, max_size=2),
    st.lists(GOOD, max_size=5),
)


async def read_to_the_end(stream: TcpStream) -> list[tuple[int, int, bytes]]:
    """Return the frames that the broker sends until it closes the socket."""
    octets = bytearray()
    while chunk := await stream.receive(65536):
        octets += chunk
    frames = []
    while octets:
        if octets[:4] == b"AMQP":
            assert PROTOCOL_HEADER == octets, "what follows the protocol header?"
            break
        kind, channel, size = struct.unpack_from(">BHI", octets)
        assert octets[7 + size] == 0xCE
        frames.append((kind, channel, bytes(octets[7 : 7 + size])))
        del octets[: 8 + size]
    return frames


async def assert_an_end_in_order(stream: TcpStream, sent: bytes) -> None:
    """Send, then ask for a close; see that the broker parts as the protocol says.

    It answers our close, or has closed by itself with a code, or waits for the rest of a frame
    that was begun: then it gets the end of our half.
    """
    bye = method(CONNECTION_CLOSE, struct.pack(">H", 200) + b"\0" + bytes(4))
    frames: list[tuple[int, int, bytes]] = []
    is_over = trio.Event()

    async def listen() -> None:
        frames.extend(await read_to_the_end(stream))
        is_over.set()

    with trio.fail_after(ANSWER_WITHIN_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with contextlib.suppress(*GONE):  # the broker has had enough
                await stream.send_all(sent)
                await stream.send_all(wire_frame(METHOD, 0, bye))
                with trio.move_on_after(PATIENCE_S):
                    await is_over.wait()
                stream._socket.shutdown(SHUT_WR)
    for kind, channel, payload in frames:
        if kind == METHOD and payload[:4] == struct.pack(">HH", *CONNECTION_CLOSE):
            reason = close_reason(payload[4:])
            assert channel == 0
            assert reason.code in REPLY_CODES
            assert reason.code != 541, f"an error of the broker's own: {reason}"
            assert " - " in reason.text


async def assert_others_are_served(url: str) -> None:
    with trio.fail_after(ANSWER_WITHIN_S):
        async with connect(url) as connection, connection.channel() as channel:
            await channel.declare_queue("another's", durable=True)
            await channel.publish(b"fine", "another's")
            async for message in channel.consume("another's"):
                await message.ack()
                break


def run(check: Callable[[str, TcpStream], Awaitable[None]]) -> None:
    """Run a check with a fresh node's URL and a connection to it, in virtual time."""

    async def main() -> None:
        async with broker() as b:
            stream = await dial(parse_url(b.url).addresses[0], None, None)
            assert isinstance(stream, TcpStream)
            try:
                await check(b.url, stream)
            finally:
                stream.close()
            await assert_others_are_served(b.url)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@LASTING
@given(SESSIONS)
def test_a_client_may_send_any_frames(complaints: list[str], sent: bytes) -> None:
    async def check(url: str, stream: TcpStream) -> None:
        await assert_an_end_in_order(stream, HANDSHAKE + sent)

    run(check)

    assert [] == complaints


@LASTING
@given(_spoilt(st.just(HANDSHAKE)) | st.binary(max_size=200))
def test_a_client_may_begin_with_anything(complaints: list[str], sent: bytes) -> None:
    async def check(url: str, stream: TcpStream) -> None:
        await assert_an_end_in_order(stream, sent)

    run(check)

    assert [] == complaints
