"""The table of all that an operator can ask of a node."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .cluster_status import cluster_status
from .controls import Controls, NoArguments
from .node_status import status

if TYPE_CHECKING:
    from .admin import Admin
    from .parts import NodeParts


def add_verbs(controls: Controls, parts: NodeParts, admin: Admin) -> None:
    """Put every verb into the table."""
    controls.add("status", NoArguments, partial(status, parts))
    controls.add("cluster status", NoArguments, partial(cluster_status, parts, admin))
