"""The direct exchange: the routing key equals the binding key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from leveret.broker.routing.matcher import Reads
from leveret.catalog.model import Binding


class DirectMatcher:
    """Bindings by their key."""

    reads: ClassVar[Reads] = "key"

    def __init__(self) -> None:
        self._by_key: dict[str, dict[Binding, None]] = {}

    def add(self, binding: Binding) -> None:
        self._by_key.setdefault(binding.routing_key, {})[binding] = None

    def remove(self, binding: Binding) -> None:
        bound = self._by_key.get(binding.routing_key)
        if bound is None:
            return
        bound.pop(binding, None)
        if not bound:
            del self._by_key[binding.routing_key]

    def match(self, routing_key: str, view: Mapping[str, object]) -> Iterable[Binding]:
        return self._by_key.get(routing_key, ())
