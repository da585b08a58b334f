"""What a group's actor is told."""

from __future__ import annotations

from typing import NamedTuple

from leveret.consensus.messages import Message
from leveret.transport import NodeId


class Received(NamedTuple):
    """A message of a peer."""

    sender: NodeId
    message: Message


class LinkChanged(NamedTuple):
    """The link to a peer is up or down. incarnation: of the data folder at its other end."""

    node: NodeId
    is_up: bool
    incarnation: int = 0


class Tick(NamedTuple):
    """Time has passed."""


class Wake(NamedTuple):
    """There is work: submissions, durability, or more of the last batch."""


GroupMessage = Received | LinkChanged | Tick | Wake

TICK, WAKE = Tick(), Wake()
