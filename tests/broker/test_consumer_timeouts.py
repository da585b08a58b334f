"""Who holds messages for too long, and when that is looked at."""

from __future__ import annotations

from leveret.broker.queues.consumer_timeouts import ConsumerTimeouts
from leveret.broker.queues.dispatch import Consumer


def consumer(*, own_ms: int | None = None, node_ms: int = 0) -> Consumer:
    return Consumer(
        (1, 1),
        prefetch=0,
        no_ack=False,
        exclusive=False,
        timeout_ms=own_ms,
        default_timeout_ms=node_ms,
    )


def test_without_a_timeout_nothing_is_looked_at() -> None:
    timeouts, holder = ConsumerTimeouts(None), consumer()
    holder.held[1] = 0
    timeouts.came(holder, 0)

    assert timeouts.next_look_ms is None
    assert timeouts.expired([holder], 10**9) == []


def test_the_consumers_own_timeout_goes_before_the_queues_and_that_before_the_nodes() -> None:
    for own_ms, queue_ms, node_ms, due_ms in [
        (100, 200, 300, 100),
        (300, 200, 100, 300),
        (None, 200, 100, 200),
        (None, None, 300, 300),
        (None, 0, 300, 300),
        (0, 200, 300, None),
    ]:
        timeouts = ConsumerTimeouts(queue_ms)
        timeouts.came(consumer(own_ms=own_ms, node_ms=node_ms), 0)
        assert timeouts.next_look_ms == due_ms


def test_what_is_held_for_too_long_is_found_and_the_next_look_is_at_the_next_oldest() -> None:
    timeouts, holder = ConsumerTimeouts(100), consumer()
    timeouts.came(holder, 0)
    holder.held.update({1: 0, 2: 50, 3: 60})

    assert timeouts.expired([holder], 99) == []
    assert timeouts.expired([holder], 100) == [(holder, [1])]
    assert timeouts.next_look_ms == 150


def test_what_is_handed_out_between_two_looks_is_found_in_time() -> None:
    timeouts, holder = ConsumerTimeouts(100), consumer()
    timeouts.came(holder, 0)
    assert timeouts.expired([holder], 100) == []
    assert timeouts.next_look_ms == 200

    holder.held[1] = 101
    assert timeouts.expired([holder], 200) == []
    assert timeouts.next_look_ms == 201
    assert timeouts.expired([holder], 201) == [(holder, [1])]


def test_another_timeout_of_the_queue_holds_for_the_consumers_that_are_there() -> None:
    timeouts, holder = ConsumerTimeouts(None), consumer()
    timeouts.came(holder, 0)
    timeouts.change(50, [holder], 10)
    assert timeouts.next_look_ms == 60

    timeouts.change(None, [holder], 20)
    assert timeouts.next_look_ms is None
