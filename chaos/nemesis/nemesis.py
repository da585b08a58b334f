"""Does to a cluster what a plan says, step by step, and writes down what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

import trio

from chaos.history import Fault as FaultEvent
from chaos.hosts import CommandFailed
from chaos.nemesis.fault import NotNow, Target
from chaos.nemesis.kinds import KINDS
from chaos.plan import SHAPES, Planned, Step
from chaos.workloads.clients import Clients
from chaos.workloads.looks import probe

PROBE_S: Final = 5.0
"""How long clients are tried at least, so that a slow recovery has a figure, too."""
TOLD_S: Final = 5.0
"""A recovery that took longer is told, with what was waited for."""
TOLD_MAX: Final = 3


class Nemesis:
    """The one that breaks and mends.

    tell: is given a line about each fault.
    recovery_s: how long the cluster may take after each step; then it is noted, and the run goes
        on with the next one.
    """

    def __init__(self, clients: Clients, *, tell: Callable[[str], None], recovery_s: float) -> None:
        self._clients = clients
        self._cluster = clients.cluster
        self._tell = tell
        self._recovery_s = recovery_s
        self.done: list[Step] = []
        """What was done, for a replay."""
        self.now: dict[str, int] = {}
        """The faults that are on, for the screen."""
        self.down: set[int] = set()
        """Numbers of the nodes that they hit."""

    async def run(self, steps: Iterable[Step], *, for_s: float) -> None:
        """Do steps until the time is over; the last one is done to its end."""
        until_s = trio.current_time() + for_s
        for step in steps:
            if trio.current_time() + step.calm_s >= until_s:
                await trio.sleep_until(until_s)
                return
            self.done.append(step)
            await trio.sleep(step.calm_s)
            async with trio.open_nursery() as nursery:
                for fault in step.faults:
                    nursery.start_soon(self._do, fault)
            await self._recover(step.faults)

    async def _do(self, planned: Planned) -> None:
        await trio.sleep(planned.delay_s)
        clients, cluster = self._clients, self._cluster
        target = Target(cluster, planned.nodes, Random(planned.chance))
        numbers = tuple(node.number for node in target.nodes)
        fault = KINDS[planned.kind].make(target)
        began = clients.now()
        confirmed = clients.history.counts["confirmed"]
        self.now[planned.kind] = self.now.get(planned.kind, 0) + 1
        self.down |= set(numbers)
        try:
            await fault.inject()
            await trio.sleep(planned.hold_s)
        except (NotNow, CommandFailed) as reason:
            self._tell(f"{began:8.1f} s  {planned.kind:13} not done: {reason}")
            return
        finally:
            self.now[planned.kind] -= 1
            self.down -= set(numbers)
        with trio.CancelScope(shield=True):
            try:
                await fault.heal()
            except CommandFailed as failure:
                cluster.failures.append(f"{planned.kind} was not healed: {failure}")
        until = clients.now()
        shape = SHAPES[planned.kind]
        hit = tuple(node.number for node in cluster.nodes) if shape.stalls else numbers
        clients.history.add(FaultEvent(began, until, planned.kind, hit, shape.is_down))
        self._tell(
            f"{began:8.1f} s  {planned.kind:13} {_names(numbers):12} for {until - began:5.2f} s,"
            f" {clients.history.counts['confirmed'] - confirmed:5} confirmed meanwhile"
        )

    async def _recover(self, faults: Sequence[Planned]) -> None:
        clients = self._clients
        healed = clients.now()
        waits: dict[str, float] = {}
        amiss = await self._cluster.wait_well(within_s=self._recovery_s, waits=waits)
        well = clients.now()
        if amiss is not None:
            self._tell(f"{clients.now():8.1f} s  not well after {self._recovery_s:g} s: {amiss}")
            self._cluster.failures.append(
                f"not well {self._recovery_s:g} s after"
                f" {' and '.join(fault.kind for fault in faults)} at {healed:.1f}: {amiss}"
            )
        within_s = max(self._recovery_s, well - healed + PROBE_S)
        await probe(clients, since_s=healed, within_s=within_s)
        after_s = clients.now() - healed
        if after_s > TOLD_S:
            waits["fresh clients were not all served"] = clients.now() - well
            longest = sorted(waits.items(), key=lambda wait: -wait[1])[:TOLD_MAX]
            told = "; ".join(f"{waited_s:.1f} s {why}" for why, waited_s in longest)
            self._tell(f"{clients.now():8.1f} s  served again only after {after_s:.1f} s: {told}")


def _names(numbers: tuple[int, ...]) -> str:
    return f"node{'s' if len(numbers) > 1 else ''} {' '.join(map(str, sorted(numbers)))}"
