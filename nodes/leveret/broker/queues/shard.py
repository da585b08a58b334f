"""A shard on this node: the replicated log and machine that its queues share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from . import machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.catalog.model import Model

    from .state import QueueState


class ReplicatedGroup(Protocol):
    """What a shard needs of its consensus group."""

    @property
    def leader(self) -> int | None:
        """The leading node, if known."""

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, and has applied all that came before its own term."""

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        """Have the command applied once, in order of submission."""

    def entry(self, index: int) -> memoryview:
        """Return the content of log entry `index`, which holds something live."""

    def on_role(self, listener: Callable[[], None]) -> None:
        """Call after each change of leadership."""

    def on_applied(self, listener: Callable[[], None]) -> None:
        """Call once after a batch of entries was applied."""


class Shard:
    """The log of all queues that the catalog placed on one group (a `QueueLog` for each)."""

    def __init__(
        self,
        group: ReplicatedGroup,
        shard_machine: machine.ShardMachine,
        *,
        applied: Callable[[int, list[machine.Effect]], None],
        role_changed: Callable[[Shard], None],
    ) -> None:
        """Serve queues out of `group`, which drives `shard_machine`.

        applied: told the uid and effects of each queue, on the leader only.
        role_changed: told when the group's leader is another one, or known again.
        """
        self._group = group
        self._machine = shard_machine
        self._tell_applied = applied
        self._role_changed = role_changed
        self.reign = 0
        """Grows with each change of the group's role on this node, or of its leader."""
        shard_machine.take_effects()  # of the replay at boot: nobody was there to hear them
        group.on_applied(self._applied)
        group.on_role(self._on_role)

    @property
    def leader(self) -> int | None:
        """The leading node, if known."""
        return self._group.leader

    @property
    def is_leader(self) -> bool:
        """Whether this node serves the shard's queues."""
        return self._group.is_leader

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        """Have `command` applied once, in order of submission."""
        self._group.submit(command, done, is_urgent=is_urgent)

    def state(self, uid: int) -> QueueState | None:
        """Return this node's copy of a queue's state; None before its first message."""
        return self._machine.queues.get(uid)

    @property
    def messages(self) -> int:
        """How many messages its queues hold.  Costs a step a queue."""
        return sum(state.live for state in self._machine.queues.values())

    def read(self, entry: int) -> memoryview:
        """Return the content of log entry `entry`."""
        return self._group.entry(entry)

    def drop(self, uid: int) -> None:
        """Remove a queue that the catalog no longer has; the leader's task."""
        if self.is_leader:
            self.submit(machine.drop(uid), _nothing)

    def sweep(self, model: Model) -> None:
        """Drop what the catalog deleted while this shard had no leader to hear of it."""
        if self.is_leader:
            for uid in list(self._machine.queues):
                # A uid that the local model has not reached yet is a new queue, not an old one.
                if uid < model.uid_next and model.queue_by_uid(uid) is None:
                    self.drop(uid)

    def _on_role(self) -> None:
        self.reign += 1
        self._role_changed(self)

    def _applied(self) -> None:
        effects = self._machine.take_effects()
        if not effects or not self.is_leader:
            return
        by_queue: dict[int, list[machine.Effect]] = {}
        for effect in effects:
            by_queue.setdefault(effect.uid, []).append(effect)
        for uid, of_queue in by_queue.items():
            self._tell_applied(uid, of_queue)


def _nothing(_: object) -> None:
    pass
