"""The address and mailbox of one actor.

`Ref` is the senders' face, `Mailbox` the same object as its supervisor and run loop see it. It
outlives restarts: what is queued when an instance crashes is received by the next one.

A mailbox is a deque and the one task that reads it. A memory channel costs 4-8 µs a message for
its checkpoint at each send and receive; a deque that is drained in batches costs 0.2-0.8 µs. One
reader needs no `ParkingLot`, 240 bytes while empty and a dict's bookkeeping at each wake-up: the
task itself is kept. The edges that wait for room are many and rare, and share a lot made on demand.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import trio
from trio.lowlevel import Abort, ParkingLot, RaiseCancelT, Task

from leveret.actors.actor import M_contra

if TYPE_CHECKING:
    from leveret.actors.actor import Request

M = TypeVar("M")
R = TypeVar("R")


class ActorError(Exception):
    """Something is wrong with the actor that was told or asked."""


class ActorStopped(ActorError):
    """The actor is closed, or crashed while the request was in its hands. Ask its successor."""


class MailboxFull(ActorError):
    """The hard limit was hit: some edge does not await `Ref.room`. A bug, not an overload."""


@dataclass(frozen=True, slots=True)
class RefStatistics:
    """What one mailbox has seen, over all instances of its actor.

    queued: messages that wait now.
    queued_max: the most messages found waiting when a batch began.
    received: messages handled in whole batches.
    batches: batches handled, each with one flush.
    crashes: instances that died.
    owed: requests asked and not yet answered.
    waiting_edges: tasks that wait for room now.
    """

    queued: int
    queued_max: int
    received: int
    batches: int
    crashes: int
    owed: int
    waiting_edges: int


class _Owed(Protocol):
    """The part of a request that does not depend on the type of its answer."""

    def fail(self, error: Exception) -> None: ...


class Ref(Generic[M_contra]):
    """Stable address of one actor. First in, first out; one reader."""

    __slots__ = (
        "_batches",
        "_crashes",
        "_edges",
        "_high",
        "_is_closed",
        "_limit",
        "_owed",
        "_queue",
        "_queued_max",
        "_reader",
        "_received",
        "_stopped",
        "name",
    )

    def __init__(self, name: str, *, high: int, limit: int) -> None:
        assert 0 < high <= limit
        self.name = name
        self._high = high
        self._limit = limit
        self._queue: deque[M_contra] = deque()
        # Asked and unanswered. A dict, since a set's order would differ from run to run.
        self._owed: dict[_Owed, None] = {}
        self._is_closed = False
        self._stopped = trio.Event()
        # Invariant: set only while the run loop is parked on an empty mailbox.
        self._reader: Task | None = None
        self._edges: ParkingLot | None = None  # made by the first edge that has to wait
        self._queued_max = self._received = self._batches = self._crashes = 0

    def __repr__(self) -> str:
        return f"<Ref {self.name!r}>"

    @property
    def queued(self) -> int:
        """Messages that wait now."""
        return len(self._queue)

    def tell(self, message: M_contra) -> None:
        """Queue `message` and return. Never waits, so a cycle of actors cannot deadlock.

        Raises:
            ActorStopped: the actor is closed; the message was not queued.
            MailboxFull: the hard limit was hit; the message was not queued.
        """
        queue = self._queue
        if self._is_closed:
            raise ActorStopped(self.name)
        if len(queue) >= self._limit:
            raise MailboxFull(self.name)
        queue.append(message)
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    async def ask(self, request: Request[R], *, within_s: float) -> R:
        """Tell `request` and wait for its answer. For edges; an actor takes replies as messages.

        A checkpoint. On Cancelled or a timeout the request may still be handled.

        Raises:
            ActorStopped: the actor is closed, or its instance crashed with the request in hand.
            MailboxFull: as for `tell`.
            trio.TooSlowError: no answer within `within_s` seconds.
            Exception: whatever the actor failed the request with.
        """
        self._owed[request] = None
        try:
            with trio.fail_after(within_s):
                self.tell(cast("M_contra", request))
                return await request.answered()
        finally:
            self._owed.pop(request, None)

    async def room(self) -> None:
        """Wait while more than `high` messages are queued. For edges (socket readers) only.

        Who had to wait goes on when the mailbox has fallen to half of `high`, so that edges are
        woken in bulk and rarely. Returns at once, without a checkpoint, when there is room or the
        actor is closed.
        """
        while len(self._queue) > self._high and not self._is_closed:
            if self._edges is None:
                self._edges = ParkingLot()
            await self._edges.park()

    def close(self) -> None:
        """Let the actor end: it takes no more messages and handles those that are queued."""
        self._is_closed = True
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None
        if self._edges is not None:
            self._edges.unpark_all()

    async def stopped(self) -> None:
        """Wait until the actor is gone for good. A checkpoint."""
        await self._stopped.wait()

    def statistics(self) -> RefStatistics:
        """Return what the mailbox has seen. Costs nothing between calls."""
        return RefStatistics(
            queued=len(self._queue),
            queued_max=self._queued_max,
            received=self._received,
            batches=self._batches,
            crashes=self._crashes,
            owed=len(self._owed),
            waiting_edges=len(self._edges) if self._edges is not None else 0,
        )


class Mailbox(Ref[M]):
    """The receiving face of a `Ref`, for the supervisor alone."""

    __slots__ = ()

    async def filled(self) -> bool:
        """Wait for messages; False when the mailbox is closed and drained. Always a checkpoint."""
        if self._queue:
            # A busy mailbox yields to its neighbours once a batch.
            await trio.lowlevel.checkpoint()
        elif self._is_closed:
            await trio.lowlevel.checkpoint()
            return False
        else:
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        return bool(self._queue)

    def _abort(self, _raise_cancel: RaiseCancelT) -> Abort:
        self._reader = None
        return Abort.SUCCEEDED

    def queue(self) -> deque[M]:
        """Return the messages themselves, oldest left; always the same object."""
        return self._queue

    def batch_begins(self, count_max: int) -> int:
        """Return how many messages to take now, at most `count_max`."""
        queued = len(self._queue)
        self._queued_max = max(self._queued_max, queued)
        return min(queued, count_max)

    def batch_ended(self, count: int) -> None:
        """Count a flushed batch of `count` messages, and let edges in if there is room again."""
        self._received += count
        self._batches += 1
        # After the flush and not before it, so that its time is part of the back-pressure.
        if self._edges is not None and len(self._queue) <= self._high // 2:
            self._edges.unpark_all()
            self._edges = None

    def crashed(self, error: Exception) -> None:
        """Fail the requests that the dead instance had taken; those still queued stay owed."""
        self._crashes += 1
        queued = {id(message) for message in self._queue}
        self._fail([request for request in self._owed if id(request) not in queued], repr(error))

    def end(self) -> None:
        """Close, drop what is queued, fail all that is owed, wake who waits for the end."""
        self.close()
        self._queue.clear()
        self._fail(list(self._owed), "stopped")
        self._stopped.set()

    def is_drained(self) -> bool:
        """Whether the mailbox is closed and nothing is queued."""
        return self._is_closed and not self._queue

    def _fail(self, requests: list[_Owed], reason: str) -> None:
        for request in requests:
            del self._owed[request]
            request.fail(ActorStopped(f"{self.name}: {reason}"))
