"""One producer: publishes as fast as the window, the rate and the broker let it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from leveret.amqp import Properties
from leveret.client import Unroutable

from .body import Bodies, stamp_of
from .plan import QUEUE_HEADER
from .receipts import Bits, Sent

if TYPE_CHECKING:
    from leveret.client import Channel

    from .plan import Plan
    from .tally import Tally

_TURN: Final = 32
"""Messages after which the other clients of the process have their turn, at the latest."""


class Producer:
    """Publishes on a channel; number: which of the plan's producers it is, from 0."""

    def __init__(self, plan: Plan, number: int, tally: Tally) -> None:
        self._plan = plan
        self._number = number
        self._tally = tally
        self._bodies = Bodies(
            run=plan.run,
            producer=number,
            size_bytes=plan.size_bytes,
            seed=plan.seed,
            has_checksum=plan.verifies,
        )
        self._scope = trio.CancelScope()
        self._attempted = 0
        self._expected = Bits()
        self.accepted = 0
        """Messages that the broker confirmed, or without confirms all that were published."""
        self.published_until_s = 0.0
        """Seconds since the beginning, when it published no more."""
        self.confirmed_until_s = 0.0
        """Seconds since the beginning, when it waited for no confirm any more."""

    def stop(self) -> None:
        """Have it publish nothing more; it still waits for its confirms."""
        self._scope.cancel()

    def sent(self) -> Sent:
        """What it sent, for the judge; of a plan that verifies."""
        return Sent(self._number, self._attempted, self._expected.packed())

    async def run(self, channel: Channel) -> None:
        """Publish until stopped, or as many messages as planned.

        Raises:
            ClientError: the broker does not take them at all.
        """
        if self._plan.window:
            await self._publish_with_confirms(channel)
        else:
            await self._publish_alone(channel)

    async def _publish_with_confirms(self, channel: Channel) -> None:
        tally, bodies = self._tally, self._bodies
        publisher = channel.publisher(
            self._plan.key_of(self._number),
            exchange=self._plan.exchange,
            properties=self._properties(),
            mandatory=self._plan.is_mandatory,
            window=self._plan.window,
            on_settled=self._settled,
        )
        with self._scope:
            pace = _Pace(self._plan.rate_per_s)
            while not self._is_done():
                await pace.turn(self._attempted)
                await publisher.ready()
                await publisher.send(bodies.make(self._attempted, tally.clock.now_ns()))
                self._attempted += 1
                tally.interval.published += 1
        self.published_until_s = tally.now_s()
        with trio.move_on_after(self._plan.drain_s):
            await publisher.flush()
        self.confirmed_until_s = tally.now_s()

    async def _publish_alone(self, channel: Channel) -> None:
        tally, bodies = self._tally, self._bodies
        key, exchange = self._plan.key_of(self._number), self._plan.exchange
        properties = self._properties()
        with self._scope:
            pace = _Pace(self._plan.rate_per_s)
            while not self._is_done():
                await pace.turn(self._attempted)
                number = self._attempted
                # Counted as attempted first: it may have left when the wait for room is cancelled.
                self._attempted += 1
                body = bodies.make(number, tally.clock.now_ns())
                await channel.publish(body, key, exchange=exchange, properties=properties)
                self.accepted += 1
                tally.interval.published += 1
                if self._plan.verifies:
                    self._expected.add(number)
        self.published_until_s = self.confirmed_until_s = tally.now_s()

    def _is_done(self) -> bool:
        return 0 < self._plan.messages <= self._attempted

    def _settled(self, body: bytes, error: Exception | None) -> None:
        """Count a confirm, or a refusal."""
        tally = self._tally
        interval = tally.interval
        if error is None:
            stamp = stamp_of(body)
            assert stamp is not None
            self.accepted += 1
            interval.confirmed += 1
            interval.confirm.record((tally.clock.now_ns() - stamp.sent_at_ns) // 1000)
            if self._plan.verifies:
                self._expected.add(stamp.sequence)
        elif isinstance(error, Unroutable):
            interval.returned += 1
        else:
            interval.refused += 1

    def _properties(self) -> Properties:
        plan = self._plan
        properties = Properties(delivery_mode=2 if plan.is_durable else 1)
        if plan.exchange_type == "headers":
            properties.headers = {QUEUE_HEADER: plan.key_of(self._number)}
        return properties


class _Pace:
    """Lets messages go at a rate, and the other tasks have their turns."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._began_at = trio.current_time()

    async def turn(self, number: int) -> None:
        """Wait until message `number` is due; one that is late goes at once."""
        if self._rate_per_s:
            due = self._began_at + number / self._rate_per_s
            if due > trio.current_time():
                await trio.sleep_until(due)
                return
        if number % _TURN == 0:
            await trio.lowlevel.checkpoint()
