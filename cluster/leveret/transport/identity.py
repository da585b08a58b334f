"""Who a node is and where it listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NewType

__all__ = ["Address", "Identity", "NodeId"]

NodeId = NewType("NodeId", int)
"""A node's number in its cluster, from 1. A node never changes it, nor is it given out again."""


class Address(NamedTuple):
    """Where a node takes links of other nodes: a host name or numeric address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a node says of itself; all of it but `instance` comes from its data folder."""

    cluster: str
    node: NodeId
    name: str
    incarnation: int
    """The life of the data folder: its making in ms since 1970, greater than of any earlier folder
    of this node. A node that lost its disk comes back with a higher one."""
    boot: int
    """Counts the starts of this node; the newer of two processes has the higher."""
    software: str
    """Name and version of the program, for the log of the other side."""
    instance: bytes
    """Random, made at each start: tells two processes with the same data folder apart."""

    def __post_init__(self) -> None:
        assert 1 <= self.node < 65536
        assert 1 <= len(self.name.encode()) <= 255
        assert 0 <= self.incarnation < 2**63
        assert 0 <= self.boot < 2**63
