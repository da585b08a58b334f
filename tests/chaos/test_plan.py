"""A seed means the same faults each time, and no more than the promises allow."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pytest

from chaos.nemesis.kinds import KINDS
from chaos.plan import SHAPES, Step, draw, steps_of_json, steps_to_json

ALL = tuple(SHAPES)


def steps(seed: int, *, nodes: int = 3, count: int = 200) -> list[Step]:
    return list(islice(draw(seed, nodes=nodes, kinds=ALL), count))


def test_every_kind_of_fault_has_a_shape_and_a_maker() -> None:
    assert set(SHAPES) == set(KINDS)


def test_a_seed_is_the_same_faults_and_another_one_is_not() -> None:
    assert steps(1) == steps(1)
    assert steps(1) != steps(2)


def test_every_kind_is_drawn() -> None:
    drawn = Counter(fault.kind for step in steps(1, count=2000) for fault in step.faults)

    assert set(ALL) == set(drawn)


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_no_fault_hits_more_nodes_than_its_kind_may(nodes: int) -> None:
    for step in steps(3, nodes=nodes, count=1000):
        for fault in step.faults:
            most = {
                "one": 1,
                "minority": max((nodes - 1) // 2, 1),
                "majority": nodes,
                "any": nodes,
                "all": nodes,
            }[SHAPES[fault.kind].hits]
            assert 1 <= len(set(fault.nodes)) == len(fault.nodes) <= most
            assert set(fault.nodes) <= set(range(nodes))


def test_a_lost_disk_has_no_company() -> None:
    for step in steps(4, count=2000):
        kinds = [fault.kind for fault in step.faults]
        assert len(kinds) == 1 or not {"wipe", "replace", "outage"} & set(kinds)


def test_two_faults_at_once_hit_different_nodes_unless_one_hits_all() -> None:
    pairs = 0
    for step in steps(5, nodes=5, count=1000):
        if len(step.faults) == 2:
            one, other = (set(fault.nodes) for fault in step.faults)
            pairs += 1
            assert not one & other or 5 in (len(one), len(other))
    assert pairs > 100


def test_what_hits_any_number_of_nodes_spares_those_that_another_fault_hits() -> None:
    pairs = 0
    for step in islice(draw(7, nodes=5, kinds=("delay", "reorder")), 1000):
        one, *rest = (set(fault.nodes) for fault in step.faults)
        for other in rest:
            pairs += 1
            assert not one & other or len(one) == 5
    assert pairs > 100


def test_steps_outlive_a_file() -> None:
    drawn = steps(6)

    assert drawn == steps_of_json(json.loads(json.dumps(steps_to_json(drawn))))
