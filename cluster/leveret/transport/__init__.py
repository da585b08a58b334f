"""Node to node: one authenticated connection a pair of nodes, carrying MessagePack messages.

`Peers` is the whole of it for the packages above; the rest makes what `Peers` takes.
"""

from .admission import Admission, JoinRequest
from .config import TransportConfig
from .errors import EnvelopeError, Refused, TransportError
from .identity import Address, Identity, NodeId
from .joining import Joined, NotReached, join
from .peers import Peers
from .security import CertificateAuthority, ClusterCredentials, TlsFiles, found_cluster, new_token
from .sockets import Sockets, send_now

__all__ = [
    "Address",
    "Admission",
    "CertificateAuthority",
    "ClusterCredentials",
    "EnvelopeError",
    "Identity",
    "JoinRequest",
    "Joined",
    "NodeId",
    "NotReached",
    "Peers",
    "Refused",
    "Sockets",
    "TlsFiles",
    "TransportConfig",
    "TransportError",
    "found_cluster",
    "join",
    "new_token",
    "send_now",
]
