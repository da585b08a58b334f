"""`cluster transfer` and `cluster rebalance`: who leads which group.

Each node seeks by itself to lead the groups whose turn it is, by number. So a transfer also tells
all nodes whom to prefer, and a rebalance ends that.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import trio

from leveret.consensus.config import TRANSFER_LAG_MAX
from leveret.transport import NodeId

from .cluster_status import ask_all, seen_groups
from .controls import Arguments, ControlError, NoArguments
from .naming import find_group, find_member
from .replies import Moved, NotMoved, Rebalanced, Transferred

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from .admin import Admin
    from .parts import NodeParts

MOVE_WITHIN_S: Final = 3.0
"""A transfer takes milliseconds; one that meets a slow disk, or load, may take some elections."""
ASK_WITHIN_S: Final = MOVE_WITHIN_S + 1.0
TELL_WITHIN_S: Final = 1.0
LOOK_S: Final = 0.02


class TransferArguments(Arguments, frozen=True):
    """Which group, and the name or number of the node that is to lead it."""

    group: int
    node: str


class MoveArguments(Arguments, frozen=True):
    """Which group, and the number of the node that is to lead it."""

    group: int
    node: int


class PreferArguments(Arguments, frozen=True):
    """Which groups, and the number of the node that should lead them; None: by turns again."""

    groups: list[int]
    node: int | None


async def transfer(parts: NodeParts, admin: Admin, arguments: TransferArguments) -> Transferred:
    """Have a node lead a group, until it or that node starts again, or a rebalance."""
    group, node = find_group(parts, arguments.group), find_member(parts, arguments.node)
    leader = group.leader
    if leader is None:
        raise ControlError(
            "unavailable",
            f"group {group.number} has no leader now",
            remedy="wait until it has; it needs a majority of its members",
        )
    if node.id != admin.node and node.id not in admin.others:
        raise ControlError(
            "unavailable", f"{node.name} is down", remedy="start it, or choose another"
        )
    await _prefer(admin, [group.number], node.id)
    if leader != node.id:
        try:
            await _move(admin, leader, group.number, node.id)
        except ControlError:
            await _prefer(admin, [group.number], None)
            raise
    return Transferred(group=group.number, before=leader, now=node.id)


async def rebalance(admin: Admin, _: NoArguments) -> Rebalanced:
    """Spread the leaders evenly over the nodes that are up."""
    told = await ask_all(admin)
    groups = seen_groups(told)
    await _prefer(admin, [group.group for group in groups], None)
    serving = [node for node, status in told.items() if status.phase != "stopping"]
    targets = spread({group.group: group.voters for group in groups}, serving)
    leaders = {group.group: group.leader for group in groups}
    moved, failed = await move_leaders(admin, leaders, targets)
    leads = Counter(dict.fromkeys(serving, 0))
    leads.update(
        targets[number] if any(move.group == number for move in moved) else leader
        for number, leader in leaders.items()
        if leader is not None
    )
    return Rebalanced(moved=moved, failed=failed, leads=dict(sorted(leads.items())))


def spread(voters: Mapping[int, Collection[int]], up: Collection[int]) -> dict[int, int]:
    """Return who should lead each group: the one whose turn it is, or one that leads least.

    voters: of each group. up: who can lead. A group whose voters are all down is left out.
    """
    targets: dict[int, int] = {}
    leads: Counter[int] = Counter()
    for number, ids in voters.items():
        if ids and (turn := sorted(ids)[number % len(ids)]) in up:
            targets[number] = turn
            leads[turn] += 1
    for number, ids in voters.items():
        able = sorted(node for node in ids if node in up)
        if number not in targets and able:
            targets[number] = min(able, key=lambda node: leads[node])
            leads[targets[number]] += 1
    return targets


async def move_leaders(
    admin: Admin, leaders: Mapping[int, int | None], targets: Mapping[int, int]
) -> tuple[list[Moved], list[NotMoved]]:
    """Have groups led by their targets; return what was done, and what was not and why."""
    moved: list[Moved] = []
    failed: list[NotMoved] = []

    async def move(number: int, leader: int, target: int) -> None:
        try:
            await _move(admin, leader, number, target)
        except ControlError as error:
            failed.append(NotMoved(group=number, text=error.text))
        else:
            moved.append(Moved(group=number, before=leader, now=target))

    async with trio.open_nursery() as nursery:
        for number, leader in leaders.items():
            if leader is None:
                failed.append(NotMoved(group=number, text="it has no leader now"))
            elif number not in targets:
                failed.append(NotMoved(group=number, text="nobody who could lead it is up"))
            elif targets[number] != leader:
                nursery.start_soon(move, number, leader, targets[number])
    return sorted(moved, key=lambda m: m.group), sorted(failed, key=lambda f: f.group)


async def _move(admin: Admin, leader: int, group: int, node: int) -> None:
    await admin.ask(
        NodeId(leader), "node transfer", object, within_s=ASK_WITHIN_S, group=group, node=node
    )


async def _prefer(admin: Admin, groups: Iterable[int], node: int | None) -> None:
    """Tell all nodes that can be reached; one that cannot has forgotten when it is back."""
    numbers = list(groups)

    async def tell(other: NodeId) -> None:
        try:
            await admin.ask(
                other, "node prefer", object, within_s=TELL_WITHIN_S, groups=numbers, node=node
            )
        except ControlError:
            return  # at worst it takes back what is its turn

    async with trio.open_nursery() as nursery:
        for other in (admin.node, *admin.others):
            nursery.start_soon(tell, other)


async def prefer_here(parts: NodeParts, arguments: PreferArguments) -> None:
    """Have this node seek to lead groups, or not, as another one was asked."""
    node = None if arguments.node is None else NodeId(arguments.node)
    for number in arguments.groups:
        parts.replicas.prefer(find_group(parts, number).number, node)


async def transfer_here(parts: NodeParts, arguments: MoveArguments) -> None:
    """Hand a group that this node leads to another one."""
    group, node = find_group(parts, arguments.group), NodeId(arguments.node)
    if group.leader == node:
        return
    if not group.is_leader:
        text = f"node {parts.identity.node} does not lead group {group.number}"
        raise ControlError("unavailable", text, remedy="try again")
    status = group.status()
    if node not in status.peers:
        text = f"node {node} is no voter of group {group.number}"
        raise ControlError("refused", text, remedy="wait until it has caught up and become one")
    if status.peers[node].lag > TRANSFER_LAG_MAX:
        text = f"node {node} is {status.peers[node].lag} entries behind in group {group.number}"
        raise ControlError("unavailable", text, remedy="wait until it has caught up")
    with trio.move_on_after(MOVE_WITHIN_S):
        while group.leader != node:
            group.transfer(node)  # False while one is under way, or there is no link
            await trio.sleep(LOOK_S)
        return
    raise ControlError(
        "unavailable",
        f"node {node} did not take group {group.number} over within {MOVE_WITHIN_S:g} s",
        remedy="see that it is well, then try again",
    )
