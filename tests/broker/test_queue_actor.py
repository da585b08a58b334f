"""Single courses of events between the actors of one queue; `test_queue_cluster` does the rest."""

from __future__ import annotations

import pytest

from leveret.broker.messages import Attach, Count, Deleted, Get, PublishRun, QueueGone
from leveret.broker.queues.lead import Lead
from leveret.broker.queues.ranges import to_ranges
from tests.broker.queue_cluster import Asked, Client, Cluster


def cluster_led_by(number: int) -> Cluster:
    cluster = Cluster(0, is_calm=True)
    cluster.limit_hits = 0
    cluster.elect(number)
    cluster.heal()
    return cluster


def publish(cluster: Cluster, count: int) -> None:
    cluster.publish(1, count)
    cluster.settle_down()


def error_of(asked: Asked) -> Exception:
    assert asked.request._result is not None
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one, the test asserts
        asked.request._result.unwrap()
    return caught.value


def bodies(client: Client) -> list[int]:
    return [int(body.split(b":")[1]) for _, body in client.held.values()]


def test_a_consumer_that_attached_between_two_news_of_one_leadership_is_kept() -> None:
    cluster = Cluster(0, is_calm=True)
    cluster.elect(1)
    one, two = cluster.nodes[1], cluster.nodes[2]
    two.see(cluster.term, 1)
    client = cluster.new_client(2, prefetch=0)
    two.step(256)
    # Its news of being elected, the consumer of node 2, and its news of being ready: all at once.
    cluster.carry(2, 1, 100)
    one.apply()
    assert one.is_leader

    one.step(256)
    cluster.settle_down()
    publish(cluster, 3)

    assert bodies(client) == [1, 2, 3]


def test_what_a_leader_says_about_an_earlier_attachment_is_void() -> None:
    cluster = cluster_led_by(1)
    client, two = cluster.new_client(2, prefetch=0), cluster.nodes[2]
    other = cluster.new_client(3, prefetch=0)
    cluster.settle_down()
    cluster.publish(1, 4)
    while cluster.nodes[1].outbox or cluster.nodes[1].applied < len(cluster.log):
        cluster.nodes[1].step(256)
        cluster.commit(1)
        while cluster.nodes[1].applied < len(cluster.log):
            cluster.nodes[1].apply()
    cluster.nodes[1].step(256)
    # The leader has sent; node 2 loses sight of it for a moment before it hears that.
    two.see(cluster.term, None)
    two.see(cluster.term, 1)
    two.step(256)

    cluster.settle_down()

    assert sorted(bodies(client) + bodies(other)) == [1, 2, 3, 4]


def test_messages_of_a_consumer_that_left_while_no_leader_was_known_are_ready_again() -> None:
    cluster = cluster_led_by(1)
    client, two = cluster.new_client(2, prefetch=0), cluster.nodes[2]
    cluster.settle_down()
    publish(cluster, 2)
    two.see(cluster.term, None)
    cluster.leave(client)
    cluster.settle_down()

    two.see(cluster.term, 1)
    cluster.settle_down()

    lead = cluster.nodes[1].actor._lead
    assert isinstance(lead, Lead)
    dispatcher = lead.dispatcher
    assert (2, 0, {}) == (dispatcher.ready, dispatcher.unacked, dispatcher.consumers)


def test_a_request_that_nobody_waits_for_is_not_sent_to_the_next_leader() -> None:
    cluster = Cluster(0, is_calm=True)
    asked = cluster.ask(cluster.nodes[2], Count())
    cluster.settle_down()
    asked.request.is_withdrawn = True

    cluster.elect(1)
    cluster.heal()

    assert not asked.is_answered
    assert not cluster.nodes[2].actor._pending


def test_a_deleted_queue_answers_everybody() -> None:
    cluster = Cluster(0, is_calm=True)
    client = cluster.new_client(2, prefetch=0)
    holder = cluster.new_client(2, prefetch=-1)
    cluster.get(holder)
    cluster.count(2)
    cluster.settle_down()

    cluster.nodes[2].mailbox.tell(Deleted())
    cluster.nodes[2].step(256)

    assert [QueueGone] * 3 == [type(error_of(asked)) for asked in cluster.requests]
    for inbox in (client.inbox, holder.inbox):
        assert ["ConsumerCancelled"] == [type(message).__name__ for message in inbox.queue]
    cluster.publish(2, 1)
    cluster.nodes[2].step(256)
    cluster.take_confirms()
    assert not cluster.open_runs


def test_who_is_refused_by_a_new_leader_hears_of_it() -> None:
    cluster = cluster_led_by(1)
    exclusive = cluster.new_client(2, prefetch=0)
    exclusive.consumer.exclusive = True
    cluster.settle_down()
    two = cluster.nodes[2]
    cluster.break_link(1, 2)
    cluster.notice(1, 2)
    cluster.settle_down()
    quicker = cluster.new_client(1, prefetch=0)
    cluster.settle_down()
    assert cluster.requests[-1].request._result is not None
    cluster.connect(1, 2)
    two.step(256)
    cluster.client_takes(exclusive)
    for _ in range(4):
        two.step(256)
        cluster.carry(2, 1, 100)
        cluster.nodes[1].step(256)
        cluster.carry(1, 2, 100)

    assert ["ConsumerCancelled"] == [type(m).__name__ for m in exclusive.inbox.queue]
    assert not two.actor._consumers
    assert quicker.consumer.number in cluster.nodes[1].actor._consumers


def test_a_crash_leaves_no_publisher_without_an_answer() -> None:
    cluster = cluster_led_by(1)
    cluster.publish(2, 3)
    node = cluster.nodes[2]
    message = node.mailbox.queue.popleft()
    assert isinstance(message, PublishRun)
    node.actor.receive(message)

    node.crash()
    cluster.settle_down()

    assert not cluster.open_runs
    assert not cluster.confirmed


def test_a_get_behind_an_attachment_gets_the_first_message() -> None:
    cluster = cluster_led_by(1)
    publish(cluster, 2)
    holder = cluster.new_client(3, prefetch=-1)
    asked = cluster.ask(holder.node, Get(holder.consumer))
    cluster.settle_down()

    assert asked.request._result is not None
    got = asked.request._result.unwrap()
    assert (1, False, 1) == (got.sequence, got.redelivered, got.ready)


def test_an_exclusive_consumer_is_refused_while_there_is_another() -> None:
    cluster = cluster_led_by(1)
    cluster.new_client(1, prefetch=0)
    cluster.settle_down()
    late = cluster.new_client(2, prefetch=-1)
    late.consumer.takes_turns = late.consumer.exclusive = True
    asked = cluster.ask(late.node, Attach(late.consumer))
    cluster.settle_down()

    assert type(error_of(asked)).__name__ == "ExclusiveUse"
    assert not cluster.nodes[2].actor._consumers


def test_ranges_are_ascending_and_without_repeats() -> None:
    assert to_ranges([5, 1, 2, 2, 9, 3]) == [(1, 3), (5, 5), (9, 9)]
    assert to_ranges([]) == []
