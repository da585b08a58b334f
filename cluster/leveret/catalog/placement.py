"""Where a queue lives: in a shard group or on the node that declared it. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def is_replicated(*, durable: bool, exclusive: bool, auto_delete: bool) -> bool:
    """Say whether a queue so declared goes into a shard group.

    The others go with a connection, a consumer or a node anyway,
    so replication would only cost them a round of the cluster for each message.
    """
    return durable and not exclusive and not auto_delete


def pick_shard(loads: Sequence[int]) -> int:
    """Return the shard group (1..n) with the fewest queues, the lowest number among equals.

    loads: the number of queues of shard 1, 2, ... n; not empty.
    """
    return min(range(len(loads)), key=loads.__getitem__) + 1
