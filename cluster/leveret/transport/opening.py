"""The frames before a link: bounded, read to the byte, and every word of a stranger doubted.

What a handshake says is made of these; which frames, in which order and with which proofs, is
`handshake.py`'s and `joining.py`'s. Either side may say `#refused` with its reason in place of
any frame.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import trio

from . import envelope
from .errors import EnvelopeError, Refused
from .identity import Address
from .wire import WIRE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Collection

    from .wire import Wire

__all__ = [
    "MAGIC",
    "NONCE_BYTES",
    "OLDEST",
    "REFUSED",
    "VERSION",
    "Fields",
    "Opening",
    "SpeaksTls",
    "read_opening",
    "refusal",
    "say",
    "say_last",
    "say_refused",
]

MAGIC = "leveret-peer"
VERSION = 1
"""The newest protocol between nodes that this program speaks."""
OLDEST = 1
"""The oldest one; a cluster is upgraded node by node, so both are said and the overlap is used."""

REFUSED = "#refused"

FRAME_MAX_BYTES = 64 * 1024
NONCE_BYTES = 32
REASON_CHARS = 200
TEXT_MAX_BYTES = 255
LAST_WORDS_S = 1.0
"""How long a side that closes waits for the other to have read what was said last."""

TLS_HANDSHAKE, TLS_ALERT = b"\x16\x03", b"\x15\x03"
"""How the two TLS records begin that come first to one who does not speak it."""


class SpeaksTls(Refused):
    """The other side answers in TLS; a link or join without it cannot be."""


class Opening(NamedTuple):
    """One frame as it was read."""

    channel: str
    payload: object
    body: bytes
    """Channel and payload as sent, which proofs cover. It is one MessagePack array and so ends
    itself: bodies joined are joined in one way only."""


async def read_opening(wire: Wire, channels: Collection[str], *, max_bytes: int) -> Opening:
    """Return the next frame, which is on one of `channels`; not a byte more is read.

    Raises:
        Refused: it is another one or none, is above `max_bytes` (and then unread), or is the
            other side's refusal.
        OSError: the connection broke.
    """
    header = await _read_exactly(wire, 4)
    if not wire.is_tls and header[:2] == TLS_HANDSHAKE:
        raise SpeaksTls("the other side speaks TLS and this node has no certificate")
    if not wire.is_tls and header[:2] == TLS_ALERT:
        raise SpeaksTls("the other node speaks TLS only")
    try:
        size = envelope.body_size(header, frame_max_bytes=max_bytes)
        body = await _read_exactly(wire, size)
        channel, payload = envelope.decode_body(body)
    except EnvelopeError as error:
        raise Refused(f"not a Leveret node, or a broken one: {error}") from error
    if channel == REFUSED:
        raise refusal(payload)
    if channel not in channels:
        raise Refused(f"expected {' or '.join(channels)}, not {_printable(channel)}")
    return Opening(channel, payload, body)


async def say(wire: Wire, channel: str, payload: object) -> bytes:
    """Send one frame; return its body, which proofs cover.

    Raises:
        EnvelopeError: the payload is too large.
        OSError: the connection broke.
    """
    frame = bytearray()
    envelope.append_frame(frame, channel, payload, frame_max_bytes=FRAME_MAX_BYTES)
    await wire.send_all(frame)
    return bytes(frame[4:])


async def say_last(wire: Wire, channel: str, payload: object) -> None:
    """Send one frame as far as the other side still listens, and wait until it was read.

    Takes a second at most, whatever the other side does.
    """
    with trio.move_on_after(LAST_WORDS_S), contextlib.suppress(*WIRE_ERRORS):
        await say(wire, channel, payload)
        # Closing a socket with unread bytes makes the kernel send a reset, which may overtake and
        # destroy what was sent last.
        await wire.finish()
        while await wire.receive(65536):
            pass


async def say_refused(wire: Wire, reason: str) -> None:
    """Tell the other side why, as `say_last` does."""
    await say_last(wire, REFUSED, reason[:REASON_CHARS])


def refusal(payload: object) -> Refused:
    """Return what a `#refused` frame says."""
    return Refused(_printable(payload), by_peer=True)


class Fields:
    """The members of a payload, each checked for type and bounds when it is taken.

    Members that are not asked for are those of later versions.
    """

    def __init__(self, payload: object, what: str) -> None:
        """Take a payload; `what` names it in refusals, such as `hello`.

        Raises:
            Refused: it is no map.
        """
        if not isinstance(payload, dict):
            raise Refused("that is not a Leveret node")
        self._payload = payload
        self._what = what

    def versions(self) -> tuple[int, int]:
        """Return the newest and the oldest version spoken by the other side.

        Raises:
            Refused: it is not this protocol, or there is no version that both speak.
        """
        if self._payload.get("magic") != MAGIC:
            raise Refused("that is not a Leveret node")
        version, oldest = self.integer("version"), self.integer("oldest")
        if oldest > VERSION or version < OLDEST:
            raise Refused(
                f"incompatible peer protocols: {oldest} to {version}, against {OLDEST} to {VERSION}"
            )
        return version, oldest

    def integer(self, key: str, *, low: int = 0, below: int = 2**63) -> int:
        """Return an integer within bounds; Refused otherwise, as all below."""
        value = self._payload.get(key)
        if type(value) is not int:
            raise self._malformed(key)
        if not low <= value < below:
            raise Refused(f"the {self._what}'s {key} is out of bounds")
        return value

    def text(self, key: str, *, may_be_empty: bool = False) -> str:
        """Return a printable text of at most 255 bytes."""
        value = self._payload.get(key)
        if not (isinstance(value, str) and value.isprintable()):
            raise self._malformed(key)
        if not (0 if may_be_empty else 1) <= len(value.encode()) <= TEXT_MAX_BYTES:
            raise self._malformed(key)
        return value

    def octets(self, key: str, *, low: int, high: int) -> bytes:
        """Return a byte string of `low` to `high` bytes."""
        value = self._payload.get(key)
        if not (isinstance(value, bytes) and low <= len(value) <= high):
            raise self._malformed(key)
        return value

    def nonce(self) -> bytes:
        """Return the nonce."""
        return self.octets("nonce", low=NONCE_BYTES, high=NONCE_BYTES)

    def address(self) -> Address:
        """Return the address in `host` and `port`."""
        return Address(self.text("host"), self.integer("port", low=1, below=65536))

    def maps(self, key: str, *, high: int) -> list[Fields]:
        """Return the maps of a sequence of at most `high`."""
        value = self._payload.get(key)
        if not (isinstance(value, tuple) and len(value) <= high):
            raise self._malformed(key)
        return [Fields(entry, self._what) for entry in value]

    def _malformed(self, key: str) -> Refused:
        return Refused(f"the {self._what}'s {key} is malformed")


async def _read_exactly(wire: Wire, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = await wire.receive(size - len(data))
        if not chunk:
            raise ConnectionResetError("closed during the hello")
        data += chunk
    return data


def _printable(payload: object) -> str:
    """Return a stranger's text so that it cannot forge lines or fill the log."""
    text = payload if isinstance(payload, str) else "no reason"
    return "".join(c if c.isprintable() else "?" for c in text[:REASON_CHARS])
