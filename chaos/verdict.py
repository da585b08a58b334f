"""What one stream of numbered messages proved, by the checkers of the histories. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos.checkers import messages
from chaos.history import Deliver, Event, MessageId, Outcome, Publish

Delivery = tuple[int, bool]
"""A message's number, and whether it was marked redelivered."""
_QUEUE = "q"


@dataclass(frozen=True)
class Verdict:
    """What a stream proved.

    confirmed: how many messages were confirmed. delivered: how many different ones came out.
    redelivered: how many deliveries were marked; nothing is wrong with them.
    complaints: broken promises in words.
    """

    confirmed: int
    delivered: int
    redelivered: int
    complaints: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return not self.complaints

    def __str__(self) -> str:
        """Return the counts in one line, and what is wrong."""
        return (
            f"confirmed={self.confirmed} delivered={self.delivered}"
            f" redelivered={self.redelivered} {'; '.join(self.complaints)}"
        )


def judge(published: int, confirmed: Iterable[int], deliveries: Sequence[Delivery]) -> Verdict:
    """Compare one publisher's stream with all that its queue's consumers got.

    published: the messages 0 to `published` - 1 were sent, in this order.
    confirmed: those of them that the broker answered for.
    deliveries: in the order in which they came, to one consumer at a time.
    """
    sure = set(confirmed)
    events: list[Event] = [
        *(Publish(0.0, _id(number), (_QUEUE,)) for number in range(published)),
        *(Outcome(0.0, _id(number), "ok") for number in sure),
        *(
            Deliver(0.0, _QUEUE, "c", is_marked, _id(number), tag)
            for tag, (number, is_marked) in enumerate(deliveries)
        ),
    ]
    return Verdict(
        confirmed=len(sure),
        delivered=len({number for number, _ in deliveries}),
        redelivered=sum(is_marked for _, is_marked in deliveries),
        complaints=(
            *messages.lost(events),
            *messages.phantom(events),
            *messages.unmarked(events),
            *messages.disorder(events, one_consumer=(_QUEUE,)),
        ),
    )


def _id(number: int) -> MessageId:
    return MessageId("p", 1, number)
