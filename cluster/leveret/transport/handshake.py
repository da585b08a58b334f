"""The first words on a connection: who is there, and does it hold the cluster's token.

The dialler (D) and the acceptor (A) exchange four frames on reserved channels:

    D  #hello    who I am, nonce
    A  #hello    who I am, nonce
    D  #proof    HMAC(token, "dialler" + both hellos as sent)
    A  #welcome  HMAC(token, "acceptor" + both hellos as sent)

The token never crosses the wire. The proofs cover both hellos whole, so nobody in between can
alter or reuse them, and the two labels keep a proof from being reflected. The dialler proves
first: a stranger learns nothing made with the token. Under TLS the same is done and the hello's
node must be the certificate's. Either side may say `#refused` with its reason in place of a frame.

Frames are read to the byte, so that what follows `#welcome` is left to the link.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from . import envelope
from .errors import EnvelopeError, Refused
from .identity import Identity, NodeId
from .wire import WIRE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .security import ClusterCredentials
    from .wire import Wire

__all__ = ["REFUSED", "WELCOME", "Hello", "Party", "refusal", "say_refused"]

MAGIC = "leveret-peer"
VERSION = 1
"""The newest protocol between nodes that this program speaks."""
OLDEST = 1
"""The oldest one; a cluster is upgraded node by node, so both are said and the overlap is used."""

HELLO, PROOF, WELCOME, REFUSED = "#hello", "#proof", "#welcome", "#refused"

NONCE_BYTES = 32
REASON_CHARS = 200
LAST_WORDS_S = 1.0
"""How long a refuser waits for the other side to have read its reason."""


@dataclass(frozen=True)
class Hello:
    """What the other side said of itself, checked for types and bounds only."""

    identity: Identity
    dial: int
    """Counts the connections that this process has dialled; the newer of two has the higher."""
    version: int
    oldest: int
    nonce: bytes

    def payload(self) -> dict[str, object]:
        """Return it as it goes over the wire."""
        me = self.identity
        return {
            "magic": MAGIC,
            "version": self.version,
            "oldest": self.oldest,
            "cluster": me.cluster,
            "node": int(me.node),
            "name": me.name,
            "incarnation": me.incarnation,
            "boot": me.boot,
            "software": me.software,
            "instance": me.instance,
            "dial": self.dial,
            "nonce": self.nonce,
        }

    @classmethod
    def parse(cls, payload: object) -> Hello:
        """Return the hello in `payload`; members that are not known are for later versions.

        Raises:
            Refused: it is not a hello of this protocol or a member is missing or out of bounds.
        """
        if not isinstance(payload, dict) or payload.get("magic") != MAGIC:
            raise Refused("that is not a Leveret node")
        version, oldest = _integer(payload, "version"), _integer(payload, "oldest")
        if oldest > VERSION or version < OLDEST:
            raise Refused(
                f"incompatible peer protocols: {oldest} to {version}, against {OLDEST} to {VERSION}"
            )
        node = _integer(payload, "node")
        nonce, instance = payload.get("nonce"), payload.get("instance")
        if not 1 <= node < 65536:
            raise Refused("the hello's node is out of bounds")
        if not (isinstance(nonce, bytes) and len(nonce) == NONCE_BYTES):
            raise Refused("the hello's nonce is malformed")
        if not (isinstance(instance, bytes) and 1 <= len(instance) <= 64):
            raise Refused("the hello's instance is malformed")
        identity = Identity(
            cluster=_text(payload, "cluster"),
            node=NodeId(node),
            name=_text(payload, "name"),
            incarnation=_integer(payload, "incarnation"),
            boot=_integer(payload, "boot"),
            software=_text(payload, "software"),
            instance=instance,
        )
        return cls(identity, _integer(payload, "dial"), version, oldest, nonce)


@dataclass(frozen=True)
class Party:
    """One node at all its handshakes."""

    identity: Identity
    credentials: ClusterCredentials
    make_nonce: Callable[[int], bytes]
    hello_max_bytes: int

    async def dial(
        self, wire: Wire, *, expected: NodeId, number: int, check: Callable[[Hello], None]
    ) -> Hello:
        """Speak as the dialler; return the acceptor's hello when it has proved and accepted.

        `check(hello)` raises Refused for what this node does not accept; it is asked before the
        acceptor takes the link for made, so that the acceptor does not report one in vain.

        Raises:
            Refused: one side does not accept the other.
            OSError: the connection broke.
        """
        my_body = await self._say_hello(wire, number)
        theirs, their_body = await self._read_hello(wire)
        if theirs.identity.node != expected:
            raise Refused(f"node {theirs.identity.node} answers where node {expected} should")
        check(theirs)
        await _say(wire, PROOF, self._proof("dialler", my_body, their_body))
        answer, _ = await self._read(wire, WELCOME)
        self._check_proof(answer, self._proof("acceptor", my_body, their_body))
        return theirs

    async def accept(self, wire: Wire) -> tuple[Hello, bytes]:
        """Speak as the acceptor, up to the dialler's proof; return its hello and the welcome due.

        Raises: as `dial`.
        """
        theirs, their_body = await self._read_hello(wire)
        my_body = await self._say_hello(wire, 0)
        answer, _ = await self._read(wire, PROOF)
        self._check_proof(answer, self._proof("dialler", their_body, my_body))
        return theirs, self._proof("acceptor", their_body, my_body)

    async def _say_hello(self, wire: Wire, dial: int) -> bytes:
        hello = Hello(self.identity, dial, VERSION, OLDEST, self.make_nonce(NONCE_BYTES))
        frame = _frame(HELLO, hello.payload())
        await wire.send_all(frame)
        return frame[4:]

    async def _read_hello(self, wire: Wire) -> tuple[Hello, bytes]:
        payload, body = await self._read(wire, HELLO)
        hello = Hello.parse(payload)
        they, me = hello.identity, self.identity
        if they.cluster != me.cluster:
            raise Refused(f"node {they.node} belongs to the cluster {they.cluster!r}, not here")
        if wire.is_tls and wire.certified != (they.cluster, they.node):
            raise Refused(f"the certificate is not that of node {they.node} of {they.cluster!r}")
        if they.node == me.node:
            raise Refused(f"both nodes have the id {me.node}; each needs its own")
        if they.name == me.name:
            raise Refused(f"nodes {they.node} and {me.node} have the same name {me.name!r}")
        return hello, body

    async def _read(self, wire: Wire, channel: str) -> tuple[object, bytes]:
        header = await _read_exactly(wire, 4)
        if header[:2] == b"\x16\x03" and not wire.is_tls:
            raise Refused("the other side speaks TLS and this node has no certificate")
        try:
            size = envelope.body_size(header, frame_max_bytes=self.hello_max_bytes)
            body = await _read_exactly(wire, size)
            found, payload = envelope.decode_body(body)
        except EnvelopeError as error:
            raise Refused(f"not a Leveret node, or a broken one: {error}") from error
        if found == REFUSED:
            raise Refused(_printable(payload), by_peer=True)
        if found != channel:
            raise Refused(f"expected {channel}, not {_printable(found)}")
        return payload, body

    def _proof(self, role: str, dialler: bytes, acceptor: bytes) -> bytes:
        # Both bodies are MessagePack arrays and so end themselves: no other pair joins to this.
        text = b"leveret peer proof 1 " + role.encode() + b"\0" + dialler + acceptor
        return hmac.digest(self.credentials.token, text, hashlib.sha256)

    def _check_proof(self, answer: object, expected: bytes) -> None:
        if not (isinstance(answer, bytes) and hmac.compare_digest(answer, expected)):
            raise Refused("the cluster tokens of the two nodes differ")


async def say_refused(wire: Wire, reason: str) -> None:
    """Tell the other side why, as far as it still listens, and wait until it has read that.

    Takes a second at most, whatever the other side does.
    """
    with trio.move_on_after(LAST_WORDS_S), contextlib.suppress(*WIRE_ERRORS):
        await _say(wire, REFUSED, reason[:REASON_CHARS])
        # Closing a socket with unread bytes makes the kernel send a reset, which may overtake and
        # destroy what was sent last.
        await wire.finish()
        while await wire.receive(65536):
            pass


def refusal(payload: object) -> Refused:
    """Return what a `#refused` frame on an established link says."""
    return Refused(_printable(payload), by_peer=True)


def _frame(channel: str, payload: object) -> bytes:
    frame = bytearray()
    envelope.append_frame(frame, channel, payload, frame_max_bytes=65536)
    return bytes(frame)


async def _say(wire: Wire, channel: str, payload: object) -> None:
    await wire.send_all(_frame(channel, payload))


async def _read_exactly(wire: Wire, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = await wire.receive(size - len(data))
        if not chunk:
            raise ConnectionResetError("closed during the hello")
        data += chunk
    return data


def _integer(payload: dict[object, object], key: str) -> int:
    value = payload.get(key)
    if type(value) is not int or not 0 <= value < 2**63:
        raise Refused(f"the hello's {key} is malformed")
    return value


def _text(payload: dict[object, object], key: str) -> str:
    value = payload.get(key)
    if not (isinstance(value, str) and value.isprintable() and 1 <= len(value.encode()) <= 255):
        raise Refused(f"the hello's {key} is malformed")
    return value


def _printable(payload: object) -> str:
    """Return a stranger's text so that it cannot forge lines or fill the log."""
    text = payload if isinstance(payload, str) else "no reason"
    return "".join(c if c.isprintable() else "?" for c in text[:REASON_CHARS])
