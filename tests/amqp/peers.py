"""Both ends of a connection, and raw frames, for the tests of `leveret.amqp`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from leveret.amqp import ClientConnection, Delivery, ServerConnection, spec
from leveret.amqp.errors import AmqpError
from leveret.amqp.events import ChannelFailed, ConnectionFailed
from leveret.amqp.fields import Table

if TYPE_CHECKING:
    from leveret.amqp import Event, Method

SERVER_PROPERTIES: Table = {"product": "RabbitMQ", "capabilities": {"basic.nack": True}}


def frame(kind: int, channel: int, payload: bytes, end: int = 0xCE) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes((end,))


def method(channel: int, value: Method) -> bytes:
    return frame(1, channel, value.encode())


def header(size: int, flags_and_properties: bytes = b"\0\0") -> bytes:
    return struct.pack(">HHQ", 60, 0, size) + flags_and_properties


def publish(channel: int, body: bytes, *, key: str = "k", exchange: str = "") -> bytes:
    frames = [
        method(channel, spec.BasicPublish(exchange=exchange, routing_key=key)),
        frame(2, channel, header(len(body))),
    ]
    if body:
        frames.append(frame(3, channel, body))
    return b"".join(frames)


def server_at(
    state: str, *, frame_max: int = 131072, channel_max: int = 2047, message_size_max: int = 1 << 24
) -> ServerConnection:
    """A server whose handshake has come to `state`: new, starting, tuning, opening or running."""
    server = ServerConnection(message_size_max=message_size_max)
    if state == "new":
        return server
    assert server.receive_data(spec.PROTOCOL_HEADER) == []
    server.send_method(0, spec.ConnectionStart(server_properties=SERVER_PROPERTIES))
    if state == "starting":
        return server
    server.receive_data(method(0, spec.ConnectionStartOk(client_properties={}, response=b"")))
    server.send_method(
        0, spec.ConnectionTune(channel_max=channel_max, frame_max=frame_max, heartbeat=60)
    )
    if state == "tuning":
        return server
    server.receive_data(
        method(0, spec.ConnectionTuneOk(channel_max=channel_max, frame_max=frame_max, heartbeat=0))
    )
    if state == "opening":
        return server
    server.receive_data(method(0, spec.ConnectionOpen()))
    server.send_method(0, spec.ConnectionOpenOk())
    return server


def server_with_channel(**limits: int) -> ServerConnection:
    """A running server with channel 1 open."""
    server = server_at("running", **limits)
    server.receive_data(method(1, spec.ChannelOpen()))
    return server


def client_with_channel(
    *, frame_max: int = 131072, delivery_type: type[Delivery] | None = None
) -> ClientConnection:
    """A running client with channel 1 open."""
    client = ClientConnection(delivery_type=delivery_type)
    client.begin()
    client.receive_data(method(0, spec.ConnectionStart(server_properties=SERVER_PROPERTIES)))
    client.send_method(0, spec.ConnectionStartOk(client_properties={}, response=b""))
    client.receive_data(
        method(0, spec.ConnectionTune(channel_max=2047, frame_max=frame_max, heartbeat=60))
    )
    tune_ok = spec.ConnectionTuneOk(channel_max=2047, frame_max=frame_max, heartbeat=60)
    client.send_method(0, tune_ok)
    client.send_method(0, spec.ConnectionOpen())
    client.receive_data(method(0, spec.ConnectionOpenOk()))
    client.send_method(1, spec.ChannelOpen())
    client.receive_data(method(1, spec.ChannelOpenOk()))
    return client


def failure(events: list[Event]) -> tuple[str, int, str, int, int]:
    """The one failure at the end of `events`: scope, code, text, class id, method id."""
    failures = [e for e in events if isinstance(e, ChannelFailed | ConnectionFailed)]
    assert len(failures) == 1, events
    failed = failures[0]
    assert events[-1] is failed
    error = failed.error
    assert isinstance(error, AmqpError)
    scope = "channel" if isinstance(failed, ChannelFailed) else "connection"
    return scope, error.reply_code, error.reply_text, error.class_id, error.method_id
