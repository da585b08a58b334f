"""Commits a second and CPU a command: three nodes in one process, real sockets and a real disk.

    python tests/benchmarks/bench_consensus.py [SECONDS] [GROUPS]

One loop runs all three nodes, so CPU is of three members together and of both ends of each link.
The submitter is a follower if `FOLLOWER=1`: a command then makes one more trip.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import trio

from leveret.consensus import Group, Replicas
from leveret.storage import Journal, JournalConfig, RealDisk, Snapshots
from leveret.transport import Address, ClusterCredentials, Identity, NodeId, Peers

COMMAND = bytes(1024)
MEMBERS = (NodeId(1), NodeId(2), NodeId(3))


class Counter:
    """A machine that counts."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, index: int, stamp_ms: int, command: bytes, offset: int) -> object:
        self.count += 1
        return self.count

    def snapshot(self) -> bytes:
        return b"%d" % self.count

    def restore(self, state: bytes) -> None:
        self.count = int(state)

    def live_entries(self) -> list[int]:
        return []


async def run_node(
    node: NodeId, folder: Path, ports: dict[NodeId, int], groups: int, nodes: dict[NodeId, Replicas]
) -> None:
    disk = RealDisk(folder / str(node))
    journal = await Journal.open(disk, JournalConfig())
    members = {member: Address("127.0.0.1", port) for member, port in ports.items()}
    peers = Peers(
        Identity(
            cluster="bench",
            node=node,
            name=f"n{node}",
            incarnation=1,
            boot=1,
            software="bench",
            instance=b"%d" % node,
        ),
        ClusterCredentials("bench", bytes(32)),
        listen=members[node],
        members=members,
        rng=random.Random(node),
    )
    replicas = Replicas(
        node=node,
        incarnation=1,
        desired=lambda: dict.fromkeys(MEMBERS, 1),
        boot=1,
        journal=journal,
        snapshots=Snapshots(disk),
        machines=[Counter() for _ in range(groups)],
        peers=peers,
        wall_clock_ms=lambda: int(time.time() * 1000),
        rng=random.Random(node),
    )
    nodes[node] = replicas
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await nursery.start(replicas.run)
        if node == MEMBERS[0]:
            replicas.found()
        nursery.start_soon(peers.run)


async def measure(targets: list[Group], window: int, seconds: float) -> str:
    latencies: list[float] = []
    is_live = True

    def submit(group: Group) -> None:
        began = time.perf_counter()

        def done(_: object) -> None:
            latencies.append(time.perf_counter() - began)
            if is_live:
                submit(group)

        group.submit(COMMAND, done)

    cpu, began = time.process_time(), time.perf_counter()
    for number in range(window):
        submit(targets[number % len(targets)])
    await trio.sleep(seconds)
    is_live = False
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    count = len(latencies)
    await trio.sleep(0.5)
    median = statistics.median(latencies) * 1e3
    worst = statistics.quantiles(latencies, n=100)[-1] * 1e3
    return (
        f"window {window:5d}: {count / took:8.0f} commands/s, "
        f"{cpu / count * 1e6:7.1f} us CPU each, "
        f"p50 {median:6.1f} ms, p99 {worst:6.1f} ms"
    )


async def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    groups = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    is_follower = os.environ.get("FOLLOWER") == "1"
    base = random.Random().randrange(20000, 50000)
    nodes: dict[NodeId, Replicas] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            ports = {node: base + node for node in MEMBERS}
            for node in MEMBERS:
                nursery.start_soon(run_node, node, Path(folder), ports, groups, nodes)
            with trio.fail_after(20):
                while len(nodes) < 3 or not all(  # noqa: ASYNC110
                    any(replicas.groups[number].is_leader for replicas in nodes.values())
                    for number in range(groups)
                ):
                    await trio.sleep(0.05)
            await trio.sleep(3.0)  # leaders spread
            targets = []
            for number in range(groups):
                members = [replicas.groups[number] for replicas in nodes.values()]
                targets.append(next(g for g in members if g.is_leader is not is_follower))
            for window in (1, 100, 1000):
                print(await measure(targets, window, seconds), flush=True)
            for number in range(groups):
                leader = next(r for r in nodes.values() if r.groups[number].is_leader)
                print(leader.groups[number].status())
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
