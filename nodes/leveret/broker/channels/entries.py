"""What a channel keeps of each consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.amqp.delivery import DeliverEncoder
    from leveret.broker.messages import Deliver, LocalConsumer


class ConsumerEntry:
    """A consumer of the channel, or the holder of what basic.get took from one queue."""

    __slots__ = ("consumer", "early", "encoder", "is_ready", "own_prefetch", "uid")

    def __init__(
        self, uid: int, consumer: LocalConsumer, encoder: DeliverEncoder | None, own_prefetch: int
    ) -> None:
        self.uid = uid
        self.consumer = consumer
        self.own_prefetch = own_prefetch
        """The consumer's prefetch, before the channel's limit."""
        self.encoder = encoder
        self.is_ready = False
        """consume-ok is written."""
        self.early: list[Deliver] = []
        """What came before that."""
