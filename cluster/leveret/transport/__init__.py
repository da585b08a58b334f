"""Node to node: one authenticated connection a pair of nodes, carrying MessagePack messages.

`Peers` is the whole of it for the packages above; the rest makes what `Peers` takes.
"""

from .config import TransportConfig
from .errors import EnvelopeError, Refused, TransportError
from .identity import Address, Identity, NodeId
from .peers import Peers
from .security import CertificateAuthority, ClusterCredentials, TlsFiles, new_token

__all__ = [
    "Address",
    "CertificateAuthority",
    "ClusterCredentials",
    "EnvelopeError",
    "Identity",
    "NodeId",
    "Peers",
    "Refused",
    "TlsFiles",
    "TransportConfig",
    "TransportError",
    "new_token",
]
