"""A cluster of real processes keeps its promises while they are killed, stopped and wiped.

Only what a busy machine cannot change is judged strictly: nothing lost, doubled, out of order.
The seed has the same faults each time; `python -m chaos run` draws others, and more kinds.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.plan import steps_of_json

ROOT = Path(__file__).parents[2]
SEED = 3


def chaos(*arguments: str) -> tuple[int, str]:
    """Run the command in a process of its own; return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    print(done.stdout)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    below = tmp_path_factory.mktemp("kept")
    code, text = chaos("run", "--profile", "short", "--seed", str(SEED), "--keep", str(below))
    [folder] = below.iterdir()
    return code, text, folder


def test_nothing_is_lost_doubled_or_out_of_order_under_faults(
    played: tuple[int, str, Path],
) -> None:
    code, text, folder = played
    last = text.splitlines()[-1]

    assert last.startswith(f"PASS seed={SEED} "), (folder / "verdict.txt").read_text()
    assert 0 == code
    assert "lost=0 phantom=0 dup=0+" in last
    found = re.search(r"faults=(\d+) confirmed=([\d,]+)", last)
    assert found is not None
    assert int(found[1]) >= 3
    assert int(found[2].replace(",", "")) > 200


def test_a_run_is_kept_so_that_it_can_be_judged_and_done_again(
    played: tuple[int, str, Path],
) -> None:
    _, text, folder = played
    before = (folder / "verdict.txt").read_text()

    code, again = chaos("check", str(folder))

    assert 0 == code
    assert text.splitlines()[-1] == again.splitlines()[-1]
    assert before == (folder / "verdict.txt").read_text()
    assert {"run.json", "history.jsonl.gz", "timeline.svg", "report.html", "node-1.log"} <= {
        path.name for path in folder.iterdir()
    }
    saved = json.loads((folder / "run.json").read_text())
    assert SEED == saved["seed"]
    assert [] == saved["failures"]
    assert steps_of_json(saved["steps"])


def test_a_folder_of_something_else_is_refused_in_words(tmp_path: Path) -> None:
    code, text = chaos("check", str(tmp_path))

    assert 1 == code
    assert "is not the folder of a run" in text
    assert "Traceback" not in text


def test_a_kind_of_fault_that_is_not_known_is_refused_with_those_that_are() -> None:
    code, text = chaos("run", "--faults", "kill,earthquake")

    assert 2 == code
    assert "earthquake: there are kill, " in text


def test_of_rabbitmq_faults_of_processes_alone_can_be_drawn() -> None:
    code, text = chaos("run", "--broker", "rabbitmq", "--faults", "wipe,partition")

    assert 2 == code
    assert "of RabbitMQ there are kill, " in text


def test_a_mistake_in_the_nodes_fails_the_run_and_all_is_kept(tmp_path: Path) -> None:
    """Acknowledgements that do not reach the log are seen when all nodes start anew."""
    code, text = chaos(
        *("run", "--profile", "short", "--seconds", "5", "--seed", "1", "--faults", "stop"),
        *("--mistake", "settled-beside-the-log", "--keep", str(tmp_path)),
    )
    [folder] = tmp_path.iterdir()

    assert 1 == code
    assert text.splitlines()[-1].startswith("FAIL seed=1 ")
    assert "resurrected: " in (folder / "verdict.txt").read_text()
    assert (folder / "node-1").is_dir()
