"""Known mistakes, planted into the product one at a time, for the simulation to find.

Each is what somebody could write by mistake: a missing sync, a vote that is forgotten, a mark that
is not looked at. A simulation that does not find them would not find the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    patches: what is replaced: owner, attribute, and what makes the replacement of the original.
    seeds: those that are known to find it; the first is the quickest.
    """

    name: str
    text: str
    patches: tuple[tuple[object, str, Callable[[object], object]], ...]
    seeds: tuple[int, ...] = ()


MUTATIONS: Final[dict[str, Mutation]] = {}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Plant a mistake for the length of a context; none if the name is empty."""
    if not name:
        yield
        return
    originals = []
    for owner, attribute, make in MUTATIONS[name].patches:
        original = vars(owner)[attribute]
        originals.append((owner, attribute, original))
        setattr(owner, attribute, make(original))
    try:
        yield
    finally:
        for owner, attribute, original in originals:
            setattr(owner, attribute, original)
