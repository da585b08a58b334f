"""One seed: a cluster, clients, faults; then it heals, drains, is killed once more, is judged."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio

from chaos.checkers import cluster, messages
from chaos.checkers.linear import linearizable
from chaos.checkers.streams import streams
from chaos.history import Event, Fault, History, Replica, counts_of
from chaos.simulation.faults import KINDS, Nemesis, Planned, draw
from chaos.simulation.network import Weather
from chaos.simulation.streams import StreamClients, StreamPlan, draw_stream
from chaos.simulation.workload import ONE_CONSUMER, QUEUES, STREAM, Clients
from chaos.simulation.world import World, run, until
from leveret.broker.queues.machine import ShardMachine

RECOVERY_S: Final = 10.0
"""After the faults each queue must confirm through each node within this time."""
DRAIN_S: Final = 30.0
"""How long all messages may take to come out after that. A node holds some for clients that were
switched off until it misses their heartbeats, some six seconds later, and then delivers them again.
"""
DEPTH_S: Final = 8.0
SERVING_S: Final = 20.0
"""How long a cluster that was killed whole may take to serve clients on all nodes."""
EQUAL_S: Final = 10.0
OBJECTS: Final = ("m0", "m1")


@dataclass(frozen=True)
class Plan:
    """What a seed means.

    faults: in the order of their times, from the begin of the load.
    stream: who uses a stream; None: there is none.
    """

    seed: int
    nodes: int
    weather: Weather
    snapshot_entries: int
    publishers: int
    rate: float
    consumers: int
    horizon_s: float
    faults: tuple[Planned, ...]
    stream: StreamPlan | None = None


@dataclass
class Result:
    """What a seed gave.

    problems: broken promises in words; none is a pass.
    trace: a hash of all events in the world; equal for equal seeds and programs.
    simulated_s: on the virtual clock.
    """

    plan: Plan
    problems: list[str]
    trace: str
    simulated_s: float
    counts: Counter[str]
    history: History = field(repr=False)


def plan(seed: int, *, kinds: tuple[str, ...] = KINDS, nodes: int | None = None) -> Plan:
    """Draw what a seed means.

    kinds: the faults to draw from.
    nodes: how many, instead of drawing (mostly three).
    """
    rng = Random(f"plan/{seed}")
    count = rng.choice((3,) * 15 + (5,))
    horizon_s = rng.uniform(3.0, 6.0)
    count = count if nodes is None else nodes
    return Plan(
        seed=seed,
        nodes=count,
        weather=Weather(
            delay_s=rng.choice(((0.0002, 0.002), (0.001, 0.02))),
            late=rng.choice((0.0, 0.0, 0.002, 0.01)),
        ),
        snapshot_entries=rng.choice((20, 60, 200)),
        publishers=rng.choice((1, 2, 3)),
        rate=rng.choice((4.0, 8.0)),
        consumers=rng.choice((1, 2)),
        horizon_s=horizon_s,
        faults=tuple(draw(rng, nodes=count, horizon_s=horizon_s, kinds=kinds)),
        stream=draw_stream(seed),
    )


def simulate(plan: Plan, *, show: Callable[[str], None] | None = None) -> Result:
    """Run a plan and judge it."""
    history = History()
    ends: list[tuple[float, list[str], Counter[str]]] = []

    async def main(world: World) -> None:
        problems = await _play(world, plan, history)
        problems += world.failures + world.ledger.problems
        ends.append(
            (
                trio.current_time(),
                problems,
                Counter(exits=world.exits, installs=world.ledger.installs),
            )
        )

    _, trace = run(
        plan.seed,
        main,
        nodes=plan.nodes,
        weather=plan.weather,
        snapshot_entries=plan.snapshot_entries,
        show=show,
    )
    simulated_s, problems, counts = ends[0]
    problems += judge(history.events)
    counts += counts_of(history.events)
    counts.update("faults" for event in history.events if isinstance(event, Fault))
    return Result(plan, problems, trace.digest, simulated_s, counts, history)


def judge(events: Sequence[Event]) -> Iterator[str]:
    """Return the complaints of all checkers."""
    yield from messages.lost(events)
    yield from messages.refused(events)
    yield from messages.phantom(events)
    yield from messages.unmarked(events)
    yield from messages.disorder(events, one_consumer=ONE_CONSUMER)
    yield from streams(events)
    yield from cluster.depth(events)
    yield from cluster.recovery(events, within_s=RECOVERY_S)
    yield from cluster.replicas(events)
    yield from linearizable(events)


async def _play(world: World, plan: Plan, history: History) -> list[str]:
    """Play a run in its world; return what went wrong in ways that no checker sees."""
    clients = Clients(world, history)
    world.start()
    if not await _all_serve(world, within_s=SERVING_S):
        return ["the cluster does not begin to serve clients"]
    await clients.set_up()
    stream = None if plan.stream is None else StreamClients(clients, plan.stream)
    queues = QUEUES if stream is None else (*QUEUES, STREAM)
    if stream is not None:
        await stream.set_up()
    async with trio.open_nursery() as consuming:
        async with trio.open_nursery() as publishing:
            for number in range(plan.publishers):
                publishing.start_soon(clients.publish_forever, f"p{number}", plan.rate)
            publishing.start_soon(clients.operate_forever, "o0", OBJECTS)
            publishing.start_soon(clients.operate_forever, "o1", OBJECTS)
            consuming.start_soon(clients.consume_forever, "c0", "q0")
            for number in range(plan.consumers):
                consuming.start_soon(clients.consume_forever, f"d{number}", "q1")
            if stream is not None:
                stream.start(publishing=publishing, consuming=consuming)
            await Nemesis(world, history).run(list(plan.faults))
            await trio.sleep(0.5)
            healed_s = trio.current_time()
            world.trace("healed")
            async with trio.open_nursery() as probing:
                for node in world.nodes:
                    for queue in queues:
                        probing.start_soon(_probe, clients, node, queue, healed_s)
            clients.publishing = False
        await drain(world, clients, history, stream)
    await clients.note_depths("drained", within_s=DEPTH_S)
    if stream is not None:
        await stream.read_all("drained")
    problems = await _compare(world, history)
    await _end_all(world)
    if not await _all_serve(world, within_s=SERVING_S):
        return [*problems, "the cluster does not serve clients after it was killed whole"]
    await clients.note_depths("restarted", within_s=DEPTH_S)
    if stream is not None:
        await stream.read_all("restarted")
    return problems


async def _end_all(world: World) -> None:
    """Kill all nodes, or cut the power of all, as the seed says."""
    is_kill = world.rng("end").random() < 0.5
    for node in world.nodes:
        if is_kill:
            world.kill(node)
        else:
            world.cut_power(node)
    if not is_kill:
        await trio.sleep(1.0)
        for node in world.nodes:
            world.power_on(node)


async def _probe(clients: Clients, node: int, queue: str, healed_s: float) -> None:
    await clients.probe(node, queue, since_s=healed_s, within_s=2 * RECOVERY_S)  # type: ignore[arg-type]


async def _all_serve(world: World, *, within_s: float) -> bool:
    """Wait until all nodes serve clients; False if they do not in time."""
    return await until(lambda: world.are_serving, within_s=within_s)


async def drain(
    world: World, clients: Clients, history: History, stream: StreamClients | None = None
) -> None:
    """Let the consumers take all that is left, and end; longer than `DRAIN_S` nobody waits."""
    clients.is_draining = True
    world.trace("draining")
    await until(
        lambda: (
            _are_empty(world)
            and not any(messages.lost(history.events))
            and (stream is None or stream.are_caught_up)
        ),
        within_s=DRAIN_S,
    )
    await trio.sleep(0.5)
    clients.consuming = False


def _are_empty(world: World) -> bool:
    """Whether no replica has a message left, not even one that a client is thought to hold.

    But for streams, which are not emptied by being read.
    """
    return not any(
        queue.live
        for node in world.nodes
        if (replicas := world.replicas(node)) is not None
        for machine in replicas.machines
        if isinstance(machine, ShardMachine)
        for queue in machine.queues.values()
        if queue.arrivals is None
    )


async def _compare(world: World, history: History) -> list[str]:
    """Write down the replicas' states when nothing moves any more."""
    until_s = trio.current_time() + EQUAL_S
    while True:
        found = [
            (node, number, group.applied_index, hashlib.blake2b(
                replicas.machines[number].snapshot(), digest_size=8).hexdigest())
            for node in world.nodes
            if (replicas := world.replicas(node)) is not None
            for number, group in enumerate(replicas.groups)
        ]  # fmt: skip
        is_equal = len({entry[1:] for entry in found}) == len({entry[1] for entry in found})
        if is_equal or trio.current_time() > until_s:
            break
        await trio.sleep(0.2)
    for entry in found:
        history.add(Replica(*entry))
    missing = set(world.nodes) - {entry[0] for entry in found}
    return [f"node {node} is not there after the drain" for node in sorted(missing)]
