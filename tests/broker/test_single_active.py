"""Which consumer of a queue with a single active one gets its messages."""

from __future__ import annotations

from array import array

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leveret.broker.queues.dispatch import Consumer, Dispatcher
from leveret.broker.queues.features import QueueFeatures
from leveret.broker.queues.single_active import RECALL_MS, SingleActive
from leveret.broker.queues.state import QueueState


def consumer(number: int, *, priority: int = 0, activated: int = 0) -> Consumer:
    return Consumer(
        (1, number),
        prefetch=2,
        no_ack=False,
        exclusive=False,
        priority=priority,
        activated=activated,
    )


def test_the_first_one_stays_active_until_it_goes() -> None:
    single, first, second = SingleActive(), consumer(1), consumer(2)

    assert single.choose([first, second], 0) is first
    assert single.choose([second, first], 0) is first
    assert single.choose([second], 0) is second
    assert single.choose([], 0) is None


def test_a_higher_priority_takes_over_when_the_active_one_holds_nothing() -> None:
    single, low, high = SingleActive(), consumer(1), consumer(2, priority=5)
    assert single.choose([low], 0) is low
    low.held[1] = 0

    assert single.choose([low, high], 0) is None
    del low.held[1]
    assert single.choose([low, high], 0) is high
    assert (low.activated, high.activated > 0) == (0, True)
    assert single.news() == [low, low, high]
    assert single.choose([low, high, consumer(3, priority=5)], 0) is high


def test_among_those_that_wait_the_highest_priority_is_next() -> None:
    single = SingleActive()
    first, low, high = consumer(1), consumer(2), consumer(3, priority=-1)
    assert single.choose([first, high, low], 0) is first

    assert single.choose([high, low], 0) is low


def test_a_new_leader_waits_a_moment_for_who_was_active() -> None:
    old = SingleActive()
    active = consumer(1)
    assert old.choose([active], 5_000) is active

    new = SingleActive()
    new.recall_until_ms = 6_000 + RECALL_MS
    other, again = consumer(2), consumer(1, activated=active.activated)
    assert new.choose([other], 6_000) is None
    assert new.choose([other, again], 6_001) is again
    assert again.activated > active.activated


def test_a_new_leader_chooses_another_one_when_who_was_active_does_not_come_back() -> None:
    single, other = SingleActive(), consumer(2)
    single.recall_until_ms = RECALL_MS

    assert single.choose([other], RECALL_MS - 1) is None
    assert single.choose([other], RECALL_MS) is other


class Exclusion(RuleBasedStateMachine):
    """Consumers come and go, take and settle: two never hold unmarked messages at once."""

    def __init__(self) -> None:
        super().__init__()
        state = QueueState(1)
        state.append(1, 0, array("I", [10] * 200))
        self.dispatcher = Dispatcher(state, features=QueueFeatures(single_active=True))
        state.mark = 1_000
        self.number = 0
        self.unmarked: dict[Consumer, set[int]] = {}

    @property
    def there(self) -> list[Consumer]:
        return list(self.dispatcher.consumers.values())

    @rule(priority=st.integers(-1, 1))
    def come(self, priority: int) -> None:
        self.number += 1
        self.dispatcher.add(consumer(self.number, priority=priority))

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.there))
        self.dispatcher.remove(gone)
        self.unmarked.pop(gone, None)

    @rule()
    def dispatch(self) -> None:
        for to, deliveries in self.dispatcher.dispatch():
            self.dispatcher.written(to, len(deliveries), sum(d.location.size for d in deliveries))
            new = {d.sequence for d in deliveries if not d.redelivered}
            self.unmarked.setdefault(to, set()).update(new)

    @precondition(lambda self: any(c.held for c in self.there))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        held = sorted(s for c in self.there for s in c.held)
        sequence = data.draw(st.sampled_from(held))
        self.dispatcher.release([sequence])
        self.dispatcher._state.settle([(sequence, sequence)])
        self.dispatcher.settled([(sequence, sequence)])

    @invariant()
    def one_has_unmarked_messages(self) -> None:
        holding = [c for c in self.there if self.unmarked.get(c, set()) & c.held.keys()]
        assert len(holding) <= 1


TestExclusion = Exclusion.TestCase
TestExclusion.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
