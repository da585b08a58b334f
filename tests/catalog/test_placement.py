"""Where queues are placed."""

from __future__ import annotations

from leveret.catalog.placement import is_replicated, pick_shard


def test_the_emptiest_shard_is_picked_and_the_lowest_of_equals() -> None:
    assert pick_shard([0, 0, 0]) == 1
    assert pick_shard([2, 1, 1]) == 2


def test_only_a_queue_that_nothing_takes_away_is_replicated() -> None:
    assert is_replicated(durable=True, exclusive=False, auto_delete=False)
    assert not is_replicated(durable=False, exclusive=False, auto_delete=False)
    assert not is_replicated(durable=True, exclusive=True, auto_delete=False)
    assert not is_replicated(durable=True, exclusive=False, auto_delete=True)
