"""Who begins a cluster: one node, once, and only when no other can hold data of it.

A node with an empty folder cannot know whether its cluster is new or its disk was lost. So it asks
the members that it was configured with, all of them: if each one is linked and empty too, the one
with the lowest number begins, as the only voter, and the others are admitted to it like anybody.
If one of them holds data, or is not there, the node waits to be admitted. A single node asks
nobody.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.consensus import Replicas
    from leveret.storage import Disk, Journal
    from leveret.transport import NodeId

    from .introductions import Introductions
    from .member_file import MemberFile

log = logging.getLogger(__name__)

LOOK_S: Final = 0.05
"""How often a fresh node looks whether all others are there."""
WAIT_LOG_S: Final = 5.0


async def found_if_new(
    member: MemberFile,
    members: Collection[NodeId],
    *,
    disk: Disk,
    journal: Journal,
    replicas: Replicas,
    introductions: Introductions,
) -> bool:
    """Begin the cluster if that is this node's part; return whether it did. Waits for the others.

    members: all that the cluster begins with, this node too; empty for a node that joins one.
    Returns as soon as this node holds data, from whomever.

    Raises:
        OSError, SyncFailed: the disk failed.
    """
    if not member.is_founding:
        if not replicas.is_fresh:
            return False
        others = [node for node in members if node != member.node]
        if not await _is_ours_to_begin(member, others, bool(members), replicas, introductions):
            return False
        await replace(member, is_founding=True).write(disk)
    replicas.found()
    await journal.wait_durable(journal.appended)
    await replace(member, is_founding=False).write(disk)
    log.info("cluster founded", extra={"node": member.node, "members": sorted(members)})
    return True


async def _is_ours_to_begin(
    member: MemberFile,
    others: Collection[NodeId],
    is_configured: bool,  # noqa: FBT001
    replicas: Replicas,
    introductions: Introductions,
) -> bool:
    """Wait until it is clear who begins; False once this node has got data from another."""
    next_log_s = trio.current_time() + WAIT_LOG_S
    while replicas.is_fresh:
        known = introductions.known
        is_first = is_configured and all(member.node < other for other in others)
        if is_first and all(other in known and known[other].is_fresh for other in others):
            return True
        if trio.current_time() >= next_log_s:
            next_log_s += WAIT_LOG_S
            log.warning(
                "empty data folder: waiting for a member with data, or for all members to be new",
                extra={"missing": [other for other in others if other not in known]},
            )
        await trio.sleep(LOOK_S)
    return False
