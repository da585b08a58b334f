"""Dead letters that no queue takes: dropped as RabbitMQ does, or kept where that is wanted."""

from __future__ import annotations

import json
import time

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from leveret.cli.ask import ask_once
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import QueueSeen
from leveret.node.control.queue_messages import MessageSeen
from tests.cluster.conftest import NodeMaker, Opener
from tests.cluster.test_listing import wait_for
from tests.cluster.test_operating import data_of
from tests.support.nodes import LeveretProcess

WITHIN_S = 30.0


def queues(node: LeveretProcess) -> list[str]:
    listed = ask_once(data_of(node), "list_queues", Listed[QueueSeen], vhost="/", counts=False)
    return [seen.name for seen in listed.rows]


def parked(node: LeveretProcess) -> list[MessageSeen]:
    if "$dead" not in queues(node):
        return []
    return ask_once(data_of(node), "peek", list[MessageSeen], vhost="/", queue="$dead", count=100)


def rejected(channel: BlockingChannel, queue: str, exchange: str, count: int) -> None:
    """Have so many messages die in a queue whose dead letters go to `exchange`."""
    arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "lost"}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    channel.confirm_delivery()
    for number in range(count):
        channel.basic_publish("", queue, b"%d" % number)
        (got, _, _) = channel.basic_get(queue)
        channel.basic_reject(got.delivery_tag, requeue=False)
    deadline_s = time.monotonic() + WITHIN_S
    while channel.queue_declare(queue, passive=True).method.message_count:
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize("exchange", ["no-such-exchange", "amq.direct"], ids=["missing", "unbound"])
def test_a_dead_letter_that_no_queue_takes_is_parked_with_its_story(
    exchange: str, make_node: NodeMaker, connect: Opener
) -> None:
    node = make_node("node.park_dead_letters=true")
    node.start()
    rejected(connect(node.urls[0]).channel(), "orders", exchange, 3)

    wait_for(["0", "1", "2"], lambda: [seen.payload for seen in parked(node)])
    letter = parked(node)[0]
    assert (exchange, "lost") == (letter.exchange, letter.routing_key)
    (death,) = json.loads(json.dumps(letter.headers["x-death"]))
    assert ("orders", "rejected") == (death["queue"], death["reason"])

    node.kill()
    node.launch()
    node.wait_ready()
    wait_for(3, lambda: len(parked(node)))


def test_by_default_a_dead_letter_that_no_queue_takes_is_dropped(
    single: LeveretProcess, connect: Opener
) -> None:
    rejected(connect(single.urls[0]).channel(), "orders", "no-such-exchange", 2)

    def left() -> object:
        return ask_once(
            data_of(single), "peek", list[MessageSeen], vhost="/", queue="orders", count=10
        )

    wait_for([], left)
    assert ["orders"] == queues(single)


def test_a_letter_that_would_go_round_is_not_parked(make_node: NodeMaker, connect: Opener) -> None:
    node = make_node("node.park_dead_letters=true")
    node.start()
    channel = connect(node.urls[0]).channel()
    arguments = {"x-dead-letter-exchange": "", "x-message-ttl": 1}
    channel.queue_declare("round", durable=True, arguments=arguments)
    channel.confirm_delivery()
    channel.basic_publish("", "round", b"x", pika.BasicProperties())

    def left() -> object:
        return ask_once(data_of(node), "peek", list[MessageSeen], vhost="/", queue="round")

    wait_for([], left)
    assert ["round"] == queues(node)
