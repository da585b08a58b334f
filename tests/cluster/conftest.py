"""Nodes as real processes, and what every test here needs of them."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pika
import pytest

from chaos.load import Consumer, Publisher
from leveret.cli.ask import ask_once
from leveret.node.control.replies import NodeStatus
from tests.support import nodes
from tests.support.nodes import LeveretProcess

SPREAD_WITHIN_S = 15.0


class Cluster:
    """Three members; a test may do anything to them, the next one finds them all well."""

    def __init__(self, members: list[LeveretProcess]) -> None:
        self.members = members

    def __getitem__(self, place: int) -> LeveretProcess:
        """Return a member; places go around, so that `k + 1` is the next one."""
        return self.members[place % len(self.members)]

    def __len__(self) -> int:
        return len(self.members)

    def url(self, place: int) -> str:
        return self[place].urls[0]

    def heal(self) -> None:
        """Have all members running and serving."""
        for member in self.members:
            if not member.is_running:
                member.kill()
                member.launch()
        for member in self.members:
            member.wait_ready()

    def wait_spread(self) -> None:
        """Wait a while until each member leads as many groups as the others.

        A leader that moves to its own node in the middle of a test marks what nobody has seen.
        """
        first = self.members[0].arguments
        data = Path(first[first.index("--data-dir") + 1])
        deadline = time.monotonic() + SPREAD_WITHIN_S
        while time.monotonic() < deadline:
            groups = ask_once(data, "status", NodeStatus).groups
            led = Counter(group.leader for group in groups)
            if len(led) == len(self) and len(set(led.values())) == 1:
                return
            time.sleep(0.1)

    def kill_all(self) -> None:
        for member in self.members:
            member.kill()


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(nodes.members(tmp_path_factory.mktemp("cluster")))
    try:
        cluster.heal()
        yield cluster
    finally:
        cluster.kill_all()


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """Three nodes that are well, and whose leaders are where they stay."""
    running_cluster.heal()
    running_cluster.wait_spread()
    return running_cluster


NodeMaker = Callable[..., LeveretProcess]


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[NodeMaker]:
    """Makes single nodes, not started; those that still run at the end are killed.

    It takes the settings of a node, as in `amqp.heartbeat_s=5s`.
    """
    made: list[LeveretProcess] = []

    def make(*settings: str, data: Path | None = None) -> LeveretProcess:
        folder = tmp_path / f"single-{len(made)}"
        folder.mkdir()
        made.append(nodes.node(folder, settings=settings, data=data))
        return made[-1]

    yield make
    for node in made:
        node.kill()


@pytest.fixture
def single(make_node: NodeMaker) -> LeveretProcess:
    """A node that runs alone, with default settings."""
    node = make_node()
    node.start()
    return node


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def name(_numbers: Iterator[int]) -> str:
    """A name that no test before used."""
    return f"q-{next(_numbers)}"


Client = TypeVar("Client", Publisher, Consumer)
Opener = Callable[[str], pika.BlockingConnection]


@pytest.fixture
def connect() -> Iterator[Opener]:
    """Opens pika connections to a URL; those that are open at the end are closed."""
    opened: list[pika.BlockingConnection] = []

    def open_connection(url: str) -> pika.BlockingConnection:
        opened.append(pika.BlockingConnection(pika.URLParameters(url)))
        return opened[-1]

    yield open_connection
    for connection in opened:
        if connection.is_open:
            # Its node may be gone, as the test wanted.
            with contextlib.suppress(pika.exceptions.AMQPError):
                connection.close()


@pytest.fixture
def publish() -> Iterator[Callable[..., Publisher]]:
    """Starts publishers; those that run at the end are stopped."""
    yield from _started(Publisher)


@pytest.fixture
def consume() -> Iterator[Callable[..., Consumer]]:
    """Starts consumers; those that run at the end are stopped."""
    yield from _started(Consumer)


def _started(kind: Callable[..., Client]) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def start(*arguments: object, **named: object) -> Client:
        made.append(kind(*arguments, **named))
        made[-1].start()
        return made[-1]

    yield start
    for client in made:
        client.abandon()
