"""Messages of megabytes on three nodes: what they cost others, and that they arrive."""

from __future__ import annotations

import hashlib
import random

import pika
import pytest

from tests.cluster.conftest import Cluster, Opener

MIB = 1 << 20
SIZES = [5 * MIB, 48 * MIB, 128 * MIB, 1]


def message(size: int) -> bytes:
    return random.Random(size).randbytes(min(size, MIB)) * max(size // MIB, 1)


def digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.mark.parametrize("durable", [True, False])
def test_messages_of_any_size_come_through_whichever_nodes_clients_use(
    durable: bool,
    cluster: Cluster,
    name: str,
    connect: Opener,
) -> None:
    channel = connect(cluster.url(0)).channel()
    channel.confirm_delivery()
    channel.queue_declare(name, durable=durable)
    for size in SIZES:
        channel.basic_publish(
            "", name, message(size), pika.BasicProperties(delivery_mode=2), mandatory=True
        )

    got: list[str] = []
    consumer = connect(cluster.url(1)).channel()
    for method, _, body in consumer.consume(name, inactivity_timeout=120):
        assert method is not None, "nothing came"
        got.append(digest(body))
        if len(got) == len(SIZES):
            break
    consumer.basic_ack(0, multiple=True)

    assert [digest(message(size)) for size in SIZES] == got
    channel.queue_delete(name)
