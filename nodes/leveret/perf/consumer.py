"""One consumer: takes messages, says so to the broker, and counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from leveret.client import ConsumerCancelled

from .body import is_intact, stamp_of
from .topology import declare

if TYPE_CHECKING:
    from leveret.client import Channel, Message

    from .plan import Plan
    from .receipts import Receipts
    from .tally import Tally

_AGAIN_AFTER_S: Final = 0.2
"""How long a consumer that the broker cancelled waits before it begins again."""


class Consumer:
    """Consumes on a channel; number: which of the plan's consumers it is, from 0."""

    def __init__(self, plan: Plan, number: int, tally: Tally, receipts: Receipts) -> None:
        self._plan = plan
        self._number = number
        self._queue = plan.queue_of(number)
        self._tally = tally
        self._receipts = receipts
        self._scope = trio.CancelScope()
        # With producers it is they that are counted.
        self._left = plan.messages if plan.messages and not plan.producers else -1
        self.stopped_at_s = 0.0
        """Seconds since the beginning, when it took no more."""

    def stop(self) -> None:
        """Have it take nothing more."""
        self._scope.cancel()

    async def run(self, channel: Channel) -> None:
        """Consume until stopped, or as many messages as planned.

        Raises:
            ClientError: there is nothing to consume from.
        """
        with self._scope:
            # A robust connection then has the queue again if it goes with a node.
            await declare(channel, self._plan, [self._queue])
            while self._left:
                try:
                    await self._consume(channel)
                except ConsumerCancelled:
                    # Its queue has gone, with the node that had it: have it again elsewhere.
                    self._tally.interval.cancelled += 1
                    await trio.sleep(_AGAIN_AFTER_S)
                    await declare(channel, self._plan, [self._queue])
        self.stopped_at_s = self._tally.now_s()

    async def _consume(self, channel: Channel) -> None:
        plan = self._plan
        async with channel.consume(
            plan.queues[self._queue], prefetch=plan.prefetch, no_ack=plan.is_auto_ack
        ) as deliveries:
            async for message in deliveries:
                self._take(message)
                if not plan.is_auto_ack:
                    await message.ack()
                self._left -= 1
                if not self._left:
                    return

    def _take(self, message: Message) -> None:
        tally, receipts = self._tally, self._receipts
        now_ns = tally.clock.now_ns()
        tally.interval.consumed += 1
        tally.last_consumed_at_ns = now_ns
        stamp = stamp_of(message.body)
        if stamp is None:
            receipts.faults.foreign += 1
            return
        tally.interval.delivery.record((now_ns - stamp.sent_at_ns) // 1000)
        if not self._plan.verifies:
            return
        if stamp.run != self._plan.run:
            receipts.faults.foreign += 1
        elif not is_intact(message.body):
            receipts.faults.corrupt += 1
        else:
            receipts.take(
                queue=self._queue,
                consumer=self._number,
                producer=stamp.producer,
                sequence=stamp.sequence,
                is_redelivered=message.redelivered,
            )
