"""Where a running node can be reached."""

from __future__ import annotations

from dataclasses import dataclass

from leveret.transport.identity import Address


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """The addresses that a node is bound to, with the ports that the system chose for port 0."""

    amqp: tuple[Address, ...]
    amqp_tls: tuple[Address, ...] = ()
    peers: Address | None = None
    """None for a single node, which no other node may reach."""
