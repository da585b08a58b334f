"""One process at a time in a data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leveret.node.folder import FolderUnusable, hold_folder


def test_a_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0


def test_a_second_holder_hears_who_the_first_is(tmp_path: Path) -> None:
    with (
        hold_folder(tmp_path),
        pytest.raises(FolderUnusable, match=f"in use by process {os.getpid()}"),
        hold_folder(tmp_path),
    ):
        pass


def test_a_folder_is_free_again_after_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with hold_folder(tmp_path):
            pass


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(FolderUnusable, match="cannot be used"), hold_folder(tmp_path / "data"):
        pass
