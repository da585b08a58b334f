"""Seeds of the simulator, and mutants that it must find."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from chaos.simulation.raft import SimulationFailed, run_seed
from leveret.consensus.guard import Guard
from tests.consensus.test_beats import ConfirmsAlone
from tests.consensus.test_guard import SendsBeforeDurable


class Unguarded(Guard):
    """The core's own way to send and to receive entries (hole H1)."""

    def _position(self, follower: object, previous: int) -> int:
        return previous

    def _is_fresh(self, message: object, follower: object) -> bool:
        return True

    def _without_known(
        self, previous: int, previous_term: int, entries: list[tuple[bytes, int, int]]
    ) -> None:
        return None


SEEDS = 250
CHUNK = 10
FAULTS_S = 5.0


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_promise_is_broken_under_faults(first: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    total = Counter[str]()
    for seed in range(first, first + CHUNK):
        counts = run_seed(seed, faults_s=FAULTS_S)
        assert counts["answered"] > 100, seed
        assert counts["terms"] >= 2, seed
        assert counts["reads"] > 20, seed
        total += counts

    # The faults are not so hard that nothing is left to see.
    assert total["wipes"] + total["added"] + total["removed"]
    assert total["installs"]


def test_a_seed_gives_the_same_run_twice() -> None:
    assert run_seed(7, faults_s=3.0) == run_seed(7, faults_s=3.0)


@pytest.mark.parametrize(
    ("mutant", "known"), [(SendsBeforeDurable, 104), (Unguarded, 0), (ConfirmsAlone, 22)]
)
def test_the_simulator_finds_a_missing_guard(
    mutant: type[Guard], known: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Every twentieth seed or so finds it; which ones, changes with any change of the product."""
    caplog.set_level(logging.CRITICAL + 1)
    found = 0
    for seed in (known, *range(120)):
        try:
            run_seed(seed, guard=mutant, faults_s=5.0)
        except SimulationFailed:
            found += 1
            break

    assert found
