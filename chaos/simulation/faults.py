"""What goes wrong in a simulated world: drawn from a seed as data, then done by the nemesis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

import trio

from chaos.history import Fault, History
from chaos.simulation.network import Weather
from chaos.simulation.world import CALM_SYNC_S, SHARDS, World, until
from leveret.catalog.commands import RemoveNode, encode
from leveret.transport import NodeId

SLOW_SYNC_S: Final = (0.05, 0.6)
ROTTING: Final = ("segments/", "snapshots/")
DISK_LOSSES: Final = frozenset({"wipe", "rot", "replace"})
JOIN_S: Final = 20.0
"""How long a newcomer may take until it votes in all groups; while others fail, it may not come."""
REMOVE_S: Final = 10.0
STORM: Final = Weather(delay_s=(0.001, 0.05), late=0.05, late_s=0.3)


@dataclass(frozen=True)
class Planned:
    """A fault to come: `long_s` from `at_s` after the begin of the load.

    node: the one concerned, or from which others are counted; the kind says how.
    """

    at_s: float
    kind: str
    node: int
    long_s: float


def draw(rng: Random, *, nodes: int, horizon_s: float, kinds: tuple[str, ...]) -> list[Planned]:
    """Return faults in the order of their times."""
    count = rng.choice((0, 1, 2, 3, 3, 4, 5, 6))
    drawn = [
        Planned(
            round(rng.uniform(0.2, horizon_s), 3),
            rng.choice(kinds),
            rng.randint(1, nodes),
            round(min(rng.expovariate(0.8) + 0.05, 5.0), 3),
        )
        for _ in range(count)
    ]
    return _with_a_majority_of_disks(sorted(drawn, key=lambda fault: fault.at_s), nodes=nodes)


def _with_a_majority_of_disks(faults: list[Planned], *, nodes: int) -> list[Planned]:
    """Let so many disks be lost only that a majority of them stays: more is not promised."""
    kept: list[Planned] = []
    lost: set[int] = set()
    for fault in faults:
        if fault.kind in DISK_LOSSES:
            if len(lost | {fault.node}) * 2 > nodes:
                continue
            lost.add(fault.node)
        kept.append(fault)
    return kept


class Nemesis:
    """Does what was planned."""

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._history = history
        self._kinds: dict[str, Callable[[NodeId, float], Awaitable[tuple[NodeId, ...]]]] = {
            "kill": self._kill,
            "kill-leader": self._kill_leader,
            "kill-two": self._kill_two,
            "power": self._power,
            "outage": self._outage,
            "stop": self._stop,
            "isolate": self._isolate,
            "one-way": self._one_way,
            "bridge": self._bridge,
            "no-clients": self._no_clients,
            "reset": self._reset,
            "forget": self._forget,
            "pause": self._pause,
            "pause-leader": self._pause_leader,
            "storm": self._storm,
            "slow-disk": self._slow_disk,
            "disk-error": self._disk_error,
            "full-disk": self._full_disk,
            "clock": self._clock,
            "wipe": self._wipe,
            "rot": self._rot,
            "replace": self._replace,
        }

    async def run(self, faults: list[Planned]) -> None:
        """Do all of them, each in its time; return when the last is over."""
        async with trio.open_nursery() as nursery:
            for fault in faults:
                nursery.start_soon(self._do, fault)

    async def _do(self, fault: Planned) -> None:
        await trio.sleep(fault.at_s)
        began = trio.current_time()
        self._world.trace(f"fault {fault.kind} {fault.node} {fault.long_s}")
        members = self._world.nodes
        node = NodeId(fault.node)
        if node not in members:
            node = members[fault.node % len(members)]
        nodes = await self._kinds[fault.kind](node, fault.long_s)
        self._world.trace(f"fault {fault.kind} is over")
        self._history.add(Fault(began, trio.current_time(), fault.kind, nodes))

    def _others(self, node: NodeId) -> tuple[NodeId, ...]:
        """Return the other nodes, those after it first."""
        nodes = self._world.nodes
        at = nodes.index(node)
        return nodes[at + 1 :] + nodes[:at]

    def _leader(self, node: NodeId) -> NodeId:
        """Return a leader of one group or another; `node` if there is none."""
        return self._world.leader(node % 3) or node

    # Processes.

    async def _kill(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        self._world.hold_down(node)
        self._world.kill(node)
        await trio.sleep(long_s)
        self._world.let_up(node)
        return (node,)

    async def _kill_leader(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        return await self._kill(self._leader(node), long_s)

    async def _kill_two(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        nodes = (node, self._others(node)[0])
        for each in nodes:
            self._world.hold_down(each)
            self._world.kill(each)
        await trio.sleep(long_s)
        for each in nodes:
            self._world.let_up(each)
        return nodes

    async def _power(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        self._world.cut_power(node)
        await trio.sleep(long_s)
        self._world.power_on(node)
        return (node,)

    async def _outage(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        nodes = self._world.nodes
        for each in nodes:
            self._world.cut_power(each)
        await trio.sleep(min(long_s, 0.5))
        for each in nodes:
            self._world.power_on(each)
        return nodes

    async def _stop(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        self._world.hold_down(node)
        self._world.end_in_order(node)
        await trio.sleep(long_s)
        self._world.let_up(node)
        return (node,)

    async def _pause(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        process = self._world.freeze(node)
        await trio.sleep(long_s)
        if process is not None:
            process.resume()
        return (node,)

    async def _pause_leader(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        return await self._pause(self._leader(node), long_s)

    # The network.

    async def _cut(
        self, nodes: tuple[NodeId, ...], ways: list[tuple[NodeId, NodeId]], long_s: float
    ) -> tuple[NodeId, ...]:
        world = self._world
        pairs = [(world.hosts[a].address, world.hosts[b].address) for a, b in ways]
        for pair in pairs:
            world.network.block(*pair)
        await trio.sleep(long_s)
        for pair in pairs:
            world.network.unblock(*pair)
        world.network.let_flow()
        return nodes

    async def _isolate(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        others = self._others(node)
        ways = [(node, other) for other in others] + [(other, node) for other in others]
        return await self._cut((node,), ways, long_s)

    async def _one_way(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        return await self._cut((node,), [(node, other) for other in self._others(node)], long_s)

    async def _bridge(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        one, other = self._others(node)[:2]
        return await self._cut((one, other), [(one, other), (other, one)], long_s)

    async def _no_clients(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        network = self._world.network
        network.forget(network.of_clients(self._world.hosts[node].address))
        await trio.lowlevel.checkpoint()
        return (node,)

    async def _reset(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        other = self._others(node)[0]
        hosts = self._world.hosts
        for _ in range(max(1, int(long_s))):
            self._world.network.reset(hosts[node].address, hosts[other].address)
            await trio.sleep(0.4)
        return (node, other)

    async def _forget(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        other = self._others(node)[0]
        hosts = self._world.hosts
        network = self._world.network
        network.forget(network.between(hosts[node].address, hosts[other].address))
        await trio.lowlevel.checkpoint()
        return (node, other)

    async def _storm(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        network = self._world.network
        calm = network.weather
        if calm is STORM:
            return ()
        network.weather = STORM
        await trio.sleep(long_s)
        network.weather = calm
        return self._world.nodes

    # Disks and clocks.

    async def _slow_disk(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        faults = self._world.hosts[node].disk.faults
        faults.sync_s = SLOW_SYNC_S
        await trio.sleep(long_s)
        faults.sync_s = CALM_SYNC_S
        return (node,)

    async def _disk_error(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        host = self._world.hosts[node]
        host.has_bad_disk = True
        host.disk.faults.failing_syncs = 1
        await trio.lowlevel.checkpoint()
        return (node,)

    async def _full_disk(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        host = self._world.hosts[node]
        host.has_bad_disk = True
        host.disk.faults.capacity_bytes = host.disk.used_bytes() + int(long_s * 20_000)
        await trio.sleep(long_s)
        host.disk.faults.capacity_bytes = None
        return (node,)

    async def _wipe(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        if self._world.hosts[node].join is not None:
            return ()  # it would come back as somebody else
        self._world.hold_down(node)
        self._world.replace_disk(node)
        await trio.sleep(long_s)
        self._world.let_up(node)
        return (node,)

    async def _replace(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        """Add a node, and remove `node` once the new one votes."""
        world = self._world
        others = self._others(node)
        new = world.add_host(others[0])
        if not await until(lambda: self._is_voter(new), within_s=JOIN_S):
            return (new,)
        removed: list[object] = []
        for by in others:
            replicas = world.replicas(by)
            if replicas is not None:
                replicas.groups[0].submit(encode(RemoveNode(node)), removed.append)
        if await until(lambda: bool(removed), within_s=REMOVE_S):
            host = world.hosts[node]
            # It stops by itself when it hears of it, and is switched off in any case.
            await until(lambda: not (host.process and host.process.is_serving), within_s=2.0)
            world.retire(node)
        return (new, node)

    def _is_voter(self, node: NodeId) -> bool:
        for group in range(SHARDS + 1):
            leader = self._world.leader(group)
            replicas = None if leader is None else self._world.replicas(leader)
            if replicas is None or node not in replicas.groups[group].configuration.voters:
                return False
        return True

    async def _rot(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        host = self._world.hosts[node]
        host.has_bad_disk = True
        for folder in ROTTING:
            with suppress(IndexError):  # there is nothing in it yet
                where = host.disk.rot(name=folder)
                self._world.trace(f"{host.name} rots at {where}")
        if long_s > 1:
            return await self._kill(node, long_s)
        await trio.lowlevel.checkpoint()
        return (node,)

    async def _clock(self, node: NodeId, long_s: float) -> tuple[NodeId, ...]:
        self._world.shift_clock(node, int((long_s - 1.0) * 100_000))
        await trio.lowlevel.checkpoint()
        return (node,)


KINDS: Final = (
    "kill",
    "kill-leader",
    "kill-two",
    "power",
    "outage",
    "stop",
    "isolate",
    "one-way",
    "bridge",
    "no-clients",
    "reset",
    "forget",
    "pause",
    "pause-leader",
    "storm",
    "slow-disk",
    "disk-error",
    "full-disk",
    "clock",
    "wipe",
    "rot",
    "replace",
)
"""All kinds of faults, by the words for `--faults`."""
