"""Faults of the network between hosts of their own: parted, deaf, lossy, slow, late, reset."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

import trio

from chaos.delayed_wire import Holding
from chaos.detour import Detour
from chaos.hosts import CLIENTS, CommandFailed, run_command
from chaos.members import Node
from chaos.nemesis.fault import NotNow, Target

LOSS: Final = (0.02, 0.3)
SLOW_KBIT: Final = (256, 4000)
DELAY_S: Final = (0.02, 0.4)
"""One way between two nodes, the longest jitter included. An election takes two round trips, each
within an election's timeout (0.5 to 1 s): with twice the delay there would be none."""
JITTER: Final = 0.5
"""The most that may change of a delay."""
SHARE: Final = (0.02, 0.5)
"""Of the packets that others overtake."""
LATE_S: Final = (0.002, 0.1)
"""The longest time by which these are late."""


async def on_host(node: Node, *command: str) -> None:
    """Run a command on a node's host.

    Raises:
        CommandFailed: it failed.
    """
    await trio.to_thread.run_sync(partial(run_command, *[*node.host.prefix, *command]))


class Rules:
    """Rules of iptables on hosts, which are all taken back."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._set: list[tuple[Node, tuple[str, ...]]] = []

    async def inject(self) -> None:
        for node, rule in self._rules():
            try:
                await on_host(node, "iptables", "-w", "-A", *rule)
            except CommandFailed as failure:
                await self.heal()
                raise NotNow(str(failure)) from None
            self._set.append((node, rule))

    async def heal(self) -> None:
        while self._set:
            node, rule = self._set.pop()
            await on_host(node, "iptables", "-w", "-D", *rule)

    def _rules(self) -> Iterable[tuple[Node, tuple[str, ...]]]:
        raise NotImplementedError


def _deaf(node: Node, to: Iterable[Node]) -> Iterable[tuple[Node, tuple[str, ...]]]:
    """Return the rules by which a node does not hear others."""
    for other in to:
        yield node, ("INPUT", "-s", other.host.address, "-j", "DROP")


class Partition(Rules):
    """Some nodes and the others do not hear each other; clients reach all."""

    def _rules(self) -> Iterable[tuple[Node, tuple[str, ...]]]:
        target = self._target
        for node in target.nodes:
            yield from _deaf(node, target.others)
        for node in target.others:
            yield from _deaf(node, target.nodes)


class CutOff(Partition):
    """The same, and clients do not reach them either."""

    def _rules(self) -> Iterable[tuple[Node, tuple[str, ...]]]:
        yield from super()._rules()
        for node in self._target.nodes:
            yield node, ("INPUT", "-s", CLIENTS, "-j", "DROP")
            yield node, ("OUTPUT", "-d", CLIENTS, "-j", "DROP")


class OneWay(Rules):
    """A node does not hear the others, who hear it; or the other way round."""

    def _rules(self) -> Iterable[tuple[Node, tuple[str, ...]]]:
        target = self._target
        if target.rng.random() < 0.5:
            for node in target.nodes:
                yield from _deaf(node, target.others)
        else:
            for node in target.others:
                yield from _deaf(node, target.nodes)


class Bridge(Rules):
    """One node sees all; the others fall into two parts that see only themselves and it."""

    def _rules(self) -> Iterable[tuple[Node, tuple[str, ...]]]:
        _, *rest = self._target.nodes
        half = len(rest) // 2
        one, other = rest[:half], rest[half:]
        for node in one:
            yield from _deaf(node, other)
        for node in other:
            yield from _deaf(node, one)


class Loss(Rules):
    """Packets get lost on their way to all nodes."""

    def _rules(self) -> Iterable[tuple[Node, tuple[str, ...]]]:
        target = self._target
        chance = f"{target.rng.uniform(*LOSS):.3f}"
        for node in target.nodes:
            yield (
                node,
                ("INPUT", "-m", "statistic", "--mode", "random", "--probability", chance,
                 "-j", "DROP"),
            )  # fmt: skip


class SlowLink:
    """What a node sends goes through a narrow pipe."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._nodes = list(target.nodes)

    async def inject(self) -> None:
        rate = f"{self._target.rng.randint(*SLOW_KBIT)}kbit"
        for node in self._nodes:
            await on_host(
                node,
                *("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate),
                *("burst", "32kb", "latency", "400ms"),
            )

    async def heal(self) -> None:
        for node in self._nodes:
            await on_host(node, "tc", "qdisc", "del", "dev", "eth0", "root")


class _Detoured:
    """Nodes whose packets go another way, on which they are held."""

    def __init__(self, target: Target) -> None:
        self._rng = target.rng
        hosts = [node.host for node in target.nodes]
        self._is_one = len(hosts) == 1
        self._detour = Detour(hosts, seed=target.rng.randrange(1 << 32))

    async def inject(self) -> None:
        try:
            await trio.to_thread.run_sync(self._detour.begin, self._holding())
        except CommandFailed as failure:
            raise NotNow(str(failure)) from None

    async def heal(self) -> None:
        await trio.to_thread.run_sync(self._detour.end)

    def _holding(self) -> Holding:
        raise NotImplementedError


class Delay(_Detoured):
    """What nodes send and get is late, all of it, by a time that changes; nothing overtakes."""

    def _holding(self) -> Holding:
        longest_s = self._rng.uniform(*DELAY_S)
        if not self._is_one:
            # What one of them sends another one is held twice.
            longest_s /= 2
        jitter_s = longest_s * self._rng.uniform(0, JITTER)
        return Holding(longest_s - jitter_s, jitter_s)


class Reorder(_Detoured):
    """Some of what nodes send and get is late, and overtaken by what was sent later."""

    def _holding(self) -> Holding:
        return Holding(share=self._rng.uniform(*SHARE), late_s=self._rng.uniform(*LATE_S))


class Reset:
    """All connections of all hosts end at once, as by a reset."""

    def __init__(self, target: Target) -> None:
        self._nodes = list(target.nodes)

    async def inject(self) -> None:
        for node in self._nodes:
            await on_host(node, "ss", "-K", "state", "established")

    async def heal(self) -> None:
        """Have nothing to mend: connections are made again by whoever needs them."""
