"""What an exchange type is: a changeable set of bindings that is asked per message. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, Protocol

from leveret.catalog.model import Binding

Reads = Literal["nothing", "key", "headers", "properties", "chance"]
"""What of a message says which bindings it follows; by chance each message goes its own way."""

READS_EACH_MESSAGE: Final = frozenset({"headers", "properties", "chance"})
"""With these, two messages with the same key may follow different bindings."""


class Matcher(Protocol):
    """The compiled bindings of one exchange.

    Adding a binding that is there and removing one that is not change nothing, so that the news of
    a change may come after a compilation that saw it already.
    """

    @property
    def reads(self) -> Reads:
        """What the answer depends on; always the same."""

    def add(self, binding: Binding) -> None: ...

    def remove(self, binding: Binding) -> None: ...

    def match(self, routing_key: str, view: Mapping[str, object]) -> Iterable[Binding]:
        """Return the bindings that a message follows, each once.

        view: the message's decoded headers, or its properties, as it `reads` them; else empty.
        """
        ...
