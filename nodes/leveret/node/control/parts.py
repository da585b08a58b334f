"""The parts of a running node that the controls look at and act on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.broker.access import Access, InThread
    from leveret.broker.connections.listener import Listener
    from leveret.broker.directory import Directory
    from leveret.catalog import Catalog
    from leveret.consensus import Machine, Replicas
    from leveret.node.alarms import Alarms
    from leveret.node.config import NodeConfig
    from leveret.node.endpoints import Endpoints
    from leveret.node.tls import ClientCertificates
    from leveret.storage import Disk
    from leveret.transport import Identity, Peers

    from .rates import RateMeter
    from .replies import Phase


@dataclass(kw_only=True)
class NodeParts:
    """Made by whoever composes the node, who also keeps `phase` and `endpoints` true."""

    config: NodeConfig
    identity: Identity
    started_s: float
    """By trio's clock."""
    disk: Disk
    alarms: Alarms
    peers: Peers
    replicas: Replicas
    machines: Sequence[Machine]
    """Of the replicas, in the order of the groups."""
    catalog: Catalog
    access: Access
    random_bytes: Callable[[int], bytes]
    in_thread: InThread
    directory: Directory
    listener: Listener
    certificates: ClientCertificates | None
    """Of the TLS listeners for clients, if there are any."""
    rates: RateMeter
    endpoints: Endpoints
    phase: Phase = "starting"
