"""Dead letters that no queue takes are kept in a queue of their virtual host, where that is wanted.

Clients see what RabbitMQ shows them: the letter is gone from its queue.  Where it came from, of
what it died and where it should have gone is in its headers and its route.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from leveret.amqp.fields import encode_table
from leveret.catalog.commands import DeclareQueue, Refusal

from .messages import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.actors import Ref
    from leveret.catalog import Catalog

    from .messages import QueueMessage
    from .queues.dead_letters import DeadLetter

log = logging.getLogger(__name__)

QUEUE: Final = "$dead"
LENGTH_MAX: Final = 10_000
BYTES_MAX: Final = 64 << 20
"""Messages, and bytes of their bodies, beyond which the oldest are dropped."""
TELL_EVERY_MS: Final = 60_000
"""The log has a line at most so often."""

_ARGUMENTS: Final = encode_table({"x-max-length": LENGTH_MAX, "x-max-length-bytes": BYTES_MAX})


class Parking:
    """Finds the queue, and makes it when it is first needed."""

    def __init__(
        self,
        catalog: Catalog,
        queue: Callable[[int], Ref[QueueMessage] | None],
        *,
        node: int,
        boot: int,
        is_on: bool,
        now_ms: Callable[[], int],
    ) -> None:
        """Park on behalf of node `node`; `queue` finds a queue's actor by uid."""
        self._catalog = catalog
        self._queue = queue
        self._node = node
        self._boot = boot
        self._is_on = is_on
        self._now_ms = now_ms
        self._waiting: dict[str, list[DeadLetter]] = {}
        """What waits for the queue of a virtual host to be made."""
        self.parked = 0
        """Letters since this node started."""
        self._told_ms: int | None = None

    def park(self, vhost: str, letter: DeadLetter) -> bool:
        """Put a letter into the queue; it comes home again. False: it is not wanted."""
        if not self._is_on:
            return False
        letter.is_unroutable = False
        letter.waiting = 1
        if self._put(vhost, letter):
            return True
        waiting = self._waiting.setdefault(vhost, [])
        waiting.append(letter)
        if len(waiting) == 1:
            declare = DeclareQueue(
                vhost,
                QUEUE,
                durable=True,
                exclusive=False,
                auto_delete=False,
                arguments=_ARGUMENTS,
                node=self._node,
                boot=self._boot,
                owner=0,
            )
            self._catalog.submit(declare, lambda reply: self._made(vhost, reply))
        return True

    def _made(self, vhost: str, reply: object) -> None:
        for letter in self._waiting.pop(vhost, []):
            if isinstance(reply, Refusal):
                letter.answer()  # a limit of the virtual host: it is lost, as without parking
            elif not self._put(vhost, letter):
                letter.answer(taken=0)  # it is tried again

    def _put(self, vhost: str, letter: DeadLetter) -> bool:
        queue = self._catalog.model.queue(vhost, QUEUE)
        ref = None if queue is None else self._queue(queue.uid)
        if ref is None or not tell(ref, letter):
            return False
        self.parked += 1
        now_ms = self._now_ms()
        if self._told_ms is None or now_ms - self._told_ms >= TELL_EVERY_MS:
            self._told_ms = now_ms
            log.warning(
                "dead letters that no queue takes are parked",
                extra={"vhost": vhost, "queue": QUEUE, "since_start": self.parked},
            )
        return True
