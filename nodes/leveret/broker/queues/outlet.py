"""How a queue's lead reaches whom it serves: on its own node, and over the links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.messages import AskAgain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from leveret.actors import Ref
    from leveret.broker.messages import QueueMessage

    from .dispatch import Consumer, Delivery
    from .seams import QueueContext, QueueLog

    Parcel = tuple[Sequence[int], Sequence[bool], Sequence[bytes | memoryview]]
    """Numbers of deliveries, whether each came before, and the messages."""
    HandOn = Callable[[int, int, Sequence[int], Sequence[bool], Sequence[bytes | memoryview]], None]
    """Gives a consumer of this node, by its number and attachment, a parcel."""
    Answer = Callable[[int, str, Sequence[object]], None]
    """Takes the answer to a request of this node."""

DISPATCH_BYTES_MAX: Final = 1 << 20
"""Bodies in one message to another node."""
ASK_AGAIN_S: Final = 0.05
"""How soon the lead looks again whether a congested node takes deliveries."""


class Outlet:
    """See the module."""

    def __init__(
        self,
        uid: int,
        *,
        context: QueueContext,
        ref: Ref[QueueMessage],
        hand_on: HandOn,
        answer: Answer,
    ) -> None:
        self._uid = uid
        self._context = context
        self._ref = ref
        self._hand_on = hand_on
        self._answer = answer
        self._is_to_ask_again = False

    def takes(self, node: int) -> bool:
        """Whether a node may be sent deliveries now: not while much is on its way to it already.

        Then the queue's actor is told to ask again.
        """
        if node == self._context.node or not self._context.is_congested(node):
            return True
        if not self._is_to_ask_again:
            self._is_to_ask_again = True
            self._context.after(ASK_AGAIN_S, self._ref, AskAgain())
        return False

    def ask_again(self) -> None:
        """Note that the time to ask again has come; the lead's `flush` follows."""
        self._is_to_ask_again = False

    def deliver(
        self,
        consumer: Consumer,
        deliveries: list[Delivery],
        parcel: Callable[[Sequence[Delivery]], Parcel],
    ) -> None:
        """Hand `deliveries` to the consumer, as `parcel` packs them."""
        node, number = consumer.key
        if node == self._context.node:
            self._hand_on(number, consumer.attachment, *parcel(deliveries))
            return
        start, size = 0, 0
        for position, delivery in enumerate(deliveries, 1):
            size += delivery.location.size
            if size >= DISPATCH_BYTES_MAX or position == len(deliveries):
                packed = parcel(deliveries[start:position])
                body = ("deliver", number, consumer.attachment, *packed)
                self._context.send(node, self._uid, body)
                start, size = position, 0

    def reply(self, node: int, request: int, kind: str, *values: object) -> None:
        """Answer request `request` of the actor on `node`."""
        if node == self._context.node:
            self._answer(request, kind, values)
        else:
            self._context.send(node, self._uid, ("reply", request, kind, *values))


def read_records(log: QueueLog, deliveries: Iterable[Delivery]) -> list[bytes | memoryview]:
    """Return the messages of `deliveries` as they are stored, without copying them."""
    records: list[bytes | memoryview] = []
    last, entry = -1, memoryview(b"")
    for delivery in deliveries:
        index, offset, size = delivery.location
        if index != last:
            last, entry = index, log.read(index)
        records.append(entry[offset : offset + size])
    return records
