"""The member's side of a join: judges who may be proposed to the cluster, and equips it.

Owns: the newcomers that are being admitted, their number and time. Must not know: how the cluster
decides (the handler does), or links.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import trio

from .admission import (
    ADMITTED,
    JOIN,
    PROOF,
    REACH,
    REACHED,
    Admission,
    Admitted,
    Certified,
    JoinAnswer,
    JoinRequest,
    Proofs,
    proves,
)
from .errors import EnvelopeError, Refused, TransportError
from .listener import is_loopback
from .opening import NONCE_BYTES, Opening, read_opening, say, say_last, say_refused
from .security import CertificateAuthority, binding, load_public_key
from .wire import WIRE_ERRORS, connect, describe, plain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime

    from .config import TransportConfig
    from .handshake import Party
    from .identity import Address
    from .wire import Wire

    JoinHandler = Callable[[JoinRequest], Awaitable[Admission]]

__all__ = ["Admitter", "JoinHandler"]

log = logging.getLogger("leveret.transport")

ADVICE = "give it a --peer-listen that the other nodes reach"


class Admitter:
    """One member at all joins that are asked of it."""

    def __init__(
        self, party: Party, config: TransportConfig, *, hosts: Callable[[], Iterable[str]]
    ) -> None:
        """Take the member's identity and secrets; `hosts` returns where all members listen.

        Raises:
            TransportError: its certificate cannot be read.
        """
        self._hosts = hosts
        self._party = party
        self._config = config
        self._tls = party.credentials.tls
        self._binding = binding(self._tls.leaf() if self._tls else None)
        self._handler: JoinHandler | None = None
        self._now: Callable[[], datetime] | None = None
        self._joining = 0

    def handle_with(self, handler: JoinHandler, now: Callable[[], datetime]) -> None:
        """Let `handler` decide; `now` dates certificates."""
        assert self._handler is None, "there is a handler"
        self._handler, self._now = handler, now

    async def admit(self, wire: Wire, first: Opening, *, until_proof: trio.CancelScope) -> None:
        """Lead a join from its `#join`, which is `first`, to its end, good or bad.

        until_proof: the deadline of strangers, put off when this one has proved to be none.

        Raises:
            Refused: before the newcomer has proved to hold the token.
            OSError: the connection broke.
        """
        request = JoinRequest.parse(first.payload)
        me, token = self._party.identity, self._party.credentials.token
        if request.cluster not in ("", me.cluster):
            raise Refused(f"this is the cluster {me.cluster!r}, not {request.cluster!r}")
        answer = JoinAnswer.of(me).payload(self._party.make_nonce(NONCE_BYTES))
        answered = await say(wire, JOIN, answer)
        proofs = Proofs(token=token, binding=self._binding, request=first.body, answer=answered)
        proof = await read_opening(wire, (PROOF,), max_bytes=self._party.hello_max_bytes)
        if not proves(proof.payload, proofs.newcomer()):
            raise Refused(
                "the token is not that of this cluster, or somebody stands between the nodes"
            )
        until_proof.deadline = trio.current_time() + 2 * self._config.join_timeout_s
        about = {"peer_name": request.name, "address": str(request.address)}
        try:
            admitted = await self._decide(request, wire, proofs)
            body = await say(wire, ADMITTED, admitted.payload())
        except Refused as refused:
            log.warning("node not admitted", extra=about | {"reason": str(refused)})
            await say_refused(wire, str(refused))
            return
        except EnvelopeError as error:  # more members than one frame holds
            log.warning("node not admitted", extra=about | {"reason": str(error)})
            await say_refused(wire, str(error))
            return
        await say_last(wire, PROOF, proofs.member(body))
        log.info("node admitted", extra=about | {"peer": admitted.admission.node})

    async def _decide(self, request: JoinRequest, wire: Wire, proofs: Proofs) -> Admitted:
        """Return what to tell the newcomer.

        Raises:
            Refused: it cannot be a member, or not now.
        """
        if self._handler is None:
            raise Refused("this node is not ready to admit others; try again when it is up")
        if self._joining >= self._config.joins_max:
            raise Refused(f"{self._joining} other nodes are joining here; try again in a moment")
        self._joining += 1
        try:
            with trio.move_on_after(self._config.join_timeout_s):
                authority = self._authority(request) if wire.is_tls else None
                await self._reach(request, wire, proofs)
                admission = await self._handler(request)
                return Admitted(
                    cluster=self._party.identity.cluster,
                    admission=admission,
                    certified=self._certify(authority, request, admission) if authority else None,
                )
        finally:
            self._joining -= 1
        raise Refused(
            f"the cluster did not decide within {self._config.join_timeout_s:g} s; is a majority"
            " of its nodes up? Then try again"
        )

    def _authority(self, request: JoinRequest) -> CertificateAuthority:
        """Return what will sign the newcomer's key, when both are as they should be.

        Raises:
            Refused: one is not.
        """
        assert self._tls is not None
        if not self._tls.authority_key.exists():
            raise Refused(
                f"node {self._party.identity.node} has no {self._tls.authority_key.name} beside its"
                " ca.pem and cannot certify; join through a node that has it, or put it there"
            )
        try:
            load_public_key(request.public_key)
            return CertificateAuthority.of_files(
                self._party.identity.cluster, self._tls.authority, self._tls.authority_key
            )
        except TransportError as error:
            raise Refused(str(error)) from error

    def _certify(
        self, authority: CertificateAuthority, request: JoinRequest, admission: Admission
    ) -> Certified:
        assert self._now is not None
        certificate = authority.certify(request.public_key, admission.node, now=self._now())
        pem, key = authority.pem()
        return Certified(authority=pem, authority_key=key, certificate=certificate)

    async def _reach(self, request: JoinRequest, wire: Wire, proofs: Proofs) -> None:
        """Find the newcomer at the address that it gave.

        Raises:
            Refused: nobody or somebody else is there, or other nodes would not get there.
        """
        at = request.address
        try:
            with trio.fail_after(self._config.handshake_timeout_s):
                with contextlib.closing(await connect(at)) as socket:
                    probe = plain(socket)
                    self._check_place(at, probe, wire)
                    await say(probe, REACH, proofs.reach())
                    answer = await self._read_reached(probe)
        except trio.TooSlowError as error:
            raise Refused(f"no answer at {at}, where it should listen; {ADVICE}") from error
        except WIRE_ERRORS as error:
            raise Refused(f"it is not reached at {at} ({describe(error)}); {ADVICE}") from error
        if not proves(answer, proofs.reached()):
            raise Refused(f"somebody else answers at {at}; {ADVICE}")

    async def _read_reached(self, probe: Wire) -> object:
        """Return the proof of who is there, whatever it may be; None if it is not even a frame."""
        try:
            answer = await read_opening(probe, (REACHED,), max_bytes=self._party.hello_max_bytes)
        except Refused:
            return None
        return answer.payload

    def _check_place(self, at: Address, probe: Wire, wire: Wire) -> None:
        """Raise Refused if the newcomer's address, although reached, is none for this cluster."""
        is_local = is_loopback(probe.remote.host)
        if not is_local and not wire.is_tls:
            raise Refused(
                "this cluster is without TLS, so all its nodes must be on one machine and listen on"
                f" loopback, not on {at}"
            )
        if is_local and not self._is_all_local(wire.remote.host):
            raise Refused(f"no other machine gets to {at}; {ADVICE}")

    def _is_all_local(self, newcomer: str) -> bool:
        """Tell whether the newcomer and all members are on this machine, as their hosts say."""
        return all(_is_local(host) for host in (newcomer, *self._hosts()))


def _is_local(host: str) -> bool:
    try:
        return is_loopback(host)
    except ValueError:  # a name
        return host == "localhost"
