"""Whatever the disk does at a power loss, what was durable is there and nothing is invented.

A driver makes random changes to a few groups as consensus would, keeps a plain model of each
after every change, and dies at a random moment. What recovery finds must be the model at some
change at or after the last one that was promised durable, for all groups alike: the journal is
one sequence. With a barrier taken out of the code the same test must fail.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import trio
import trio.testing

from chaos.simulation.disk import SimulatedDisk
from leveret.storage import (
    AppendFile,
    Disk,
    GroupLog,
    Journal,
    JournalConfig,
    ReadFile,
    Snapshots,
    StorageError,
    reclaim,
    records,
)
from leveret.storage.log import Saved
from leveret.storage.segments import segment_name
from tests.storage.support import command

GROUPS = 3
CONFIG = JournalConfig(segment_bytes=6000, flush_bytes_max=3000, cache_bytes=3000)


@dataclass
class ModelGroup:
    """One group as plain Python sees it."""

    first: int = 1
    entries: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    last: int = 0
    term: int = 0
    voted_for: int | None = None
    commit: int = 0
    live: dict[int, tuple[bytes, int]] = field(default_factory=dict)  # below `first`
    snapshot: int = 0


Model = list[ModelGroup]


def copies(model: Model) -> Model:
    return [replace(one, entries=dict(one.entries), live=dict(one.live)) for one in model]


class Driver:
    """Makes the changes of one life, and remembers the model after each."""

    def __init__(self, rng: random.Random, journal: Journal, disk: Disk, model: Model) -> None:
        self.rng = rng
        self.journal = journal
        self.snapshots = Snapshots(disk)
        self.model = model
        # (number of the last record, model after it)
        self.history: list[tuple[int, Model]] = [(0, copies(model))]
        self.promised = 0
        for number in range(GROUPS):
            journal.log(number).live = lambda number=number: list(self.model[number].live)
        journal.on_durable(self.on_durable)

    def on_durable(self) -> None:
        assert self.journal.durable >= self.promised
        self.promised = self.journal.durable
        self.history = [
            (number, model)
            for at, (number, model) in enumerate(self.history)
            if at + 1 == len(self.history) or self.history[at + 1][0] > self.promised
        ]
        for number in range(GROUPS):
            log = self.journal.log(number)
            assert log.durable_index <= log.last_index

    async def live_on(self) -> None:
        """Change things until killed."""
        while True:
            for _ in range(self.rng.choice([1, 1, 2, 5])):
                self.change(self.rng.randrange(GROUPS))
            if self.rng.random() < 0.6:
                await trio.sleep(self.rng.uniform(0, 0.004))
            if self.rng.random() < 0.1:
                await self.snapshot(self.rng.randrange(GROUPS))
            if self.rng.random() < 0.02:
                await self.install(self.rng.randrange(GROUPS))
            if self.rng.random() < 0.1:
                await reclaim(self.journal, bytes_max=2000)

    def change(self, number: int) -> None:
        log, model = self.journal.log(number), self.model[number]
        draw = self.rng.random()
        if draw < 0.6:
            self.append(log, model)
        elif draw < 0.7 and model.last > max(model.commit, model.first):
            index = self.rng.randint(max(model.commit + 1, model.first), model.last)
            log.truncate_from(index)
            for at in range(index, model.last + 1):
                del model.entries[at]
            model.last = index - 1
            self.remember()
            self.vote(log, model)
        elif draw < 0.8:
            self.vote(log, model)
        elif draw < 0.9:
            model.commit = self.rng.randint(model.commit, model.last)
            log.save_commit(model.commit)
        elif draw < 0.95 and model.live:
            for index in self.rng.sample(sorted(model.live), len(model.live) // 2 + 1):
                del model.live[index]
        self.remember()

    def append(self, log: GroupLog, model: ModelGroup) -> None:
        index, term = model.last + 1, model.term
        body = command(index, term, size=self.rng.choice([20, 100, 700, 2000]))
        log.append(body, index, term)
        model.entries[index] = (body, term)
        model.last = index

    def vote(self, log: GroupLog, model: ModelGroup) -> None:
        model.term += 1
        model.voted_for = self.rng.choice([None, 1, 2, 3])
        log.save_vote(model.term, model.voted_for)

    async def install(self, number: int) -> None:
        """Jump ahead, as when a leader's snapshot replaces the log."""
        log, model = self.journal.log(number), self.model[number]
        base = model.last + self.rng.randint(2, 9)
        fetched = {}
        for index in range(model.last + 1, base):
            # What an install that was cut short had fetched is here already.
            if self.rng.random() < 0.3 and index not in log:
                fetched[index] = (command(index, model.term), model.term)
                log.keep(fetched[index][0], index, model.term)
        await self.snapshots.save(number, base, model.term, model.term, b"installed")
        for index, (body, term) in model.entries.items():
            if index <= model.commit and self.rng.random() < 0.5:
                model.live[index] = (body, term)
        model.live.update(fetched)
        entries = [(command(index, model.term), index, model.term) for index in (base, base + 1)]
        log.reset(entries)
        log.save_commit(base)
        model.entries = {index: (body, term) for body, index, term in entries}
        model.first, model.last, model.commit = base, base + 1, base
        model.snapshot = base
        self.remember()

    def remember(self) -> None:
        self.history.append((self.journal.appended, copies(self.model)))

    async def snapshot(self, number: int) -> None:
        log, model = self.journal.log(number), self.model[number]
        index = model.commit
        if index <= max(model.snapshot, model.first):
            return
        await self.snapshots.save(number, index, log.term_at(index), 0, f"state {index}".encode())
        model = self.model[number]
        if index < model.first:
            return
        model.snapshot = index
        for at in range(model.first, index):
            body = model.entries.pop(at)
            if self.rng.random() < 0.3:
                model.live[at] = body
        model.first = index
        log.trim(index)
        self.remember()


def found_model(journal: Journal) -> Model:
    model = []
    for number in range(GROUPS):
        log = journal.log(number)
        entries = log.entries(log.first_index, log.last_index + 1, bytes_max=1 << 30)
        assert log.durable_index == log.last_index
        model.append(
            ModelGroup(
                first=log.first_index,
                entries={index: (body, term) for body, index, term in entries},
                last=log.last_index,
                term=log.term,
                voted_for=log.voted_for,
                commit=log.commit_index,
            )
        )
    return model


def is_same(journal: Journal, found: Model, wanted: Model) -> bool:
    """Whether recovery found `wanted`; commit indexes may be older, dead entries are ignored."""
    for number, (one, two) in enumerate(zip(found, wanted, strict=True)):
        if (one.first, one.last, one.entries) != (two.first, two.last, two.entries):
            return False
        if (one.term, one.voted_for) != (two.term, two.voted_for) or one.commit > two.commit:
            return False
        log = journal.log(number)
        for index, (body, term) in two.live.items():
            if index not in log or (log.command_at(index), log.term_at(index)) != (body, term):
                return False
    return True


async def lives(seed: int, *, wrap: Callable[[Disk], Disk], count: int = 4) -> None:
    """Live `count` lives on one disk; raise AssertionError when a promise is broken."""
    rng = random.Random(seed)
    disk = SimulatedDisk(rng)
    model: Model = [ModelGroup() for _ in range(GROUPS)]
    history: list[tuple[int, Model]] = [(0, model)]
    promised = 0
    for _ in range(count):
        journal = await Journal.open(wrap(disk), CONFIG)
        found = found_model(journal)
        allowed = [
            then
            for at, (_, then) in enumerate(history)
            if at + 1 == len(history) or history[at + 1][0] > promised
        ]
        matching = [then for then in allowed if is_same(journal, found, then)]
        assert matching, f"seed {seed}: found {found}, promised {allowed[0]}"
        model = copies(matching[-1])
        for number, group in enumerate(model):
            group.commit = found[number].commit
            snapshot = Snapshots(disk).newest(number, log_first_index=group.first)
            if group.snapshot:
                assert snapshot is not None
                assert snapshot.index >= group.snapshot
            group.snapshot = snapshot.index if snapshot is not None else 0
        driver = Driver(rng, journal, wrap(disk), model)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            with trio.move_on_after(rng.choice([0.002, 0.02, 0.1, 0.3])):
                await driver.live_on()
            if rng.random() < 0.2:
                await trio.sleep(2)  # an idle journal writes a mark
            nursery.cancel_scope.cancel()
        history, promised = driver.history, driver.promised
        disk = disk.power_loss() if rng.random() < 0.7 else disk.crash()


def run(seed: int, wrap: Callable[[Disk], Disk] = lambda disk: disk) -> None:
    async def main() -> None:
        await lives(seed, wrap=wrap)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("start", range(0, 40, 10))
def test_what_was_durable_survives_any_power_loss(start: int) -> None:
    for seed in range(start, start + 10):
        run(seed)


# What follows proves that the test above can fail: each takes one precaution out.


class CarelessFile:
    """An append file whose sync only says that it did."""

    def __init__(self, file: AppendFile) -> None:
        self._file = file

    @property
    def size(self) -> int:
        return self._file.size

    def write(self, buffers: Sequence[bytes]) -> None:
        self._file.write(buffers)

    async def sync(self) -> None:
        await trio.sleep(0.001)

    def write_again(self, offset: int, data: bytes) -> None:
        self._file.write_again(offset, data)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def close(self) -> None:
        self._file.close()


class CarelessDisk:
    """A disk that does not sync the files it creates, or those it continues."""

    def __init__(self, disk: Disk, *, forgets_new: bool) -> None:
        self._disk = disk
        self._forgets_new = forgets_new

    def append_file(self, name: str, *, preallocate_bytes: int = 0) -> AppendFile:
        folder, _, base = name.partition("/")
        is_new = base not in self._disk.list(folder)
        file = self._disk.append_file(name, preallocate_bytes=preallocate_bytes)
        return CarelessFile(file) if is_new == self._forgets_new else file

    def read_file(self, name: str) -> ReadFile:
        return self._disk.read_file(name)

    async def write_aside(self, name: str, buffers: Sequence[bytes]) -> None:
        await self._disk.write_aside(name, buffers)

    def list(self, folder: str) -> Sequence[str]:
        return self._disk.list(folder)

    def remove(self, name: str) -> None:
        self._disk.remove(name)

    def rename(self, old: str, new: str) -> None:
        self._disk.rename(old, new)

    def free_bytes(self) -> int:
        return self._disk.free_bytes()

    @property
    def is_short_of_files(self) -> bool:
        return self._disk.is_short_of_files


def assert_found(seeds: int, wrap: Callable[[Disk], Disk] = lambda disk: disk) -> None:
    """Assert that one of the first `seeds` seeds shows something wrong."""
    found = False
    for seed in range(seeds):
        try:
            run(seed, wrap)
        except* (AssertionError, StorageError):
            found = True
        if found:
            return
    pytest.fail(f"nobody noticed in {seeds} seeds")


def test_a_missing_sync_is_found() -> None:
    assert_found(5, lambda disk: CarelessDisk(disk, forgets_new=True))


def test_a_missing_sync_in_recovery_is_found() -> None:
    assert_found(40, lambda disk: CarelessDisk(disk, forgets_new=False))


def test_a_checksum_that_checks_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "xxh3_64_intdigest", lambda _data, _seed=0: 0)

    assert_found(40)


def test_files_removed_before_the_drop_is_durable_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disks: list[Disk] = []

    def remember(disk: Disk) -> Disk:
        disks.append(disk)
        return disk

    async def hasty_drop(journal: Journal, numbers: Sequence[int]) -> None:
        for number in numbers:
            journal.buffer([records.Record(records.Kind.DROP, 0, number, 0)])
            disks[-1].remove(segment_name(number))
            del journal.sealed[number]
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Journal, "drop", hasty_drop)

    assert_found(80, remember)


def test_a_vote_that_is_not_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(log: GroupLog, term: int, voted_for: int | None) -> None:
        log.term, log.voted_for = term, voted_for

    monkeypatch.setattr(GroupLog, "save_vote", forget)

    assert_found(5)


def test_a_head_that_says_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Saved, "records", lambda _saved, _group: [])

    assert_found(20)
