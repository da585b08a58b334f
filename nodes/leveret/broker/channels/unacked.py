"""What a channel's client was delivered and has not settled. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from leveret.amqp import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leveret.broker.messages import LocalConsumer


NOWHERE: Final = 0
"""In the place of a queue's uid: the message was taken from the client already."""


class Unacked:
    """A delivered message that the client has not settled."""

    __slots__ = ("consumer", "sequence", "uid")

    def __init__(self, uid: int, sequence: int, consumer: LocalConsumer) -> None:
        self.uid = uid
        self.sequence = sequence
        self.consumer = consumer


class UnackedMessages(OrderedDict[int, Unacked]):
    """By delivery tag, ascending."""

    def take(self, tag: int, *, multiple: bool) -> Sequence[Unacked]:
        """Take out what a settlement of `tag` means.

        Raises:
            AmqpError: 406, there is no such delivery (any more).
        """
        if not multiple:
            unacked = self.pop(tag, None)
            if unacked is None:
                raise errors.precondition_failed(f"unknown delivery tag {tag}")
            return (unacked,)
        if tag == 0:
            return self.take_all()
        if tag not in self:
            raise errors.precondition_failed(f"unknown delivery tag {tag}")
        taken = []
        while True:
            first, unacked = self.popitem(last=False)
            taken.append(unacked)
            if first == tag:
                return taken

    def take_all(self) -> Sequence[Unacked]:
        """Take out everything."""
        taken = list(self.values())
        self.clear()
        return taken
