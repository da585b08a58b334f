"""From the protocol header to connection.open-ok, octet by octet, and the life of a connection."""

from __future__ import annotations

import struct
import time
from contextlib import ExitStack

import amqp
import pika
import pytest

from tests.conformance.conftest import Broker
from tests.support.wire import (
    BASIC_GET,
    CLIENT_PROPERTIES,
    CONNECTION_CLOSE,
    CONNECTION_CLOSE_OK,
    CONNECTION_OPEN_OK,
    HEARTBEAT,
    PROTOCOL_HEADER,
    QUEUE_DECLARE,
    Closed,
    CloseReason,
    Frame,
    Tune,
    Wire,
    close_reason,
    field,
    frame,
    longstr,
    shortstr,
    table,
)

CAPABILITIES = {
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
}


def login(broker: Broker, user: str | None = None, password: str | None = None) -> bytes:
    """The response of PLAIN."""
    user = broker.user if user is None else user
    password = broker.password if password is None else password
    return f"\0{user}\0{password}".encode()


def amqplain(user: str, password: str) -> bytes:
    """The response of AMQPLAIN: a field table without its length."""
    return field("LOGIN", b"S", longstr(user)) + field("PASSWORD", b"S", longstr(password))


def assert_refused(wire: Wire) -> CloseReason | None:
    """See the socket closed, after a connection.close at most; return that one's reason.

    RabbitMQ only closes the socket, 3 s late; to say why is better and allowed.
    """
    frames = [got for got in wire.read_until_closed() if got.type != HEARTBEAT]
    assert [got.method for got in frames] in ([], [CONNECTION_CLOSE])
    return close_reason(frames[0].arguments) if frames else None


@pytest.mark.parametrize(
    "header",
    [
        b"AMQP\x00\x00\x09\x02",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"HTTP/1.1",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
    ],
)
def test_wrong_protocol_header_is_answered_with_ours_and_a_close(
    broker: Broker, header: bytes
) -> None:
    """connection: protocol header."""
    with broker.wire() as wire:
        wire.send(header)

        assert wire.read_exactly(8) == PROTOCOL_HEADER
        with pytest.raises(Closed):
            wire.read_exactly(1)


def test_protocol_header_may_come_in_pieces(broker: Broker) -> None:
    """connection: protocol header."""
    with broker.wire() as wire:
        for octet in PROTOCOL_HEADER[:-1]:
            wire.send(bytes([octet]))
        wire.send(PROTOCOL_HEADER[-1:])

        assert wire.read_frame().method == (10, 10)


def test_start_offers_version_mechanisms_and_locale(broker: Broker) -> None:
    """connection: start / server-properties, mechanisms."""
    with broker.wire() as wire:
        arguments = wire.start()

    assert arguments[:2] == bytes([0, 9])
    (size,) = struct.unpack_from(">I", arguments, 2)
    rest = arguments[6 + size :]
    (size,) = struct.unpack_from(">I", rest)
    mechanisms = rest[4 : 4 + size].decode().split(" ")
    assert {"PLAIN", "AMQPLAIN"} <= set(mechanisms)
    assert rest[4 + size :] == longstr("en_US")


def test_server_properties_are_those_that_clients_look_at(broker: Broker) -> None:
    """connection: start / server-properties."""
    connection = amqp.Connection(f"{broker.host}:{broker.port}", broker.user, broker.password)
    connection.connect()
    properties = connection.server_properties
    connection.close()

    assert properties["product"] == "RabbitMQ"
    assert tuple(int(part) for part in properties["version"].split(".")) >= (3, 10, 0)
    strings = ("product", "version", "platform", "copyright", "information", "cluster_name")
    assert all(isinstance(properties[key], str) and properties[key] for key in strings)
    assert {key for key, value in properties["capabilities"].items() if value} >= CAPABILITIES


def test_plain_login(broker: Broker) -> None:
    """connection: mechanisms."""
    with broker.wire() as wire:
        wire.start()
        wire.start_ok("PLAIN", login(broker))

        assert wire.tune() == Tune(2047, 131072, 60)


def test_amqplain_login(broker: Broker) -> None:
    """connection: mechanisms."""
    with broker.wire() as wire:
        wire.start()
        wire.start_ok("AMQPLAIN", amqplain(broker.user, broker.password))

        assert wire.tune() == Tune(2047, 131072, 60)


def test_unknown_locale_is_no_reason_to_refuse(broker: Broker) -> None:
    """connection: mechanisms (locales)."""
    with broker.wire() as wire:
        wire.start()
        arguments = CLIENT_PROPERTIES + shortstr("PLAIN") + longstr(login(broker))
        wire.send_method(0, (10, 11), arguments + shortstr("de_DE"))

        wire.tune()


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
@pytest.mark.parametrize("who", ["wrong password", "unknown user", "empty password"])
def test_wrong_password_is_told_to_clients_that_understand(
    broker: Broker, mechanism: str, who: str
) -> None:
    """connection: wrong password, with authentication_failure_close."""
    user = "t-nobody" if who == "unknown user" else broker.user
    password = "" if who == "empty password" else broker.password + "-wrong"
    plain = mechanism == "PLAIN"
    with broker.wire() as wire:
        wire.start()
        wire.start_ok(
            mechanism, login(broker, user, password) if plain else amqplain(user, password)
        )

        assert wire.expect_connection_close() == CloseReason(
            403,
            f"ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. "
            "For details see the broker logfile.",
            0,
            0,
        )


@pytest.mark.parametrize("refused", ["login", "vhost"])
def test_a_refused_client_that_does_not_answer_keeps_its_socket_for_a_while(
    broker: Broker, refused: str
) -> None:
    """connection: wrong password; a client that finds both at once may tell of the loss alone."""
    with broker.wire() as wire:
        wire.start()
        wire.start_ok("PLAIN", login(broker, password="wrong" if refused == "login" else None))
        if refused == "vhost":
            wire.tune_ok(wire.tune())
            wire.open("t-nowhere")
        wire.expect(CONNECTION_CLOSE, 0)

        wire.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.socket.recv(1)
        wire.send_method(0, CONNECTION_CLOSE_OK)
        assert wire.read_until_closed() == []


@pytest.mark.slow
def test_wrong_password_closes_the_socket_of_clients_that_do_not(broker: Broker) -> None:
    """connection: wrong password, without authentication_failure_close."""
    with broker.wire() as wire:
        wire.start()
        wire.start_ok("PLAIN", login(broker, password="wrong"), properties=table())

        assert wire.read_until_closed() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("NOPE", b""),
        ("EXTERNAL", b""),
        ("", b"\0guest\0guest"),
        ("PLAIN", b""),
        ("PLAIN", b"guest"),
        ("PLAIN", b"\0guest"),
        ("AMQPLAIN", field("LOGIN", b"S", longstr("guest"))),
        ("AMQPLAIN", b"\x05LOG"),
    ],
)
def test_login_that_makes_no_sense_is_refused(
    broker: Broker, mechanism: str, response: bytes
) -> None:
    """connection: mechanisms."""
    with broker.wire() as wire:
        wire.start()
        wire.start_ok(mechanism, response)

        assert_refused(wire)


def test_missing_vhost_is_refused_with_its_name(broker: Broker) -> None:
    """connection: open vhost."""
    with broker.wire() as wire:
        wire.start()
        wire.start_ok("PLAIN", login(broker))
        wire.tune_ok(wire.tune())
        wire.open("t-nowhere")

        reason = CloseReason(530, "NOT_ALLOWED - vhost t-nowhere not found", 10, 40)
        assert wire.expect_connection_close() == reason


def test_pika_names_a_missing_vhost_and_a_wrong_password(broker: Broker) -> None:
    """connection: open vhost, wrong password: what an unmodified client makes of them."""
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="vhost t-nowhere"):
        broker.connect(virtual_host="t-nowhere")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
        broker.connect(credentials=pika.PlainCredentials(broker.user, "wrong"))


@pytest.mark.parametrize(
    "tune",
    [Tune(1, 4096, 0), Tune(2047, 131072, 600), Tune(2047, 131072, 60), Tune(10, 65536, 1)],
)
def test_client_may_lower_the_limits(broker: Broker, tune: Tune) -> None:
    """connection: tune."""
    with broker.wire() as wire:
        wire.start()
        wire.start_ok("PLAIN", login(broker))
        wire.tune()
        wire.tune_ok(tune)
        wire.open(broker.vhost)

        wire.expect(CONNECTION_OPEN_OK, 0)
        wire.open_channel(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tune",
    [Tune(2048, 131072, 60), Tune(2047, 131073, 60), Tune(2047, 4095, 60)],
)
def test_limits_that_were_not_offered_are_refused(broker: Broker, tune: Tune) -> None:
    """connection: tune."""
    with broker.wire() as wire:
        wire.start()
        wire.start_ok("PLAIN", login(broker))
        wire.tune()
        wire.tune_ok(tune)
        wire.open(broker.vhost)

        assert_refused(wire)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["start", "tune"])
def test_open_out_of_turn_is_refused(broker: Broker, stage: str) -> None:
    """connection: open vhost."""
    with broker.wire() as wire:
        wire.start()
        if stage == "tune":
            wire.start_ok("PLAIN", login(broker))
            wire.tune()
        wire.open(broker.vhost)

        assert_refused(wire)


@pytest.mark.slow
def test_half_a_handshake_is_cut_after_ten_seconds(broker: Broker) -> None:
    """connection: protocol header; the handshake's deadline is 10 s in RabbitMQ."""
    with ExitStack() as opened:
        wires = [opened.enter_context(broker.wire(timeout_s=20)) for _ in range(4)]
        begun = time.monotonic()
        for wire in wires[1:]:
            wire.send(PROTOCOL_HEADER)
        for wire in wires[2:]:
            wire.start_ok("PLAIN", login(broker))
        for wire in wires[3:]:
            wire.tune_ok(Tune(2047, 131072, 60))
        for wire in wires:
            wire.read_until_closed()

            assert 8 < time.monotonic() - begun < 15


@pytest.mark.slow
def test_idle_connection_gets_heartbeats_and_a_silent_client_is_cut(broker: Broker) -> None:
    """connection: heartbeats."""
    with broker.open_wire(heartbeat=1) as wire:
        begun = time.monotonic()
        frames = wire.read_until_closed()

        assert set(frames) == {Frame(HEARTBEAT, 0, b"")}
        assert len(frames) >= 2
        assert 1.5 < time.monotonic() - begun < 6


@pytest.mark.slow
@pytest.mark.parametrize("sign", ["heartbeats", "methods"])
def test_any_sign_of_life_keeps_a_connection(broker: Broker, sign: str) -> None:
    """connection: heartbeats."""
    with broker.open_wire(heartbeat=1) as wire:
        wire.declare_queue("", bits=0b01100)
        get = struct.pack(">H", 0) + shortstr("") + b"\x00"
        begun = time.monotonic()
        while time.monotonic() - begun < 4:
            if wire.read_frame().type != HEARTBEAT:
                continue
            if sign == "heartbeats":
                wire.send(frame(HEARTBEAT, 0, b""))
            else:
                wire.send_method(1, BASIC_GET, get)


@pytest.mark.slow
def test_without_heartbeats_silence_is_no_reason_to_part(broker: Broker) -> None:
    """connection: heartbeats, 0 = off."""
    with broker.open_wire(heartbeat=0) as wire:
        wire.timeout_s = 4
        with pytest.raises(TimeoutError):
            wire.read_frame()


@pytest.mark.parametrize("code", [0, 200, 320])
def test_client_may_close_with_any_code(broker: Broker, code: int) -> None:
    """connection: close."""
    with broker.open_wire() as wire:
        wire.send_method(0, CONNECTION_CLOSE, struct.pack(">HBHH", code, 0, 0, 0))

        wire.expect(CONNECTION_CLOSE_OK, 0)


def test_what_was_sent_before_the_close_is_done(broker: Broker) -> None:
    """connection: close."""
    with broker.open_wire() as wire:
        arguments = struct.pack(">H", 0) + shortstr("") + bytes([0b01100]) + table()
        wire.send_method(1, QUEUE_DECLARE, arguments)
        wire.send_method(0, CONNECTION_CLOSE, struct.pack(">HBHH", 200, 0, 0, 0))

        assert wire.read_frame().method == (50, 11)
        wire.expect(CONNECTION_CLOSE_OK, 0)
