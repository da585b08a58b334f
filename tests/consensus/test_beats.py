"""Beats: what a leader with nothing to say says, and how it makes sure that it still leads."""

from __future__ import annotations

import pytest

from leveret.consensus import EngineConfig, Role, SafetyViolation
from leveret.consensus.guard import Guard
from leveret.consensus.messages import Append, Beat, Heard, Message, Stale
from leveret.transport import NodeId
from tests.consensus.harness import Cluster, three

HEARTBEAT_S = EngineConfig().heartbeat_s


class ConfirmsAlone(Guard):
    """Takes its own word for it that it leads."""

    def confirmed_round(self) -> int:
        return self._beats.number


def quiet() -> Cluster:
    """Three members that have told each other everything."""
    cluster = three()
    cluster.propose(1, b"a")
    cluster.settle()
    for _ in range(3):
        cluster[1].tick(HEARTBEAT_S * 1.01)
        cluster.settle()
    return cluster


def kinds(messages: list[Message]) -> list[type[Message]]:
    return [type(message) for message in messages]


def test_a_leader_with_nothing_to_say_beats() -> None:
    cluster = quiet()

    cluster[1].tick(HEARTBEAT_S * 1.01)

    term = cluster[1].engine.term
    assert [Beat(term, 0)] == cluster.deliver(1, 2) == cluster.deliver(1, 3)
    assert [Heard(term, 0)] == cluster.waiting(2, 1) == cluster.waiting(3, 1)


def test_beats_give_the_core_nothing_to_do() -> None:
    cluster = quiet()
    cluster[1].engine.tick()

    assert all(cluster[node].engine.is_idle for node in (1, 2, 3))
    cluster.now_s += HEARTBEAT_S * 1.01
    cluster[1].engine.tick()
    assert [Beat, Beat] == kinds([message for _, message in cluster[1].engine.outgoing()])
    assert cluster[1].engine.is_idle


def test_beats_keep_followers_from_standing_and_the_leader_from_stepping_down() -> None:
    cluster = quiet()
    term = cluster[1].engine.term

    for _ in range(100):
        for node in (1, 2, 3):
            cluster[node].tick(HEARTBEAT_S / 3)
        cluster.settle()

    assert [term] * 3 == [cluster[node].engine.term for node in (1, 2, 3)]
    assert Role.LEADER is cluster[1].engine.role
    cluster.propose(1, b"b")
    cluster.settle()
    assert [[b"a", b"b"]] * 3 == [cluster[node].payloads for node in (1, 2, 3)]


def test_a_leader_whose_beats_nobody_answers_steps_down() -> None:
    cluster = quiet()

    for _ in range(15):
        cluster[1].tick(HEARTBEAT_S)

    assert Role.FOLLOWER is cluster[1].engine.role


def test_a_follower_that_does_not_answer_is_told_everything_again() -> None:
    cluster = quiet()

    for _ in range(3):
        cluster[1].tick(HEARTBEAT_S * 1.01)

    assert [Beat, Beat, Append] == kinds(cluster.waiting(1, 2))


def test_news_go_out_as_appends_at_once() -> None:
    cluster = quiet()

    cluster.propose(1, b"b")

    assert [Append] == kinds(cluster.waiting(1, 2))


def test_a_leader_of_an_old_term_is_told_so() -> None:
    cluster = quiet()
    cluster.isolate(1)
    cluster.elect(2, 3)
    term = cluster[2].engine.term

    cluster.connect(1, 2, 3)
    cluster.wire.clear()
    cluster[2].step(1, Beat(term - 1, 0))

    assert Stale(term) in cluster.waiting(2, 1)


def test_a_beat_of_an_unknown_leader_is_not_answered() -> None:
    cluster = quiet()
    term = cluster[2].engine.term

    cluster[2].step(3, Beat(term + 1, 0))

    assert [] == cluster.waiting(2, 3)
    assert term == cluster[2].engine.term


def test_two_leaders_of_one_term_end_the_process() -> None:
    cluster = quiet()

    with pytest.raises(SafetyViolation, match="both lead"):
        cluster[2].engine.step(NodeId(3), Beat(cluster[2].engine.term, 0))


# Reads.


def is_confirmed(cluster: Cluster, number: int) -> bool:
    return cluster[1].engine.confirmed_read >= number


def test_a_read_is_confirmed_by_one_follower_and_costs_no_entry() -> None:
    cluster = quiet()
    before = cluster[1].journal.appended

    begun = cluster[1].engine.begin_read()
    cluster[1].pump()

    assert begun is not None
    number, index = begun
    assert cluster[1].engine.commit_index == index
    assert not is_confirmed(cluster, number)
    cluster.deliver(1, 2)
    cluster.deliver(2, 1)
    assert is_confirmed(cluster, number)
    assert before == cluster[1].journal.appended


def test_a_follower_begins_no_read() -> None:
    assert quiet()[2].engine.begin_read() is None


def test_an_answer_to_an_earlier_round_confirms_no_later_read() -> None:
    cluster = quiet()
    cluster[1].engine.begin_read()
    cluster[1].pump()
    cluster.deliver(1, 2)

    later = cluster[1].engine.begin_read()
    cluster.deliver(2, 1)

    assert later is not None
    assert not is_confirmed(cluster, later[0])


def a_deposed_leader_confirms_no_read(guard: type[Guard]) -> None:
    cluster = three(guard)
    # Its links are silent, not broken: it notices nothing.
    cluster[2].tick(1.1)
    cluster[3].tick(0.0)
    cluster.settle(2, 3)
    cluster[2].tick(1.1)
    cluster.settle(2, 3)
    assert Role.LEADER is cluster[2].engine.role
    assert cluster[1].engine.is_ready
    cluster.propose(2, b"news")
    cluster.settle(2, 3)

    begun = cluster[1].engine.begin_read()
    cluster[1].pump()

    assert begun is not None
    assert begun[1] < cluster[2].engine.commit_index
    assert not is_confirmed(cluster, begun[0])
    for follower in (2, 3):
        cluster.wire[1, follower] = type(cluster.wire[1, follower])([Beat(2, begun[0])])
        cluster.deliver(1, follower)
        cluster.deliver(follower, 1)
    assert not is_confirmed(cluster, begun[0])


def test_a_deposed_leader_confirms_no_read() -> None:
    a_deposed_leader_confirms_no_read(Guard)


def test_without_the_round_it_would() -> None:
    with pytest.raises(AssertionError):
        a_deposed_leader_confirms_no_read(ConfirmsAlone)


def test_an_answer_over_a_link_with_another_incarnation_does_not_count() -> None:
    cluster = quiet()
    cluster.isolate(1)
    cluster[1].engine.connected(NodeId(2), 7)
    begun = cluster[1].engine.begin_read()
    assert begun is not None

    cluster[1].engine.step(NodeId(2), Heard(cluster[1].engine.term, begun[0]))

    assert not is_confirmed(cluster, begun[0])


def test_a_leader_alone_confirms_its_reads_itself() -> None:
    cluster = Cluster(1)
    cluster.elect(1)

    begun = cluster[1].engine.begin_read()

    assert begun is not None
    assert is_confirmed(cluster, begun[0])
