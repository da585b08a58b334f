"""Where a running node can be reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leveret.transport.identity import Address

if TYPE_CHECKING:
    from .membership import Membership


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """The addresses that a node is bound to, with the ports that the system chose for port 0."""

    amqp: tuple[Address, ...]
    amqp_tls: tuple[Address, ...] = ()
    peers: Address | None = None
    """None for a single node, which no other node may reach."""
    member: Membership | None = None
    """Which node of which cluster it is there."""
    token: bytes | None = field(default=None, repr=False)
    """What another node needs to join at `peers`."""
