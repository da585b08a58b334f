"""One picture out of what several nodes tell of a group."""

from __future__ import annotations

from leveret.node.control.cluster_status import group_seen
from leveret.node.control.replies import GroupHere, MemberLag, MemberSeen


def here(
    role: str,
    *,
    term: int = 3,
    applied: int = 10,
    lags: dict[int, int] | None = None,
    voters: tuple[int, ...] = (1, 2, 3),
    learners: tuple[int, ...] = (),
) -> GroupHere:
    return GroupHere(
        group=1,
        role=role,
        term=term,
        leader=None,
        is_ready=role == "leader",
        commit_index=applied,
        applied_index=applied,
        last_index=applied,
        peers={
            node: MemberLag(match_index=applied - lag, lag=lag)
            for node, lag in (lags or {}).items()
        },
        voters=list(voters),
        learners=list(learners),
    )


def test_the_leader_tells_how_far_the_others_are_also_those_that_are_silent() -> None:
    group = group_seen(1, {1: here("leader", lags={2: 0, 3: 7}), 2: here("follower", applied=9)})

    assert (1, 3) == (group.leader, group.term)
    assert [
        MemberSeen(node=1, is_voter=True, role="leader", applied_index=10, lag=0),
        MemberSeen(node=2, is_voter=True, role="follower", applied_index=9, lag=0),
        MemberSeen(node=3, is_voter=True, role=None, applied_index=None, lag=7),
    ] == group.members


def test_a_leader_of_an_older_term_leads_no_more() -> None:
    group = group_seen(
        1, {1: here("leader", term=3, lags={2: 0}), 2: here("leader", term=4, lags={1: 2})}
    )

    assert (2, 4) == (group.leader, group.term)
    assert [2, 0, None] == [member.lag for member in group.members]


def test_without_a_leader_nobody_knows_who_is_behind() -> None:
    group = group_seen(1, {1: here("candidate", applied=8), 2: here("follower", applied=9)})

    assert (None, 9) == (group.leader, group.applied_index)
    assert [None, None, None] == [member.lag for member in group.members]


def test_a_learner_is_told_from_the_voters() -> None:
    leader = here("leader", lags={2: 90}, voters=(1,), learners=(2,))
    group = group_seen(1, {1: leader, 2: here("follower", applied=0, voters=(1,), learners=(2,))})

    assert [1] == group.voters
    assert [(1, True), (2, False)] == [(m.node, m.is_voter) for m in group.members]


def test_a_node_that_left_the_group_is_no_member_though_it_tells() -> None:
    group = group_seen(1, {1: here("leader", voters=(1, 2)), 3: here("follower")})

    assert [1, 2] == [member.node for member in group.members]
