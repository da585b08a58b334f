"""A run's folder goes with the run, also when that is ended from outside."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from chaos.workspace import PREFIX, workspace


def test_a_folder_is_gone_at_the_end(tmp_path: Path) -> None:
    with workspace(tmp_path) as work:
        (work / "node-1").mkdir()
        (work / "node-1" / "data").write_text("kept until then")

    assert [] == list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_taken_away_by_the_next_and_what_is_used_is_not(
    tmp_path: Path,
) -> None:
    left = tmp_path / f"{PREFIX}of-a-killed-run"
    left.mkdir()
    others = tmp_path / "of-another-program"
    others.mkdir()
    with workspace(tmp_path) as used, workspace(tmp_path) as work:
        assert {others, used, work} == set(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_is_an_interrupt_that_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)

    with pytest.raises(KeyboardInterrupt), workspace(tmp_path):
        signal.raise_signal(number)

    assert [] == list(tmp_path.iterdir())
    assert before == signal.getsignal(number)


def test_a_signal_to_end_works_in_the_background_of_a_shell_too(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), workspace(tmp_path):
            signal.raise_signal(signal.SIGTERM)
        assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
