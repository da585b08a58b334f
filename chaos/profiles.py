"""Runs that have a name: how long, how fast, which faults, and how strictly they are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chaos.judge import Limits
from chaos.nemesis.kinds import KINDS


@dataclass(frozen=True)
class Profile:
    """What a run is, where its options do not say otherwise.

    rate: messages a second, of each of the two publishers that take any node.
    """

    seconds: float
    rate: float
    kinds: tuple[str, ...]
    limits: Limits


PROMISED: Final = Limits(silence_s=3.0, recovery_s=10.0, grace_s=20.0)
"""For a machine that does nothing else."""
GENEROUS: Final = Limits()
"""For a machine with other work: only safety is judged strictly."""
DISKS: Final = tuple(kind for kind in KINDS if "fuse" in KINDS[kind].needs)
"""They put a file system of Python under every node, which makes all syncs slow."""
OTHERS: Final = tuple(kind for kind in KINDS if kind not in DISKS)
PROFILES: Final = {
    "default": Profile(60.0, 60.0, OTHERS, GENEROUS),
    # Part of the tests: no root, no tools, and whatever else the machine does.
    "short": Profile(30.0, 40.0, ("kill", "stop", "restart", "wipe"), GENEROUS),
    "power": Profile(60.0, 60.0, (*DISKS, "kill", "stop"), GENEROUS),
    "nightly": Profile(900.0, 190.0, OTHERS, PROMISED),
    "hour": Profile(3600.0, 190.0, OTHERS, PROMISED),
}
