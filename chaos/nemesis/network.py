"""Faults of the network between hosts of their own: parted, deaf, lossy, slow, reset."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

import trio

from chaos.hosts import CLIENTS, CommandFailed, run_command
from chaos.members import Node
from chaos.nemesis.fault import NotNow, Target

LOSS: Final = (0.02, 0.3)
SLOW_KBIT: Final = (256, 4000)


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


class Reset:
    """All connections of all hosts end at once, as by a reset."""

    def __init__(self, target: Target) -> None:
        self._nodes = list(target.nodes)

    async def inject(self) -> None:
        for node in self._nodes:
            await on_host(node, "ss", "-K", "state", "established")

    async def heal(self) -> None:
        """Have nothing to mend: connections are made again by whoever needs them."""
