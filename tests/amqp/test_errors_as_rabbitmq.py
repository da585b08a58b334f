"""What RabbitMQ 3.10.8 answered to each offence, observed with a raw socket on 2026-11-23.

Each row: what a client sends on a running connection with channel 1 open, and the close it got.
Where we differ on purpose (RabbitMQ resets the connection, or accepts), the row says so.
"""

from __future__ import annotations

import pytest

from leveret.amqp import ConnectionState, ProtocolHeaderError, spec
from leveret.amqp.events import ChannelFailed, ConnectionFailed, MethodReceived, Publish
from tests.amqp.peers import (
    failure,
    frame,
    header,
    method,
    publish,
    server_at,
    server_with_channel,
)

_PUBLISH = method(1, spec.BasicPublish(routing_key="k"))
_QOS = method(1, spec.BasicQos())
_DECLARE = spec.QueueDeclare(queue="q")

_EXPECTED_METHOD = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"
_EXPECTED_HEADER = (
    "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
)
_EXPECTED_BODY = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
_NOT_ON_CHANNEL_0 = "CHANNEL_ERROR - unexpected method in connection state running"
_UNIMPLEMENTED = "COMMAND_INVALID - unimplemented method"

OFFENCES = {
    "start-ok while running": (
        method(0, spec.ConnectionStartOk(client_properties={}, response=b"")),
        (504, _NOT_ON_CHANNEL_0, 10, 11),
    ),
    "close-ok nobody asked for": (
        method(0, spec.ConnectionCloseOk()),
        (504, _NOT_ON_CHANNEL_0, 10, 51),
    ),
    "channel.open on channel 0": (
        method(0, spec.ChannelOpen()),
        (504, _NOT_ON_CHANNEL_0, 20, 10),
    ),
    "publish on channel 0": (
        method(0, spec.BasicPublish()),
        (504, _NOT_ON_CHANNEL_0, 60, 40),
    ),
    "method on a channel that is not open": (
        method(2, _DECLARE),
        (504, "CHANNEL_ERROR - expected 'channel.open'", 50, 10),
    ),
    "publish on a channel that is not open": (
        publish(2, b"x"),
        (504, "CHANNEL_ERROR - expected 'channel.open'", 60, 40),
    ),
    "second channel.open": (
        method(1, spec.ChannelOpen()),
        (504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10),
    ),
    "content header on channel 0": (
        frame(2, 0, header(0)),
        (
            505,
            "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>",
            0,
            0,
        ),
    ),
    "body on channel 0": (
        frame(3, 0, b"x"),
        (505, 'UNEXPECTED_FRAME - type 3, all octets = <<"x">>', 0, 0),
    ),
    "heartbeat on channel 1": (
        frame(8, 1, b""),
        (505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", 0, 0),
    ),
    "heartbeat on a channel that is not open": (
        frame(8, 7, b""),
        (505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", 0, 0),
    ),
    "heartbeat with a payload": (
        frame(8, 0, b"x"),
        (501, 'FRAME_ERROR - type 8, all octets = <<"x">>: unknown_frame', 0, 0),
    ),
    "frame type 9": (
        frame(9, 1, b"abc"),
        (501, 'FRAME_ERROR - type 9, all octets = <<"abc">>: unknown_frame', 0, 0),
    ),
    "frame type 4, long": (
        frame(4, 1, b"abcdefghijklmnopqrst"),
        (
            501,
            'FRAME_ERROR - type 4, first 16 octets = <<"abcdefghijklmnop">>: unknown_frame',
            0,
            0,
        ),
    ),
    "wrong end octet": (
        frame(1, 1, b"\0\x14\0\x0a\0", end=0xCD),
        (
            501,
            "FRAME_ERROR - type 1, all octets = <<0,20,0,10,0>>: {invalid_frame_end_marker,205}",
            0,
            0,
        ),
    ),
    # RabbitMQ's text for it was seen in its source; its slack of eight octets was observed.
    "frame one octet too large": (
        frame(3, 1, b"x" * 131073),
        (
            501,
            "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,131073,131064}",
            0,
            0,
        ),
    ),
    "method payload of one octet": (
        frame(1, 1, b"\0"),
        (501, "FRAME_ERROR - type 1, all octets = <<0>>: unknown_frame", 0, 0),
    ),
    "content header of three octets": (
        _PUBLISH + frame(2, 1, b"\0<\0"),
        (501, "FRAME_ERROR - type 2, all octets = <<0,60,0>>: unknown_frame", 0, 0),
    ),
    "header without publish": (frame(2, 1, header(0)), (505, _EXPECTED_METHOD, 0, 0)),
    "body without publish": (frame(3, 1, b"x"), (505, _EXPECTED_METHOD, 0, 0)),
    "method instead of header": (_PUBLISH + _QOS, (505, _EXPECTED_HEADER, 60, 40)),
    "body instead of header": (_PUBLISH + frame(3, 1, b"x"), (505, _EXPECTED_HEADER, 60, 40)),
    "method instead of body": (
        _PUBLISH + frame(2, 1, header(5)) + _QOS,
        (505, _EXPECTED_BODY, 60, 40),
    ),
    "header of another class": (
        _PUBLISH + frame(2, 1, b"\0\x32" + header(5)[2:]),
        (
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
            60,
            40,
        ),
    ),
    "header with a weight": (
        _PUBLISH + frame(2, 1, b"\0\x3c\0\x01" + header(5)[4:]),
        (505, _EXPECTED_HEADER, 60, 40),
    ),
    # RabbitMQ notices at the next frame that is not a body, and with the text for that.
    "body longer than announced": (
        _PUBLISH + frame(2, 1, header(2)) + frame(3, 1, b"abcd"),
        (505, "UNEXPECTED_FRAME - content body is longer than its header announced", 60, 40),
    ),
    "body frame after an empty message": (
        _PUBLISH + frame(2, 1, header(0)) + frame(3, 1, b""),
        (505, _EXPECTED_METHOD, 0, 0),
    ),
    "arguments that end too early": (
        frame(1, 1, b"\0\x32\0\x0a\0\0\x20q"),
        (501, "FRAME_ERROR - cannot decode <<0,0,32,113>>", 50, 10),
    ),
    "arguments that go on too long": (
        frame(1, 1, b"\0\x3c\0\x0a" + bytes(9)),
        (501, "FRAME_ERROR - cannot decode <<0,0,0,0,0,0,0,0,0>>", 60, 10),
    ),
    "malformed publish": (
        frame(1, 1, b"\0\x3c\0\x28\0\0\x05a\0"),
        (501, "FRAME_ERROR - cannot decode <<0,0,5,97,0>>", 60, 40),
    ),
    # RabbitMQ: "Malformed UTF-8 in shortstr", same code.
    "a queue's name that is not UTF-8": (
        frame(1, 1, b"\0\x32\0\x0a\0\0\x01\xff\0\0\0\0\0"),
        (501, "FRAME_ERROR - cannot decode <<0,0,1,255,0,0,0,0,0>>", 50, 10),
    ),
    # RabbitMQ resets the connection on the next four.
    "unknown method": (
        frame(1, 1, b"\0\x3c\0\x63"),
        (540, "NOT_IMPLEMENTED - unknown method 99 of class 60", 60, 99),
    ),
    "unknown class": (
        frame(1, 1, b"\0\x63\0\x01"),
        (540, "NOT_IMPLEMENTED - unknown method 1 of class 99", 99, 1),
    ),
    "unknown method on channel 0": (
        frame(1, 0, b"\0\x0a\0\x63"),
        (540, "NOT_IMPLEMENTED - unknown method 99 of class 10", 10, 99),
    ),
    "malformed table": (
        frame(1, 1, b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\x04\x01aZ\0"),
        (502, "SYNTAX_ERROR - malformed field table: unknown type 90", 0, 0),
    ),
    # RabbitMQ: 541 INTERNAL_ERROR without a word.
    "malformed properties": (
        _PUBLISH + frame(2, 1, header(0, b"\x80\0\x20a")),
        (502, "SYNTAX_ERROR - malformed content header", 60, 40),
    ),
    "second word of flags": (
        _PUBLISH + frame(2, 1, header(0, b"\0\x01\0\0")),
        (502, "SYNTAX_ERROR - malformed content header", 60, 40),
    ),
    "declare-ok from a client": (
        method(1, spec.QueueDeclareOk(queue="q", message_count=0, consumer_count=0)),
        (503, _UNIMPLEMENTED, 50, 11),
    ),
    "channel.close-ok on an open channel": (
        method(1, spec.ChannelCloseOk()),
        (503, _UNIMPLEMENTED, 20, 41),
    ),
    "channel.flow-ok": (method(1, spec.ChannelFlowOk()), (503, _UNIMPLEMENTED, 20, 21)),
    "connection.open on a channel": (
        method(1, spec.ConnectionOpen()),
        (503, _UNIMPLEMENTED, 10, 40),
    ),
    "deliver from a client": (
        method(
            1,
            spec.BasicDeliver(consumer_tag="c", delivery_tag=1, exchange="", routing_key=""),
        ),
        (503, _UNIMPLEMENTED, 60, 60),
    ),
}


@pytest.mark.parametrize("name", OFFENCES)
def test_an_offence_gets_rabbitmqs_code_text_and_method(name: str) -> None:
    octets, expected = OFFENCES[name]
    server = server_with_channel()

    events = server.receive_data(octets)

    assert ("connection", *expected) == failure(events)
    assert ConnectionState.SERVER_CLOSING is server.state


@pytest.mark.parametrize("name", OFFENCES)
def test_what_was_parsed_before_an_error_is_not_lost(name: str) -> None:
    octets, _expected = OFFENCES[name]
    server = server_with_channel()

    events = server.receive_data(publish(1, b"one") + _QOS + octets + publish(1, b"never"))

    assert Publish(1, b"\0\x01k", False, False, header(3), b"one") == events[0]
    assert MethodReceived(1, spec.BasicQos()) == events[1]
    assert isinstance(events[-1], ConnectionFailed)
    assert b"never" not in [e.body for e in events if isinstance(e, Publish)]


@pytest.mark.parametrize("name", OFFENCES)
def test_after_an_error_the_peer_is_not_answered_twice(name: str) -> None:
    octets, _expected = OFFENCES[name]
    server = server_with_channel()
    server.receive_data(octets)

    events = server.receive_data(octets + publish(1, b"x"))

    assert [] == [e for e in events if e != MethodReceived(0, spec.ConnectionCloseOk())]


def test_the_close_of_an_offence_decodes_to_its_code() -> None:
    server = server_with_channel()

    (event,) = server.receive_data(method(1, spec.ChannelOpen()))

    assert isinstance(event, ConnectionFailed)
    assert event.reply == method(
        0,
        spec.ConnectionClose(
            reply_code=504,
            reply_text="CHANNEL_ERROR - second 'channel.open' seen",
            class_id=20,
            method_id=10,
        ),
    )


def test_close_ok_after_an_error_ends_the_connection() -> None:
    server = server_with_channel()
    server.receive_data(method(1, spec.ChannelOpen()))

    events = server.receive_data(_QOS + method(0, spec.ConnectionCloseOk()) + _QOS)

    assert [MethodReceived(0, spec.ConnectionCloseOk())] == events
    assert ConnectionState.CLOSED is server.state


@pytest.mark.parametrize("received", [b"HTTP/1.1", b"AMQP\0\1\0\0", b"AMQP\1\1\0\x0a", b"\0" * 9])
def test_a_wrong_protocol_header_is_answered_with_the_right_one(received: bytes) -> None:
    server = server_at("new")

    (event,) = server.receive_data(received)

    assert isinstance(event, ConnectionFailed)
    assert isinstance(event.error, ProtocolHeaderError)
    assert b"AMQP\0\0\x09\x01" == event.reply
    assert ConnectionState.CLOSED is server.state


@pytest.mark.parametrize(
    ("tune_ok", "text"),
    [
        (
            spec.ConnectionTuneOk(channel_max=2047, frame_max=200000),
            "negotiated frame_max = 200000 is higher than the maximum allowed value (131072)",
        ),
        (
            spec.ConnectionTuneOk(channel_max=2047, frame_max=0),
            "negotiated frame_max = 0 is higher than the maximum allowed value (131072)",
        ),
        (
            spec.ConnectionTuneOk(channel_max=2047, frame_max=1000),
            "negotiated frame_max = 1000 is lower than the minimum allowed value (4096)",
        ),
        (
            spec.ConnectionTuneOk(channel_max=3000, frame_max=131072),
            "negotiated channel_max = 3000 is higher than the maximum allowed value (2047)",
        ),
        (
            spec.ConnectionTuneOk(channel_max=0, frame_max=131072),
            "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)",
        ),
    ],
)
def test_a_tune_ok_beyond_the_offer_is_refused(tune_ok: spec.ConnectionTuneOk, text: str) -> None:
    server = server_at("tuning")

    events = server.receive_data(method(0, tune_ok))

    assert ("connection", 530, f"NOT_ALLOWED - {text}", 10, 30) == failure(events)


def test_a_lower_tune_ok_is_adopted() -> None:
    server = server_at("tuning")

    server.receive_data(method(0, spec.ConnectionTuneOk(channel_max=5, frame_max=4096)))

    assert (4096, 5) == (server.frame_max, server.channel_max)


def test_before_tune_an_offence_is_answered_with_silence() -> None:
    server = server_at("starting")

    (event,) = server.receive_data(method(0, spec.ConnectionOpen()))

    assert isinstance(event, ConnectionFailed)
    assert b"" == event.reply
    assert ConnectionState.CLOSED is server.state


def test_a_channel_frame_while_opening_is_unexpected() -> None:
    server = server_at("opening")

    events = server.receive_data(method(1, spec.ChannelOpen()))

    text = "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>"
    assert ("connection", 505, text, 0, 0) == failure(events)


def test_more_channels_than_negotiated_are_refused() -> None:
    server = server_with_channel(channel_max=2)

    events = server.receive_data(method(3000, spec.ChannelOpen()) + method(2, spec.ChannelOpen()))

    text = "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
    assert ("connection", 530, text, 0, 0) == failure(events)
    assert MethodReceived(3000, spec.ChannelOpen()) == events[0]


def test_too_large_a_message_closes_its_channel_when_it_is_announced() -> None:
    server = server_with_channel(message_size_max=10)
    server.receive_data(method(2, spec.ChannelOpen()))

    events = server.receive_data(
        publish(2, b"before") + _PUBLISH + frame(2, 1, header(11)) + frame(3, 1, b"x" * 6)
    )

    text = "PRECONDITION_FAILED - message size 11 is larger than configured max size 10"
    assert ("channel", 406, text, 60, 40) == failure(events)
    failed = events[-1]
    assert isinstance(failed, ChannelFailed)
    assert failed.reply == method(
        1, spec.ChannelClose(reply_code=406, reply_text=text, class_id=60, method_id=40)
    )


def test_after_a_channel_error_the_connection_goes_on_and_the_channel_can_be_opened_again() -> None:
    server = server_with_channel(message_size_max=10)
    server.receive_data(method(2, spec.ChannelOpen()) + _PUBLISH + frame(2, 1, header(11)))

    events = server.receive_data(
        frame(3, 1, b"x" * 11)
        + publish(1, b"dropped")
        + publish(2, b"heard")
        + method(1, spec.ChannelCloseOk())
        + method(1, spec.ChannelOpen())
        + publish(1, b"again")
    )

    assert [b"heard", b"again"] == [e.body for e in events if isinstance(e, Publish)]
    assert [spec.ChannelCloseOk(), spec.ChannelOpen()] == [
        e.method for e in events if isinstance(e, MethodReceived)
    ]


def test_a_peer_that_sends_ahead_without_end_before_login_is_cut_off() -> None:
    server = server_at("starting")
    server.receive_data(method(0, spec.ConnectionStartOk(client_properties={}, response=b"")))

    assert [] == server.receive_data(b"x" * 65536)
    events = server.receive_data(b"x")

    text = "RESOURCE_ERROR - more than 65536 octets sent before login"
    assert ("connection", 506, text, 0, 0) == failure(events)


def test_a_large_frame_before_login_is_refused() -> None:
    server = server_at("starting")

    events = server.receive_data(b"\x01\0\0" + (4097).to_bytes(4, "big") + b"\0")

    text = "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,4097,4088}"
    assert ("connection", 501, text, 0, 0) == failure(events)


def test_unfinished_messages_of_many_channels_are_limited_together() -> None:
    server = server_with_channel(message_size_max=1000)
    for number in range(2, 20):
        server.receive_data(method(number, spec.ChannelOpen()))

    events = []
    for number in range(1, 20):
        events += server.receive_data(
            method(number, spec.BasicPublish())
            + frame(2, number, header(1000))
            + frame(3, number, b"x" * 999)
        )

    text = "RESOURCE_ERROR - unfinished messages exceed 16000 octets"
    assert ("connection", 506, text, 0, 0) == failure(events)
