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

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import Refused
from .identity import Identity, NodeId
from .opening import MAGIC, NONCE_BYTES, OLDEST, VERSION, Fields, Opening, read_opening, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from .security import ClusterCredentials
    from .wire import Wire

__all__ = ["HELLO", "PROOF", "WELCOME", "Hello", "Party"]

HELLO, PROOF, WELCOME = "#hello", "#proof", "#welcome"


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
        fields = Fields(payload, "hello")
        version, oldest = fields.versions()
        identity = Identity(
            cluster=fields.text("cluster"),
            node=NodeId(fields.integer("node", low=1, below=65536)),
            name=fields.text("name"),
            incarnation=fields.integer("incarnation"),
            boot=fields.integer("boot"),
            software=fields.text("software"),
            instance=fields.octets("instance", low=1, high=64),
        )
        return cls(identity, fields.integer("dial"), version, oldest, fields.nonce())


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
        first = await self._read(wire, HELLO)
        theirs, their_body = self._hello(wire, first), first.body
        if theirs.identity.node != expected:
            raise Refused(f"node {theirs.identity.node} answers where node {expected} should")
        check(theirs)
        await say(wire, PROOF, self._proof("dialler", my_body, their_body))
        answer = await self._read(wire, WELCOME)
        self._check_proof(answer.payload, self._proof("acceptor", my_body, their_body))
        return theirs

    async def accept(self, wire: Wire, first: Opening) -> tuple[Hello, bytes]:
        """Speak as the acceptor from the dialler's `#hello` on, which is `first`, to its proof.

        Returns its hello and the welcome due. Raises: as `dial`.
        """
        theirs, their_body = self._hello(wire, first), first.body
        my_body = await self._say_hello(wire, 0)
        answer = await self._read(wire, PROOF)
        self._check_proof(answer.payload, self._proof("dialler", their_body, my_body))
        return theirs, self._proof("acceptor", their_body, my_body)

    async def _say_hello(self, wire: Wire, dial: int) -> bytes:
        hello = Hello(self.identity, dial, VERSION, OLDEST, self.make_nonce(NONCE_BYTES))
        return await say(wire, HELLO, hello.payload())

    def _hello(self, wire: Wire, first: Opening) -> Hello:
        hello = Hello.parse(first.payload)
        they, me = hello.identity, self.identity
        if they.cluster != me.cluster:
            raise Refused(f"node {they.node} belongs to the cluster {they.cluster!r}, not here")
        if wire.is_tls and wire.certified is None:
            raise Refused(f"node {they.node} shows no certificate, and may only ask to join")
        if wire.is_tls and wire.certified != (they.cluster, they.node):
            raise Refused(f"the certificate is not that of node {they.node} of {they.cluster!r}")
        if they.node == me.node:
            raise Refused(f"both nodes have the id {me.node}; each needs its own")
        if they.name == me.name:
            raise Refused(f"nodes {they.node} and {me.node} have the same name {me.name!r}")
        return hello

    async def _read(self, wire: Wire, channel: str) -> Opening:
        return await read_opening(wire, (channel,), max_bytes=self.hello_max_bytes)

    def _proof(self, role: str, dialler: bytes, acceptor: bytes) -> bytes:
        text = b"leveret peer proof 1 " + role.encode() + b"\0" + dialler + acceptor
        return hmac.digest(self.credentials.token, text, hashlib.sha256)

    def _check_proof(self, answer: object, expected: bytes) -> None:
        if not (isinstance(answer, bytes) and hmac.compare_digest(answer, expected)):
            raise Refused("the cluster tokens of the two nodes differ")
