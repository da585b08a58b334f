"""Looks into the nodes of a simulated world: what each replica applied, and in which state it is.

The composition root makes its `Replicas`; while `watched`, it makes one that belongs to its process
here and tells the ledger each command that a machine applies.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from chaos.simulation.process import HERE, Process
from leveret.consensus import Replicas
from leveret.node import boot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from leveret.consensus import Machine
    from leveret.consensus.membership import Members


class Ledger:
    """What all replicas applied, by group, entry and place in the entry.

    problems: entries that two replicas read differently, in words.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.applied = 0
        self.installs = 0
        """Snapshots that came from another node."""
        self._known: dict[tuple[int, int, int], tuple[str, int, bytes, str]] = {}

    def take(
        self, who: str, group: int, at: tuple[int, int], stamp_ms: int, command: bytes, reply: str
    ) -> None:
        """Compare what `who` applied with what others did, and remember it."""
        self.applied += 1
        digest = hashlib.blake2b(command, digest_size=8).digest()
        first = self._known.setdefault((group, *at), (who, stamp_ms, digest, reply))
        if first[1:] != (stamp_ms, digest, reply) and len(self.problems) < 10:
            self.problems.append(
                f"group {group} entry {at[0]}+{at[1]}: {first[0]} applied {first[1:]},"
                f" {who} {(stamp_ms, digest, reply)}"
            )


class NodeProcess(Process):
    """One life of a node.

    end_in_order: set to let it stop as for SIGTERM.
    is_serving: clients are served.
    """

    def __init__(self, name: str, address: str, ledger: Ledger) -> None:
        super().__init__(name, address)
        self.ledger = ledger
        self.end_in_order = trio.Event()
        self.is_serving = False
        self.replicas: WatchedReplicas | None = None


class WatchedReplicas(Replicas):
    """Replicas that their process and the world's ledger know."""

    def __init__(self, *, machines: Sequence[Machine], **arguments: Any) -> None:  # noqa: ANN401
        process = HERE.get()
        assert isinstance(process, NodeProcess)
        for number, machine in enumerate(machines):
            _watch(machine, number, process.name, process.ledger)
        super().__init__(machines=machines, **arguments)
        for machine in machines:
            _count_installs(machine, process.ledger)
        self.machines = tuple(machines)
        self.desired: Callable[[], Members] = arguments["desired"]
        process.replicas = self


def _watch(machine: Machine, group: int, who: str, ledger: Ledger) -> None:
    apply = machine.apply

    def watched(index: int, stamp_ms: int, command: bytes, offset: int) -> object:
        reply = apply(index, stamp_ms, command, offset)
        ledger.take(who, group, (index, offset), stamp_ms, command, repr(reply))
        return reply

    machine.apply = watched  # type: ignore[method-assign]


def _count_installs(machine: Machine, ledger: Ledger) -> None:
    """Count what a machine is given from now on: it has its own snapshot and log already."""
    restore = machine.restore

    def counted(state: bytes) -> None:
        ledger.installs += 1
        restore(state)

    machine.restore = counted  # type: ignore[method-assign]


@contextmanager
def watched() -> Iterator[None]:
    """Let the composition root make watched replicas."""
    real = vars(boot)["Replicas"]
    vars(boot)["Replicas"] = WatchedReplicas
    try:
        yield
    finally:
        vars(boot)["Replicas"] = real
