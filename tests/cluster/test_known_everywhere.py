"""What one node was told of, the others know when the client is answered."""

from __future__ import annotations

import signal

import pika

from tests.cluster.conftest import Cluster

ROUNDS = 20


def test_what_is_declared_and_bound_over_one_node_is_routed_over_the_next_at_once(
    cluster: Cluster, name: str
) -> None:
    connections = [pika.BlockingConnection(pika.URLParameters(m.urls[0])) for m in cluster.members]
    channels = [connection.channel() for connection in connections]
    for channel in channels:
        channel.confirm_delivery()

    for number in range(ROUNDS):
        here, there = channels[number % 3], channels[(number + 1) % 3]
        queue = f"{name}-{number}"
        here.queue_declare(queue, durable=True)
        there.basic_publish("", queue, b"by the default exchange", mandatory=True)
        here.queue_bind(queue, "amq.topic", queue)
        there.basic_publish("amq.topic", queue, b"by a binding", mandatory=True)
        here.queue_unbind(queue, "amq.topic", queue)
        try:
            there.basic_publish("amq.topic", queue, b"by none", mandatory=True)
        except pika.exceptions.UnroutableError:
            pass
        else:
            raise AssertionError(f"round {number}: routed by a binding that is gone")

    for connection in connections:
        connection.close()


def test_a_stopped_node_does_not_stop_declarations(cluster: Cluster, name: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        channel = connection.channel()
        channel.queue_declare(f"{name}-before", durable=True)
        cluster[2].signal(signal.SIGSTOP)
        try:
            for number in range(30):
                channel.queue_declare(f"{name}-{number}", durable=True)
        finally:
            cluster[2].signal(signal.SIGCONT)
