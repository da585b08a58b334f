"""Whatever happens to a node's files: it finds what was written, or refuses them in words.

An entry that is read is the one that was written; what is gone is the end of the log, as after a
write that was torn, or the node does not start.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from chaos.simulation.disk import SimulatedDisk
from leveret.storage import Disk, Journal, JournalConfig
from leveret.storage.errors import CorruptJournal, CorruptSnapshot
from leveret.storage.segments import FOLDER
from leveret.storage.snapshots import FOLDER as SNAPSHOTS
from leveret.storage.snapshots import Snapshots
from tests.fuzz.search import LASTING
from tests.storage.support import command, new_disk, running, settle

CONFIG = JournalConfig(segment_bytes=8192, flush_bytes_max=4096, cache_bytes=0)
WHOLE_FILE = 1 << 20
GROUPS = (1, 2)
ENTRIES = 60
STATE = b"state " * 400
Files = dict[str, bytes]


CUT_AT = 28
"""From here on the entries were written twice, the second time in term 2."""


@functools.cache
def journal_files() -> Files:
    """Return the files of a journal of two groups in several segments."""

    async def main() -> Files:
        disk = new_disk()
        async with running(disk, CONFIG) as journal:
            for index in range(1, 31):
                await _append(journal, index, 1)
            for number in GROUPS:
                journal.log(number).save_vote(2, 1)
                journal.log(number).truncate_from(CUT_AT)
            for index in range(CUT_AT, ENTRIES + 1):
                await _append(journal, index, 2)
        return _contents(disk.crash(), FOLDER)

    return trio.run(main, clock=MockClock(autojump_threshold=0))


async def _append(journal: Journal, index: int, term: int) -> None:
    for number in GROUPS:
        journal.log(number).append(command(index, term), index, term)
    if index % 3 == 0:
        await settle(journal)


@functools.cache
def snapshot_files() -> Files:
    """Return the file of a snapshot of group 1 up to entry 7."""

    async def main() -> Files:
        disk = new_disk()
        await Snapshots(disk).save(1, 7, 3, 2, STATE)
        return _contents(disk.crash(), SNAPSHOTS)

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def _contents(disk: Disk, folder: str) -> Files:
    names = [f"{folder}/{name}" for name in disk.list(folder)]
    return {name: disk.read_file(name).read(0, WHOLE_FILE) for name in names}


async def disk_with(files: Files) -> SimulatedDisk:
    disk = new_disk()
    for name, octets in files.items():
        await disk.write_aside(name, [octets])
    return disk.crash()


class Damage(NamedTuple):
    """What is done to one of the files; places and other files are counted around."""

    kind: str
    file: int
    at: int
    size: int
    octets: bytes


DAMAGES = st.lists(
    st.builds(
        Damage,
        st.sampled_from(["bit", "octets", "cut", "hole", "gap", "twice", "gone", "copied"]),
        st.integers(0, 9),
        st.integers(0, 20_000),
        st.integers(1, 300) | st.integers(1, 8192),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=3,
)


def damaged(whole: Files, damages: list[Damage]) -> Files:
    files = dict(whole)
    for kind, file, place, size, new in damages:
        if not files:
            break
        names = sorted(files)
        name = names[file % len(names)]
        octets = bytearray(files[name])
        at = place % (len(octets) + 1)
        match kind:
            case "bit" if at < len(octets):
                octets[at] ^= 1 << size % 8
            case "octets":
                octets[at : at + len(new)] = new
            case "cut":
                del octets[at:]
            case "hole":
                octets[at : at + size] = bytes(min(size, len(octets) - at))
            case "gap":
                del octets[at : at + size]
            case "twice":
                octets[at:at] = octets[at : at + size]
            case "gone":
                del files[name]
                continue
            case "copied":
                octets[:] = files[names[size % len(names)]]
        files[name] = bytes(octets)
    return files


@LASTING
@given(DAMAGES)
def test_a_damaged_journal_has_what_was_written_or_is_refused(damages: list[Damage]) -> None:
    files = damaged(journal_files(), damages)

    async def main() -> None:
        try:
            journal = await Journal.open(await disk_with(files), CONFIG)
        except CorruptJournal as refused:
            assert refused.file in journal_files()  # noqa: PT017 - it may be accepted, too
            return
        for log in journal.logs:
            assert log.number in GROUPS
            assert log.first_index == 1
            assert log.last_index <= ENTRIES
            for index in range(1, log.last_index + 1):
                term = log.term_at(index)
                assert term in ((1,) if index < CUT_AT else (1, 2))
                assert command(index, term) == log.command_at(index)
        journal.close()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@LASTING
@given(DAMAGES, st.integers(1, 9))
def test_a_damaged_snapshot_is_whole_or_not_taken(
    damages: list[Damage], log_first_index: int
) -> None:
    files = damaged(snapshot_files(), damages)

    async def main() -> None:
        snapshots = Snapshots(await disk_with(files))
        try:
            found = snapshots.newest(1, log_first_index=log_first_index)
        except CorruptSnapshot:
            return
        assert found is None or (7, 3, 2, STATE) == (
            found.index,
            found.term,
            found.prev_term,
            found.state,
        )

    trio.run(main, clock=MockClock(autojump_threshold=0))
