"""One run with real processes: a cluster, clients, faults; then it drains, is killed, is judged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from chaos.history import Event
from chaos.judge import Limits, Verdict, judge
from chaos.members import Members
from chaos.nemesis.nemesis import Nemesis
from chaos.plan import Step, draw
from chaos.recorder import Recorder
from chaos.workloads import foreign, looks, objects, ours
from chaos.workloads.clients import (
    ALL_ROUTES,
    KEPT_ROUTES,
    ONE_CONSUMER,
    ORDERS,
    QUEUES,
    ROUTES,
    SINGLE,
    WORK,
    Clients,
    Pace,
)

START_S: Final = 120.0
"""How long a cluster may take from its start until it serves, on a machine with much to do."""
QUIET_S: Final = 90.0
"""How long clients may take to end in order."""
DRAIN_S: Final = 120.0
"""How long what was confirmed may take to come out, since it last went on."""
SETTLE_S: Final = 2.0
DEPTH_S: Final = 20.0
CONSUMERS: Final = {"c0": ORDERS, "w0": WORK, "w1": WORK, "y0": SINGLE, "y1": SINGLE}
STEADY: Final = Pace(6.0, bursts=(1,))
"""Of the publishers that stay on a node each: silence is measured through every node, wherever
the others are."""
KEPT_SHARE: Final = 0.2
"""Of the rate, for the queue that grows during the whole run."""
KEPT_MAX: Final = 10_000
"""Messages in it at the end of a long run: a node whose disk was wiped fetches all of them."""
HISTORY: Final = "history.jsonl"


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    kinds: the faults to draw from.
    steps: what to do instead of drawing, for a replay.
    rate: messages a second, of each of the publishers but that of the queue which is kept.
    mistake: the name of one that is planted into the nodes, if any.
    broker: whose nodes they are: "leveret" or "rabbitmq".
    """

    seed: int
    nodes: int
    seconds: float
    kinds: tuple[str, ...]
    rate: float
    limits: Limits
    steps: tuple[Step, ...] | None = None
    mistake: str = ""
    broker: str = "leveret"

    def drawn(self) -> Iterable[Step]:
        """Return the steps, without end if they are drawn."""
        if self.steps is not None:
            return self.steps
        return draw(self.seed, nodes=self.nodes, kinds=self.kinds)


@dataclass
class Run:
    """A run that is on, or over: what a screen shows and a report holds.

    tell: is given lines for people.
    """

    plan: Plan
    folder: Path
    tell: Callable[[str], None]
    clients: Clients = field(init=False)
    nemesis: Nemesis = field(init=False)
    phase: str = "starting"
    failures: list[str] = field(default_factory=list)

    async def play(self, cluster: Members) -> None:
        """Play the run on a cluster that was not started; it is down at the end.

        The history is in the folder as it grows.
        """
        plan = self.plan
        with Recorder(self.folder / HISTORY) as history:
            self.clients = Clients(cluster, history, f"run-{plan.seed}", plan.seed)
            self.nemesis = Nemesis(self.clients, tell=self.tell, recovery_s=plan.limits.recovery_s)
            try:
                await self._play(cluster)
            finally:
                cluster.close()
                self.failures += cluster.failures

    async def _play(self, cluster: Members) -> None:
        async with trio.open_nursery() as watching:
            cluster.launch()
            watching.start_soon(cluster.watch)
            amiss = await cluster.wait_well(within_s=START_S)
            if amiss is not None:
                self.failures.append(f"the cluster did not begin to serve: {amiss}")
                watching.cancel_scope.cancel()
                return
            try:
                await looks.set_up(self.clients, within_s=START_S)
            except trio.TooSlowError:
                self.failures.append(f"no queues could be declared within {START_S:g} s")
                watching.cancel_scope.cancel()
                return
            self.tell(f"{self.clients.now():8.1f} s  {self.plan.nodes} nodes serve")
            await self._under_load()
            await self._drained()
            await self._killed_once_more(cluster)
            watching.cancel_scope.cancel()
        for node in cluster.nodes:
            await cluster.stop(node)

    async def _under_load(self) -> None:
        """Have clients work while things break; then they end in order."""
        clients = self.clients
        self.phase = "faults"
        async with self._clients_until_quiet("consumers") as consuming:
            for name, queue in CONSUMERS.items():
                consuming.start_soon(self._consume_forever, name, queue)
            for place in range(self.plan.nodes):
                consuming.start_soon(self._consume_there, f"v{place}", place)
            async with self._clients_until_quiet("publishers") as publishing:
                self._start_publishers(publishing)
                for name in ("o0", "o1", "o2"):
                    publishing.start_soon(objects.operate_forever, clients, name)
                for name in ("x0", "x1"):
                    publishing.start_soon(objects.hold_forever, clients, name)
                await self.nemesis.run(self.plan.drawn(), for_s=self.plan.seconds)
                self.phase = "calm"
                clients.publishing = False
            clients.consuming = False
        # Acknowledgements are on their way to the log for a moment after their consumer has gone.
        await trio.sleep(SETTLE_S)
        await looks.note_depths(clients, "calm", within_s=DEPTH_S, until_empty=False)

    def _start_publishers(self, nursery: trio.Nursery) -> None:
        clients, plan, start = self.clients, self.plan, nursery.start_soon
        pace = Pace(plan.rate)
        kept = Pace(min(plan.rate * KEPT_SHARE, KEPT_MAX / plan.seconds))
        start(ours.publish_forever, clients, "p0", ROUTES, pace)
        start(foreign.publish_forever, clients, "p1", ROUTES, pace)
        start(ours.publish_forever, clients, "p2", KEPT_ROUTES, kept)
        for place in range(plan.nodes):
            start(ours.publish_forever, clients, f"s{place}", ALL_ROUTES, STEADY, place)

    @asynccontextmanager
    async def _clients_until_quiet(self, who: str) -> AsyncIterator[trio.Nursery]:
        """A nursery of clients that end by themselves when they were told to; not for ever."""
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.deadline = trio.current_time() + QUIET_S
        if nursery.cancel_scope.cancelled_caught:
            self.failures.append(f"{who} did not end within {QUIET_S:g} s")

    async def _consume_forever(self, name: str, queue: str) -> None:
        """Consume through both clients in turn, one session after the other."""
        clients = self.clients
        rng = clients.rng(name)
        session = 0
        while clients.consuming:
            session += 1
            consume = rng.choice((ours.consume, foreign.consume))
            await consume(clients, f"{name}.{session}", queue, rng)

    async def _consume_there(self, name: str, place: int) -> None:
        """Consume through one node, so that each always has something to settle."""
        rng = self.clients.rng(name)
        session = 0
        while self.clients.consuming:
            session += 1
            await ours.consume(self.clients, f"{name}.{session}", WORK, rng, place)

    async def _drained(self) -> None:
        """Take all out, and look whether it is all, everywhere."""
        clients, history = self.clients, self.clients.history
        self.phase = "draining"
        clients.consuming = clients.is_draining = True
        async with self._clients_until_quiet("the last consumers") as consuming:
            for queue in QUEUES:
                consuming.start_soon(self._consume_forever, f"drain-{queue}", queue)
            left, moved_s = len(history.missing), trio.current_time()
            while history.missing and trio.current_time() < moved_s + DRAIN_S:
                await trio.sleep(0.2)
                if len(history.missing) != left:
                    left, moved_s = len(history.missing), trio.current_time()
            # What nobody knows about, and what comes again, comes too.
            await trio.sleep(1.0)
            clients.consuming = False
        await looks.note_depths(clients, "drained", within_s=DEPTH_S)
        self.failures += await looks.compare(clients)

    async def _killed_once_more(self, cluster: Members) -> None:
        """Kill all nodes: what was taken out must not come back."""
        self.phase = "killed once more"
        cluster.kill_all()
        cluster.launch()
        amiss = await cluster.wait_well(within_s=START_S)
        if amiss is not None:
            self.failures.append(f"no service after all nodes were killed: {amiss}")
        await looks.note_depths(self.clients, "restarted", within_s=DEPTH_S)


def verdict_of(plan: Plan, events: Sequence[Event], failures: Sequence[str]) -> Verdict:
    """Judge a run."""
    return judge(
        events,
        nodes=plan.nodes,
        limits=plan.limits,
        one_consumer=ONE_CONSUMER,
        single_active=(SINGLE,),
        failures=failures,
    )
