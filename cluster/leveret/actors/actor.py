"""The two things that users of the kernel write: actors, and requests to them.

An actor is a synchronous state machine with an asynchronous edge. `receive` takes one message,
changes state and queues effects; it cannot await, so nothing interleaves and nothing is locked.
`flush` performs the queued effects once a drained batch, so one wake-up, one fsync or one socket
write is paid a batch and not a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from leveret.actors.ref import Ref

# Contravariant: an actor that takes `Publish | Ack` may stand wherever one for `Ack` is wanted.
M_contra = TypeVar("M_contra", contravariant=True)
R = TypeVar("R")


class Actor(Generic[M_contra]):
    """One owner of some state. Every restart is a new instance, behind the same `Ref`."""

    __slots__ = ("ref",)

    # The actor's own address, set before `start`: for timers, and for partners to answer to.
    ref: Ref[M_contra]

    async def start(self) -> None:
        """Recover state before the first message. An error here counts as a crash."""

    def receive(self, message: M_contra) -> None:
        """Handle one message: change state and queue effects, do not perform them."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Perform what the batch queued. On a graceful stop the last batch is flushed too.

        A crash here or in `receive` loses the batch's effects that were not yet performed: a tell
        is delivered at most once.
        """


class Request(Generic[R]):
    """A message that is owed one answer: at once, or kept until (say) its entry commits.

    The first answer wins, so a crash later in the batch cannot take it back, and an answer to an
    asker that has given up is dropped.
    """

    __slots__ = ("_answered", "_result")

    def __init__(self) -> None:
        self._answered = trio.Event()
        self._result: outcome.Outcome[R] | None = None

    def answer(self, result: outcome.Outcome[R]) -> None:
        """Give the asker a value or an error, whichever `result` holds."""
        if self._result is None:
            self._result = result
            self._answered.set()

    def reply(self, value: R) -> None:
        """Answer with `value`."""
        self.answer(outcome.Value(value))

    def fail(self, error: Exception) -> None:
        """Answer with `error`, which is raised where the request was asked."""
        self.answer(outcome.Error(error))

    async def answered(self) -> R:
        """Wait for the answer and return its value. A checkpoint.

        Raises:
            Exception: whatever the request was failed with.
        """
        await self._answered.wait()
        assert self._result is not None
        return self._result.unwrap()
