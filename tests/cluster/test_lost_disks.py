"""Real processes whose data folders are emptied, damaged, or left behind for long."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from chaos.load import Consumer, Publisher
from chaos.verdict import judge
from tests.cluster.conftest import Cluster
from tests.support import nodes
from tests.support.nodes import LeveretProcess, answers_amqp

PublisherMaker = Callable[..., Publisher]
ConsumerMaker = Callable[..., Consumer]

NEVER_S = 6.0
"""Long against an election (1 s), for what must not happen."""
TRIMMED_SOON = ("consensus.snapshot_entries=100", "storage.segment_bytes=64KiB")


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Cluster]:
    """Three members of its own, whose logs are trimmed after a hundred entries."""
    members = nodes.members(tmp_path, settings=TRIMMED_SOON)
    cluster = Cluster(members)
    try:
        cluster.heal()
        yield cluster
    finally:
        cluster.kill_all()


def folder_of(member: LeveretProcess) -> Path:
    assert member.data is not None
    return member.data


def empty(member: LeveretProcess) -> None:
    shutil.rmtree(folder_of(member))


def rot(member: LeveretProcess) -> None:
    """Flip a bit in the middle of what was written first."""
    segment = min((folder_of(member) / "segments").iterdir())
    content = bytearray(segment.read_bytes())
    end = len(bytes(content).rstrip(b"\0"))
    content[end // 2] ^= 1
    segment.write_bytes(content)


def publish_some(cluster: Cluster, place: int, queue: str, count: int) -> list[bytes]:
    """Publish persistent messages one by one, confirmed; return them."""
    bodies = [f"{place}-{number}-{time.monotonic_ns()}".encode() for number in range(count)]
    with pika.BlockingConnection(pika.URLParameters(cluster.url(place))) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))
    return bodies


def drain(cluster: Cluster, place: int, queue: str, count: int) -> list[bytes]:
    """Receive and acknowledge so many messages."""
    bodies: list[bytes] = []
    with pika.BlockingConnection(pika.URLParameters(cluster.url(place))) as connection:
        channel = connection.channel()
        for method, _, body in channel.consume(queue, inactivity_timeout=30):
            assert method is not None, f"only {len(bodies)} of {count} came"
            channel.basic_ack(method.delivery_tag)
            bodies.append(body)
            if len(bodies) == count:
                return bodies
    return bodies


@pytest.mark.parametrize("harm", [empty, rot])
def test_each_disk_may_be_lost_in_turn(
    harm: Callable[[LeveretProcess], None],
    fragile: Cluster,
    publish: PublisherMaker,
    consume: ConsumerMaker,
) -> None:
    kept = publish_some(fragile, 0, "kept", 50)
    published, confirmed, deliveries = 0, [], []
    publish_some(fragile, 0, "flow", 0)
    for victim in range(3):
        consumer = consume(fragile.url(victim + 2), "flow")
        publisher = publish(fragile.url(victim + 1), "flow", first=published)
        publisher.wait_confirmed(300)
        fragile[victim].kill()
        publisher.wait_confirmed(len(publisher.confirmed) + 300)
        harm(fragile[victim])
        fragile.heal()
        publisher.wait_confirmed(len(publisher.confirmed) + 300)
        publisher.finish()
        consumer.wait("all", lambda: consumer.distinct >= set(publisher.confirmed), within_s=30)  # noqa: B023
        consumer.close()
        published = publisher.next
        confirmed += publisher.confirmed
        deliveries += consumer.deliveries

    verdict = judge(published, confirmed, deliveries)
    assert verdict.is_clean, verdict
    # No node is left that had them from the beginning.
    assert kept == drain(fragile, 1, "kept", 50)
    if harm is rot:
        for member in fragile.members:
            assert "damaged" in member.log_text()
            assert any((folder_of(member) / "damaged").iterdir())


def test_a_lost_disk_and_a_member_that_lags_make_no_majority(fragile: Cluster) -> None:
    """The hole that it closes: these two would elect each other and forget what was confirmed."""
    publish_some(fragile, 0, "orders", 10)
    fragile[2].kill()
    confirmed = publish_some(fragile, 0, "orders", 10)
    fragile[0].kill()
    fragile[1].kill()
    empty(fragile[1])

    fragile[1].launch()
    fragile[2].launch()
    time.sleep(NEVER_S)
    assert not any(answers_amqp(port) for place in (1, 2) for port in fragile[place].ports)

    fragile.heal()
    assert set(confirmed) <= set(drain(fragile, 1, "orders", 20))


def test_a_member_that_was_away_for_long_gets_what_the_others_have_trimmed(
    fragile: Cluster,
) -> None:
    kept = publish_some(fragile, 0, "kept", 30)
    fragile[2].kill()
    for _ in range(3):
        publish_some(fragile, 0, "flow", 400)
        drain(fragile, 1, "flow", 400)
    kept += publish_some(fragile, 1, "kept", 30)
    fragile.heal()
    kept += publish_some(fragile, 2, "kept", 10)
    # It counts: with one of the others gone it holds all that lives.
    fragile[0].kill()

    assert kept == drain(fragile, 2, "kept", 70)
    assert "away for too long, fetching a snapshot" in fragile[2].log_text()
