"""Messages that came back wait, in the state that all replicas have."""

from __future__ import annotations

from leveret.broker.queues import machine
from leveret.broker.queues.dispatch import Consumer, Dispatcher
from leveret.broker.queues.features import DelayedRetry, QueueFeatures, features_of
from leveret.broker.queues.machine import ShardMachine
from leveret.broker.queues.state import QueueState

RETRY = DelayedRetry("all", 100, 250)


def consumer() -> Consumer:
    return Consumer((1, 1), prefetch=0, no_ack=False, exclusive=False)


class Replica:
    """The machine of one shard, with queue 7."""

    def __init__(self) -> None:
        self.machine = ShardMachine()
        self.index = 0

    def apply(self, command: bytes, *, at_ms: int) -> None:
        self.index += 1
        self.machine.apply(self.index, at_ms, command, 0)

    @property
    def state(self) -> QueueState:
        return self.machine.queues[7]


def test_the_wait_grows_with_each_return_up_to_the_most() -> None:
    replica = Replica()
    replica.apply(machine.enqueue(7, [b"a", b"b"]), at_ms=0)

    for at_ms, due_ms in [(1_000, 1_100), (2_000, 2_200), (3_000, 3_250), (4_000, 4_250)]:
        replica.apply(machine.returned(7, [(2, 2)], RETRY), at_ms=at_ms)
        assert replica.state.trait("due", 2) == due_ms
    assert replica.state.trait("due", 1) == 0

    replica.apply(machine.returned(7, [(1, 1)]), at_ms=5_000)
    assert replica.state.trait("due", 1) == 0
    assert replica.state.returns == {1: 1, 2: 4}


def test_without_a_most_the_wait_grows_on() -> None:
    replica = Replica()
    replica.apply(machine.enqueue(7, [b"a"]), at_ms=0)
    for _ in range(5):
        replica.apply(machine.returned(7, [(1, 1)], DelayedRetry("all", 100, None)), at_ms=0)

    assert replica.state.trait("due", 1) == 500


def test_a_new_leader_lets_the_message_wait_on_and_marks_it() -> None:
    replica, other = Replica(), Replica()
    replica.apply(machine.enqueue(7, [b"a", b"b"]), at_ms=0)
    replica.apply(machine.mark(7, 100), at_ms=0)
    replica.apply(machine.returned(7, [(1, 1)], RETRY), at_ms=1_000)
    other.machine.restore(replica.machine.snapshot())

    dispatcher = Dispatcher(other.state, features=QueueFeatures(delayed_retry=RETRY))
    dispatcher.look(1_050)
    holder = consumer()
    dispatcher.add(holder)
    [(_, first)] = dispatcher.dispatch()
    assert [delivery.sequence for delivery in first] == [2]
    assert dispatcher.next_alarm_ms == 1_100

    dispatcher.alarms(1_100)
    [(_, again)] = dispatcher.dispatch()
    assert [(delivery.sequence, delivery.redelivered) for delivery in again] == [(1, True)]


def test_which_returns_wait() -> None:
    for kind, failed, returned in [
        ("all", True, True),
        ("failed", True, False),
        ("returned", False, True),
    ]:
        features = features_of(
            {"x-delayed-retry-type": kind, "x-delayed-retry-min": 5},
            vhost="/",
            name="q",
            auto_delete=False,
        )
        retry = features.delayed_retry
        assert retry is not None
        assert (retry.is_for(failed=True), retry.is_for(failed=False)) == (failed, returned)


def test_without_a_type_or_a_wait_nothing_waits() -> None:
    for arguments in (
        {},
        {"x-delayed-retry-type": "disabled", "x-delayed-retry-min": 5},
        {"x-delayed-retry-min": 5},
        {"x-delayed-retry-type": "all"},
    ):
        features = features_of(arguments, vhost="/", name="q", auto_delete=False)
        assert features.delayed_retry is None
