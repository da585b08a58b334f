"""Who begins a cluster: one node, once, and only when no other can hold data of it.

A node with an empty folder cannot know whether its cluster is new or its disk was lost. So it asks
the members that it was configured with, all of them: if each one is linked and empty too, the one
with the lowest number begins, as the only voter, and the others are admitted to it like anybody.
If one of them holds data, or is not there, the node waits to be admitted. A single node asks
nobody.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from .membership import set_founding

if TYPE_CHECKING:
    from leveret.consensus import Replicas
    from leveret.storage import Disk, Journal

    from .introductions import Introductions
    from .membership import Membership

log = logging.getLogger(__name__)

LOOK_S: Final = 0.05
"""How often a fresh node looks whether all others are there."""
WAIT_LOG_S: Final = 5.0


async def found_if_new(
    member: Membership,
    *,
    disk: Disk,
    journal: Journal,
    replicas: Replicas,
    introductions: Introductions,
) -> bool:
    """Begin the cluster if that is this node's part; return whether it did. Waits for the others.

    Returns as soon as this node holds data, from whomever.

    Raises:
        SyncFailed: the disk failed.
    """
    if not member.is_founding:
        if not replicas.is_fresh:
            return False
        if not await _is_ours_to_begin(member, replicas, introductions):
            return False
        member = await set_founding(disk, member, is_founding=True)
    replicas.found()
    await journal.wait_durable(journal.appended)
    await set_founding(disk, member, is_founding=False)
    log.info("cluster founded", extra={"node": member.node, "members": sorted(member.members)})
    return True


async def _is_ours_to_begin(
    member: Membership, replicas: Replicas, introductions: Introductions
) -> bool:
    """Wait until it is clear who begins; False once this node has got data from another."""
    others = [node for node in member.members if node != member.node]
    next_log_s = trio.current_time() + WAIT_LOG_S
    while replicas.is_fresh:
        known = introductions.known
        are_fresh = (other in known and known[other].is_fresh for other in others)
        if member.is_founder and all(are_fresh):
            return True
        if trio.current_time() >= next_log_s:
            next_log_s += WAIT_LOG_S
            log.warning(
                "empty data folder: waiting for a member with data, or for all members to be new",
                extra={"missing": [other for other in others if other not in known]},
            )
        await trio.sleep(LOOK_S)
    return False
