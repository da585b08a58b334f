"""The core's types, as our side of it sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pysyncobj.node import Node

from leveret.consensus.journal import CoreEntry
from leveret.transport import NodeId

CoreMessage = dict[str, object]


class CoreNode(int, Node):  # type: ignore[misc]  # the base class is untyped
    """A node for the core, which keeps nodes in sets and dicts.

    An integer, so that hashing and comparing are not Python calls: there are eighty a message.
    """

    def __init__(self, number: int) -> None:
        Node.__init__(self, number)

    __hash__ = int.__hash__
    __eq__ = int.__eq__
    __ne__ = int.__ne__


class CoreView(Protocol):
    """What the guard reads of the core, and whom it has the core count."""

    @property
    def term(self) -> int: ...
    @property
    def leader(self) -> NodeId | None: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def commit_index(self) -> int: ...
    def add_voter(self, node: CoreNode) -> None: ...
    def drop_voter(self, node: CoreNode) -> None: ...


def int_of(value: object) -> int:
    """Return the number in a message of the core's."""
    assert isinstance(value, int)
    return value


def entries_of(value: object) -> Sequence[CoreEntry]:
    """Return the entries in a message of the core's."""
    assert isinstance(value, (list, tuple))
    return value
