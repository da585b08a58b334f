"""Each closure of the guard: its scenario, and the same with the guard switched off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leveret.consensus import EngineConfig, Role, SafetyViolation
from leveret.consensus.guard import Guard
from leveret.consensus.messages import (
    Append,
    Message,
    Offer,
    PreVote,
    Reply,
    Vote,
    VoteRequest,
)
from leveret.transport import NodeId
from tests.consensus.harness import Cluster, entries, three


class SendsBeforeDurable(Guard):
    def _hold(self, peer: NodeId, message: Message) -> None:
        self._ready.append((peer, message))


class CountsItself(Guard):
    def _countable(self, index: int) -> int:
        return index


class TruncatesKnown(Guard):
    def _without_known(
        self, previous: int, previous_term: int, entries: list[tuple[bytes, int, int]]
    ) -> None:
        return None


class ForgetsPosition(Guard):
    def _position(self, follower: object, previous: int) -> int:
        return previous


class HonoursOldResets(Guard):
    def _is_fresh(self, message: Reply, follower: object) -> bool:
        return True


class IgnoresTerms(Guard):
    def _is_of_term(self, message: Reply, follower: object) -> bool:
        return True


class CountsVotesTwice(Guard):
    def _is_first_vote(self, peer: NodeId, term: int) -> bool:
        return True


class BacktracksByOne(Guard):
    def _conflict_start(self, index: int) -> int:
        return index


class KeepsStaleLeaders(Guard):
    def _raise_term(self, peer: NodeId, term: int) -> None:
        pass


class SkipsPreVote(Guard):
    def tick(self) -> bool:
        now_s = self._now_s()
        if self.core.is_leader or not self._elections.is_due(now_s):
            return False
        self._elections.postpone(now_s)
        self.stand()
        return True

    def _is_sticky(self) -> bool:
        return False


def replies(messages: list[Message]) -> list[Message]:
    return [message for message in messages if isinstance(message, Reply)]


def an_acknowledgement_waits_for_the_disk(guard: type[Guard]) -> None:
    cluster = three(guard)
    cluster.propose(1, b"a")

    cluster.deliver(1, 2)

    assert 3 == cluster[2].log.last_index
    assert not replies(cluster.waiting(2, 1))
    cluster[2].sync()
    assert replies(cluster.waiting(2, 1))


def a_vote_waits_for_the_disk(guard: type[Guard]) -> None:
    cluster = Cluster(guard=guard)
    cluster.connect(1, 2, 3)

    cluster[2].step(1, VoteRequest(5, 1, 0, is_transfer=False))

    assert not cluster.waiting(2, 1)
    cluster[2].sync()
    assert [Vote(5)] == cluster.waiting(2, 1)


def a_leader_does_not_count_itself_before_it_is_durable(guard: type[Guard]) -> None:
    cluster = three(guard)
    cluster.propose(1, b"a")
    for follower in (2, 3):
        cluster.deliver(1, follower)
        cluster[follower].sync()
        cluster.deliver(follower, 1)

    assert [] == cluster[1].payloads
    cluster[1].sync()
    assert [b"a"] == cluster[1].payloads


def an_old_append_truncates_nothing(guard: type[Guard]) -> None:
    cluster = three(guard)
    cluster.propose(1, *[b"%d" % number for number in range(8)])
    first = cluster.waiting(1, 2)
    cluster.settle()
    follower = cluster[2]
    assert 10 == follower.log.last_index

    old = first[0]
    assert isinstance(old, Append)
    follower.step(1, old._replace(entries=old.entries[:1]))
    assert 10 == follower.log.last_index
    follower.step(1, old._replace(entries=()))
    assert 10 == follower.log.last_index
    follower.sync()
    # And it claims no more than what that append has shown to agree.
    last = replies(cluster.waiting(2, 1))[-1]
    assert isinstance(last, Reply)
    assert old.previous_index + 1 == last.next_index


def an_acknowledgement_does_not_rewind_the_sender(guard: type[Guard]) -> None:
    cluster = three(guard)
    cluster.propose(1, b"a")
    cluster[1].sync()
    cluster.deliver(1, 2)
    cluster[2].sync()
    cluster.propose(1, b"b")
    assert 1 == entries(cluster.waiting(1, 2))

    cluster.deliver(2, 1)
    cluster[1].tick(0.2)

    assert 1 == entries(cluster.waiting(1, 2))


def a_reset_counts_once(guard: type[Guard]) -> None:
    cluster = three(guard)
    cluster.disconnect(1, 2)
    cluster.propose(1, b"a", b"b")
    cluster.settle(1, 3)
    cluster.connect(1, 2)
    cluster[1].sync()
    # The probe after the last index; the follower lacks it.
    probe = cluster.waiting(1, 2)
    cluster.wire.pop((1, 2))
    lacking = Reply(
        cluster[1].engine.term, _sequence(probe[-1]), 3, is_success=False, is_reset=True
    )

    cluster[1].step(2, lacking)
    assert 2 == entries(cluster.waiting(1, 2))
    cluster[1].step(2, lacking)
    assert 2 == entries(cluster.waiting(1, 2))


def _sequence(message: Message) -> int:
    assert isinstance(message, Append)
    return message.sequence


def an_acknowledgement_of_an_older_term_does_not_count(guard: type[Guard]) -> None:
    cluster = three(guard)
    old_term = cluster[1].engine.term
    cluster.isolate(2)
    for leader, successor in ((1, 3), (3, 1)):
        cluster.settle(1, 3)
        assert cluster[leader].engine.transfer(NodeId(successor))
        cluster.settle(1, 3)
    assert old_term + 2 == cluster[1].engine.term
    cluster.disconnect(1, 3)
    cluster.connect(1, 2)
    cluster.wire.clear()
    cluster.propose(1, b"a")
    cluster[1].sync()
    index = cluster[1].log.last_index

    cluster[1].step(2, Reply(old_term, 1000, index + 1, is_success=True, is_reset=False))

    assert cluster[1].engine.commit_index < index


def a_vote_counts_once(guard: type[Guard]) -> None:
    cluster = Cluster(5, guard=guard)
    cluster.connect(1, 2, 3, 4, 5)
    cluster[1].tick(1.1)
    for voter in (2, 3):
        cluster.deliver(1, voter)
        cluster.deliver(voter, 1)
    assert Role.CANDIDATE is cluster[1].engine.role
    term = cluster[1].engine.term

    cluster[1].step(2, Vote(term))
    cluster[1].step(2, Vote(term))

    assert cluster[1].engine.leader is None
    cluster[1].step(3, Vote(term))
    assert cluster[1].engine.leader == 1


def a_conflicting_tail_is_found_in_few_round_trips(guard: type[Guard]) -> None:
    cluster = three(guard)
    cluster.isolate(1)
    for number in range(40):
        cluster.propose(1, b"lost %d" % number)
        cluster[1].sync()
    cluster[3].tick(1.1)
    cluster.settle(2, 3)
    if cluster[3].engine.role is not Role.LEADER:
        cluster.elect(3, 2)
    cluster.propose(3, *[b"kept %d" % number for number in range(50)])
    cluster.settle(2, 3)
    assert cluster[3].engine.transfer(NodeId(2))
    cluster.settle(2, 3)

    cluster.connect(1, 2)
    assert cluster.settle(1, 2) < 10

    assert cluster[2].payloads == cluster[1].payloads
    assert 50 == len(cluster[1].payloads)


def a_stale_leader_learns_of_the_newer_term(guard: type[Guard]) -> None:
    cluster = three(guard, EngineConfig(quorum_timeout_s=100))
    cluster.isolate(1)
    cluster[3].tick(1.1)
    cluster.settle(2, 3)
    assert Role.LEADER is cluster[3].engine.role

    # Only the other follower speaks with the old leader.
    cluster.connect(1, 2)
    cluster.settle(1, 2)

    assert cluster[3].engine.term == cluster[1].engine.term
    assert Role.LEADER is not cluster[1].engine.role


def an_isolated_member_unseats_nobody_when_it_returns(guard: type[Guard]) -> None:
    cluster = three(guard)
    term = cluster[1].engine.term
    cluster.isolate(3)
    for _ in range(20):
        cluster[3].tick(0.3)
        cluster[3].sync()
        cluster[1].tick(0.0)
        cluster.settle(1, 2)

    cluster.connect(1, 2, 3)
    for _ in range(5):
        cluster[3].tick(0.05)
        cluster[1].tick(0.05)
        cluster.settle()

    assert term == cluster[1].engine.term
    assert Role.LEADER is cluster[1].engine.role


CLOSURES = [
    (an_acknowledgement_waits_for_the_disk, SendsBeforeDurable),
    (a_vote_waits_for_the_disk, SendsBeforeDurable),
    (a_leader_does_not_count_itself_before_it_is_durable, CountsItself),
    (an_old_append_truncates_nothing, TruncatesKnown),
    (an_acknowledgement_does_not_rewind_the_sender, ForgetsPosition),
    (a_reset_counts_once, HonoursOldResets),
    (an_acknowledgement_of_an_older_term_does_not_count, IgnoresTerms),
    (a_vote_counts_once, CountsVotesTwice),
    (a_conflicting_tail_is_found_in_few_round_trips, BacktracksByOne),
    (a_stale_leader_learns_of_the_newer_term, KeepsStaleLeaders),
    (an_isolated_member_unseats_nobody_when_it_returns, SkipsPreVote),
]


@pytest.mark.parametrize(
    "scenario", [scenario for scenario, _ in CLOSURES], ids=lambda scenario: scenario.__name__
)
def test_with_the_guard(scenario: Callable[[type[Guard]], None]) -> None:
    scenario(Guard)


@pytest.mark.parametrize(
    ("scenario", "mutant"), CLOSURES, ids=[mutant.__name__ for _, mutant in CLOSURES]
)
def test_without_it_the_scenario_fails(
    scenario: Callable[[type[Guard]], None], mutant: type[Guard]
) -> None:
    with pytest.raises((AssertionError, SafetyViolation)):
        scenario(mutant)


def test_a_conflict_below_the_commit_index_ends_the_process() -> None:
    cluster = three()
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    term = cluster[2].engine.term
    other = cluster[1].log.command_at(2)
    append = Append(term + 1, 1, 2, term, 0, 0, ((term + 1, other),))

    with pytest.raises(SafetyViolation, match="committed"):
        cluster[2].step(3, append)


def test_two_leaders_of_one_term_end_the_process() -> None:
    cluster = three()
    term = cluster[2].engine.term

    with pytest.raises(SafetyViolation, match="both lead"):
        cluster[2].step(3, Append(term, 1, 2, term, 0, 0, ()))


def test_a_leader_sends_no_more_than_the_window() -> None:
    config = EngineConfig(append_bytes_max=1000, in_flight_bytes_max=3000)
    cluster = Cluster(config=config)
    cluster.connect(1, 2, 3)
    cluster.elect(1, 2, 3)

    for _ in range(20):
        cluster.propose(1, bytes(500))

    sent = cluster.waiting(1, 2)
    assert 6 <= entries(sent) <= 7
    cluster.settle()
    assert 20 == len(cluster[2].payloads)


def test_a_member_whose_window_is_full_while_the_log_is_trimmed_is_offered_a_snapshot() -> None:
    cluster = Cluster(config=EngineConfig(append_bytes_max=1000, in_flight_bytes_max=3000))
    cluster.connect(1, 2, 3)
    cluster.elect(1, 2, 3)
    for _ in range(20):  # the third takes what is in its window and answers nothing
        cluster.propose(1, bytes(500))
        cluster[1].sync()
        cluster.deliver(1, 2)
        cluster[2].sync()
        cluster.deliver(2, 1)
    cluster[1].log.trim(cluster[1].engine.commit_index - 1)

    cluster[1].tick(0.2)

    assert isinstance(cluster.waiting(1, 3)[-1], Offer)


def test_an_entry_of_20_mib_travels_whole() -> None:
    cluster = three()
    large = bytes(20 * 1024 * 1024)

    cluster.propose(1, b"before", large, b"after")
    cluster.settle()

    assert [b"before", large, b"after"] == cluster[3].payloads


def test_an_append_holds_one_large_entry_at_most() -> None:
    cluster = three()
    cluster.propose(1, *[bytes(2 * 1024 * 1024)] * 5)

    appends = [message for message in cluster.waiting(1, 2) if isinstance(message, Append)]
    assert 1 == max(len(message.entries) for message in appends)
    cluster.settle()
    assert 5 == len(cluster[2].payloads)


def test_silence_is_no_longer_than_a_heartbeat_and_no_shorter_without_news() -> None:
    cluster = three()
    cluster[1].tick(0.11)
    cluster.wire.clear()

    for _ in range(10):
        cluster[1].tick(0.05)

    assert 5 == len(cluster.waiting(1, 2))
    assert 0 == entries(cluster.waiting(1, 2))


def test_a_leader_without_a_majority_steps_down() -> None:
    cluster = three()
    cluster.isolate(1)

    cluster[1].tick(1.1)

    assert Role.FOLLOWER is cluster[1].engine.role
    assert cluster[1].engine.leader is None
    assert not cluster[1].engine.propose(b"a")


def test_leadership_is_handed_over_at_once() -> None:
    cluster = three()
    cluster.propose(1, b"a")

    assert cluster[1].engine.transfer(NodeId(2))
    assert not cluster[1].engine.propose(b"refused meanwhile")
    cluster.settle()

    assert Role.LEADER is cluster[2].engine.role
    assert cluster[2].engine.is_ready
    assert [2, 2, 2] == [cluster[node].engine.leader for node in (1, 2, 3)]


def test_a_transfer_to_a_silent_member_is_given_up() -> None:
    cluster = three()
    cluster.propose(1, b"a")
    assert cluster[1].engine.transfer(NodeId(2))
    cluster.settle(1, 3)

    cluster[1].tick(0.5)
    cluster.settle(1, 3)
    cluster[1].tick(0.6)

    assert cluster[1].engine.propose(b"b")


def test_a_leader_does_not_stand_again_for_a_late_pre_vote() -> None:
    cluster = Cluster()
    cluster.connect(1, 2, 3)
    cluster[1].tick(1.1)
    for voter in (2, 3):
        cluster.deliver(1, voter)
        cluster[voter].sync()
    cluster.deliver(2, 1)
    cluster[1].sync()
    term = cluster[1].engine.term
    assert Role.CANDIDATE is cluster[1].engine.role
    cluster[1].tick(1.1)  # still a candidate: it asks around for the next term
    cluster[1].step(2, Vote(term))
    assert cluster[1].engine.leader == 1

    cluster[1].step(3, PreVote(term + 1, is_granted=True, current_term=0))

    assert cluster[1].engine.leader == 1
    assert term == cluster[1].engine.term


def test_the_safe_index_is_what_every_member_holds() -> None:
    cluster = three()
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.disconnect(1, 3)
    cluster.propose(1, b"b")
    cluster.settle(1, 2)
    cluster[1].tick(0.2)
    cluster.settle(1, 2)

    assert [3, 3] == [cluster[node].engine.safe_index for node in (1, 2)]
    assert 4 == cluster[2].engine.commit_index
