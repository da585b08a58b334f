"""What the client's tests run against: a node, a cluster, RabbitMQ, and a fake in memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from random import Random

import pytest

from leveret.client import Connection, connect
from tests.client.brokers import (
    Target,
    cluster_target,
    is_rabbitmq_installed,
    node_target,
    rabbitmq_target,
)
from tests.client.fake_broker import FakeCluster


def fake_connect(cluster: FakeCluster, **options: object) -> Connection:
    """Connect to the fake, with a seeded jitter."""
    return connect(cluster.url, dial=cluster.dial, rng=Random(1), **options)  # type: ignore[arg-type]


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster("one", "two")


@pytest.fixture(scope="session", params=["node", "cluster", "rabbitmq"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A real broker: each test with it runs once against each kind."""
    if request.param == "rabbitmq" and not is_rabbitmq_installed():
        pytest.skip("rabbitmq-server is not installed")
    make = {"node": node_target, "cluster": cluster_target, "rabbitmq": rabbitmq_target}
    target = make[request.param](tmp_path_factory.mktemp(request.param))
    try:
        target.start()
        yield target
    finally:
        target.stop()


_numbers = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A name that no test before used."""
    return f"c-{os.getpid()}-{next(_numbers)}"
