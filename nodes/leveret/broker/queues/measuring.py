"""How large bodies are that came when nobody asked: a policy may limit a queue's bytes later.

The leader looks into the messages, a part at a time, and tells all replicas through the log; what
comes meanwhile brings its size along.  The next leader looks again for what is not known yet.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from leveret.amqp.delivery import Record

from . import machine

if TYPE_CHECKING:
    from .seams import QueueLog
    from .state import QueueState

MESSAGES_MAX: Final = 1_000
"""Messages in one command: each is read from the log, while the queue waits."""


class Measuring:
    """What is left to look into."""

    def __init__(self, uid: int, log: QueueLog) -> None:
        self._uid = uid
        self._log = log
        self._next = 0
        self._end = 0
        self._is_under_way = False

    def begin(self, state: QueueState) -> None:
        """Have all that is in the queue now looked into; `go_on` does it."""
        self._next, self._end = 1, state.next

    def go_on(self, state: QueueState) -> None:
        """Measure the next part, unless one is on its way; its effect is the time for another."""
        if self._is_under_way or self._next >= self._end:
            return
        first, sizes = 0, array("I")
        for sequence, location in state.unmeasured(self._next):
            first = first or sequence
            if sequence >= self._end or sequence - first >= MESSAGES_MAX:
                break
            sizes.extend((0,) * (sequence - first - len(sizes)))
            entry = self._log.read(location.entry)
            record = Record(entry[location.offset : location.offset + location.size])
            sizes.append(record.body_size)
        if not sizes:
            self._next = self._end
            return
        self._next = first + len(sizes)
        self._is_under_way = True
        self._log.submit(machine.measure(self._uid, first, sizes), self._done)

    def _done(self, _: object) -> None:
        self._is_under_way = False
