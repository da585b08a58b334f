"""One process of the consensus simulator: real groups, driven by hand, on a disk in memory.

A group is an actor; here its mailbox is a list, and the simulator decides when a batch is taken and
how long a snapshot takes to be saved. While it is, the group stands still in the midst of `flush`,
as it would on trio, and a crash may come.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Coroutine, Generator, Iterable
from dataclasses import dataclass, field
from types import coroutine
from typing import TYPE_CHECKING, cast

import msgpack

from chaos.simulation.memory_journal import Change, MemoryJournal
from leveret.actors import Ref
from leveret.consensus import EngineConfig, Group, GroupConfig, SnapshotMark
from leveret.consensus.mail import TICK, GroupMessage, LinkChanged, Received
from leveret.consensus.messages import Beat, Heard, Message
from leveret.storage import Snapshot
from leveret.transport import NodeId

if TYPE_CHECKING:
    from chaos.simulation.raft import World

CONFIG = GroupConfig(
    engine=EngineConfig(append_bytes_max=400, in_flight_bytes_max=4000),
    snapshot_entries=1 << 60,  # the world says when
)
SYNCS_S = (0.0005, 0.002, 0.01, 0.05)
SLOW_SYNCS_S = (0.05, 0.3, 0.8)
SAVES_S = (0.001, 0.02, 0.3)
LIVE_MAX = 30


class SimulationFailed(Exception):
    """A promise was broken; the text says which."""


@dataclass
class Folder:
    """What a disk holds.

    is_lost: nobody will ever read it again.
    """

    incarnation: int
    changes: list[Change] = field(default_factory=list)
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    is_lost: bool = False

    def keep(self, snapshot: Snapshot) -> None:
        """Save a snapshot; the newest one counts."""
        known = self.snapshots.get(snapshot.group)
        if known is None or known.index < snapshot.index:
            self.snapshots[snapshot.group] = snapshot


@coroutine
def _pause() -> Generator[None]:
    """Let the simulator go on; the group stands still until it is resumed."""
    yield


class _Store:
    """The snapshots of one group."""

    def __init__(self, folder: Folder, number: int, rng: random.Random) -> None:
        self._folder, self._number, self._rng = folder, number, rng

    def newest(self) -> Snapshot | None:
        return self._folder.snapshots.get(self._number)

    async def save(self, mark: SnapshotMark, state: bytes) -> bool:
        await _pause()
        if self._rng.random() < 0.05:
            return False
        self._folder.keep(Snapshot(self._number, mark.index, mark.term, mark.previous_term, state))
        return True


class Book:
    """A machine that compares each command with what the others applied at the same place.

    count: commands applied so far. live: of some of these, where they lie.
    """

    def __init__(self, world: World, node: NodeId, number: int) -> None:
        self._world, self._node, self._number = world, node, number
        self.count = 0
        self.live: dict[int, tuple[int, int, bytes]] = {}

    def apply(self, index: int, stamp_ms: int, command: bytes, offset: int) -> object:
        self._world.applied(self._node, self._number, self.count, (index, stamp_ms, command))
        self.live[self.count] = index, offset, command
        self.count += 1
        # Some are settled, in an order of their own.
        while len(self.live) > LIVE_MAX or (self.live and sum(command) % 7 < 3):
            places = list(self.live)
            del self.live[places[sum(command) % len(places)]]
            if len(self.live) <= LIVE_MAX:
                break
        return self.count

    def snapshot(self) -> bytes:
        return bytes(msgpack.packb([self.count, list(self.live.items())]))

    def restore(self, state: bytes) -> None:
        self.count, live = msgpack.unpackb(state)
        self.live = {place: tuple(where) for place, where in live}
        self._world.restored(self._node, self._number, self.count)

    def live_entries(self) -> Iterable[int]:
        return sorted({index for index, _, _ in self.live.values()})


class _Mailbox:
    """A group's mailbox; `leveret.actors.Ref` as far as groups use it."""

    def __init__(self) -> None:
        self.queue: deque[GroupMessage] = deque()

    @property
    def queued(self) -> int:
        return len(self.queue)

    def tell(self, message: GroupMessage) -> None:
        self.queue.append(message)


class Member:
    """One process on a folder.

    is_slow: its disk takes long to sync, so that a crash loses much.
    desired: the members as its catalog knows them, perhaps of a while ago.
    """

    def __init__(self, world: World, node: NodeId, boot: int, folder: Folder) -> None:
        self.world, self.node, self.folder = world, node, folder
        self.is_alive = True
        self.is_slow = False
        self.desired = world.desired_once(node)
        self.journal = MemoryJournal(folder.changes)
        self.books = [Book(world, node, number) for number in range(world.groups)]
        self._boxes = [_Mailbox() for _ in self.books]
        self._flushing: dict[int, Coroutine[object, None, None]] = {}
        self.groups = [
            Group(
                number,
                node=node,
                incarnation=folder.incarnation,
                desired=lambda: self.desired,
                boot=boot,
                log=self.journal.log(number),
                durability=self.journal,
                snapshots=_Store(folder, number, world.rng),
                machine=book,
                send=lambda peer, group, message: world.transmit(self, peer, group, message),
                is_congested=lambda _: False,
                now_s=lambda: world.now_s,
                wall_clock_ms=lambda: int(world.now_s * 1000) + 5 * node,
                rng=random.Random(f"{world.seed}/{node}/{boot}/{number}"),
                config=CONFIG,
                guard=world.guard,
            )
            for number, book in enumerate(self.books)
        ]
        for group, box in zip(self.groups, self._boxes, strict=True):
            group.ref = cast("Ref[GroupMessage]", box)
            _run(group.start())

    def found(self) -> None:
        """Begin the history of all groups."""
        for group in self.groups:
            group.found()
        self.work()

    def die(self) -> None:
        """End at once, in the midst of whatever is under way."""
        self.is_alive = False
        for task in self._flushing.values():
            task.close()
        self._flushing.clear()

    # Its work.

    def tell(self, number: int, message: GroupMessage) -> None:
        self._boxes[number].tell(message)

    def hear(self, number: int, sender: NodeId, message: Message) -> None:
        if isinstance(message, Beat | Heard):
            self.groups[number].hear(sender, message)
        else:
            self.tell(number, Received(sender, message))

    def read(self, number: int, count: int) -> None:
        """Read, when so many commands had been applied somewhere."""
        book = self.books[number]

        def look() -> None:
            self.world.counts["reads"] += 1
            if book.count < count:
                raise SimulationFailed(
                    f"{self.node} reads {book.count} of {count} commands of group {number}"
                )

        self.groups[number].barrier(look)
        self.work()

    def link_changed(self, peer: NodeId, incarnation: int | None) -> None:
        """A link is up, to a folder of this incarnation; or down."""
        is_up = incarnation is not None
        for box in self._boxes:
            box.tell(LinkChanged(peer, is_up=is_up, incarnation=incarnation or 0))

    def work(self) -> None:
        """Let all groups do what they can, and the disk begin to sync."""
        for number in range(len(self.groups)):
            self._work_on(number)
        changes_max = self.world.rng.randrange(1, 20) if self.is_slow else None
        if self.is_alive and self.journal.begin_sync(changes_max):
            delays = SLOW_SYNCS_S if self.is_slow else SYNCS_S
            self.world.after(self.world.rng.choice(delays), self._synced)

    def _work_on(self, number: int) -> None:
        group, queue = self.groups[number], self._boxes[number].queue
        while queue and number not in self._flushing:
            while queue:
                group.receive(queue.popleft())
            self._go_on(number, group.flush())
            if group.leader == self.node:
                self.world.leads(self, number, group.term)

    def _go_on(self, number: int, task: Coroutine[object, None, None]) -> None:
        if _run(task):
            self._flushing.pop(number, None)
            return
        self._flushing[number] = task

        def resume() -> None:
            if self.is_alive and self._flushing.get(number) is task:
                self._go_on(number, task)
                self.work()

        self.world.after(self.world.rng.choice(SAVES_S), resume)

    def _synced(self) -> None:
        if not self.is_alive:
            return
        self.journal.end_sync()
        for group in self.groups:
            group.became_durable()
        self.work()

    def tick(self) -> None:
        if not self.is_alive:
            return
        for number, group in enumerate(self.groups):
            if not group.beat(self.desired):
                self.tell(number, TICK)
        # Now and then the loop is late, and two ticks are in one batch.
        if self.world.rng.random() < 0.95:
            self.work()
        self.world.after(self.world.rng.choice((0.02, 0.05, 0.05, 0.08)), self.tick)

    def snapshot(self, number: int) -> None:
        """Save a snapshot of what is applied, and mostly let the log be trimmed then."""
        group = self.groups[number]
        taken = group.take_snapshot()
        if taken is None:
            return
        mark, state = taken

        def saved() -> None:
            if self.is_alive:
                self.folder.keep(Snapshot(number, mark.index, mark.term, mark.previous_term, state))
                group.snapshot_saved(mark)
                self.world.counts["snapshots"] += 1
                self.work()

        self.world.after(self.world.rng.choice(SAVES_S), saved)

    def reclaim(self, number: int) -> None:
        """Forget entries that are trimmed and settled, as `storage.reclaim` does."""
        log = self.journal.log(number)
        log.join_fetched()
        if log.live is not None:
            live = frozenset(log.live())
            older = log.table.indexes[: bisect_left(log.table.indexes, log.first_index)]
            log.table.select([index in live for index in older])

    def check_bodies(self) -> None:
        """See that what lives can be read.

        Raises:
            SimulationFailed: it cannot.
        """
        for number, (group, book) in enumerate(zip(self.groups, self.books, strict=True)):
            for index, offset, command in book.live.values():
                try:
                    body = bytes(group.entry(index)[offset : offset + len(command)])
                except LookupError as error:
                    raise SimulationFailed(
                        f"{self.node} lost live entry {index} of group {number}"
                    ) from error
                if body != command:
                    raise SimulationFailed(f"{self.node} has another entry {index} of {number}")


def _run(task: Coroutine[object, None, None]) -> bool:
    """Run until it pauses; whether it has ended."""
    try:
        task.send(None)
    except StopIteration:
        return True
    return False
