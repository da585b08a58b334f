"""The event exchange in a cluster: each event once, wherever it happens."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pika

from tests.cluster.conftest import Cluster

WITHIN_S = 30.0


def test_what_happens_at_any_node_is_told_once(
    cluster: Cluster, connect: Callable[[str], pika.BlockingConnection]
) -> None:
    listener = connect(cluster.url(0)).channel()
    tap = listener.queue_declare("", exclusive=True).method.queue
    for key in ("queue.#", "connection.created"):
        listener.queue_bind(tap, "amq.rabbitmq.event", key)
    mark = uuid.uuid4().hex[:12]

    for member in cluster.members:
        connection = pika.BlockingConnection(
            pika.ConnectionParameters(
                "127.0.0.1", member.ports[0], client_properties={"connection_name": mark}
            )
        )
        channel = connection.channel()
        channel.queue_declare(f"{mark}-{member.ports[0]}", durable=True)
        channel.queue_delete(f"{mark}-{member.ports[0]}")
        connection.close()
    # What is told behind all the others.
    last = f"{mark}-last"
    connect(cluster.url(0)).channel().queue_declare(last, exclusive=True)

    told: list[tuple[str, str]] = []
    is_last = False
    for method, properties, _ in listener.consume(tap, auto_ack=True, inactivity_timeout=WITHIN_S):
        assert method is not None, told
        headers = properties.headers
        name = headers["name"]
        if name == last:
            is_last = True
        elif mark in name:
            told.append((method.routing_key, name))
        elif headers.get("user_provided_name") == mark:
            told.append((method.routing_key, headers["node"]))
        # The news of clients come from their own nodes, beside those of the catalog.
        if is_last and sum(key == "connection.created" for key, _ in told) == len(cluster):
            break
    listener.cancel()

    queues = [f"{mark}-{member.ports[0]}" for member in cluster.members]
    assert [(key, q) for q in queues for key in ("queue.created", "queue.deleted")] == [
        one for one in told if one[0].startswith("queue")
    ]
    assert 3 == len({node for key, node in told if key == "connection.created"})
