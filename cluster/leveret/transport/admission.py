"""What a newcomer and a member say to each other when the newcomer joins. Pure; no I/O.

The newcomer (N) has the address of one member (M) and the cluster's token, and no number yet:

    N  #join      name, address, incarnation, public key, nonce
    M  #join      cluster, who I am, nonce
    N  #proof     HMAC(token, "newcomer" + binding + both #join as sent)
    M  #admitted  cluster, number, members, certificates
    M  #proof     HMAC(token, "member" + binding + both #join and #admitted as sent)

The newcomer proves first, as in `handshake.py`, so a stranger learns nothing made with the token.
Before it admits, the member dials the address that the newcomer gave (`#reach`, `#reached`; each
with a proof of its own label): a node that others cannot reach would be a member in vain.

Under TLS the newcomer has no certificate and cannot check the member's, so both proofs cover the
hash of the certificate that the member's end shows: a man in the middle has to show another one,
and without the token he can neither pass a proof on nor make one. What is secret, the authority's
key, is sent only after the newcomer's proof. See decision 0009.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import Refused
from .identity import Address, NodeId
from .opening import MAGIC, OLDEST, VERSION, Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .identity import Identity

__all__ = [
    "ADMITTED",
    "JOIN",
    "PROOF",
    "REACH",
    "REACHED",
    "Admission",
    "Admitted",
    "Certified",
    "JoinAnswer",
    "JoinRequest",
    "Proofs",
    "proves",
]

JOIN, PROOF, ADMITTED = "#join", "#proof", "#admitted"
REACH, REACHED = "#reach", "#reached"

MEMBERS_MAX = 1024
PEM_MAX_BYTES = 8 * 1024
PUBLIC_KEY_MAX_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class JoinRequest:
    """What a newcomer says of itself."""

    name: str
    """Empty: the cluster names it after its number."""
    address: Address
    """Where the other nodes reach it."""
    incarnation: int
    software: str
    cluster: str
    """The cluster that it means to join; empty: whichever holds the token."""
    public_key: bytes
    """To be certified (DER); empty without TLS."""

    def payload(self, nonce: bytes) -> dict[str, object]:
        """Return it as it goes over the wire."""
        return {
            "magic": MAGIC,
            "version": VERSION,
            "oldest": OLDEST,
            "name": self.name,
            "host": self.address.host,
            "port": self.address.port,
            "incarnation": self.incarnation,
            "software": self.software,
            "cluster": self.cluster,
            "public_key": self.public_key,
            "nonce": nonce,
        }

    @classmethod
    def parse(cls, payload: object) -> JoinRequest:
        """Return the request in `payload`.

        Raises:
            Refused: it is none of this protocol, or a member is missing or out of bounds.
        """
        fields = Fields(payload, "join")
        fields.versions()
        fields.nonce()
        return cls(
            name=fields.text("name", may_be_empty=True),
            address=fields.address(),
            incarnation=fields.integer("incarnation", low=1),
            software=fields.text("software"),
            cluster=fields.text("cluster", may_be_empty=True),
            public_key=fields.octets("public_key", low=0, high=PUBLIC_KEY_MAX_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class JoinAnswer:
    """What the member says of itself."""

    cluster: str
    node: NodeId
    name: str
    software: str

    @classmethod
    def of(cls, me: Identity) -> JoinAnswer:
        """Return the answer of a member."""
        return cls(cluster=me.cluster, node=me.node, name=me.name, software=me.software)

    def payload(self, nonce: bytes) -> dict[str, object]:
        """Return it as it goes over the wire."""
        return {
            "magic": MAGIC,
            "version": VERSION,
            "oldest": OLDEST,
            "cluster": self.cluster,
            "node": int(self.node),
            "name": self.name,
            "software": self.software,
            "nonce": nonce,
        }

    @classmethod
    def parse(cls, payload: object) -> JoinAnswer:
        """Return the answer in `payload`; raises as `JoinRequest.parse`."""
        fields = Fields(payload, "join")
        fields.versions()
        fields.nonce()
        return cls(
            cluster=fields.text("cluster"),
            node=NodeId(fields.integer("node", low=1, below=65536)),
            name=fields.text("name"),
            software=fields.text("software"),
        )


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What the cluster decided: the newcomer is a member."""

    node: NodeId
    name: str
    members: Mapping[NodeId, Address]
    """All members and where they are reached, the newcomer too."""


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The files of a newcomer under TLS, as PEM."""

    authority: bytes
    authority_key: bytes
    certificate: bytes

    def __repr__(self) -> str:
        return "Certified(…)"  # it holds a secret


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """What the member tells the newcomer at last."""

    cluster: str
    admission: Admission
    certified: Certified | None

    def payload(self) -> dict[str, object]:
        """Return it as it goes over the wire."""
        admission, certified = self.admission, self.certified
        return {
            "cluster": self.cluster,
            "node": int(admission.node),
            "name": admission.name,
            "members": [
                {"node": int(node), "host": at.host, "port": at.port}
                for node, at in admission.members.items()
            ],
            "authority": certified.authority if certified else b"",
            "authority_key": certified.authority_key if certified else b"",
            "certificate": certified.certificate if certified else b"",
        }

    @classmethod
    def parse(cls, payload: object, *, needs_certificate: bool) -> Admitted:
        """Return what `payload` says; raises as `JoinRequest.parse`."""
        fields = Fields(payload, "admission")
        admission = Admission(
            node=NodeId(fields.integer("node", low=1, below=65536)),
            name=fields.text("name"),
            members={
                NodeId(entry.integer("node", low=1, below=65536)): entry.address()
                for entry in fields.maps("members", high=MEMBERS_MAX)
            },
        )
        if admission.node not in admission.members:
            raise Refused("the admission's members are without this node")
        certified = None
        if needs_certificate:
            certified = Certified(
                authority=fields.octets("authority", low=1, high=PEM_MAX_BYTES),
                authority_key=fields.octets("authority_key", low=1, high=PEM_MAX_BYTES),
                certificate=fields.octets("certificate", low=1, high=PEM_MAX_BYTES),
            )
        return cls(cluster=fields.text("cluster"), admission=admission, certified=certified)


@dataclass(frozen=True, kw_only=True)
class Proofs:
    """The proofs of one join, made by who holds the token; each covers all that was said before."""

    token: bytes
    binding: bytes
    """`security.binding` of the certificate that the member's end shows."""
    request: bytes
    """Body of the newcomer's `#join`."""
    answer: bytes
    """Body of the member's `#join`."""

    def newcomer(self) -> bytes:
        """Return the newcomer's proof."""
        return self._digest("newcomer")

    def member(self, admitted: bytes) -> bytes:
        """Return the member's proof, which covers the body of `#admitted` too."""
        return self._digest("member", admitted)

    def reach(self) -> bytes:
        """Return what the member says where the newcomer should be."""
        return self._digest("reach")

    def reached(self) -> bytes:
        """Return what the newcomer answers there."""
        return self._digest("reached")

    def _digest(self, label: str, admitted: bytes = b"") -> bytes:
        # Binding and label have their lengths, and each body ends itself (`opening.Opening.body`).
        head = b"leveret join proof 1 " + label.encode() + b"\0" + self.binding
        text = head + self.request + self.answer + admitted
        return hmac.digest(self.token, text, hashlib.sha256)


def proves(given: object, expected: bytes) -> bool:
    """Tell whether `given`, from the other side, is the proof expected; in constant time."""
    return isinstance(given, bytes) and hmac.compare_digest(given, expected)
