"""Dead letters over three nodes: none is lost, whoever dies while they are on their way."""

from __future__ import annotations

import time
from collections.abc import Callable

import pika
import pytest

from chaos.load import body_of, number_of
from tests.cluster.conftest import Cluster
from tests.cluster.test_killed_leader import ready_at

WITHIN_S = 45.0
MESSAGES = 3_000
TTL_MS = 1_500


def declare(url: str, queue: str, arguments: dict[str, object] | None = None) -> int:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        declared = connection.channel().queue_declare(queue, durable=True, arguments=arguments)
        return int(declared.method.message_count)


def fill(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for number in range(MESSAGES):
            channel.basic_publish("", queue, body_of(number))
        # The answer comes when all that was published before is stored.
        channel.queue_declare(queue, passive=True)


def drain(url: str, queue: str, meanwhile: Callable[[], None]) -> list[int]:
    """Consume until every message came at least once."""
    got: list[int] = []
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *d: got.append(number_of(d[3])), auto_ack=True)
        deadline = time.monotonic() + WITHIN_S
        while len(set(got)) < MESSAGES:
            meanwhile()
            assert time.monotonic() < deadline, f"{len(set(got))} of {MESSAGES} came"
            connection.process_data_events(time_limit=0.05)
    return got


@pytest.mark.parametrize("why", ["expired", "maxlen", "rejected"])
@pytest.mark.parametrize("kills", [False, True], ids=["nobody dies", "the leader dies"])
def test_every_dead_letter_arrives(why: str, kills: bool, cluster: Cluster, name: str) -> None:
    dead = f"{name}.dead"
    arguments: dict[str, object] = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead,
    }
    arguments |= {"expired": {"x-message-ttl": TTL_MS}, "maxlen": {"x-max-length": 0}}.get(why, {})
    declare(cluster.url(0), dead)
    declare(cluster.url(0), name, arguments)
    before = ready_at(cluster)
    fill(cluster.url(0), name)
    grown = [after - count for after, count in zip(ready_at(cluster), before, strict=True)]
    leader = grown.index(max(grown))

    if why == "rejected":
        survivor = cluster.url(leader + 1)
        connection = pika.BlockingConnection(pika.URLParameters(survivor))
        channel = connection.channel()
        rejected: set[int] = set()

        def reject(_c: object, method: pika.spec.Basic.Deliver, _p: object, body: bytes) -> None:
            channel.basic_reject(method.delivery_tag, requeue=False)
            rejected.add(number_of(body))

        channel.basic_qos(prefetch_count=200)
        channel.basic_consume(name, reject)
        deadline = time.monotonic() + WITHIN_S
        while len(rejected) < MESSAGES // 3:
            assert time.monotonic() < deadline
            connection.process_data_events(time_limit=0.05)
        if kills:
            cluster[leader].kill()
        got = drain(survivor, dead, lambda: connection.process_data_events(time_limit=0.01))
        connection.close()
    elif kills:
        time.sleep(TTL_MS / 1000 if why == "expired" else 0)
        cluster[leader].kill()

    if why != "rejected":
        got = drain(cluster.url(leader + 1), dead, lambda: None)

    assert set(got) == set(range(MESSAGES))
    if not kills:
        assert got == sorted(got)
    cluster.heal()
    deadline = time.monotonic() + WITHIN_S
    while declare(cluster.url(0), name, arguments):
        assert time.monotonic() < deadline
        time.sleep(0.05)
