"""The replicated metadata: who may do what, which exchanges, queues and bindings exist, and where.

One Raft group (group 0) carries it to every node.
Nothing here knows a wire format of clients: arguments are opaque bytes.
"""

from leveret.catalog.catalog import (
    Catalog,
    CatalogError,
    CatalogGroup,
    CatalogTimeout,
    ChangeRefused,
)
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import Model

__all__ = [
    "Catalog",
    "CatalogError",
    "CatalogGroup",
    "CatalogMachine",
    "CatalogTimeout",
    "ChangeRefused",
    "Model",
]
