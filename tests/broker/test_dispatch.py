"""Who gets the next message, and that every message is in exactly one place."""

from __future__ import annotations

from array import array

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leveret.broker.queues.dispatch import MARK_STEP, WINDOW, Consumer, Dispatcher
from leveret.broker.queues.state import QueueState


def queue_with(messages: int, *, mark: int = 10_000) -> QueueState:
    state = QueueState(1)
    state.mark = mark
    if messages:
        state.append(1, 0, array("I", [10] * messages))
    return state


def consumer(
    number: int, *, prefetch: int = 0, no_ack: bool = False, priority: int = 0
) -> Consumer:
    return Consumer(
        (1, number), prefetch=prefetch, no_ack=no_ack, exclusive=False, priority=priority
    )


def handed(dispatcher: Dispatcher) -> dict[int, list[int]]:
    return {
        consumer.key[1]: [delivery.sequence for delivery in deliveries]
        for consumer, deliveries in dispatcher.dispatch()
    }


def new_dispatcher(state: QueueState) -> Dispatcher:
    """A dispatcher of which no earlier leader delivered anything, with the mark far ahead."""
    state.mark = 1
    dispatcher = Dispatcher(state)
    state.mark = 10_000
    return dispatcher


def fresh_dispatcher(messages: int) -> Dispatcher:
    return new_dispatcher(queue_with(messages))


def test_consumers_get_messages_in_turns() -> None:
    dispatcher = fresh_dispatcher(5)
    for number in (1, 2):
        dispatcher.add(consumer(number))

    assert handed(dispatcher) == {1: [1, 3, 5], 2: [2, 4]}


def test_the_turn_goes_on_behind_who_was_served_last() -> None:
    state = queue_with(1)
    dispatcher = new_dispatcher(state)
    for number in (1, 2):
        dispatcher.add(consumer(number))
    assert handed(dispatcher) == {1: [1]}

    state.append(2, 0, array("I", [10]))

    assert handed(dispatcher) == {2: [2]}


def test_prefetch_bounds_what_a_consumer_holds_until_it_settles() -> None:
    dispatcher = fresh_dispatcher(5)
    dispatcher.add(consumer(1, prefetch=2))
    assert handed(dispatcher) == {1: [1, 2]}
    assert handed(dispatcher) == {}

    dispatcher.release([1])

    assert handed(dispatcher) == {1: [3]}
    assert dispatcher.unacked == 2
    assert dispatcher.ready == 2


def test_the_highest_priority_with_credit_comes_first() -> None:
    dispatcher = fresh_dispatcher(4)
    dispatcher.add(consumer(1, prefetch=2))
    dispatcher.add(consumer(2, prefetch=2, priority=5))

    assert handed(dispatcher) == {2: [1, 2], 1: [3, 4]}


def test_returned_messages_come_first_at_their_places_and_are_marked() -> None:
    dispatcher = fresh_dispatcher(4)
    first = consumer(1, prefetch=3)
    dispatcher.add(first)
    handed(dispatcher)

    dispatcher.give_back(first, [3, 1])

    deliveries = [(d.sequence, d.redelivered) for _, some in dispatcher.dispatch() for d in some]
    assert deliveries == [(1, True), (3, True)]


def test_what_the_client_never_saw_returns_unmarked() -> None:
    dispatcher = fresh_dispatcher(2)
    first = consumer(1)
    dispatcher.add(first)
    handed(dispatcher)

    dispatcher.give_back(first, [2], delivered=False)

    ((_, (delivery,)),) = dispatcher.dispatch()
    assert (delivery.sequence, delivery.redelivered) == (2, False)


def test_what_a_client_never_saw_is_marked_for_one_that_has_a_later_message() -> None:
    """Unmarked, it would be out of order there."""
    dispatcher = fresh_dispatcher(5)
    first, second = consumer(1, prefetch=3), consumer(2, prefetch=2)
    dispatcher.add(first)
    dispatcher.add(second)
    assert handed(dispatcher) == {1: [1, 3, 5], 2: [2, 4]}

    dispatcher.give_back(first, [3, 5], delivered=False)
    dispatcher.stop(first)
    second.prefetch = 0

    ((_, deliveries),) = dispatcher.dispatch()
    assert [(d.sequence, d.redelivered) for d in deliveries] == [(3, True), (5, False)]


def test_what_two_clients_never_saw_returns_unmarked() -> None:
    dispatcher = fresh_dispatcher(4)
    first, second = consumer(1, prefetch=2), consumer(2, prefetch=2)
    dispatcher.add(first)
    dispatcher.add(second)
    assert handed(dispatcher) == {1: [1, 3], 2: [2, 4]}

    dispatcher.give_back(first, [3], delivered=False)
    dispatcher.give_back(second, [4], delivered=False)
    dispatcher.stop(first)

    second.prefetch = 0
    ((_, deliveries),) = dispatcher.dispatch()
    assert [(d.sequence, d.redelivered) for d in deliveries] == [(3, False), (4, False)]


def test_what_came_back_late_and_unseen_is_marked_for_its_own_client_too() -> None:
    dispatcher = fresh_dispatcher(3)
    only = consumer(1)
    dispatcher.add(only)
    assert handed(dispatcher) == {1: [1, 2, 3]}

    dispatcher.give_back(only, [2], delivered=False)  # and 3 was seen

    ((_, deliveries),) = dispatcher.dispatch()
    assert [(d.sequence, d.redelivered) for d in deliveries] == [(2, True)]


def test_below_the_mark_of_an_earlier_leader_messages_count_as_redelivered() -> None:
    dispatcher = Dispatcher(queue_with(3, mark=2))
    dispatcher.add(consumer(1))

    ((_, deliveries),) = dispatcher.dispatch()

    assert [(d.sequence, d.redelivered) for d in deliveries] == [(1, True)]
    assert dispatcher.wants_mark()
    assert dispatcher.next_mark() == 2 + MARK_STEP


def test_what_a_lost_node_released_and_never_settled_is_ready_again() -> None:
    state = queue_with(4)
    dispatcher = new_dispatcher(state)
    there = Consumer((2, 1), prefetch=0, no_ack=False, exclusive=False)
    dispatcher.add(there)
    assert handed(dispatcher) == {1: [1, 2, 3, 4]}
    dispatcher.release([1, 2, 3])
    dispatcher.settled(state.settle([(1, 1)]))

    dispatcher.remove(there)
    dispatcher.lose_node(2)

    assert dispatcher.ready == 3
    dispatcher.add(consumer(5))
    [(_, deliveries)] = dispatcher.dispatch()
    assert [(d.sequence, d.redelivered) for d in deliveries] == [(2, True), (3, True), (4, True)]


def test_a_settlement_that_comes_after_all_takes_the_message_from_where_it_is() -> None:
    state = queue_with(2)
    dispatcher = new_dispatcher(state)
    there = Consumer((2, 1), prefetch=0, no_ack=False, exclusive=False)
    dispatcher.add(there)
    assert handed(dispatcher) == {1: [1, 2]}
    dispatcher.release([1, 2])
    dispatcher.remove(there)
    dispatcher.lose_node(2)
    dispatcher.add(consumer(5, prefetch=1))
    assert handed(dispatcher) == {5: [1]}

    dispatcher.settled(state.settle([(1, 2)]))

    assert dispatcher.ready == 0
    assert dispatcher.unacked == 0


def test_the_mark_is_wanted_when_all_before_it_went_without_this_leader() -> None:
    state = queue_with(10 * MARK_STEP, mark=MARK_STEP)
    dispatcher = Dispatcher(state)
    first = consumer(1, prefetch=1)
    dispatcher.add(first)
    dispatcher.claim(first, [2])
    # Others had these of the leader before; their settlements were under way.
    dispatcher.settled(state.settle([(1, 1), (3, MARK_STEP - 1)]))
    dispatcher.release([2])

    assert handed(dispatcher) == {}
    assert dispatcher.wants_mark()
    state.mark = dispatcher.next_mark()
    assert handed(dispatcher) == {1: [MARK_STEP]}


def test_a_claim_keeps_a_message_from_others() -> None:
    dispatcher = Dispatcher(queue_with(3))
    old, new = consumer(1), consumer(2)
    dispatcher.add(old, takes_turns=False)
    dispatcher.claim(old, [2, 99])
    dispatcher.add(new)

    assert handed(dispatcher) == {2: [1, 3]}
    assert dispatcher.unacked == 3
    dispatcher.remove(old)
    assert handed(dispatcher) == {2: [2]}


def test_a_consumer_that_does_not_read_gets_a_window_and_no_more() -> None:
    dispatcher = fresh_dispatcher(WINDOW + 10)
    slow = consumer(1, no_ack=True)
    dispatcher.add(slow)
    assert len(handed(dispatcher)[1]) == WINDOW

    slow.unwritten -= 5

    assert len(handed(dispatcher)[1]) == 5


def test_a_purge_takes_ready_messages_only() -> None:
    dispatcher = fresh_dispatcher(6)
    first = consumer(1, prefetch=3)
    dispatcher.add(first)
    handed(dispatcher)
    dispatcher.give_back(first, [2])

    assert dispatcher.ready_ranges() == [(2, 2), (4, 6)]


class DispatcherMachine(RuleBasedStateMachine):
    """Every live message is ready, held or settling, whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self.state = queue_with(0)
        self.dispatcher = new_dispatcher(self.state)
        self.settling: set[int] = set()
        self.consumers: dict[int, Consumer] = {}
        self.number = 0
        self.delivered_before: set[int] = set()
        self.suspect_below = 1

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        self.state.append(self.state.next, 0, array("I", [1] * count))

    @rule(prefetch=st.integers(0, 3))
    def consume(self, prefetch: int) -> None:
        self.number += 1
        self.consumers[self.number] = consumer(self.number, prefetch=prefetch)
        self.dispatcher.add(self.consumers[self.number])

    @rule()
    def dispatch(self) -> None:
        before = {s for c in self.consumers.values() for s in c.held}
        order = []
        for _, deliveries in self.dispatcher.dispatch():
            for delivery in deliveries:
                order.append(delivery.sequence)
                assert delivery.sequence not in before
                assert delivery.redelivered == (
                    delivery.sequence in self.delivered_before
                    or delivery.sequence < self.suspect_below
                )
        self.delivered_before.update(order)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.consumers)))
        held = sorted(self.consumers[chosen].held)
        if held:
            some = data.draw(st.lists(st.sampled_from(held), unique=True))
            self.dispatcher.give_back(self.consumers[chosen], some)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        held = sorted({s for c in self.consumers.values() for s in c.held})
        if held:
            some = data.draw(st.lists(st.sampled_from(held), unique=True))
            self.dispatcher.release(some)
            self.settling.update(some)

    @rule()
    def commit(self) -> None:
        killed = self.state.settle([(s, s) for s in self.settling])
        self.dispatcher.settled(killed)
        self.settling.clear()

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.consumers)))
        self.dispatcher.remove(self.consumers.pop(chosen))

    @rule()
    def lose_link(self) -> None:
        """What was settling is ready again, and may be settled all the same."""
        self.dispatcher.lose_node(1)
        self.settling.clear()

    @rule()
    def change_leader(self) -> None:
        """A new leader hears from all consumers what they hold; what was settling may be lost."""
        held = {s for c in self.consumers.values() for s in c.held}
        # The mark of the earlier leader is above all that it delivered.
        self.suspect_below = self.state.mark = max(held, default=0) + 1
        self.dispatcher = Dispatcher(self.state)
        self.state.mark = 10_000
        self.settling.clear()
        for old in self.consumers.values():
            again = consumer(old.key[1], prefetch=old.prefetch)
            self.consumers[old.key[1]] = again
            self.dispatcher.add(again)
            self.dispatcher.claim(again, sorted(old.held))
        self.delivered_before = held

    @invariant()
    def every_live_message_is_in_one_place(self) -> None:
        held = [s for c in self.consumers.values() for s in c.held]
        assert len(held) == len(set(held)) == self.dispatcher.unacked
        live = {s for s, _ in self.state.live_from(1)}
        ready = {s for a, b in self.dispatcher.ready_ranges() for s in range(a, b + 1)}
        assert not ready & set(held)
        assert not ready & self.settling
        assert live == ready | set(held) | self.settling
        assert len(ready) == self.dispatcher.ready


TestDispatcher = DispatcherMachine.TestCase
TestDispatcher.settings = settings(max_examples=80, stateful_step_count=30)
