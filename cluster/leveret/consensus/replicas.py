"""All groups of one node: their clock, their mail, their snapshots, and who should lead which.

Owns the tasks; the groups own all state. Whoever composes a node opens the journal, the links and
the machines, then this, and runs all of them in one nursery: an error here ends the process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import trio

from leveret.actors import ActorStopped, Probe, supervise
from leveret.consensus.config import TRANSFER_LAG_MAX, GroupConfig
from leveret.consensus.engine import SnapshotMark
from leveret.consensus.errors import BadMessage
from leveret.consensus.group import Group
from leveret.consensus.machine import Machine
from leveret.consensus.mail import TICK, GroupMessage, LinkChanged, Received
from leveret.consensus.membership import Members
from leveret.consensus.messages import (
    Append,
    Beat,
    EntriesPart,
    Heard,
    Message,
    StatePart,
    Submit,
    parse,
    to_wire,
)
from leveret.storage import GroupLog, Journal, Snapshot, Snapshots
from leveret.transport import NodeId

log = logging.getLogger(__name__)

SAVE_AGAIN_S = 1.0
"""How long a full disk is left alone before the next attempt."""

CHANNEL = "raft"
"""All groups' messages that are small; the group's number is in each message."""

LOG, SUBMIT = "raft log", "raft submit"
"""With a group's number: what may be large, which holds up nothing but what must come behind it."""

_PREFIXES: dict[type[Message], str] = {
    Append: LOG,
    StatePart: LOG,
    EntriesPart: LOG,
    Submit: SUBMIT,
}

BEATS = "beats"
"""Several of `CHANNEL`'s in one, that nobody waits for: a tick's beats, and the answers to those
that came since the tick before."""

HAND_OVER_LOOK_S = 0.02
"""How often a node that hands over looks whether another one leads."""


@dataclass(frozen=True, slots=True)
class ReplicasConfig:
    """Timing of a node's groups.

    tick_s: how often elections and heartbeats look at the clock; well below the heartbeat.
    snapshot_check_s: how often each group is asked whether a snapshot is due.
    spread_s: how often a preferred leader looks whether it leads.
    spread_retry_s: how long it waits after it has asked for leadership.
    """

    group: GroupConfig = field(default_factory=GroupConfig)
    tick_s: float = 0.1
    snapshot_check_s: float = 1.0
    spread_s: float = 2.0
    spread_retry_s: float = 10.0


class Mail(Protocol):
    """What the groups need of `transport.Peers`; see there."""

    @property
    def up(self) -> frozenset[NodeId]: ...
    def incarnation(self, node: NodeId) -> int: ...
    def send(self, node: NodeId, channel: str, payload: object) -> bool: ...
    def congested(self, node: NodeId) -> bool: ...
    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None: ...
    def on_up(self, handler: Callable[[NodeId], None]) -> None: ...
    def on_down(self, handler: Callable[[NodeId], None]) -> None: ...


class Replicas:
    """The groups of a node, number 0 the catalog's.

    machines: fresh ones, one a group.
    incarnation: of this node's data folder: greater than that of any earlier one of this node.
    desired: which nodes are to be members, with their incarnations; empty if nobody knows yet.
        Each group's leader works towards it.
    boot: greater than at every earlier start of this node.

    Raises:
        BadSnapshot, CorruptSnapshot: a group's state cannot be rebuilt from this disk.
        MachineFailed: a machine raised while its log was replayed.
    """

    def __init__(
        self,
        *,
        node: NodeId,
        incarnation: int,
        desired: Callable[[], Members],
        boot: int,
        journal: Journal,
        snapshots: Snapshots,
        machines: Sequence[Machine],
        peers: Mail,
        wall_clock_ms: Callable[[], int],
        rng: Random,
        config: ReplicasConfig | None = None,
    ) -> None:
        self._node = node
        self._incarnation = incarnation
        self._peers = peers
        self._config = config or ReplicasConfig()
        self._asked_s: dict[int, float] = {}
        self._preferred: dict[int, NodeId] = {}
        self._is_leaving = False
        self._stores = tuple(
            _Store(snapshots, journal.log(number)) for number in range(len(machines))
        )
        self.groups: tuple[Group, ...] = tuple(
            Group(
                number,
                node=node,
                incarnation=incarnation,
                desired=desired,
                boot=boot,
                log=journal.log(number),
                durability=journal,
                snapshots=self._stores[number],
                machine=machine,
                send=self._send,
                is_congested=peers.congested,
                now_s=trio.current_time,
                wall_clock_ms=wall_clock_ms,
                rng=Random(rng.random()),  # noqa: S311
                config=self._config.group,
            )
            for number, machine in enumerate(machines)
        )
        self._desired = desired
        self._is_running = False
        # What goes to each node with the next tick.
        self._beats: dict[NodeId, list[tuple[object, ...]]] = {}
        self._is_gathering = False
        self._channels = [
            {kind: f"{prefix} {group.number}" for kind, prefix in _PREFIXES.items()}
            for group in self.groups
        ]
        for channel in {CHANNEL, *(name for of in self._channels for name in of.values())}:
            peers.on_message(channel, self._receive)
        peers.on_message(BEATS, self._receive_beats)
        peers.on_up(self._link_up)
        peers.on_down(lambda peer: self._tell_all(LinkChanged(peer, is_up=False)))
        journal.on_durable(self._became_durable)

    @property
    def is_fresh(self) -> bool:
        """Whether this node's data folder holds nothing of any group yet."""
        return not any(group.configuration.voters for group in self.groups)

    def found(self) -> None:
        """Begin the history of all groups that have none here, with this node as only member.

        To be called only where no node holds data of the cluster; again after a crash within it.
        """
        for group in self.groups:
            if not group.configuration.voters:
                group.found()
                self._tell(group, TICK)  # alone it stands for election at once

    def are_voters(self, nodes: Collection[NodeId]) -> bool:
        """Whether all of `nodes` are voters of every group, as far as this node knows.

        Itself only in its present incarnation: a snapshot may be of a time before its disk was
        lost, and says that it votes.
        """
        voters = (group.configuration.voters for group in self.groups)
        return all(
            known.keys() >= set(nodes)
            and (self._node not in nodes or known[self._node] == self._incarnation)
            for known in voters
        )

    async def run(
        self,
        probe: Probe | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run all groups until cancelled; the journal and the links must run beside it.

        Raises:
            ExceptionGroup: of the error that stopped a group; the process must end.
        """
        async with supervise(probe) as supervisor, trio.open_nursery() as nursery:
            for group in self.groups:
                supervisor.spawn(lambda group=group: group, f"group {group.number}")  # type: ignore[misc]
            # Their actors take messages from the next turn on; what comes earlier is queued.
            await trio.lowlevel.checkpoint()
            self._is_running = True
            for peer in sorted(self._peers.up):
                self._link_up(peer)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._take_snapshots)
            nursery.start_soon(self._spread_leaders)
            task_status.started()

    # Who leads.

    def prefer(self, group: int, node: NodeId | None) -> None:
        """Have `node` seek to lead a group, instead of the member whose turn it is by number.

        None ends that. All nodes must be told the same; one that starts again has forgotten it.
        """
        if node is None:
            self._preferred.pop(group, None)
        else:
            self._preferred[group] = node

    async def hand_over(self, within_s: float) -> None:
        """Have other members lead what this node leads; the first step of its stop.

        Returns when they do, when there is nobody who could, or after `within_s`. From the call
        on this node does not seek to lead, but does if it is elected.
        """
        self._is_leaving = True
        with trio.move_on_after(within_s):
            async with trio.open_nursery() as nursery:
                for group in self.groups:
                    if group.is_leader:
                        nursery.start_soon(self._hand_over, group)

    async def _hand_over(self, group: Group) -> None:
        turn = group.number  # so that not one of the others gets all groups
        while group.leader is None or group.leader == self._node:
            if group.leader == self._node:
                successor = self._successor(group, turn)
                if successor is None:
                    return
                # False while one is under way; the next goes to another member.
                turn += group.transfer(successor)
            await trio.sleep(HAND_OVER_LOOK_S)

    def _successor(self, group: Group, turn: int) -> NodeId | None:
        """Return who could lead a group that is led here: one that keeps up, if any does."""
        peers, voters = group.status().peers, group.configuration.voters
        linked = sorted(node for node in peers if node in self._peers.up and node in voters)
        abreast = [node for node in linked if peers[node].lag <= TRANSFER_LAG_MAX]
        able = abreast or linked
        return able[turn % len(able)] if able else None

    # Mail.

    def _send(self, node: NodeId, group: int, message: Message) -> bool:
        payload = to_wire(group, message)
        if self._is_gathering and isinstance(message, Beat | Heard):
            self._beats.setdefault(node, []).append(payload)
            return True
        return self._peers.send(node, self._channels[group].get(type(message), CHANNEL), payload)

    def _receive(self, sender: NodeId, payload: object) -> None:
        found = self._parse(sender, payload)
        if found is not None:
            group, message = found
            self._tell(group, Received(sender, message))

    def _parse(self, sender: NodeId, payload: object) -> tuple[Group, Message] | None:
        try:
            number, message = parse(payload)
        except BadMessage as error:
            log.warning("malformed message dropped", extra={"peer": sender, "error": str(error)})
            return None
        if number < len(self.groups):
            return self.groups[number], message
        log.warning("message for no group", extra={"peer": sender, "group": number})
        return None

    def _receive_beats(self, sender: NodeId, payload: object) -> None:
        if not self._is_running or not isinstance(payload, tuple):
            return
        self._is_gathering = True
        for beat in payload:
            found = self._parse(sender, beat)
            if found is not None and isinstance(found[1], Beat | Heard):
                self._hear(found[0], sender, found[1])
        self._is_gathering = False

    def _hear(self, group: Group, sender: NodeId, beat: Beat | Heard) -> None:
        try:
            group.hear(sender, beat)
        except ActorStopped:
            log.debug("beat to a stopped group dropped", extra={"group": group.number})

    def _link_up(self, peer: NodeId) -> None:
        incarnation = self._peers.incarnation(peer)
        self._tell_all(LinkChanged(peer, is_up=True, incarnation=incarnation))

    def _tell_all(self, message: GroupMessage) -> None:
        for group in self.groups:
            self._tell(group, message)

    def _tell(self, group: Group, message: GroupMessage) -> None:
        if not self._is_running:
            return
        try:
            group.ref.tell(message)
        except ActorStopped:
            # The node is stopping; the others treat it like one that is gone.
            log.debug("message to a stopped group dropped", extra={"group": group.number})

    def _became_durable(self) -> None:
        for group in self.groups:
            try:
                group.became_durable()
            except ActorStopped:
                log.debug("stopped group not woken", extra={"group": group.number})

    # Tasks.

    async def _tick(self) -> None:
        while True:
            desired = self._desired()
            self._is_gathering = True
            for group in self.groups:
                if not group.beat(desired):
                    self._tell(group, TICK)
            self._is_gathering = False
            beats, self._beats = self._beats, {}
            for node, gathered in beats.items():
                self._peers.send(node, BEATS, tuple(gathered))
            await trio.sleep(self._config.tick_s)

    async def _take_snapshots(self) -> None:
        while True:
            await trio.sleep(self._config.snapshot_check_s)
            for group in self.groups:
                if group.is_snapshot_due():
                    await self._take_snapshot(group)

    async def save_snapshots(self) -> None:
        """Save a snapshot of each group that applied anything since its last one, due or not.

        For a disk that is low: the log before a snapshot can go.
        """
        for group in self.groups:
            if group.applied_index != group.snapshot_index:
                await self._take_snapshot(group)

    async def _take_snapshot(self, group: Group) -> None:
        taken = group.take_snapshot()
        if taken is not None and await self._stores[group.number].save(*taken):
            group.snapshot_saved(taken[0])

    async def _spread_leaders(self) -> None:
        while True:
            await trio.sleep(self._config.spread_s)
            if self._is_leaving:
                return
            now_s = trio.current_time()
            for group in self.groups:
                voters = sorted(group.configuration.voters)
                if len(voters) < 2 or group.leader == self._node:
                    continue
                by_number = voters[group.number % len(voters)]
                if self._preferred.get(group.number, by_number) != self._node:
                    continue
                if now_s - self._asked_s.get(group.number, -1e9) < self._config.spread_retry_s:
                    continue
                if group.seek_leadership():
                    self._asked_s[group.number] = now_s


class _Store:
    """The snapshots of one group; see `group.SnapshotStore`."""

    def __init__(self, snapshots: Snapshots, group_log: GroupLog) -> None:
        self._snapshots = snapshots
        self._log = group_log
        self._saving = trio.Lock()
        """One at a time: two at the same index would write the same file."""

    def newest(self) -> Snapshot | None:
        return self._snapshots.newest(self._log.number, log_first_index=self._log.first_index)

    async def save(self, mark: SnapshotMark, state: bytes) -> bool:
        async with self._saving:
            about = {"group": self._log.number, "index": mark.index, "bytes": len(state)}
            try:
                await self._snapshots.save(
                    self._log.number, mark.index, mark.term, mark.previous_term, state
                )
            except OSError:
                # The log keeps what the snapshot would have replaced; the next one may succeed.
                log.exception("snapshot not saved", extra=about)
                await trio.sleep(SAVE_AGAIN_S)
                return False
        log.info("snapshot saved", extra=about)
        return True
