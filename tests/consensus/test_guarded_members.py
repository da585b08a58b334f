"""The guard's closures about members: each scenario, and the same with the guard switched off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leveret.consensus import Configuration, Role, SafetyViolation
from leveret.consensus.entries import seal_configuration
from leveret.consensus.guard import Guard
from leveret.consensus.membership import Configurations
from leveret.consensus.messages import (
    Append,
    Message,
    Offer,
    PreVote,
    PreVoteRequest,
    Stale,
    TimeoutNow,
    Vote,
    VoteRequest,
)
from leveret.consensus.pysyncobj import PySyncObjEngine
from leveret.transport import NodeId
from tests.consensus.harness import Cluster, three
from tests.consensus.test_guard import replies


class CountsAnyIncarnation(Guard):
    def _counts(self, peer: NodeId, incarnation: int) -> bool:
        return self.configuration.incarnation(peer) is not None


class VotesWithoutMemory(Guard):
    def _may_vote(self) -> bool:
        return True


class AsksAnybody(Guard):
    def _is_voter(self, peer: NodeId) -> bool:
        return True


class HeedsReplacedFolders(Guard):
    def _is_replaced(self, peer: NodeId) -> bool:
        return False


class DecidesByTheOld(Guard):
    """The voters of a configuration decide only when the next one comes."""

    def reconfigure(self, configuration: Configuration) -> None:
        if not self.configuration.voters:
            super().reconfigure(configuration)


class OffersNothing(Guard):
    def _offer(self, peer: NodeId, follower: object, now_s: float) -> None:
        pass


class StandsWheneverItMay(Guard):
    def stand(self) -> None:
        super().stand()
        self._stands_in = -1


class StandsForEver(Guard):
    def _hold(self, peer: NodeId, message: Message) -> None:
        super()._hold(peer, message)
        if isinstance(message, Vote):
            self._stands_in = message.term


class FollowsNoOffer(Guard):
    def _receive_offer(self, peer: NodeId, term: int) -> None:
        pass


def a_wiped_members_vote_does_not_count(guard: type[Guard]) -> None:
    """Nor does what it says before a vote."""
    cluster = Cluster(guard=guard)
    cluster.wipe(3)
    cluster.connect(1, 3)
    cluster[1].tick(1.1)
    term = cluster[1].engine.term
    cluster[1].step(3, PreVote(term + 1, is_granted=True, current_term=0))
    assert term == cluster[1].engine.term

    cluster.connect(1, 2)
    cluster[1].tick(1.1)
    cluster[1].step(2, PreVote(term + 1, is_granted=True, current_term=0))
    assert term + 1 == cluster[1].engine.term
    cluster[1].step(3, Vote(term + 1))

    assert cluster[1].engine.leader is None


def a_pre_vote_counts_of_linked_voters_only(guard: type[Guard]) -> None:
    cluster = Cluster(guard=guard)
    cluster.wipe(3)
    cluster.connect(1, 3)
    cluster[1].tick(1.1)
    term = cluster[1].engine.term

    assert not cluster.waiting(1, 3)
    cluster[1].step(3, PreVote(term + 1, is_granted=True, current_term=0))

    assert term == cluster[1].engine.term


def a_wiped_member_gives_no_vote(guard: type[Guard]) -> None:
    cluster = Cluster(guard=guard)
    cluster.wipe(3)
    cluster.connect(1, 3)

    cluster[3].step(1, VoteRequest(5, 1, 0, is_transfer=True))
    cluster[3].sync()
    assert not cluster.waiting(3, 1)
    cluster[3].step(1, PreVoteRequest(5, 1, 0))
    assert [PreVote(5, is_granted=False, current_term=0)] == cluster.waiting(3, 1)


def a_replaced_folder_is_not_heeded(guard: type[Guard]) -> None:
    configuration = Configuration({NodeId(1): 0, NodeId(2): 0, NodeId(3): 1})
    cluster = Cluster(guard=guard, configuration=configuration)
    cluster.connect(1, 3)

    cluster[1].step(3, VoteRequest(5, 1, 0, is_transfer=True))
    cluster[1].step(3, Append(5, 1, 1, 0, 0, 0, ()))
    cluster[1].sync()

    assert not cluster.waiting(1, 3)
    assert 0 == cluster[1].engine.term


def founder(guard: type[Guard], size: int = 2) -> Cluster:
    """Return members that are connected; 1 leads, alone, and the others are learners."""
    learners = {NodeId(node): 0 for node in range(2, size + 1)}
    cluster = Cluster(size, guard=guard, configuration=Configuration({NodeId(1): 0}, learners))
    cluster.connect(*range(1, size + 1))
    cluster[1].tick(0.0)
    cluster.settle()
    assert cluster[1].engine.is_ready
    return cluster


def the_new_voters_decide_from_the_append_on(guard: type[Guard]) -> None:
    cluster = founder(guard)
    both = Configuration({NodeId(1): 0, NodeId(2): 0})
    assert cluster[1].engine.propose_configuration(both)
    cluster[1].pump()
    cluster[1].sync()
    index = cluster[1].engine.last_index
    assert both == cluster[1].engine.configuration

    assert index > cluster[1].engine.commit_index
    cluster.settle()
    assert index == cluster[1].engine.commit_index


def who_lacks_what_is_trimmed_is_offered_a_snapshot(guard: type[Guard]) -> None:
    cluster = three(guard)
    cluster.isolate(3)
    cluster.propose(1, b"a", b"b")
    cluster.settle(1, 2)
    cluster[1].log.trim(cluster[1].engine.commit_index - 1)
    cluster.connect(1, 3)
    cluster[1].tick(0.2)
    cluster.deliver(1, 3)
    cluster[3].sync()
    cluster.deliver(3, 1)

    cluster[1].tick(0.2)

    assert any(isinstance(message, Offer) for message in cluster.waiting(1, 3))


def a_candidate_follows_whoever_offers_a_snapshot_in_its_term(guard: type[Guard]) -> None:
    cluster = Cluster(guard=guard)
    cluster.connect(1, 2, 3)
    cluster[1].tick(1.1)
    cluster.deliver(1, 2)
    cluster[2].sync()
    cluster.deliver(2, 1)
    term = cluster[1].engine.term
    assert term == 1

    cluster[1].step(3, Offer(term, 100))

    assert Role.FOLLOWER is cluster[1].engine.role
    assert cluster[1].engine.leader == 3
    cluster[1].sync()
    assert not replies(cluster.waiting(1, 3))
    cluster[1].step(2, Vote(term))
    assert Role.FOLLOWER is cluster[1].engine.role


def who_was_told_to_stand_stays_a_voter_until_it_does(guard: type[Guard]) -> None:
    """The core would count it, though it is none."""
    cluster = three(guard)
    term, last = cluster[2].engine.term, cluster[2].log.last_index
    without = seal_configuration(Configuration({NodeId(1): 0, NodeId(3): 0}))

    cluster[2].engine.step(NodeId(1), TimeoutNow(term))
    cluster[2].engine.step(NodeId(1), Append(term, 9, last, term, last, 0, ((term, without),)))
    cluster[2].pump()

    assert term + 1 == cluster[2].engine.term
    assert NodeId(2) in cluster[2].engine.configuration.voters


def who_gave_its_vote_before_it_stood_follows_whom_it_elects(guard: type[Guard]) -> None:
    """The core puts its own election off, and does not stand."""
    cluster = three(guard)
    cluster.isolate(2)
    cluster.connect(2, 3)
    engine = cluster[2].engine
    cluster[2].step(3, Stale(engine.term + 1))
    cluster[2].tick(1.1)
    term, last = engine.term, cluster[2].log.last_index
    last_term = cluster[2].log.term_at(last)

    engine.step(NodeId(3), PreVote(term + 1, is_granted=True, current_term=term))
    engine.step(NodeId(3), VoteRequest(term, last, last_term, is_transfer=True))
    cluster[2].sync()
    assert term == engine.term
    assert Vote(term) in cluster.waiting(2, 3)
    cluster[2].step(3, Append(term, 1, last, last_term, last, 0, ()))
    cluster[2].sync()

    assert 3 == engine.leader
    assert replies(cluster.waiting(2, 3))


CLOSURES = [
    (a_wiped_members_vote_does_not_count, CountsAnyIncarnation),
    (a_pre_vote_counts_of_linked_voters_only, AsksAnybody),
    (a_wiped_member_gives_no_vote, VotesWithoutMemory),
    (a_replaced_folder_is_not_heeded, HeedsReplacedFolders),
    (the_new_voters_decide_from_the_append_on, DecidesByTheOld),
    (who_lacks_what_is_trimmed_is_offered_a_snapshot, OffersNothing),
    (a_candidate_follows_whoever_offers_a_snapshot_in_its_term, FollowsNoOffer),
    (who_was_told_to_stand_stays_a_voter_until_it_does, StandsWheneverItMay),
    (who_gave_its_vote_before_it_stood_follows_whom_it_elects, StandsForEver),
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


def test_a_member_alone_commits_nothing_before_its_disk_though_it_has_learners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = founder(Guard)
    cluster.propose(1, b"a")
    assert [] == cluster[1].payloads
    cluster[1].sync()
    assert [b"a"] == cluster[1].payloads

    monkeypatch.setattr(PySyncObjEngine, "_is_alone", False)
    cluster.propose(1, b"b")
    assert [b"a", b"b"] == cluster[1].payloads  # what the core does by itself


def test_one_configuration_at_a_time_also_while_it_waits_for_the_disk() -> None:
    cluster = founder(Guard, 3)
    engine = cluster[1].engine
    one, two, three_ = NodeId(1), NodeId(2), NodeId(3)
    cluster.propose(1, b"a")  # alone, it stands still until that is durable
    assert engine.propose_configuration(Configuration({one: 0, two: 0}, {three_: 0}))

    assert not engine.propose_configuration(Configuration({one: 0, three_: 0}, {two: 0}))
    cluster[1].sync()
    assert not engine.propose_configuration(Configuration({one: 0, two: 0, three_: 0}))
    cluster.settle()
    assert engine.propose_configuration(Configuration({one: 0, two: 0, three_: 0}))


def test_two_voters_are_never_changed_at_once() -> None:
    cluster = founder(Guard, 3)

    with pytest.raises(AssertionError, match="two voters"):
        cluster[1].engine.propose_configuration(Configuration(dict.fromkeys(cluster.nodes, 0)))


def configuration_after_a_cut() -> Configuration:
    """Return the members as 1 knows them, whose change of them was lost with its leadership."""
    cluster = three()
    cluster.isolate(1)
    changed = Configuration({NodeId(1): 0, NodeId(2): 0}, {NodeId(4): 0})
    assert cluster[1].engine.propose_configuration(changed)
    cluster[1].pump()
    assert changed == cluster[1].engine.configuration
    cluster[3].tick(1.1)
    cluster.settle(2, 3)
    assert Role.LEADER is cluster[3].engine.role
    cluster.connect(1, 2, 3)
    cluster.settle()
    return cluster[1].engine.configuration


def test_a_configuration_that_is_cut_off_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Configuration(dict.fromkeys(map(NodeId, (1, 2, 3)), 0)) == configuration_after_a_cut()

    monkeypatch.setattr(Configurations, "cut_from", lambda *_: None)
    assert NodeId(4) in configuration_after_a_cut().learners
