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


# Messages to the core, in its words.


def append_entries(
    term: int, previous: tuple[int, int], entries: list[CoreEntry], commit_index: int
) -> CoreMessage:
    """Return an append; previous: index and term of the entry before the first."""
    return {
        "type": "append_entries",
        "term": term,
        "prevLogIdx": previous[0],
        "prevLogTerm": previous[1],
        "entries": entries,
        "commit_index": commit_index,
    }


def next_node_idx(next_index: int, *, is_success: bool, is_reset: bool) -> CoreMessage:
    """Return an answer to an append."""
    return {
        "type": "next_node_idx",
        "next_node_idx": next_index,
        "success": is_success,
        "reset": is_reset,
    }


def request_vote(term: int, last_index: int, last_term: int) -> CoreMessage:
    """Return the request of a candidate whose log ends so."""
    return {
        "type": "request_vote",
        "term": term,
        "last_log_index": last_index,
        "last_log_term": last_term,
    }
