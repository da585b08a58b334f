"""Whole simulated clusters: the same seed is the same run, and no seed breaks a promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import trio

from chaos.history import Deliver, Depth, History, MessageId, id_of
from chaos.simulation.faults import KINDS
from chaos.simulation.fleet import Job, run_job
from chaos.simulation.scenario import drain, plan
from chaos.simulation.workload import Clients
from chaos.simulation.world import World, run, until
from leveret.amqp import ContentReceived, spec

ROOT = Path(__file__).parents[2]
SEEDS = "0-299"


def simulate(*arguments: str, hash_seed: str = "random") -> str:
    """Run the command in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
        check=False,
    )
    print(done.stdout)
    return done.stdout


def test_a_seed_is_the_same_run_twice_and_in_new_processes_and_under_other_hash_seeds() -> None:
    seed = next(seed for seed in range(100) if len(plan(seed).faults) >= 3)

    traces = {run_job(Job(seed)).trace[:12] for _ in range(2)}
    for hash_seed in ("0", "1", "77"):
        text = simulate("--seed", str(seed), hash_seed=hash_seed)
        traces |= set(re.findall(r"trace (\w+)", text))

    assert len(traces) == 1
    assert traces != {""}


def test_another_seed_is_another_run() -> None:
    assert run_job(Job(13)).trace != run_job(Job(15)).trace


def test_the_plans_of_the_seeds_draw_every_kind_of_fault() -> None:
    drawn = {fault.kind for seed in range(300) for fault in plan(seed).faults}

    assert drawn == set(KINDS)


def test_a_drain_waits_for_what_was_delivered_to_a_client_that_was_switched_off() -> None:
    """Its node holds that until it misses the client's heartbeats, and delivers it again then."""
    history = History()

    async def main(world: World) -> None:
        clients = Clients(world, history)
        world.start()
        assert await until(lambda: world.are_serving, within_s=20)
        await clients.set_up()
        node = world.nodes[0]
        await clients.probe(node, "q0", since_s=trio.current_time(), within_s=5)
        async with clients.connected(node) as client:
            await client.call(spec.BasicConsume(queue="q0"), spec.BasicConsumeOk)
            event = await client.next(within_s=5)
            assert isinstance(event, ContentReceived)
            id_ = id_of(clients.run, "q0", event.body)
            history.add(Deliver(trio.current_time(), "q0", "off", False, id_, 1))
            world.network.forget(world.network.of_clients(world.hosts[node].address))
        async with trio.open_nursery() as consuming:
            consuming.start_soon(clients.consume_forever, "c0", "q0")
            await drain(world, clients, history)
        await clients.note_depths("drained", within_s=1)

    run(1, main)

    published = MessageId("probe-1-q0", 1, 1)
    found = [event for event in history.events if isinstance(event, Deliver)]
    assert [(published, False), (published, True)] == [(d.id, d.redelivered) for d in found]
    assert {0} == {event.count for event in history.events if isinstance(event, Depth)}


def test_no_seed_breaks_a_promise() -> None:
    text = simulate("--seeds", SEEDS, "--jobs", str(os.cpu_count() or 1))

    assert text.splitlines()[-1].startswith("PASS seeds=300 failed=0 ")
