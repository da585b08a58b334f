"""The fanout exchange: every binding, whatever the key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from leveret.broker.routing.matcher import Reads
from leveret.catalog.model import Binding


class FanoutMatcher:
    """All bindings."""

    reads: ClassVar[Reads] = "nothing"

    def __init__(self) -> None:
        self._bound: dict[Binding, None] = {}

    def add(self, binding: Binding) -> None:
        self._bound[binding] = None

    def remove(self, binding: Binding) -> None:
        self._bound.pop(binding, None)

    def match(self, routing_key: str, view: Mapping[str, object]) -> Iterable[Binding]:
        return self._bound
