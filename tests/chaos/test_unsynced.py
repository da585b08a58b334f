"""A disk that loses its power keeps what was synced, and of the rest what chance leaves."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from chaos.unsynced import Changes, Named, inode_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


class Disk:
    """Changes a folder as the file system does, and tells `Changes` before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.changes = Changes(root)

    def create(self, name: str) -> None:
        path = self.root / name
        path.touch()
        self.changes.names.append(Named(str(self.root), "made", str(path)))
        self.changes.paths[inode_of(str(path))] = str(path)

    def write(self, name: str, data: bytes) -> None:
        """Append."""
        path = self.root / name
        offset = path.stat().st_size
        self.changes.before(inode_of(str(path)), offset, data, len(data))
        with path.open("ab") as file:
            file.write(data)

    def unlink(self, name: str) -> None:
        path = str(self.root / name)
        kept = self.changes.keep(path)
        self.changes.names.append(Named(str(self.root), "gone", path, kept=kept))
        (self.root / name).unlink()

    def rename(self, name: str, to: str) -> None:
        path, target = str(self.root / name), str(self.root / to)
        kept = self.changes.keep(target)
        self.changes.names.append(Named(str(self.root), "moved", path, target, kept))
        (self.root / name).rename(target)
        self.changes.moved(path, target)

    def sync(self, name: str) -> None:
        self.changes.synced(inode_of(str(self.root / name)))

    def sync_folder(self) -> None:
        self.changes.synced_folder(str(self.root), used=())

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.root.iterdir()}


@pytest.mark.parametrize("seed", range(20))
def test_what_was_synced_stays_and_the_rest_is_a_torn_part_of_what_was_written(
    seed: int, root: Path
) -> None:
    disk = Disk(root)
    disk.create("log")
    disk.write("log", b"a" * 700)
    disk.sync("log")
    disk.sync_folder()
    for letter in b"bcdef":
        disk.write("log", bytes([letter]) * 600)

    disk.changes.cut(Random(seed))

    data = disk.files()["log"]
    assert data.startswith(b"a" * 700)
    written = b"a" * 700 + b"".join(bytes([letter]) * 600 for letter in b"bcdef")
    assert len(data) <= len(written)
    # What is missing in the middle reads as zeros.
    assert all(mine in {0, its} for mine, its in zip(data, written, strict=False))


def test_chance_leaves_all_or_nothing_or_a_part(root: Path) -> None:
    sizes = set()
    for seed in range(40):
        disk = Disk(root)
        disk.create("log")
        disk.sync_folder()
        disk.write("log", b"b" * 1000)
        disk.write("log", b"c" * 1000)
        disk.changes.cut(Random(seed))
        sizes.add(len(disk.files()["log"]))
        (root / "log").unlink()

    assert {0, 2000} < sizes


def test_a_name_is_lost_unless_its_folder_was_synced(root: Path) -> None:
    left = set()
    for seed in range(20):
        disk = Disk(root)
        disk.create("new")
        disk.sync("new")
        disk.changes.cut(Random(seed))
        left.add("new" in disk.files())
        (root / "new").unlink(missing_ok=True)

    assert {True, False} == left


@pytest.mark.parametrize("seed", range(10))
def test_a_file_that_replaced_another_is_the_old_or_the_new_one(seed: int, root: Path) -> None:
    disk = Disk(root)
    disk.create("state")
    disk.write("state", b"old")
    disk.sync("state")
    disk.sync_folder()
    disk.create("state.new")
    disk.write("state.new", b"new")
    disk.sync("state.new")
    disk.rename("state.new", "state")

    disk.changes.cut(Random(seed))

    assert disk.files()["state"] in {b"old", b"new"}
    assert disk.files().get("state.new", b"new") == b"new"


@pytest.mark.parametrize("seed", range(10))
def test_a_removed_file_may_come_back_whole_until_its_folder_was_synced(
    seed: int, root: Path
) -> None:
    disk = Disk(root)
    disk.create("segment")
    disk.write("segment", b"data")
    disk.sync("segment")
    disk.sync_folder()
    disk.unlink("segment")

    disk.changes.cut(Random(seed))
    assert disk.files() in ({}, {"segment": b"data"})

    if disk.files():
        disk.unlink("segment")
    disk.sync_folder()
    disk.changes.cut(Random(seed))
    assert {} == disk.files()


def test_a_truncation_that_was_not_synced_is_taken_back(root: Path) -> None:
    sizes = set()
    for seed in range(20):
        disk = Disk(root)
        disk.create("log")
        disk.write("log", b"x" * 100)
        disk.sync("log")
        disk.sync_folder()
        disk.changes.before(inode_of(str(root / "log")), 40, None, 60)
        os.truncate(root / "log", 40)
        disk.changes.cut(Random(seed))
        assert disk.files()["log"] in {b"x" * 40, b"x" * 100}
        sizes.add(len(disk.files()["log"]))
        (root / "log").unlink()

    assert {40, 100} == sizes
