"""Frames: their layout, and how methods and content are cut into them.

A frame is type (8 bits), channel (16), payload size (32), payload, end octet 0xCE. The negotiated
frame_max counts all of it, so a payload has at most frame_max - 8 octets; 0 means no limit.

Spec: AMQP 0-9-1, 2.3.5, 4.2.3.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from leveret.amqp.errors import AmqpError, frame_error, quoted, unexpected_frame

OVERHEAD: Final = 8
"""Octets of a frame around its payload."""

HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
"""The heartbeat frame. Any frame counts as a sign of life, so it is sent only when idle."""

_HEAD: Final = Struct(">BHI")
_QUOTED: Final = 16


def encode_method(channel: int, payload: bytes) -> bytes:
    """A method frame around `payload`, a method's `encode()`."""
    return b"%b%b\xce" % (_HEAD.pack(1, channel, len(payload)), payload)


def encode_content(
    channel: int, method: bytes, header: bytes, body: bytes | memoryview, frame_max: int
) -> bytes:
    """A method that carries content, its header frame and as many body frames as are needed.

    method: the method's payload; header: the content header's; frame_max: octets, 0 = no limit.
    A body of no octets has no body frame.
    """
    parts: list[bytes | memoryview] = [
        _HEAD.pack(1, channel, len(method)),
        method,
        b"\xce",
        _HEAD.pack(2, channel, len(header)),
        header,
        b"\xce",
    ]
    append_body(parts, channel, body, frame_max)
    return b"".join(parts)


def append_body(
    parts: list[bytes | memoryview], channel: int, body: bytes | memoryview, frame_max: int
) -> None:
    """Append the body frames of `body` to `parts`, none longer than `frame_max`."""
    size = len(body)
    step = frame_max - OVERHEAD if frame_max else size
    for start in range(0, size, step or 1):
        piece = bytes(body[start : start + step])
        parts += (_HEAD.pack(3, channel, len(piece)), piece, b"\xce")


def frame_too_large(kind: int, size: int, frame_max: int) -> AmqpError:
    """501, in RabbitMQ's words; the payload has not been read, so there is nothing to quote."""
    return frame_error(
        f"type {kind}, all octets = <<>>: {{frame_too_large,{size},{frame_max - OVERHEAD}}}"
    )


def wrong_end(kind: int, payload: bytes, end: int) -> AmqpError:
    """501: the octet behind the payload is not 0xCE."""
    return frame_error(f"{_snippet(kind, payload)}: {{invalid_frame_end_marker,{end}}}")


def unknown_frame(kind: int, payload: bytes) -> AmqpError:
    """501: no such frame type, or a payload too short for its type."""
    return frame_error(f"{_snippet(kind, payload)}: unknown_frame")


def misplaced_frame(kind: int, payload: bytes) -> AmqpError:
    """505: a frame on a channel where its type has no place."""
    return unexpected_frame(_snippet(kind, payload))


def _snippet(kind: int, payload: bytes) -> str:
    which = "all" if len(payload) <= _QUOTED else "first 16"
    return f"type {kind}, {which} octets = {quoted(payload[:_QUOTED])}"
