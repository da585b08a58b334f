"""The newcomer's side of a join: asks one member, and keeps what makes it a member too.

`admission.py` has the frames and why they are safe. Nothing is written before the member has
proved to hold the token, and `cluster` comes last of the files: a folder without it has not joined.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from .admission import (
    ADMITTED,
    JOIN,
    PROOF,
    REACH,
    REACHED,
    Admitted,
    JoinAnswer,
    JoinRequest,
    Proofs,
    proves,
)
from .config import TransportConfig
from .errors import Refused, TransportError
from .identity import Address
from .listener import accept_forever, is_loopback, is_wildcard, listen
from .opening import (
    FRAME_MAX_BYTES,
    NONCE_BYTES,
    Opening,
    SpeaksTls,
    read_opening,
    say,
    say_last,
    say_refused,
)
from .security import (
    CertificateAuthority,
    ClusterCredentials,
    NodeKey,
    binding,
    is_cluster_id,
    newcomer_context,
)
from .wire import WIRE_ERRORS, connect, describe, plain, secure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .identity import NodeId
    from .wire import Wire

__all__ = ["Joined", "NotReached", "join"]

PROBES_MAX = 8
"""Connections at once to the newcomer's port; further ones are closed at accept."""


class NotReached(TransportError):
    """No node was there, or it went away; the same may work later."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What a newcomer is when the cluster has admitted it."""

    cluster: str
    node: NodeId
    name: str
    address: Address
    """Where the other nodes reach it."""
    members: Mapping[NodeId, Address]
    """All members, this node too."""
    credentials: ClusterCredentials
    """As `ClusterCredentials.load` reads them from the folder."""


async def join(
    at: Address,
    *,
    token: bytes,
    listen_on: Address,
    incarnation: int,
    software: str,
    folder: Path,
    name: str = "",
    cluster: str = "",
    config: TransportConfig | None = None,
    make_nonce: Callable[[int], bytes] = secrets.token_bytes,
) -> Joined:
    """Become a member of the cluster that a node at address `at` belongs to.

    listen_on: where this node will take links; it listens there meanwhile, for the member to try.
        Of an address for all interfaces the others are told the one that reaches `at`.
    folder: takes the credentials.
    name, cluster: empty leaves the name to the cluster, and takes any cluster with that token.

    Repeating it with the same incarnation is harmless: the cluster then answers the same.

    Raises:
        NotReached: there is no node at `at`, or no end of the talk.
        Refused: the cluster does not take this node, or this node not that cluster.
        TransportError: this node cannot listen on its address.
        OSError: the folder cannot be written.
    """
    listener, bound = await listen(listen_on, has_tls=True)
    with contextlib.closing(listener):
        newcomer = _Newcomer(
            at, token, listener, bound, folder, config or TransportConfig(), make_nonce
        )
        request = JoinRequest(
            name=name,
            address=Address(listen_on.host, bound.port),
            incarnation=incarnation,
            software=software,
            cluster=cluster,
            public_key=b"",
        )
        try:
            return await newcomer.join(request, with_tls=False)
        except SpeaksTls:
            return await newcomer.join(request, with_tls=True)


class _Newcomer:
    """One node that asks to join."""

    def __init__(
        self,
        at: Address,
        token: bytes,
        listener: trio.socket.SocketType,
        bound: Address,
        folder: Path,
        config: TransportConfig,
        make_nonce: Callable[[int], bytes],
    ) -> None:
        self._at = at
        self._token = token
        self._listener = listener
        self._bound = bound
        self._folder = folder
        self._config = config
        self._make_nonce = make_nonce
        self._probes = 0

    async def join(self, request: JoinRequest, *, with_tls: bool) -> Joined:
        """Ask for it once. On loopback the first try is without TLS, elsewhere it always is with.

        Raises: as `join`; SpeaksTls if it must be tried with TLS.
        """
        socket = await self._connect()
        with contextlib.closing(socket):
            try:
                with trio.fail_after(self._config.handshake_timeout_s) as deadline:
                    outcome = await self._speak(socket, request, deadline, with_tls=with_tls)
            except trio.TooSlowError as error:
                raise NotReached(f"the node at {self._at} did not answer in time") from error
            except WIRE_ERRORS as error:
                raise NotReached(
                    f"the connection to the node at {self._at} was lost: {describe(error)}"
                ) from error
        return self._keep(*outcome)

    async def _connect(self) -> trio.socket.SocketType:
        try:
            with trio.fail_after(self._config.handshake_timeout_s):
                return await connect(self._at)
        except (OSError, trio.TooSlowError) as error:
            reason = describe(error) if isinstance(error, OSError) else "no answer"
            raise NotReached(f"no node is reached at {self._at}: {reason}") from error

    async def _speak(
        self,
        socket: trio.socket.SocketType,
        request: JoinRequest,
        deadline: trio.CancelScope,
        *,
        with_tls: bool,
    ) -> tuple[Admitted, JoinRequest, NodeKey | None]:
        """Return the admission, the request as it was made, and the key that it certifies."""
        wire: Wire = plain(socket)
        key: NodeKey | None = None
        if with_tls or not is_loopback(wire.remote.host):
            try:
                wire = await secure(socket, newcomer_context(), server_side=False)
            except TransportError as error:
                raise Refused(f"no node of a cluster with TLS is at {self._at}: {error}") from error
            key = NodeKey.create()
            request = replace(request, public_key=key.public)
        if is_wildcard(request.address.host):
            own_host = str(socket.getsockname()[0])
            request = replace(request, address=request.address._replace(host=own_host))
        try:
            admitted = await self._ask(wire, request, deadline)
        except SpeaksTls:
            raise
        except Refused as refused:
            if not refused.by_peer:
                await say_refused(wire, str(refused))
            raise
        return admitted, request, key

    async def _ask(self, wire: Wire, request: JoinRequest, deadline: trio.CancelScope) -> Admitted:
        asked = await say(wire, JOIN, request.payload(self._make_nonce(NONCE_BYTES)))
        first = await read_opening(wire, (JOIN,), max_bytes=self._config.hello_max_bytes)
        answer = JoinAnswer.parse(first.payload)
        if not is_cluster_id(answer.cluster):
            raise Refused(f"{answer.cluster!r} is no cluster id")
        if request.cluster not in ("", answer.cluster):
            raise Refused(
                f"the node at {self._at} belongs to the cluster {answer.cluster!r}, not to"
                f" {request.cluster!r}"
            )
        if not wire.is_tls and not is_loopback(self._bound.host):
            # Said before it is a member: as one it could not listen there (`listener.listen`).
            raise Refused(
                f"the cluster at {self._at} is without TLS, so all its nodes must be on one machine"
                f" and listen on loopback, not on {self._bound}"
            )
        proofs = Proofs(
            token=self._token,
            binding=binding(wire.peer_certificate),
            request=asked,
            answer=first.body,
        )
        await say(wire, PROOF, proofs.newcomer())
        deadline.deadline += 2 * self._config.join_timeout_s
        said = await self._wait(wire, proofs)
        proof = await read_opening(wire, (PROOF,), max_bytes=self._config.hello_max_bytes)
        if not proves(proof.payload, proofs.member(said.body)):
            raise Refused(f"the node at {self._at} does not hold the token")
        admitted = Admitted.parse(said.payload, needs_certificate=wire.is_tls)
        if admitted.cluster != answer.cluster:
            raise Refused("the admission is for another cluster")
        return admitted

    async def _wait(self, wire: Wire, proofs: Proofs) -> Opening:
        """Return the admission; meanwhile answer the member at this node's own port."""
        async with trio.open_nursery() as nursery:

            def take(socket: trio.socket.SocketType) -> None:
                if self._probes >= PROBES_MAX:
                    socket.close()
                    return
                self._probes += 1
                nursery.start_soon(self._answer, socket, proofs)

            nursery.start_soon(accept_forever, self._listener, take)
            # A nursery would put a refusal into a group.
            said: Opening | Exception
            try:
                said = await read_opening(wire, (ADMITTED,), max_bytes=FRAME_MAX_BYTES)
            except (Refused, *WIRE_ERRORS) as error:
                said = error
            nursery.cancel_scope.cancel()
        if isinstance(said, Opening):
            return said
        raise said

    async def _answer(self, socket: trio.socket.SocketType, proofs: Proofs) -> None:
        """Show a member that it has reached this node; anybody else hears nothing."""
        try:
            with (
                contextlib.closing(socket),
                trio.move_on_after(self._config.handshake_timeout_s),
            ):
                try:
                    probe = plain(socket)
                    said = await read_opening(
                        probe, (REACH,), max_bytes=self._config.hello_max_bytes
                    )
                except (Refused, *WIRE_ERRORS):
                    return
                if proves(said.payload, proofs.reach()):
                    await say_last(probe, REACHED, proofs.reached())
        finally:
            self._probes -= 1

    def _keep(self, admitted: Admitted, request: JoinRequest, key: NodeKey | None) -> Joined:
        """Write the credentials into the folder.

        Raises:
            Refused: the certificates are not what they should be.
            OSError: the folder cannot be written.
        """
        cluster, admission, certified = admitted.cluster, admitted.admission, admitted.certified
        credentials = ClusterCredentials(cluster, self._token)
        if key is not None and certified is not None:
            try:
                authority = CertificateAuthority.parse(
                    cluster, certified.authority, certified.authority_key
                )
                key.check(
                    certified.certificate,
                    authority=certified.authority,
                    cluster=cluster,
                    node=admission.node,
                )
            except ValueError as error:
                raise Refused(f"the admission's certificates are not usable: {error}") from error
            authority.save(self._folder)
            tls = key.save(
                self._folder, certificate=certified.certificate, authority=certified.authority
            )
            credentials = replace(credentials, tls=tls)
        credentials.save(self._folder)
        return Joined(
            cluster=cluster,
            node=admission.node,
            name=admission.name,
            address=request.address,
            members=dict(admission.members),
            credentials=credentials,
        )
