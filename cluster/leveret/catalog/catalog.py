"""The catalog as the node sees it: the applied model, changes through the group, and their news."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, cast

import trio

from leveret.catalog.commands import Command, Done, Event, Refusal, encode
from leveret.catalog.everywhere import Everywhere, Links, Progress
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import Entity, Model
from leveret.consensus import Unknown

E = TypeVar("E", bound=Entity)


class CatalogGroup(Progress, Protocol):
    """What the catalog needs of its Raft group, whose machine is the `CatalogMachine`."""

    def submit(self, command: bytes, done: Callable[[object], None]) -> None:
        """Carry `command` through the log once, then call `done` with this node's reply."""

    def barrier(self, done: Callable[[], None]) -> None:
        """Call `done` when all that was committed before now is applied on this node."""


class CatalogError(Exception):
    """Base of what the facade raises."""


class ChangeRefused(CatalogError):
    """The catalog refused the command; nothing changed. `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.kind}: {refusal.subject} {refusal.name!r}")
        self.refusal = refusal


class CatalogTimeout(CatalogError):
    """No majority answered in time. A change may still happen later: ask before trying again."""


class Catalog:
    """The facade over group 0; everything in it runs on the loop.

    `model` is what this node has applied. It may lag behind the other nodes until `barrier`.
    """

    def __init__(self, group: CatalogGroup, machine: CatalogMachine, links: Links) -> None:
        self.model: Model = machine.model
        self._group = group
        self._machine = machine
        self._listeners: list[Callable[[Event], None]] = []
        self._is_barrier_under_way = False
        self._next_barrier: trio.Event | None = None
        """What those wait for who came while a barrier was under way: they share the next."""
        group.on_applied(self._tell_listeners)
        self._everywhere = Everywhere(group, links)

    def on_change(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with each later event, in order, when the model has the change.

        The model may already hold later changes too. A listener must not raise.
        """
        self._listeners.append(listener)

    def submit(self, command: Command[E], done: Callable[[Done[E] | Refusal], None]) -> None:
        """Send `command`; `done` gets the answer on the loop, after the listeners had the events.

        Commands of this node are carried out in the order of their submission.
        """

        def answer(reply: object) -> None:
            # The group may answer before it tells that the batch was applied. Who submitted must
            # find routers and caches up to date, so the news goes out first.
            self._tell_listeners()
            if isinstance(reply, Unknown):
                # Carried out while this node was away. All commands may be repeated: the second
                # time they change nothing, and say what is there.
                self._group.submit(encoded, answer)
                return
            done(cast("Done[E] | Refusal", reply))

        try:
            encoded = encode(command)
        except UnicodeEncodeError:
            # A name whose bytes are not UTF-8 (clients may send any) has no MessagePack form.
            done(Refusal("malformed", "command", "a name is not UTF-8"))
            return
        self._group.submit(encoded, answer)

    async def change(self, command: Command[E], within_s: float) -> Done[E]:
        """Carry out `command` and return the answer; edges only, a checkpoint.

        On Cancelled, as on a timeout, the change may still happen.

        Raises:
            ChangeRefused: nothing changed.
            CatalogTimeout: no answer within `within_s` seconds.
        """
        replies: list[Done[E] | Refusal] = []
        answered = trio.Event()

        def done(reply: Done[E] | Refusal) -> None:
            replies.append(reply)
            answered.set()

        self.submit(command, done)
        with trio.move_on_after(within_s):
            await answered.wait()
        if not replies:
            raise CatalogTimeout(f"no answer from the catalog within {within_s} s")
        if isinstance(replies[0], Refusal):
            raise ChangeRefused(replies[0])
        return replies[0]

    async def barrier(self, within_s: float) -> None:
        """Wait until the model holds all that was committed before the call; a checkpoint.

        However many wait, at most one barrier is on its way and one is to follow.

        Raises:
            CatalogTimeout: no majority confirmed it within `within_s` seconds.
        """
        if self._is_barrier_under_way:
            # That one may have been committed before something that counts for this call.
            if self._next_barrier is None:
                self._next_barrier = trio.Event()
            passed = self._next_barrier
        else:
            passed = trio.Event()
            self._send_barrier(passed)
        with trio.move_on_after(within_s):
            await passed.wait()
        if not passed.is_set():
            raise CatalogTimeout(f"no majority confirmed the catalog within {within_s} s")

    async def known_everywhere(self) -> None:
        """Wait until the nodes in reach know what this one knows; a checkpoint.

        Not for ever: see `everywhere`.
        """
        await self._everywhere.wait()

    def _send_barrier(self, passed: trio.Event) -> None:
        self._is_barrier_under_way = True

        def done() -> None:
            self._is_barrier_under_way = False
            passed.set()
            following, self._next_barrier = self._next_barrier, None
            if following is not None:
                self._send_barrier(following)

        self._group.barrier(done)

    def _tell_listeners(self) -> None:
        for event in self._machine.take_events():
            for listener in self._listeners:
                listener(event)
