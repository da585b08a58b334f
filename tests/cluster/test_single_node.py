"""One real process: what it confirmed is there after any end of it."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pika
import pytest

from chaos.load import Consumer, Publisher
from chaos.verdict import Verdict, judge
from tests.cluster.conftest import NodeMaker, Opener
from tests.support.nodes import LeveretProcess

WINDOW = 500
CONFIRMED_MAX = 4_000
DELAY_MAX_S = 0.02


def kill_once(node: LeveretProcess, rng: random.Random, connect: Opener, queue: str) -> Verdict:
    """Publish, kill the node after some confirm and a moment more, take out what it has then."""
    connect(node.urls[0]).channel().queue_declare(queue, durable=True)
    publisher = Publisher(node.urls[0], queue, window=WINDOW)
    publisher.start()
    publisher.wait_confirmed(rng.randint(1, CONFIRMED_MAX), within_s=60)
    time.sleep(rng.random() * DELAY_MAX_S)
    node.kill()
    publisher.wait_ended()
    node.start()
    channel = connect(node.urls[0]).channel()
    count = channel.queue_declare(queue, passive=True).method.message_count
    consumer = Consumer(node.urls[0], queue, prefetch=WINDOW)
    consumer.start()
    consumer.wait_distinct(count, within_s=30)
    consumer.close()
    assert 0 == channel.queue_declare(queue, passive=True).method.message_count
    return judge(publisher.next, publisher.confirmed, consumer.deliveries)


def test_a_confirmed_stream_survives_sigkill_in_order(
    single: LeveretProcess, connect: Opener
) -> None:
    rng = random.Random()
    for run in range(3):
        verdict = kill_once(single, rng, connect, f"kill-{run}")
        assert verdict.is_clean, verdict
        assert verdict.confirmed > 0
        assert 0 == verdict.redelivered


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_durable_comes_back_and_what_is_not_does_not(
    end: signal.Signals, single: LeveretProcess, connect: Opener
) -> None:
    owner = connect(single.urls[0])
    channel = owner.channel()
    channel.exchange_declare("kept", "topic", durable=True)
    channel.exchange_declare("gone", "topic", durable=False)
    channel.queue_declare("kept", durable=True)
    channel.queue_declare("gone", durable=False)
    channel.queue_declare("mine", durable=True, exclusive=True)
    channel.queue_bind("kept", "kept", "a.*")
    channel.queue_bind("kept", "gone", "a.*")
    channel.confirm_delivery()
    for number in range(20):
        channel.basic_publish("kept", "a.b", b"%d" % number, mandatory=True)
    channel.basic_publish("", "gone", b"x", mandatory=True)
    held = [channel.basic_get("kept") for _ in range(5)]
    channel.basic_ack(held[1][0].delivery_tag, multiple=True)
    channel.basic_publish("kept", "a.b", b"20", mandatory=True)

    single.signal(end)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        owner.process_data_events(time_limit=15)
    assert (0 if end == signal.SIGTERM else -signal.SIGKILL) == single.wait_ended()
    single.start()

    channel = connect(single.urls[0]).channel()
    channel.confirm_delivery()
    channel.basic_publish("kept", "a.c", b"21", mandatory=True)
    bodies: list[int] = []
    for _ in range(20):
        method, _, body = channel.basic_get("kept", auto_ack=True)
        assert method is not None, bodies
        bodies.append(int(body))
    assert list(range(2, 22)) == bodies
    for gone in ("queue gone", "queue mine", "exchange gone"):
        channel = connect(single.urls[0]).channel()
        kind, name = gone.split()
        declare = channel.queue_declare if kind == "queue" else channel.exchange_declare
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            declare(name, passive=True)
        assert 404 == refused.value.reply_code


def test_what_a_killed_nodes_consumer_held_is_delivered_again_with_the_mark(
    single: LeveretProcess, connect: Opener
) -> None:
    channel = connect(single.urls[0]).channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    for number in range(10):
        channel.basic_publish("", "q", b"%d" % number)
    for _, (method, _, _) in zip(range(10), channel.consume("q"), strict=False):
        assert not method.redelivered

    single.restart()

    channel = connect(single.urls[0]).channel()
    got = [channel.basic_get("q") for _ in range(10)]
    assert list(range(10)) == [int(body) for _, _, body in got]
    assert all(method.redelivered for method, _, _ in got)


def test_a_busy_node_stops_on_sigterm_within_its_deadline(
    make_node: NodeMaker, connect: Opener, publish: Callable[..., Publisher]
) -> None:
    node = make_node()
    node.start()
    url = node.urls[0]
    connect(url).channel().queue_declare("q", durable=True)
    publish(url, "q", count=500).wait_all(within_s=15)
    holders = [connect(url).channel() for _ in range(50)]
    for holder in holders:
        holder.basic_qos(prefetch_count=10)
        holder.basic_consume("q", lambda *_: None)

    assert 0 == node.stop()

    assert "not stopped in time" not in node.log_text()
    node.start()
    declared = connect(url).channel().queue_declare("q", passive=True)
    assert 500 == declared.method.message_count
