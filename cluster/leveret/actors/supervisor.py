"""Run loops, restarts and the order of stopping.

One for one: the crashed child alone is built anew, behind the same `Ref`. More than `CRASHES_MAX`
crashes of its children within `CRASH_PERIOD_S` make a supervisor give up: the last error leaves
its nursery, trio cancels the siblings, and the supervisor around it sees one crash.

Only this module catches `Exception`: any error that leaves an actor is a mistake in its program.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Never, TypeVar

import trio

from leveret.actors.probe import Probe
from leveret.actors.ref import ActorStopped, Mailbox, Ref

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from leveret.actors.actor import Actor

# Messages between two flushes, which bounds the wait of a ready neighbour: about 1 ms at 4 µs each.
BATCH_MAX: Final = 256

# Crashes of all children of one supervisor that are mended within the period; one more escalates.
CRASHES_MAX: Final = 3
CRASH_PERIOD_S: Final = 5.0

M = TypeVar("M")

log = logging.getLogger(__name__)


class Supervisor:
    """A place in the supervision tree. Made by `supervise` only."""

    def __init__(self, nursery: trio.Nursery, probe: Probe) -> None:
        self._nursery = nursery
        self._probe = probe
        self._children: dict[Ref[Never], None] = {}  # in order of birth
        self._crash_times_s: deque[float] = deque(maxlen=CRASHES_MAX + 1)
        self._is_stopping = False

    def spawn(
        self,
        make: Callable[[], Actor[M]],
        name: str,
        *,
        high: int = 4_096,
        limit: int = 65_536,
    ) -> Ref[M]:
        """Start an actor and return its address; messages may be told at once.

        make: builds an instance, now and after each crash.
        high: queued messages above which `Ref.room` waits.
        limit: queued messages at which `Ref.tell` raises.

        Raises:
            ActorStopped: the supervisor is stopping.
        """
        if self._is_stopping:
            raise ActorStopped(f"{name}: its supervisor is stopping")
        mailbox: Mailbox[M] = Mailbox(name, high=high, limit=limit)
        self._children[mailbox] = None
        self._nursery.start_soon(self._keep, mailbox, make, name=name)
        return mailbox

    async def stop(self, *, within_s: float) -> None:
        """Stop all children, youngest first: close, drain, flush, and on to the next older.

        What is left after `within_s` seconds is cancelled. A child must not call this: it would
        wait for itself.
        """
        self._is_stopping = True
        with trio.move_on_after(within_s) as deadline:
            for ref in reversed(self._children.copy()):
                ref.close()
                await ref.stopped()
        if deadline.cancelled_caught:
            log.warning(
                "actors cancelled at the deadline of their stop",
                extra={"actors": [ref.name for ref in self._children], "within_s": within_s},
            )
        self._nursery.cancel_scope.cancel()

    async def _keep(self, mailbox: Mailbox[M], make: Callable[[], Actor[M]]) -> None:
        """Run instance after instance of one actor until it is stopped or given up."""
        try:
            while True:
                try:
                    await self._run(mailbox, make)
                except Exception as error:
                    if self._is_over(mailbox, error):
                        raise
                    if not mailbox.is_drained():
                        continue
                return
        finally:
            mailbox.end()
            del self._children[mailbox]
            self._probe.stopped(mailbox)

    async def _run(self, mailbox: Mailbox[M], make: Callable[[], Actor[M]]) -> None:
        """Run one instance until its mailbox is closed and drained, or it crashes."""
        actor = make()
        actor.ref = mailbox
        await actor.start()
        self._probe.started(mailbox)
        receive, flush, take = actor.receive, actor.flush, mailbox.queue().popleft
        now_s, batch = trio.current_time, self._probe.batch
        # Two looks at the clock are a tenth of a batch of 16: not taken where nobody is told.
        is_probed = type(self._probe).batch is not Probe.batch
        began_s = 0.0
        while await mailbox.filled():
            count = mailbox.batch_begins(BATCH_MAX)
            if is_probed:
                began_s = now_s()
            for _ in range(count):
                receive(take())
            await flush()
            mailbox.batch_ended(count)
            if is_probed:
                batch(mailbox, count, now_s() - began_s)

    def _is_over(self, mailbox: Mailbox[M], error: Exception) -> bool:
        """Note a crash, and tell whether it was one too many."""
        now_s = trio.current_time()
        times_s = self._crash_times_s
        times_s.append(now_s)
        is_over = len(times_s) > CRASHES_MAX and now_s - times_s[0] < CRASH_PERIOD_S
        mailbox.crashed(error)
        seen = mailbox.statistics()
        log.error(
            "actor crashed",
            exc_info=error,
            extra={
                "actor": mailbox.name,
                "crashes": seen.crashes,
                "received": seen.received,
                "queued": seen.queued,
                "action": "escalate" if is_over else "restart",
            },
        )
        if is_over:
            error.add_note(
                f"supervisor gave up on {mailbox.name}: {len(times_s)} crashes of its children "
                f"in {now_s - times_s[0]:.3g} s"
            )
        self._probe.crashed(mailbox, error)
        return is_over


@asynccontextmanager
async def supervise(
    probe: Probe | None = None, *, stop_within_s: float = 5.0
) -> AsyncGenerator[Supervisor, None]:
    """Open a supervisor; nest them for a tree. Leaving the block stops it gracefully.

    Raises:
        ExceptionGroup: a child crashed too often; it holds the last error.
    """
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, probe or Probe())
        yield supervisor
        await supervisor.stop(within_s=stop_within_s)
