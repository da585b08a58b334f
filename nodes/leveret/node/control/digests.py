"""`digests`: a hash of each replica's state, by which members of a cluster can be compared.

Replicas that applied the same entries must have the same state; so equal indexes with different
digests are a bug, or a disk that lies. A digest needs the whole state at once: not for every day.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import trio

from .replies import Digests, GroupDigest

if TYPE_CHECKING:
    from .controls import NoArguments
    from .parts import NodeParts


async def digests(parts: NodeParts, _: NoArguments) -> Digests:
    """Return the digests of all groups' states on this node."""
    found = []
    for group, machine in zip(parts.replicas.groups, parts.machines, strict=True):
        # Nothing is awaited between the index and the state that it is of.
        found.append(
            GroupDigest(
                group=group.number,
                applied_index=group.applied_index,
                digest=hashlib.blake2b(machine.snapshot(), digest_size=8).hexdigest(),
            )
        )
        await trio.lowlevel.checkpoint()
    return Digests(node=parts.identity.node, groups=found)
