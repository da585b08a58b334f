"""Who should lead which group, and how groups are moved there."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from leveret.node.control.leadership import spread


def test_each_voter_leads_the_groups_whose_turn_it_is() -> None:
    voters = dict.fromkeys(range(9), (3, 1, 2))

    assert {0: 1, 1: 2, 2: 3, 3: 1, 4: 2, 5: 3, 6: 1, 7: 2, 8: 3} == spread(voters, [1, 2, 3])


def test_what_a_node_that_is_down_should_lead_is_shared_out_evenly() -> None:
    targets = spread(dict.fromkeys(range(9), (1, 2, 3)), [2, 3])

    assert Counter({2: 5, 3: 4}) == Counter(targets.values())
    assert [2, 3, 2, 3] == [targets[number] for number in (1, 2, 4, 5)]


def test_a_learner_leads_nothing_and_a_group_without_a_live_voter_is_left_out() -> None:
    assert {0: 1} == spread({0: [1, 2], 1: [2], 2: []}, [1, 3])


@given(
    voters=st.dictionaries(
        st.integers(0, 64), st.lists(st.integers(1, 7), min_size=1, unique=True), max_size=20
    ),
    up=st.sets(st.integers(1, 7)),
)
def test_every_group_that_can_is_led_by_a_live_voter(
    voters: dict[int, list[int]], up: set[int]
) -> None:
    targets = spread(voters, up)

    assert {number for number, ids in voters.items() if up & set(ids)} == set(targets)
    assert all(node in up and node in voters[number] for number, node in targets.items())
