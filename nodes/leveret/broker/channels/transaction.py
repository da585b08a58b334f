"""What a transactional channel holds until the client says tx.commit or tx.rollback. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from leveret.broker.messages import PublishRun

    from .unacked import Unacked


End = Literal["ack", "reject", "requeue"]
"""What becomes of a delivered message."""


class Settlement(NamedTuple):
    """One basic.ack, nack or reject that does not count yet."""

    end: End
    messages: Mapping[int, Unacked]
    """By delivery tag."""


class Transaction:
    """The publishes and settlements since the last commit or rollback, each kind in order."""

    __slots__ = ("is_partial", "runs", "settlements")

    def __init__(self) -> None:
        self.runs: list[PublishRun] = []
        self.settlements: list[Settlement] = []
        self.is_partial = False
        """A queue refused one of its publishes, while others may be stored."""

    @property
    def cost_bytes(self) -> int:
        """What the held publishes count for their connection."""
        return sum(run.cost_bytes for run in self.runs)

    @property
    def settled_count(self) -> int:
        """How many messages are settled by it, if it is committed."""
        return sum(len(settlement.messages) for settlement in self.settlements)

    def settled(self) -> Iterator[tuple[int, Unacked]]:
        """Yield the messages that it settles, by delivery tag; the client has them until then."""
        for settlement in self.settlements:
            yield from settlement.messages.items()
