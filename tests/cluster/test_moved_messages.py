"""Messages that an operator moves: each is in one queue, once, whatever fails meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pika
import pytest

from leveret.cli.ask import ask_once
from leveret.cli.exits import Failure, NotDone
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import QueueSeen
from leveret.node.control.queue_actions import Moved
from tests.cluster.conftest import Cluster, Opener
from tests.cluster.test_listing import wait_for
from tests.cluster.test_operating import data_of
from tests.cluster.test_queue_messages import peek, publish

WITHIN_S = 60.0
COUNT = 3_000


def move(cluster: Cluster, place: int, source: str, destination: str, count: int = 10**6) -> Moved:
    return ask_once(
        data_of(cluster[place]),
        "move_messages",
        Moved,
        vhost="/",
        source=source,
        destination=destination,
        count=count,
    )


def groups(cluster: Cluster) -> dict[str, int | None]:
    listed = ask_once(
        data_of(cluster[0]), "list_queues", Listed[QueueSeen], vhost="/", counts=False
    )
    return {seen.name: seen.group for seen in listed.rows}


@pytest.fixture
def pair(request: pytest.FixtureRequest, cluster: Cluster, name: str) -> Iterator[tuple[str, str]]:
    """Two queues: in one shard, in two, or one of them on one node alone."""
    kind = request.param
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        channel = connection.channel()
        channel.queue_declare(name, durable=True)
        made = [name]
        while True:
            # Each new queue comes to the shard with the fewest.
            made.append(f"{name}-{len(made)}")
            channel.queue_declare(made[-1], durable=kind != "transient")
            where = groups(cluster)
            if (where[made[-1]] == where[name]) == (kind == "one shard"):
                break
    yield name, made[-1]
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        channel = connection.channel()
        for queue in made:
            channel.queue_delete(queue)


KINDS = pytest.mark.parametrize("pair", ["one shard", "two shards", "transient"], indirect=True)
REPLICATED = pytest.mark.parametrize("pair", ["one shard", "two shards"], indirect=True)


def bodies(cluster: Cluster, queue: str) -> list[str]:
    return [seen.payload for seen in peek(cluster, 1, queue, count=100)]


@KINDS
def test_ready_messages_are_moved_in_their_order_as_they_are(
    pair: tuple[str, str], cluster: Cluster, connect: Opener
) -> None:
    source, destination = pair
    publish(cluster.url(1), destination, [b"there"])
    publish(cluster.url(1), source, [b"held"])
    channel = connect(cluster.url(2)).channel()
    (held, _, _) = channel.basic_get(source)
    publish(cluster.url(1), source, [b"%d" % n for n in range(6)], headers={"tenant": "a"})
    publish(cluster.url(1), source, [b"late"], headers={"x-delay": 3_600_000})

    assert Moved(messages=2, end="done") == move(cluster, 0, source, destination, 2)
    assert Moved(messages=4, end="empty") == move(cluster, 1, source, destination)

    assert ["there", "0", "1", "2", "3", "4", "5"] == bodies(cluster, destination)
    assert ["held", "late"] == bodies(cluster, source)
    moved = peek(cluster, 2, destination, offset=1, count=1)[0]
    assert ({"tenant": "a"}, "ready", False) == (moved.headers, moved.state, moved.redelivered)
    channel.basic_nack(held.delivery_tag)
    wait_for(Moved(messages=1, end="empty"), lambda: move(cluster, 2, source, destination))
    assert (0, "held") == (len(bodies(cluster, source)) - 1, bodies(cluster, destination)[-1])


@KINDS
def test_a_delayed_message_that_was_due_does_not_wait_again(
    pair: tuple[str, str], cluster: Cluster
) -> None:
    source, destination = pair
    publish(cluster.url(1), source, [b"late"], headers={"x-delay": 100})
    wait_for(1, lambda: move(cluster, 0, source, destination).messages)

    (seen,) = peek(cluster, 0, destination)
    assert ("ready", None) == (seen.state, seen.due_at_ms)


@REPLICATED
@pytest.mark.parametrize("overflow", ["drop-head", "reject-publish"])
def test_a_destination_at_its_limit_takes_no_more_and_drops_nothing(
    overflow: str, pair: tuple[str, str], cluster: Cluster, connect: Opener
) -> None:
    source, destination = pair
    channel = connect(cluster.url(0)).channel()
    channel.queue_delete(destination)
    wait_for(False, lambda: destination in groups(cluster))
    arguments = {"x-max-length": 3, "x-overflow": overflow}
    channel.queue_declare(destination, durable=True, arguments=arguments)
    publish(cluster.url(0), destination, [b"there"])
    publish(cluster.url(0), source, [b"%d" % n for n in range(4)])

    assert Moved(messages=2, end="full") == move(cluster, 1, source, destination)

    assert ["there", "0", "1"] == bodies(cluster, destination)
    assert ["2", "3"] == bodies(cluster, source)
    assert ["ready", "ready"] == [seen.state for seen in peek(cluster, 0, source)]
    assert Moved(messages=0, end="full") == move(cluster, 1, source, destination)


def test_a_move_to_nowhere_is_refused(cluster: Cluster, name: str, connect: Opener) -> None:
    channel = connect(cluster.url(0)).channel()
    channel.queue_declare(name, durable=True)
    channel.queue_declare(f"{name}-s", durable=True, arguments={"x-queue-type": "stream"})

    for source, destination in ((name, f"{name}-s"), (f"{name}-s", name)):
        with pytest.raises(NotDone, match=f'queue "{name}-s" is a stream'):
            move(cluster, 0, source, destination)
    with pytest.raises(NotDone, match='no queue "nowhere"'):
        move(cluster, 0, name, "nowhere")
    with pytest.raises(NotDone, match="the same queue"):
        move(cluster, 0, name, name)


@REPLICATED
@pytest.mark.parametrize("moment_s", [0.1, 0.5])
def test_nothing_is_lost_or_there_twice_when_the_leader_dies_in_the_middle(
    moment_s: float, pair: tuple[str, str], cluster: Cluster
) -> None:
    source, destination = pair
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        channel = connection.channel()
        channel.tx_select()
        for number in range(COUNT):
            channel.basic_publish("", source, b"%d" % number)
        channel.tx_commit()
    listed = ask_once(data_of(cluster[0]), "list_queues", Listed[QueueSeen], vhost="/")
    leader = next(seen.leader for seen in listed.rows if seen.name == source)
    place = int(str(leader).removeprefix("node-")) - 1

    mover = threading.Thread(target=lambda: _move_all(cluster, place + 1, source, destination))
    mover.start()
    time.sleep(moment_s)
    cluster[place].kill()
    mover.join(WITHIN_S)
    assert not mover.is_alive()
    cluster.heal()
    _move_all(cluster, place + 1, source, destination)

    assert [] == _look_at_all(cluster, source)
    assert list(range(COUNT)) == sorted(_look_at_all(cluster, destination))


def _move_all(cluster: Cluster, place: int, source: str, destination: str) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(Failure):
            if move(cluster, place, source, destination).end == "empty":
                return
        time.sleep(0.05)


def _look_at_all(cluster: Cluster, queue: str) -> list[int]:
    """Return all bodies; a client that took them might get some twice, marked, by itself."""
    found: list[int] = []
    while page := peek(cluster, 1, queue, offset=len(found), count=100):
        found += [int(seen.payload) for seen in page]
    return found
