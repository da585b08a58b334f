"""The exchanges that spread messages over their bindings: each message follows one of them. Pure.

Hashes are the same on all nodes, so a key goes to the same queue wherever it is published.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from leveret.broker.routing.exchange_types import HASH_HEADER, HASH_PROPERTY
from leveret.broker.routing.headers import erlang_term
from leveret.broker.routing.matcher import Reads
from leveret.catalog.model import Binding

_MASK: Final = 2**64 - 1


def check_weight(routing_key: str) -> None:
    """Accept or refuse the key of a binding to a consistent-hash exchange.

    Raises:
        ValueError: it is no weight; the text is RabbitMQ's detail of the 406.
    """
    weight = _weight(routing_key)
    if weight is None:
        raise ValueError(f"The binding key must be an integer: {erlang_term(routing_key)}")
    if weight < 1:
        raise ValueError("The binding key must be greater than 0")


class ConsistentHashMatcher:
    """The binding that wins the race for what is hashed.

    Each binding draws a number from what is hashed and its destination, and the one whose number,
    stretched by its weight, is best gets the message (weighted rendezvous hashing).  So a binding
    that comes takes its share and nothing else moves, and one that goes leaves its own to the
    others; a ring of points, as RabbitMQ's, would need many for each to be as even.
    """

    def __init__(self, arguments: Mapping[str, object]) -> None:
        """Hash what the exchange's arguments say: a header, a property, or the routing key."""
        self.reads: Reads = "key"
        self._hashed = ""
        for name, reads in ((HASH_HEADER, "headers"), (HASH_PROPERTY, "properties")):
            value = arguments.get(name)
            if isinstance(value, str):
                self.reads = "headers" if reads == "headers" else "properties"
                self._hashed = value
        self._bound: dict[Binding, tuple[int, int]] = {}
        """Weight and seed of each binding."""

    def add(self, binding: Binding) -> None:
        weight = _weight(binding.routing_key)
        if weight is not None and weight > 0:
            self._bound[binding] = (weight, _seed(binding))

    def remove(self, binding: Binding) -> None:
        self._bound.pop(binding, None)

    def match(self, routing_key: str, view: Mapping[str, object]) -> Iterable[Binding]:
        if not self._bound:
            return ()
        hashed = _hash(routing_key if self.reads == "key" else view.get(self._hashed))
        best, best_time = None, math.inf
        for binding, (weight, seed) in self._bound.items():
            # How long an event of rate `weight` takes: the first one is this with a chance that
            # is in proportion to its weight.
            time = -math.log((_mixed(hashed ^ seed) + 1) / (_MASK + 2)) / weight
            if best is None or time < best_time:
                best, best_time = binding, time
        return () if best is None else (best,)


class ModulusHashMatcher:
    """The binding whose place in their order is the key's hash modulo their number."""

    reads: ClassVar[Reads] = "key"

    def __init__(self) -> None:
        self._bound: dict[Binding, None] = {}
        self._ordered: list[Binding] | None = None

    def add(self, binding: Binding) -> None:
        self._bound[binding] = None
        self._ordered = None

    def remove(self, binding: Binding) -> None:
        self._bound.pop(binding, None)
        self._ordered = None

    def match(self, routing_key: str, view: Mapping[str, object]) -> Iterable[Binding]:
        if not self._bound:
            return ()
        if self._ordered is None:
            self._ordered = sorted(
                self._bound, key=lambda b: (b.kind, b.destination, b.routing_key, b.arguments)
            )
        return (self._ordered[_hash(routing_key) % len(self._ordered)],)


class RandomMatcher:
    """Any one binding, whatever the key.

    The numbers look random and repeat with the messages, so that a simulated cluster can be
    replayed.
    """

    reads: ClassVar[Reads] = "chance"

    def __init__(self) -> None:
        self._bound: dict[Binding, None] = {}
        self._ordered: tuple[Binding, ...] = ()
        self._count = 0

    def add(self, binding: Binding) -> None:
        self._bound[binding] = None
        self._ordered = tuple(self._bound)

    def remove(self, binding: Binding) -> None:
        self._bound.pop(binding, None)
        self._ordered = tuple(self._bound)

    def match(self, routing_key: str, view: Mapping[str, object]) -> Iterable[Binding]:
        if not self._ordered:
            return ()
        self._count += 1
        return (self._ordered[_mixed(self._count) % len(self._ordered)],)


def _weight(routing_key: str) -> int | None:
    digits = routing_key[1:] if routing_key[:1] in ("+", "-") else routing_key
    # As Erlang's list_to_integer: no spaces, no underscores.
    return int(routing_key) if digits.isascii() and digits.isdigit() else None


def _seed(binding: Binding) -> int:
    """Return a number of the destination; not of the weight, so that changing it moves little."""
    return _hash(f"{binding.kind} {binding.destination}")


def _hash(value: object) -> int:
    """Return 64 bits of a routing key, or of the decoded value of a header or property."""
    match value:
        case None:
            octets = b""
        case str():
            octets = value.encode("utf-8", "surrogateescape")
        case bytes():
            octets = value
        case int():
            octets = b"%d" % int(value)
        case _:
            octets = repr(value).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "big")


def _mixed(number: int) -> int:
    """Return 64 bits that differ in half of their places when one of `number` does (SplitMix64)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
