"""`cluster add` and `cluster token`: what another machine needs to join."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.transport import Address
from leveret.transport.listener import is_loopback

from .controls import ControlError, NoArguments
from .replies import JoinGuide, Token

if TYPE_CHECKING:
    from .parts import NodeParts


async def add(parts: NodeParts, _: NoArguments) -> JoinGuide:
    """Return how a node joins by this one."""
    token = _token(parts)
    at = _reached_at(parts)
    return JoinGuide(
        cluster=parts.identity.cluster,
        address=str(at),
        token=token.hex(),
        is_local=is_loopback(at.host),
    )


async def token(parts: NodeParts, _: NoArguments) -> Token:
    """Return the secret of the cluster."""
    return Token(token=_token(parts).hex())


def _token(parts: NodeParts) -> bytes:
    token = parts.endpoints.token
    if token is None or parts.endpoints.peers is None:
        raise ControlError(
            "unavailable",
            f"{parts.identity.name} is alone and takes no links of other nodes",
            remedy="start it again with --peer-listen HOST:25672, HOST being its address for other"
            " machines (127.0.0.1 for nodes on this one); its data stays, and it takes other nodes"
            " from then on",
        )
    return token


def _reached_at(parts: NodeParts) -> Address:
    """Return where other nodes reach this one: not where it listens, if that is everywhere."""
    endpoints = parts.endpoints
    assert endpoints.peers is not None
    member = endpoints.member
    if member is None:
        return endpoints.peers
    return member.members.get(member.node, endpoints.peers)
