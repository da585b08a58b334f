"""Known mistakes are found: by seeds, and what no seed meets early by a scene of its own."""

from __future__ import annotations

import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from trio.testing import MockClock

from chaos.simulation.mutations import MUTATIONS, DoesNotFit, Edit, Mutation, find, mutated
from leveret.broker.queues.dispatch import Consumer, Dispatcher
from leveret.broker.queues.state import QueueState
from leveret.consensus.engine import EngineConfig
from leveret.consensus.messages import Vote, VoteRequest
from leveret.storage import Journal
from leveret.storage.segments import segment_name
from leveret.transport import NodeId
from tests.consensus.harness import Cluster, Member, three
from tests.storage.support import SMALL, command, new_disk, running, settle

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_planted_and_taken_away_again(name: str) -> None:
    functions = [find(edit) for edit in MUTATIONS[name].edits]
    before = [function.__code__ for function in functions]
    with mutated(name):
        assert all(
            function.__code__ is not code for function, code in zip(functions, before, strict=True)
        )

    assert before == [function.__code__ for function in functions]


def test_an_edit_that_the_product_has_outgrown_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = Edit("leveret.storage.segments:segment_name", "what was there once", "x")
    monkeypatch.setitem(MUTATIONS, "old", Mutation("a test's", (edit,)))

    with pytest.raises(DoesNotFit), mutated("old"):
        pass

    assert segment_name(1).endswith("1.log")


def test_at_least_a_dozen_mistakes_are_found_by_seeds_that_pass_without_them() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "mutations"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
        check=False,
    )
    print(done.stdout)

    assert done.stdout.splitlines()[-1].startswith("PASS")
    assert sum(bool(mutation.seeds) for mutation in MUTATIONS.values()) >= 12


def votes_in_one_term(cluster: Cluster) -> int:
    """How many votes member 3 gives in term 2 when it is started again in between."""
    given = 0
    for candidate in (2, 1):
        disk = cluster[3].journal.disk
        again = cluster.members[NodeId(3)] = Member(cluster, 3, disk=disk)
        for other in (1, 2):
            again.engine.connected(NodeId(other), 0)
        last = again.log.last_index
        again.step(candidate, VoteRequest(2, last + 1, 1, is_transfer=True))
        again.sync()
        given += sum(isinstance(sent, Vote) for sent in cluster.waiting(3, candidate))
    return given


def test_a_member_votes_once_in_a_term_also_when_it_is_started_again() -> None:
    assert votes_in_one_term(three()) == 1

    with mutated("vote-forgotten"):
        assert votes_in_one_term(three()) == 2


def commits_by_counting(cluster: Cluster) -> bool:
    """Whether a leader commits an entry of its earlier term before one of its present term."""
    cluster.isolate(1)
    cluster.propose(1, b"old".ljust(1000, b"."))
    cluster[1].sync()
    cluster[1].tick(2.0)  # without a majority it steps down
    cluster.connect(1, 3)
    cluster[1].tick(2.0)
    for _ in range(200):
        for pair in ((1, 3), (3, 1)):
            if cluster.waiting(*pair):
                cluster[pair[1]].step(pair[0], cluster.wire[pair].popleft())
        cluster[3].sync()
        cluster[1].sync()
        if any(payload.startswith(b"old") for payload in cluster[1].payloads):
            return cluster[3].log.last_index < cluster[1].log.last_index
        cluster[1].tick(0.05)
    raise AssertionError("the entry is never committed")


def test_an_entry_of_an_earlier_term_is_committed_behind_one_of_the_present_term_only() -> None:
    small = EngineConfig(append_bytes_max=100, in_flight_bytes_max=100)
    assert not commits_by_counting(three(config=small))

    with mutated("old-term-committed"):
        assert commits_by_counting(three(config=small))


async def last_entry_after_a_torn_flush() -> int:
    """The end of a log whose last flush, of the entries 2 and 3, has lost the second of them."""
    disk = new_disk()
    async with running(disk) as journal:
        log = journal.log(1)
        log.append(command(1), 1, 1)
        await settle(journal)
        log.append(command(2), 2, 1)
        log.append(command(3), 3, 1)
        await settle(journal)
    disk = disk.crash()
    name = segment_name(1)
    disk.rot(name=name, offset=disk.read_file(name).read(0, 1 << 20).index(b"3/1;"))
    return (await Journal.open(disk, SMALL)).log(1).last_index


async def test_a_flush_counts_whole_or_not_at_all(autojump_clock: MockClock) -> None:
    assert await last_entry_after_a_torn_flush() == 1

    with mutated("torn-flush-accepted"):
        assert await last_entry_after_a_torn_flush() == 2


def unmarked_twice() -> set[int]:
    """Messages that two leaders, one after the other, deliver without the mark."""
    state = QueueState(1)
    state.append(1, 0, array("I", [10] * 5))
    state.mark = 1
    unmarked: list[int] = []
    for mark in (4, 100):
        dispatcher = Dispatcher(state)
        state.mark = mark
        dispatcher.add(Consumer((1, 1), prefetch=0, no_ack=False, exclusive=False))
        for _, deliveries in dispatcher.dispatch():
            unmarked += [delivery.sequence for delivery in deliveries if not delivery.redelivered]
    return {sequence for sequence in unmarked if unmarked.count(sequence) > 1}


def test_what_two_leaders_deliver_is_marked_the_second_time() -> None:
    assert unmarked_twice() == set()

    with mutated("delivered-beyond-the-mark"):
        assert unmarked_twice() == {4, 5}
