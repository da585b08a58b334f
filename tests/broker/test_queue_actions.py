"""What an operator does with a queue: decided once, whoever leads when it comes to the log."""

from __future__ import annotations

from typing import Any, cast

import pytest

from leveret.actors import Ref
from leveret.amqp.delivery import encode_record, encode_route
from leveret.amqp.properties import Properties
from leveret.broker.messages import LeadAction, NotLeading, PublishRun
from leveret.broker.queues import machine
from leveret.broker.queues.machine import ShardMachine
from leveret.broker.queues.operating import Busy, CancelDelayed, Pause
from leveret.broker.queues.peeking import Peek
from tests.broker.queue_cluster import UID, Cluster, Node

DELAY_MS = 1_000


class Clock:
    """One clock for all nodes; what they want to be woken for, they are asked to look at."""

    now_ms = 0

    def cancel(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(Node, "now_ms", lambda _: clock.now_ms)
    monkeypatch.setattr(Node, "after", lambda *_: clock)
    return clock


def cluster_led_by(number: int) -> Cluster:
    cluster = Cluster(0, is_calm=True)
    cluster.limit_hits = 0
    cluster.elect(number)
    cluster.heal()
    return cluster


def publish(cluster: Cluster, count: int, *, delay_ms: int = 0) -> None:
    run = PublishRun(
        connection=cast("Ref[object]", cluster.publishers[1]),
        channel=1,
        epoch=1,
        exchange="",
        routing_key="q",
        mandatory=False,
        first_confirm=1,
    )
    run.waiting = 1
    run.has_lives = True
    header = Properties(headers={"x-delay": delay_ms} if delay_ms else None).encode(1)
    run.records = [encode_record(encode_route("", "q"), header, b"x")] * count
    cluster.open_runs[id(run)] = run
    cluster.nodes[1].mailbox.tell(run)
    cluster.settle_down()


def begin(cluster: Cluster, number: int, action: LeadAction[Any]) -> LeadAction[Any]:
    """Have a node carry out an action as far as it comes without the log."""
    node = cluster.nodes[number]
    node.mailbox.tell(action)
    node.step(256)
    return action


def to_the_log(cluster: Cluster, number: int) -> None:
    """Let the log take what a node has submitted, and all nodes apply it."""
    while cluster.nodes[number].outbox:
        cluster.commit(number)
    for node in cluster.nodes.values():
        while node.applied < len(cluster.log):
            node.apply()


def result(action: LeadAction[Any]) -> object:
    assert action._result is not None, "it is not answered"
    return action._result.unwrap()


def places(cluster: Cluster, number: int) -> list[str]:
    action = Peek(offset=0, count=100, body_bytes=0, only_delayed=False)
    begin(cluster, number, action)
    return [peeked.place for peeked in cast("list[Any]", result(action))]


def test_delayed_messages_are_cancelled_and_no_others(clock: Clock) -> None:
    cluster = cluster_led_by(1)
    publish(cluster, 2)
    publish(cluster, 3, delay_ms=DELAY_MS)

    one = begin(cluster, 1, CancelDelayed(4))
    cluster.settle_down()
    rest = begin(cluster, 1, CancelDelayed(None))
    cluster.settle_down()
    ready = begin(cluster, 1, CancelDelayed(1))

    assert [1, 2, 0] == [result(one), result(rest), result(ready)]
    assert ["ready", "ready"] == places(cluster, 1)
    clock.now_ms = 2 * DELAY_MS
    assert ["ready", "ready"] == places(cluster, 1)


def test_what_is_due_is_not_cancelled(clock: Clock) -> None:
    cluster = cluster_led_by(1)
    publish(cluster, 1, delay_ms=DELAY_MS)
    clock.now_ms = DELAY_MS
    cluster.nodes[1].step(1)

    assert 0 == result(begin(cluster, 1, CancelDelayed(None)))


def test_a_cancelled_message_is_not_due_while_its_end_is_under_way(clock: Clock) -> None:
    cluster = cluster_led_by(1)
    publish(cluster, 1, delay_ms=DELAY_MS)
    action = begin(cluster, 1, CancelDelayed(None))

    clock.now_ms = DELAY_MS
    assert ["leaving"] == places(cluster, 1)
    cluster.settle_down()

    assert 1 == result(action)
    assert [] == places(cluster, 1)


def test_a_second_action_waits_for_its_turn(clock: Clock) -> None:
    cluster = cluster_led_by(1)
    publish(cluster, 2, delay_ms=DELAY_MS)

    first, second = (begin(cluster, 1, CancelDelayed(number)) for number in (1, 2))

    with pytest.raises(Busy):
        result(second)
    cluster.settle_down()
    assert 1 == result(first)
    assert ["delayed"] == places(cluster, 1)


def test_what_a_leader_cancels_when_it_is_deposed_stays(clock: Clock) -> None:
    cluster = cluster_led_by(1)
    publish(cluster, 1, delay_ms=DELAY_MS)
    action = begin(cluster, 1, CancelDelayed(None))

    # Its hold comes to the log when the next leader is there.
    cluster.elect(2)
    to_the_log(cluster, 1)
    cluster.heal()

    with pytest.raises(NotLeading):
        result(action)
    assert ["delayed"] == places(cluster, 2)
    again = begin(cluster, 2, CancelDelayed(None))
    cluster.settle_down()
    assert 1 == result(again)


def test_an_end_that_comes_to_the_log_under_the_next_leader_is_void(clock: Clock) -> None:
    cluster = cluster_led_by(1)
    publish(cluster, 1, delay_ms=DELAY_MS)
    action = begin(cluster, 1, CancelDelayed(None))
    cluster.commit(1)
    cluster.nodes[1].apply()  # the hold is there, and the end on its way
    assert len(cluster.nodes[1].outbox) == 2

    cluster.elect(2)
    for node in cluster.nodes.values():
        while node.applied < len(cluster.log):
            node.apply()
    cluster.nodes[2].see(cluster.term, 2)
    clock.now_ms = DELAY_MS
    # The next leader does nothing before it has replaced the hold; then the message is due.
    two = cluster.nodes[2]
    two.step(256)
    assert two.actor._lead is None
    to_the_log(cluster, 2)
    two.step(256)
    to_the_log(cluster, 2)
    two.step(256)
    assert ["ready"] == places(cluster, 2)
    cluster.heal()

    with pytest.raises(NotLeading):
        result(action)
    assert ["ready"] == places(cluster, 2)


def test_a_paused_queue_delivers_nothing_whoever_leads_it_until_it_is_resumed(
    clock: Clock,
) -> None:
    cluster = cluster_led_by(1)
    client = cluster.new_client(3, prefetch=0)
    holder = cluster.new_client(3, prefetch=-1)
    cluster.settle_down()
    pause = begin(cluster, 1, Pause(is_paused=True))
    cluster.settle_down()
    assert True is result(pause)

    cluster.publish(2, 3)
    got = cluster.get(holder)
    cluster.settle_down()
    assert {} == client.held
    assert got.request._result is not None
    assert got.request._result.unwrap() is None
    assert False is result(begin(cluster, 1, Pause(is_paused=True)))
    cluster.elect(2)
    cluster.heal()
    assert {} == client.held

    resume = begin(cluster, 2, Pause(is_paused=False))
    cluster.settle_down()
    assert True is result(resume)
    assert 3 == len(client.held)


def test_pauses_and_holds_are_in_a_snapshot() -> None:
    shard, copy = ShardMachine(), ShardMachine()
    shard.apply(1, 0, machine.pause(UID, is_paused=True), 0)
    shard.apply(2, 0, machine.hold(UID, (9, [1, 4])), 0)
    copy.restore(shard.snapshot())

    state = copy.queues[UID]
    assert (True, 1, 1, (9, 0, (1, 4))) == (state.is_paused, state.hold, state.holds, state.intent)
    assert shard.snapshot() == copy.snapshot()


def test_a_shard_without_actions_has_a_snapshot_that_earlier_versions_read() -> None:
    shard = ShardMachine()
    shard.apply(1, 0, machine.enqueue(UID, [b"one"]), 0)

    assert shard.snapshot()[1] < 4
