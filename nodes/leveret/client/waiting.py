"""How a trio task waits for an outcome of the core: without events, locks or cancel scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from .core.outcome import Outcome
from .errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from outcome import Error

T = TypeVar("T")


async def wait_for(outcome: Outcome[T], abandon: Callable[[], None] | None = None) -> T:
    """The value of `outcome`, when it is done; several tasks may wait for it. A checkpoint.

    abandon: called if the wait is cancelled; the outcome then matters to nobody.

    Raises:
        ClientError: the outcome failed.
    """
    if outcome.is_done:
        await trio.lowlevel.checkpoint()
        return outcome.result()
    try:
        task = trio.lowlevel.current_task()
    except RuntimeError:
        raise misused() from None

    others = outcome.notify
    is_waiting = True

    def wake(done: Outcome[T]) -> None:
        if is_waiting:
            trio.lowlevel.reschedule(task)
        if others is not None:
            others(done)

    def abort(_: Callable[[], Error]) -> trio.lowlevel.Abort:
        nonlocal is_waiting
        is_waiting = False
        if outcome.notify is wake:
            outcome.notify = others
        if abandon is not None:
            abandon()
        return trio.lowlevel.Abort.SUCCEEDED

    outcome.notify = wake
    await trio.lowlevel.wait_task_rescheduled(abort)
    return outcome.result()


class Parking:
    """Where one task waits to be woken; waking it when it does not wait is nothing."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    @property
    def is_taken(self) -> bool:
        """Whether a task waits here."""
        return self._task is not None

    def wake(self) -> None:
        """Have the waiting task go on, if there is one."""
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """Wait until woken. A checkpoint."""
        assert self._task is None
        self._task = trio.lowlevel.current_task()

        def abort(_: Callable[[], Error]) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


def misused() -> Misuse:
    """The error for a call from a thread where the connection does not live."""
    return Misuse(
        "a connection belongs to the thread and trio.run() that opened it: from another thread "
        "use trio.from_thread.run(), or leveret.client.blocking, which is made for threads"
    )
