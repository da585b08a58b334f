"""The form of a fault, and the little that all faults share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from chaos.members import Members, Node


class NotNow(Exception):
    """The fault cannot be injected as the cluster stands; the text says why."""


class Fault(Protocol):
    """Something that is broken, and then mended again.

    Made with its target. `heal` is called once if `inject` returned; both may take their time.
    """

    def __init__(self, target: Target) -> None: ...

    async def inject(self) -> None:
        """Break it.

        Raises:
            NotNow: it cannot be done at present; nothing is broken then.
        """
        ...

    async def heal(self) -> None:
        """Mend it, as far as the nemesis must; the cluster does the rest by itself."""
        ...


@dataclass(frozen=True)
class Target:
    """Whom a fault hits."""

    cluster: Members
    places: tuple[int, ...]
    rng: Random

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes that stand at the places now."""
        return [self.cluster.nodes[place] for place in self.places]

    @property
    def others(self) -> Sequence[Node]:
        """All nodes but these."""
        hit = {id(node) for node in self.nodes}
        return [node for node in self.cluster.nodes if id(node) not in hit]
