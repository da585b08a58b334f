"""The logs of queues that are not replicated: they live on one node, their home.

The queue's actor does not know the difference: a command is applied by the same machine, at once
at home, over the link from elsewhere.  Nothing here survives the home node, by definition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .machine import GONE, Effect, ShardMachine
from .seams import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .state import QueueState

SWEEP_ENTRIES: Final = 256
"""Entries are looked through for dead ones when so many came since, and as many as lived."""
SWEEP_BYTES: Final = 4 << 20
"""Likewise when there may be so many dead bytes, and as many as live: an entry may be large."""


class HomeLog:
    """A transient queue's messages, in the memory of its home node."""

    leader: int
    is_leader = True
    reign = 0

    def __init__(
        self,
        uid: int,
        node: int,
        *,
        applied: Callable[[list[Effect]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self.leader = node
        self._now_ms = now_ms
        self._uid = uid
        self._machine = ShardMachine()
        self._entries: dict[int, bytes] = {}
        self._index = 0
        self.kept_bytes = 0
        """Of all entries: live messages, and what is dead and not swept yet."""
        self._sweep_at = SWEEP_ENTRIES
        self._stuck_bytes = 0
        """What was dead and could not be swept: something else in its entry lived."""
        self._settled_at_sweep = 0
        self._applied = applied

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        """Apply `command` now, urgent or not."""
        del is_urgent
        self._index += 1
        self._entries[self._index] = command
        self.kept_bytes += len(command)
        reply = self._machine.apply(self._index, self._now_ms(), command, 0)
        effects = self._machine.take_effects()
        if len(self._entries) >= self._sweep_at or self._is_sweep_worth_it():
            self._sweep()
        done(reply)
        if effects:
            self._applied(effects)

    def state(self, uid: int) -> QueueState | None:
        """Return the queue's state; None before its first message."""
        return self._machine.queues.get(uid)

    @property
    def messages(self) -> int:
        """How many messages the queue holds."""
        state = self._machine.queues.get(self._uid)
        return 0 if state is None else state.live

    def read(self, entry: int) -> memoryview:
        """Return the command that is entry `entry`."""
        return memoryview(self._entries[entry])

    def _is_sweep_worth_it(self) -> bool:
        """Say whether much is dead, and so much of it new that a look at all that lives pays."""
        state = self._machine.queues.get(self._uid)
        live_bytes, live, settled = 0, 0, 0
        if state is not None:
            live_bytes, live, settled = state.size_bytes, state.live, _settled(state)
        dead_bytes, worth_bytes = self.kept_bytes - live_bytes, live_bytes + SWEEP_BYTES
        return dead_bytes >= worth_bytes and (
            dead_bytes - self._stuck_bytes >= worth_bytes
            or settled - self._settled_at_sweep >= max(live, 1)
        )

    def _sweep(self) -> None:
        live = self._machine.live_entries()
        self._entries = {index: self._entries[index] for index in live}
        self.kept_bytes = sum(map(len, self._entries.values()))
        self._sweep_at = 2 * len(live) + SWEEP_ENTRIES
        state = self._machine.queues.get(self._uid)
        self._stuck_bytes = self.kept_bytes - (0 if state is None else state.size_bytes)
        self._settled_at_sweep = 0 if state is None else _settled(state)


def _settled(state: QueueState) -> int:
    return state.next - 1 - state.live


class AwayLog:
    """The face of a `HomeLog` on the other nodes."""

    is_leader = False
    reign = 0

    def __init__(
        self, home: int, send: Callable[[int, tuple[object, ...]], bool], *, is_up: bool
    ) -> None:
        self.home = home
        self._send = send
        self._waiting: dict[int, Callable[[object], None]] = {}
        self._number = 0
        self.leader: int | None = home if is_up else None

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        """Have the home node apply `command`; answer `UNREACHABLE` if its link is down."""
        del is_urgent
        self._number += 1
        self._waiting[self._number] = done
        if not self._send(self.home, ("apply", self._number, command)):
            del self._waiting[self._number]
            done(UNREACHABLE)

    def answered(self, number: int, reply: object) -> None:
        """Take the home node's reply to command `number`."""
        done = self._waiting.pop(number, None)
        if done is not None:
            done(reply)

    def link_changed(self, *, is_up: bool) -> None:
        """Note that the home node's link is there or not; what was under way is lost with it."""
        self.leader = self.home if is_up else None
        self._answer_all(UNREACHABLE)

    def dropped(self) -> None:
        """Note that the queue was deleted: no reply will find its way here any more."""
        self._answer_all(GONE)

    def _answer_all(self, reply: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(reply)

    def state(self, uid: int) -> QueueState | None:
        """There is no copy here."""
        del uid
        return None

    def read(self, entry: int) -> memoryview:
        """Only the home node hands messages out, so this is not called."""
        message = f"entry {entry} is on node {self.home}"
        raise LookupError(message)
