"""Processes of a simulated world: who a task belongs to, and tasks that do not run.

Every task of a node carries its process in its context, and what it starts inherits that. So
sockets and disks know whose they are, and a stopped process (SIGSTOP, a long pause of a virtual
machine) can be told from the others: its tasks become runnable, time passes, but none of them runs
until it goes on. That is done in trio's own queue of runnable tasks, see `HoldingQueue`.
"""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio
from trio._core._run import GLOBAL_RUN_CONTEXT

if TYPE_CHECKING:
    from trio._core._run import Task

    from chaos.simulation.network import Socket

HERE: ContextVar[Process] = ContextVar("process")
"""The process that the running task belongs to."""


class Process:
    """One life of a program on a host.

    address: the host's, a loopback address of its own.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.is_dead = False
        self.sockets: dict[Socket, None] = {}
        self.scope = trio.CancelScope()
        self.is_stopped = False
        self._held: list[Task] = []

    def stop(self) -> None:
        """Let none of its tasks run until `resume`, like SIGSTOP."""
        self.is_stopped = True
        _queue().stopped += 1
        _queue().sort_out()

    def resume(self) -> None:
        """Let its tasks run again, like SIGCONT."""
        if self.is_stopped:
            self.is_stopped = False
            _queue().stopped -= 1
            held, self._held = self._held, []
            _queue().extend(held)

    def hold(self, task: Task) -> None:
        """Keep a runnable task until `resume`."""
        self._held.append(task)

    def die(self, *, tell_peers: bool) -> None:
        """End at once: nothing that its tasks still do has an effect outside.

        tell_peers: the operating system lives on and resets the connections.
        """
        self.is_dead = True
        for socket in list(self.sockets):
            socket.orphan(tell_peer=tell_peers)
        self.sockets.clear()
        self.scope.cancel()
        self.resume()


class HoldingQueue(deque["Task"]):
    """Trio's queue of runnable tasks, which gives those of stopped processes to their process."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0
        """How many processes are stopped."""

    def append(self, task: Task, /) -> None:
        """Take a task that has become runnable."""
        if self.stopped:
            process = task.context.get(HERE)
            if process is not None and process.is_stopped:
                process.hold(task)
                return
        super().append(task)

    def sort_out(self) -> None:
        """Take out the tasks of processes that are stopped now."""
        tasks = list(self)
        self.clear()
        for task in tasks:
            self.append(task)


def hold_tasks_of_stopped_processes() -> None:
    """Prepare the present trio run for `Process.stop`."""
    runner = GLOBAL_RUN_CONTEXT.runner
    queue = HoldingQueue()
    queue.extend(runner.runq)
    runner.runq = queue


def _queue() -> HoldingQueue:
    queue = GLOBAL_RUN_CONTEXT.runner.runq
    assert isinstance(queue, HoldingQueue)
    return queue
