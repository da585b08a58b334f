"""What an exchange type is: a changeable set of bindings that is asked per message. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol

from leveret.catalog.model import Binding


class Matcher(Protocol):
    """The compiled bindings of one exchange.

    Adding a binding that is there and removing one that is not change nothing, so that the news of
    a change may come after a compilation that saw it already.
    """

    reads_key: ClassVar[bool]
    """Whether the answer depends on the routing key."""
    reads_headers: ClassVar[bool]
    """Whether the answer depends on the message's headers."""

    def add(self, binding: Binding) -> None: ...

    def remove(self, binding: Binding) -> None: ...

    def match(self, routing_key: str, headers: Mapping[str, object]) -> Iterable[Binding]:
        """Return the bindings that a message follows, each once.

        headers: the message's decoded headers; empty if not `reads_headers`.
        """
        ...
