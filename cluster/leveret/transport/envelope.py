"""Frames between nodes: `<I` length, then MessagePack `[channel, payload]`. Pure; no I/O.

A frame of length zero is a sign of life and carries nothing. Payloads are made of None, bool,
int, float, str, bytes, sequences and maps; sequences arrive as tuples. Nothing here can run code
or build any other type, whatever the bytes (never pickle).

What is large goes in parts, so that other frames pass between them: a part is `<I` length with
the flag `PART`, `<I` the number of its stream, then a stretch of the body that a whole frame would
have. `LAST` ends the stream. Parts of several streams may alternate.

Encoding is msgspec's because `encode_into` writes straight behind the earlier frames of a
batch: a body is copied once, from its owner into the buffer that goes to the socket (3.5 µs a
64 KiB payload and 1.0 µs a small message, against 6.7 and 1.8 with msgpack.Packer and 9.5 and
2.4 with packb and join; CPython 3.11, 2026-11). Decoding is msgpack's because it has the limits
and makes tuples.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast

import msgpack
import msgspec

from .errors import EnvelopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "FRAME_BYTES_MAX",
    "SIGN_OF_LIFE",
    "Decoder",
    "append_frame",
    "append_part",
    "body_size",
    "decode_body",
]

Message = tuple[str, object]

LENGTH = struct.Struct("<I")
SIGN_OF_LIFE = LENGTH.pack(0)

PART, LAST = 1 << 31, 1 << 30
FRAME_BYTES_MAX = LAST - 1
_PART_HEAD = struct.Struct("<II")
_STREAM_BYTES = 256  # what a stream costs besides its bytes

ITEMS_MAX = 131_072
"""Entries of one array or map. An array header of five bytes makes the decoder reserve eight
bytes an entry before one has come, so the frame's own size is a bound too."""

_encoder = msgspec.msgpack.Encoder()


def append_frame(out: bytearray, channel: str, payload: object, *, frame_max_bytes: int) -> None:
    """Append the frame of one message to `out`; on an error `out` is as it was.

    Raises:
        EnvelopeError: MessagePack cannot hold the payload, or it exceeds `frame_max_bytes`.
    """
    start = len(out)
    out += SIGN_OF_LIFE  # room for the length
    try:
        _encoder.encode_into((channel, payload), out, -1)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        del out[start:]
        raise EnvelopeError(f"no MessagePack for a payload on {channel!r}: {error}") from error
    size = len(out) - start - 4
    if size > frame_max_bytes:
        del out[start:]
        raise EnvelopeError(
            f"a payload of {size} bytes on {channel!r} exceeds the limit of {frame_max_bytes}"
        )
    LENGTH.pack_into(out, start, size)


def append_part(out: bytearray, stream: int, part: memoryview, *, is_last: bool) -> None:
    """Append one part of a frame's body to `out`."""
    out += _PART_HEAD.pack(PART | (LAST if is_last else 0) | len(part), stream)
    out += part


def body_size(header: bytes | bytearray | memoryview, *, frame_max_bytes: int) -> int:
    """Return the body's size that the first four bytes of a frame announce.

    Raises:
        EnvelopeError: it is above `frame_max_bytes`.
    """
    size: int = LENGTH.unpack_from(header)[0]
    if size > frame_max_bytes:
        raise EnvelopeError(f"a frame of {size} bytes exceeds the limit of {frame_max_bytes}")
    return size


def decode_body(body: bytes | bytearray | memoryview) -> Message:
    """Return channel and payload of one frame's body. Byte strings are copied out of it.

    Raises:
        EnvelopeError: not one MessagePack array of a string and a value, within the limits.
    """
    size = len(body)
    items_max = min(ITEMS_MAX, size)
    try:
        message = msgpack.unpackb(
            body,
            use_list=False,
            strict_map_key=False,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=items_max,
            max_map_len=items_max,
            max_ext_len=0,
        )
    # MemoryError: deep nests of large headers; the reserved arrays are gone by now.
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise EnvelopeError(
            f"a frame is not MessagePack: {error or type(error).__name__}"
        ) from error
    if type(message) is not tuple or len(message) != 2 or type(message[0]) is not str:
        raise EnvelopeError("a frame is not an array of channel and payload")
    return cast("Message", message)


class Decoder:
    """Cuts one link's bytes into messages. Useless after an EnvelopeError.

    Only what is unfinished is buffered, and it grows with what has come, not with what its length
    announces; whole frames are decoded where they lie in the chunk.

    unfinished_max_bytes: of all streams of parts together.
    """

    def __init__(self, *, frame_max_bytes: int, unfinished_max_bytes: int) -> None:
        self._frame_max_bytes = frame_max_bytes
        self._unfinished_max_bytes = unfinished_max_bytes
        self._partial = bytearray()
        self._streams: dict[int, bytearray] = {}
        self._streams_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes held back: of a frame that is not whole, and of streams that have not ended."""
        return len(self._partial) + self._streams_bytes

    def feed(self, chunk: bytes) -> Sequence[Message]:
        """Return the messages that `chunk` completes, oldest first.

        Raises:
            EnvelopeError: see `body_size` and `decode_body`, or too many parts without a last one;
                the chunk's messages are lost.
        """
        messages: list[Message] = []
        start = self._finish_partial(chunk, messages) if self._partial else 0
        end = len(chunk)
        view = memoryview(chunk)
        unpack, frame_max_bytes = LENGTH.unpack_from, self._frame_max_bytes
        while end - start >= 4:
            (size,) = unpack(chunk, start)
            if size > frame_max_bytes:
                if end - start < _PART_HEAD.size and size & PART:
                    break
                stop = start + self._size(view[start:])
                if stop > end:
                    break
                self._take_part(view[start:stop], messages)
            else:
                stop = start + 4 + size
                if stop > end:
                    break
                if size:
                    messages.append(decode_body(view[start + 4 : stop]))
            start = stop
        if start < end:
            self._partial += view[start:]
        return messages

    def _size(self, head: bytearray | memoryview) -> int:
        """Return the whole size of the frame or part that begins with these four bytes or more.

        Raises:
            EnvelopeError: it is above `frame_max_bytes`.
        """
        size: int = LENGTH.unpack_from(head)[0]
        if not size & PART:
            return 4 + body_size(head, frame_max_bytes=self._frame_max_bytes)
        part = LENGTH.pack(size & ~(PART | LAST))
        return _PART_HEAD.size + body_size(part, frame_max_bytes=self._frame_max_bytes)

    def _finish_partial(self, chunk: bytes, messages: list[Message]) -> int:
        """Add to the unfinished frame what it lacks; return how much of `chunk` that took."""
        partial = self._partial
        start = max(0, 4 - len(partial))
        partial += chunk[:start]
        if len(partial) < 4:
            return len(chunk)
        size = self._size(partial)
        stop = start + size - len(partial)
        partial += chunk[start:stop]
        if len(partial) < size:
            return len(chunk)
        self._partial = bytearray()
        if partial[3] & (PART >> 24):
            self._take_part(memoryview(partial), messages)
        elif size > 4:
            messages.append(decode_body(memoryview(partial)[4:]))
        return stop

    def _take_part(self, part: memoryview, messages: list[Message]) -> None:
        """Put a whole part to its stream; decode the body if it was the last one."""
        size, number = _PART_HEAD.unpack_from(part)
        stream = self._streams.setdefault(number, bytearray())
        stream += part[_PART_HEAD.size :]
        self._streams_bytes += len(part) - _PART_HEAD.size
        if len(stream) > self._frame_max_bytes:
            body_size(LENGTH.pack(len(stream)), frame_max_bytes=self._frame_max_bytes)  # raises
        if size & LAST:
            del self._streams[number]
            self._streams_bytes -= len(stream)
            messages.append(decode_body(stream))
        elif self._streams_bytes + _STREAM_BYTES * len(self._streams) > self._unfinished_max_bytes:
            raise EnvelopeError(
                f"parts of {len(self._streams)} frames exceed {self._unfinished_max_bytes} bytes"
            )
