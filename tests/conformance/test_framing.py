"""Frames in and out of order after the handshake, octet by octet."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.conformance.conftest import Broker
from tests.support.wire import (
    BASIC_ACK,
    BASIC_GET,
    BASIC_GET_EMPTY,
    BASIC_GET_OK,
    BODY,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    CHANNEL_OPEN,
    CHANNEL_OPEN_OK,
    CONFIRM_SELECT,
    CONFIRM_SELECT_OK,
    HEADER,
    HEARTBEAT,
    METHOD,
    QUEUE_DECLARE,
    QUEUE_DECLARE_OK,
    Closed,
    CloseReason,
    Wire,
    close_reason,
    content_header,
    field,
    frame,
    method,
    publish,
    shortstr,
    table,
)

Names = Callable[[], str]

GOODBYE = struct.pack(">HBHH", 200, 0, 0, 0)
GET = struct.pack(">H", 0) + shortstr("t-nowhere") + b"\x00"
PASSIVE = struct.pack(">H", 0) + shortstr("t-nowhere") + b"\x01" + table()

NO_HEADER = "expected content header for class 60, got non content header frame instead"
PUBLISH = frame(METHOD, 1, publish("", "t-nowhere"))

OUT_OF_ORDER: dict[str, tuple[bytes, CloseReason]] = {
    "channel.open on channel 0": (
        frame(METHOD, 0, method(CHANNEL_OPEN, shortstr(""))),
        CloseReason(504, "CHANNEL_ERROR - unexpected method in connection state running", 20, 10),
    ),
    "basic.get on channel 0": (
        frame(METHOD, 0, method(BASIC_GET, GET)),
        CloseReason(504, "CHANNEL_ERROR - unexpected method in connection state running", 60, 70),
    ),
    "header on channel 0": (
        frame(HEADER, 0, content_header(0)),
        CloseReason(
            505,
            "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>",
            0,
            0,
        ),
    ),
    "body on channel 0": (
        frame(BODY, 0, b"xx"),
        CloseReason(505, 'UNEXPECTED_FRAME - type 3, all octets = <<"xx">>', 0, 0),
    ),
    "header without a publish": (
        frame(HEADER, 1, content_header(0)),
        CloseReason(
            505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead", 0, 0
        ),
    ),
    "body without a publish": (
        frame(BODY, 1, b"xx"),
        CloseReason(
            505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead", 0, 0
        ),
    ),
    "publish without a header": (
        PUBLISH + PUBLISH,
        CloseReason(505, f"UNEXPECTED_FRAME - {NO_HEADER}", 60, 40),
    ),
    "publish with a body at once": (
        PUBLISH + frame(BODY, 1, b"xx"),
        CloseReason(505, f"UNEXPECTED_FRAME - {NO_HEADER}", 60, 40),
    ),
    "header of another class": (
        PUBLISH + frame(HEADER, 1, struct.pack(">HHQH", 50, 0, 0, 0)),
        CloseReason(
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
            60,
            40,
        ),
    ),
    "method inside a body": (
        PUBLISH + frame(HEADER, 1, content_header(3)) + PUBLISH,
        CloseReason(
            505,
            "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
            60,
            40,
        ),
    ),
    "second channel.open": (
        frame(METHOD, 1, method(CHANNEL_OPEN, shortstr(""))),
        CloseReason(504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10),
    ),
    "method on a channel never opened": (
        frame(METHOD, 5, method(BASIC_GET, GET)),
        CloseReason(504, "CHANNEL_ERROR - expected 'channel.open'", 60, 70),
    ),
    "channel.close of a channel never opened": (
        frame(METHOD, 5, method(CHANNEL_CLOSE, GOODBYE)),
        CloseReason(504, "CHANNEL_ERROR - expected 'channel.open'", 20, 40),
    ),
    "channel.close-ok on a channel never opened": (
        frame(METHOD, 5, method(CHANNEL_CLOSE_OK)),
        CloseReason(504, "CHANNEL_ERROR - expected 'channel.open'", 20, 41),
    ),
    "heartbeat on channel 1": (
        frame(HEARTBEAT, 1, b""),
        CloseReason(505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", 0, 0),
    ),
    "unknown frame type": (
        frame(4, 1, b"abc"),
        CloseReason(501, 'FRAME_ERROR - type 4, all octets = <<"abc">>: unknown_frame', 0, 0),
    ),
    "wrong end octet": (
        frame(METHOD, 1, b"abc")[:-1] + b"\x00",
        CloseReason(
            501,
            'FRAME_ERROR - type 1, all octets = <<"abc">>: {invalid_frame_end_marker,0}',
            0,
            0,
        ),
    ),
}


@pytest.mark.parametrize("case", OUT_OF_ORDER)
def test_frame_out_of_order_closes_the_connection_with_its_reason(
    broker: Broker, case: str
) -> None:
    """connection: channels, content on channel 0, heartbeats; 0. rules: 501-505."""
    sent, expected = OUT_OF_ORDER[case]
    with broker.open_wire() as wire:
        wire.send(sent)

        assert wire.expect_connection_close() == expected


@pytest.mark.parametrize(
    "arguments",
    [b"", b"\x00\x00\x05ab", struct.pack(">H", 0) + shortstr("q") + b"\x00" + b"\x00\x00\x00\x09a"],
)
def test_method_that_cannot_be_decoded_ends_the_connection(
    broker: Broker, arguments: bytes
) -> None:
    """0. rules: 501 closes the connection."""
    with broker.open_wire() as wire:
        wire.send_method(1, QUEUE_DECLARE, arguments)

        assert_ended(wire, {501, 502})


@pytest.mark.parametrize("class_method", [(99, 1), (60, 199), (0, 0)])
def test_unknown_method_ends_the_connection(broker: Broker, class_method: tuple[int, int]) -> None:
    """0. rules: 501-506 close the connection; RabbitMQ only closes the socket."""
    with broker.open_wire() as wire:
        wire.send_method(1, class_method)

        assert_ended(wire, {501, 503, 540})


def test_table_with_an_unknown_type_ends_the_connection(broker: Broker) -> None:
    """0. rules: 502 closes the connection; RabbitMQ only closes the socket."""
    arguments = struct.pack(">H", 0) + shortstr("q") + b"\x00" + table(field("a", b"Z", b"xx"))
    with broker.open_wire() as wire:
        wire.send_method(1, QUEUE_DECLARE, arguments)

        assert_ended(wire, {501, 502})


def assert_ended(wire: Wire, codes: set[int]) -> None:
    """See the broker end the connection, with one of the codes if it says why."""
    try:
        reason = wire.expect_connection_close()
    except Closed:
        return
    assert reason.code in codes


@pytest.mark.slow
def test_frame_over_the_negotiated_size_is_refused_before_it_is_there(broker: Broker) -> None:
    """connection: tune; content framing. RabbitMQ closes the socket 3 s later."""
    with broker.open_wire(frame_max=4096) as wire:
        wire.send(struct.pack(">BHI", BODY, 1, 4097))

        assert wire.expect_connection_close() == CloseReason(
            501,
            "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}",
            0,
            0,
        )


def test_method_on_a_closed_channel_closes_the_connection(broker: Broker) -> None:
    """connection: channels."""
    with broker.open_wire() as wire:
        wire.send_method(1, CHANNEL_CLOSE, GOODBYE)
        wire.expect(CHANNEL_CLOSE_OK, 1)
        wire.send_method(1, BASIC_GET, GET)

        assert wire.expect_connection_close() == CloseReason(
            504, "CHANNEL_ERROR - expected 'channel.open'", 60, 70
        )


def test_channel_number_can_be_used_again(broker: Broker) -> None:
    """connection: channels."""
    with broker.open_wire() as wire:
        for _ in range(3):
            wire.send_method(1, CHANNEL_CLOSE, GOODBYE)
            wire.expect(CHANNEL_CLOSE_OK, 1)
            wire.open_channel(1)


def test_number_of_channels_is_limited_as_negotiated(broker: Broker) -> None:
    """connection: channels, over the maximum."""
    with broker.open_wire(channel_max=2) as wire:
        wire.open_channel(2)
        wire.send_method(3, CHANNEL_OPEN, shortstr(""))

        reason = wire.expect_connection_close()

    assert reason.code == 530
    assert reason.text == (
        "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
    )


def test_highest_channel_number_works(broker: Broker) -> None:
    """connection: channels, ids 1..channel_max."""
    with broker.open_wire() as wire:
        wire.open_channel(2047)
        wire.declare_queue("", bits=0b01100, channel=2047)


def test_what_is_sent_to_a_closing_channel_is_dropped(broker: Broker) -> None:
    """connection: channels; frames for a channel we are closing are dropped until close-ok."""
    with broker.open_wire() as wire:
        wire.open_channel(2)
        wire.send_method(1, QUEUE_DECLARE, PASSIVE)
        reason = close_reason(wire.expect(CHANNEL_CLOSE, 1))
        assert (reason.code, reason.class_id, reason.method_id) == (404, 50, 10)

        wire.send_method(1, QUEUE_DECLARE, PASSIVE)
        wire.send(PUBLISH + frame(HEADER, 1, content_header(1)) + frame(BODY, 1, b"x"))
        wire.send_method(2, BASIC_GET, GET)
        # Channel 2 answers next: channel 1 said nothing more.
        assert close_reason(wire.expect(CHANNEL_CLOSE, 2)).code == 404
        wire.send_method(1, CHANNEL_CLOSE_OK)
        wire.send_method(1, CHANNEL_OPEN, shortstr(""))
        wire.expect(CHANNEL_OPEN_OK, 1)


def test_closes_of_one_channel_that_cross_are_both_answered(broker: Broker) -> None:
    """connection: channels."""
    with broker.open_wire() as wire:
        wire.send_method(1, QUEUE_DECLARE, PASSIVE)
        wire.expect(CHANNEL_CLOSE, 1)
        wire.send_method(1, CHANNEL_CLOSE, GOODBYE)

        wire.expect(CHANNEL_CLOSE_OK, 1)


def test_error_of_one_channel_leaves_the_others_alone(broker: Broker) -> None:
    """0. rules: 404 closes the channel."""
    with broker.open_wire() as wire:
        wire.open_channel(2)
        wire.send_method(1, QUEUE_DECLARE, PASSIVE)
        assert wire.expect_channel_close(1).code == 404

        wire.declare_queue("", bits=0b01100, channel=2)


@pytest.mark.parametrize("frame_max", [4096, 131072])
@pytest.mark.parametrize("size", ["0", "1", "frame_max - 8", "frame_max - 7", "1 MiB"])
def test_body_comes_back_in_frames_of_the_negotiated_size(
    broker: Broker, name: Names, frame_max: int, size: str
) -> None:
    """publishing: content framing; connection: tune."""
    frame_sizes = {"frame_max - 8": frame_max - 8, "frame_max - 7": frame_max - 7}
    body_size = {"0": 0, "1": 1, "1 MiB": 1 << 20, **frame_sizes}[size]
    body = bytes(i * 7 % 256 for i in range(body_size))
    most = frame_max - 8
    queue = name()
    with broker.open_wire(frame_max=frame_max) as wire:
        wire.declare_queue(queue, bits=0b00010)
        wire.send(frame(METHOD, 1, publish("", queue)))
        wire.send(frame(HEADER, 1, content_header(body_size)))
        for offset in range(0, body_size, most):
            wire.send(frame(BODY, 1, body[offset : offset + most]))

        wire.send_method(1, BASIC_GET, struct.pack(">H", 0) + shortstr(queue) + b"\x01")
        wire.expect(BASIC_GET_OK, 1)
        header, came, sizes = wire.expect_content()

    assert header == content_header(body_size)
    assert came == body
    full, rest = divmod(body_size, most)
    assert sizes == [most] * full + ([rest] if rest else [])


def test_body_may_come_in_frames_of_any_size_even_empty_ones(broker: Broker, name: Names) -> None:
    """publishing: content framing."""
    queue = name()
    with broker.open_wire() as wire:
        wire.declare_queue(queue)
        wire.send(frame(METHOD, 1, publish("", queue)))
        wire.send(frame(HEADER, 1, content_header(6)))
        for part in (b"a", b"", b"bcd", b"ef"):
            wire.send(frame(BODY, 1, part))

        wire.send_method(1, BASIC_GET, struct.pack(">H", 0) + shortstr(queue) + b"\x01")
        wire.expect(BASIC_GET_OK, 1)
        assert wire.expect_content()[1] == b"abcdef"


def test_contents_of_two_channels_may_be_interleaved(broker: Broker, name: Names) -> None:
    """connection: channels; publishing: content framing."""
    queue = name()
    get = struct.pack(">H", 0) + shortstr(queue) + b"\x01"
    with broker.open_wire() as wire:
        wire.open_channel(2)
        wire.declare_queue(queue)
        for channel in (1, 2):
            wire.send_method(channel, CONFIRM_SELECT, b"\x00")
            wire.expect(CONFIRM_SELECT_OK, channel)
        for channel in (1, 2):
            wire.send(frame(METHOD, channel, publish("", queue)))
        for channel in (1, 2):
            wire.send(frame(HEADER, channel, content_header(2)))
        for channel in (1, 2, 1, 2):
            wire.send(frame(BODY, channel, str(channel).encode()))
        for _ in range(2):
            wire.expect(BASIC_ACK)

        bodies = set()
        for _ in range(2):
            wire.send_method(1, BASIC_GET, get)
            wire.expect(BASIC_GET_OK, 1)
            bodies.add(wire.expect_content()[1])
        wire.send_method(1, BASIC_GET, get)
        wire.expect(BASIC_GET_EMPTY, 1)

    assert bodies == {b"11", b"22"}


def test_many_frames_in_one_segment_and_one_frame_in_many(broker: Broker, name: Names) -> None:
    """publishing: content framing; TCP knows no frames."""
    queue = name()
    message = (
        frame(METHOD, 1, publish("", queue))
        + frame(HEADER, 1, content_header(3))
        + frame(BODY, 1, b"abc")
    )
    with broker.open_wire() as wire:
        wire.declare_queue(queue)
        wire.send_method(1, CONFIRM_SELECT, b"\x00")
        wire.expect(CONFIRM_SELECT_OK, 1)
        wire.send(message * 50)
        for octet in message:
            wire.send(bytes([octet]))
        confirmed: set[int] = set()
        while len(confirmed) < 51:
            tag, multiple = struct.unpack(">QB", wire.expect(BASIC_ACK, 1))
            confirmed |= set(range(1, tag + 1)) if multiple else {tag}

        assert count(wire, queue) == 51


def test_what_follows_a_refused_publish_is_discarded(broker: Broker, name: Names) -> None:
    """exchanges: publish to missing exchange (pitfall 7)."""
    queue = name()
    nothing = frame(HEADER, 1, content_header(0))
    with broker.open_wire() as wire:
        wire.open_channel(2)
        wire.declare_queue(queue)
        refused = frame(METHOD, 1, publish("t-nowhere", "k")) + nothing
        wire.send(refused + (frame(METHOD, 1, publish("", queue)) + nothing) * 10)
        assert wire.expect_channel_close(1).code == 404

        # Sent last, so all that came before it has been seen.
        wire.send_method(2, CONFIRM_SELECT, b"\x00")
        wire.expect(CONFIRM_SELECT_OK, 2)
        wire.send(frame(METHOD, 2, publish("", queue)) + frame(HEADER, 2, content_header(0)))
        wire.expect(BASIC_ACK, 2)
        assert count(wire, queue, channel=2) == 1


def count(wire: Wire, queue: str, *, channel: int = 1) -> int:
    """The ready messages of the queue."""
    passive = struct.pack(">H", 0) + shortstr(queue) + b"\x01" + table()
    wire.send_method(channel, QUEUE_DECLARE, passive)
    answer = wire.expect(QUEUE_DECLARE_OK, channel)
    (ready,) = struct.unpack_from(">I", answer, 1 + len(queue))
    return int(ready)
