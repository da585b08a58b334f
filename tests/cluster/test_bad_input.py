"""Clients that misbehave: the broker says what is wrong, and others do not notice."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pika
import pytest

from chaos.load import Publisher
from tests.cluster.conftest import NodeMaker, Opener
from tests.support import nodes
from tests.support.nodes import LeveretProcess
from tests.support.wire import (
    BASIC_CONSUME,
    BODY,
    CONNECTION_CLOSE,
    CONNECTION_OPEN,
    CONNECTION_START_OK,
    HEADER,
    METHOD,
    PROTOCOL_HEADER,
    Wire,
    close_reason,
    content_header,
    frame,
    longstr,
    method,
    shortstr,
    table,
)
from tests.support.wire import (
    publish as publish_method,
)

MIB = 1 << 20


def wire_to(node: LeveretProcess) -> Wire:
    return Wire("127.0.0.1", node.ports[0])


def logged_in(node: LeveretProcess) -> Wire:
    wire = wire_to(node)
    wire.connect("guest", "guest")
    wire.open_channel()
    return wire


@pytest.fixture
def hasty(make_node: NodeMaker) -> LeveretProcess:
    """A node that waits half a second for a handshake."""
    node = make_node("amqp.handshake_timeout_s=500ms")
    node.start()
    return node


def round_trip_s(
    node: LeveretProcess, channel: pika.adapters.blocking_connection.BlockingChannel
) -> float:
    began_s = time.monotonic()
    channel.basic_publish("", "q", b"x", mandatory=True)
    method, _, _ = channel.basic_get("q", auto_ack=True)
    assert method is not None
    return time.monotonic() - began_s


def test_half_a_handshake_is_closed_after_its_time(hasty: LeveretProcess) -> None:
    start_ok = frame(
        METHOD,
        0,
        method(
            CONNECTION_START_OK,
            table() + shortstr("PLAIN") + longstr(b"\0guest\0guest") + shortstr("en_US"),
        ),
    )
    for sent in (
        b"",
        b"AMQP",
        PROTOCOL_HEADER,
        PROTOCOL_HEADER + start_ok,
        PROTOCOL_HEADER + start_ok[:20],
    ):
        with wire_to(hasty) as wire:
            began_s = time.monotonic()
            wire.send(sent)
            wire.read_until_closed()
            assert 0.3 < time.monotonic() - began_s < 3, sent


def test_half_open_sockets_hinder_nobody(hasty: LeveretProcess, connect: Opener) -> None:
    url = hasty.urls[0]
    channel = connect(url).channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    with ExitStack() as stack:
        for number in range(200):
            half = stack.enter_context(wire_to(hasty))
            half.send(PROTOCOL_HEADER[: number % 9])
        assert round_trip_s(hasty, channel) < 2
        connect(url).channel()


def test_wrong_credentials_are_refused_in_words(single: LeveretProcess, connect: Opener) -> None:
    url = single.urls[0]
    for wrong in (url.replace("guest:guest", "guest:hare"), url.replace("guest:guest", "x:y")):
        with pytest.raises(
            pika.exceptions.ProbableAuthenticationError, match=r"403.*Login was refused"
        ):
            connect(wrong)
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match=r"530.*vhost"):
        connect(url + "nowhere")
    connect(url)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x14\x00\x0a\x00", 501),
        (frame(METHOD, 1, b"\x00\x0a"), 501),
        (frame(77, 1, b"what"), 501),
        (frame(METHOD, 1, method((60, 99))), 540),
        (struct.pack(">BHI", METHOD, 1, 0xFFFFFFFF), 501),
        (frame(BODY, 1, b"no header"), 505),
        (frame(METHOD, 1, publish_method("", "q")) + frame(BODY, 1, b"no header"), 505),
        (frame(METHOD, 1, publish_method("", "q")) + frame(HEADER, 1, content_header(1 << 62)), 0),
        (frame(METHOD, 1, method(CONNECTION_OPEN, shortstr("/") + shortstr("") + b"\0")), 503),
        (frame(METHOD, 9, publish_method("", "q")), 504),
    ],
)
def test_malformed_frames_close_the_one_connection_with_the_reason(
    sent: bytes, code: int, running: LeveretProcess
) -> None:
    with logged_in(running) as good, logged_in(running) as bad:
        bad.send(sent)
        if code:
            assert code == close_reason(bad.expect(CONNECTION_CLOSE, 0)).code
        else:
            assert 406 == bad.expect_channel_close().code
        good.declare_queue("q")
    assert running.is_running


def test_random_octets_end_a_connection_and_nothing_else(running: LeveretProcess) -> None:
    noise = struct.pack(">Q", 0x9E3779B97F4A7C15) * 64
    with logged_in(running) as good:
        for skip in range(30):
            with wire_to(running) as bad:
                bad.send(noise[skip:])
                bad.read_until_closed()
            with logged_in(running) as bad:
                bad.send(noise[skip:])
                assert 501 == close_reason(bad.expect(CONNECTION_CLOSE, 0)).code
        good.declare_queue("q")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeveretProcess]:
    node = nodes.node(tmp_path_factory.mktemp("running"))
    node.start()
    yield node
    node.kill()


def test_a_client_that_never_reads_costs_bounded_memory_and_hinders_nobody(
    single: LeveretProcess, connect: Opener, publish: Callable[..., Publisher]
) -> None:
    with logged_in(single) as deaf, logged_in(single) as sender:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sender.declare_queue("deaf", bits=0b00010)
        body = bytes(100_000)
        message = b"".join(
            (
                frame(METHOD, 1, publish_method("", "deaf")),
                frame(HEADER, 1, content_header(len(body))),
                frame(BODY, 1, body),
            )
        )
        deaf.send_method(
            1,
            BASIC_CONSUME,
            struct.pack(">H", 0) + shortstr("deaf") + shortstr("") + b"\x02" + table(),
        )
        for _ in range(2000):
            sender.send(message)
        channel = connect(single.urls[0]).channel()
        channel.queue_declare("q", durable=True)
        channel.confirm_delivery()
        assert round_trip_s(single, channel) < 5
        left = channel.queue_declare("deaf", passive=True).method.message_count

        assert left > 1500
        assert single.rss_bytes() < 48 * MIB + 64 * MIB + 64 * MIB
        publish(single.urls[0], "q", count=1000).wait_all(within_s=15)
