"""A delivered message: one object, made by the parser itself, which knows what settles it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.amqp import Delivery, Properties
from leveret.client.errors import AlreadySettled

if TYPE_CHECKING:
    from leveret.amqp.fields import Table

    from .channel import ChannelCore
    from .settlements import Life


OFFSET: Final = "x-stream-offset"
"""Where a consumer of a stream begins, and where a delivery was in it."""


class BaseMessage(Delivery):
    """What a message of either face has: body, properties, where it came from.

    `body` are the octets; `delivery_tag` numbers the deliveries of a channel; `redelivered` says
    that it may have been delivered before.
    """

    __slots__ = ("_channel", "_life", "_properties", "remaining")

    _channel: ChannelCore
    _life: Life | None
    remaining: int
    """How many messages are left in the queue; only `get` sets it."""

    @property
    def properties(self) -> Properties:
        """The 14 properties, decoded when first read."""
        try:
            return self._properties
        except AttributeError:
            self._properties: Properties = Properties.decode(self.header)
            return self._properties

    @property
    def headers(self) -> Table:
        """The application's headers, empty if there are none."""
        return self.properties.headers or {}

    @property
    def offset(self) -> int | None:
        """Where the message is in its stream; None if it came from another kind of queue."""
        offset = self.headers.get(OFFSET)
        return int(offset) if isinstance(offset, int) else None

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing left to acknowledge."""
        return self._life is None

    @property
    def is_stale(self) -> bool:
        """Whether the channel's transport has gone, so that the broker delivers it again."""
        return self._life is not None and self._life.is_over

    def _ack(self) -> bool:
        """Queue an acknowledgement; False if the delivery is stale."""
        life = self._life
        if life is None:
            raise self._settled()
        self._life = None
        if life.is_over:
            self._channel.stale += 1
            return False
        if not life.acks:
            self._channel.touch()
        life.acks.append(self.delivery_tag)
        return True

    def _settle(
        self, *, multiple: bool = False, refuse: bool = False, requeue: bool = True
    ) -> bool:
        """Write an acknowledgement or refusal at once; False if the delivery is stale."""
        life = self._life
        if life is None:
            raise self._settled()
        self._life = None
        if life.is_over:
            self._channel.stale += 1
            return False
        self._channel.settle(self.delivery_tag, multiple=multiple, refuse=refuse, requeue=requeue)
        return True

    def _settled(self) -> AlreadySettled:
        return AlreadySettled(
            "this message is settled: it was acknowledged or rejected before, or it was delivered "
            "with no_ack, which needs no acknowledgement"
        )
