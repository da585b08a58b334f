"""A broker for foreign clients: one that runs already, or a Leveret node of our own.

`LEVERET_TEST_URL` names the running one, several nodes with commas between their URLs.
`LEVERET_TEST_CTL` is the command that operates it, such as `rabbitmqctl -q -n rabbit@host`; without
it what needs an operator is skipped there.
The tests are about RabbitMQ's behaviour, so they pass against RabbitMQ 3.10 too; that is how they
were written.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import amqp
import pika
import pytest
from click.testing import CliRunner
from pika.adapters.blocking_connection import BlockingChannel

from leveret.cli.main import cli
from tests.conformance.bench import Bench
from tests.support import nodes
from tests.support.wire import CLIENT_PROPERTIES, Wire


@dataclass(frozen=True)
class Broker:
    """Where the broker under test listens, and who may log in."""

    urls: list[str]
    operate: Sequence[str] = ()
    """The command to operate it, before the verb; empty if there is none."""
    data: Path | None = None
    """The data folder, if it is a node of ours."""

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def _parts(self) -> urllib.parse.SplitResult:
        return urllib.parse.urlsplit(self.url)

    @property
    def host(self) -> str:
        return self._parts.hostname or "localhost"

    @property
    def port(self) -> int:
        return self._parts.port or 5672

    @property
    def user(self) -> str:
        return urllib.parse.unquote(self._parts.username or "guest")

    @property
    def password(self) -> str:
        return urllib.parse.unquote(self._parts.password or "guest")

    @property
    def vhost(self) -> str:
        return urllib.parse.unquote(self._parts.path[1:]) or "/"

    def connect(self, **changes: object) -> pika.BlockingConnection:
        """Open a pika connection; `changes` are attributes of its `URLParameters`."""
        parameters = pika.URLParameters(self.url)
        for name, value in changes.items():
            setattr(parameters, name, value)
        return pika.BlockingConnection(parameters)

    def connect_amqp(self) -> amqp.Connection:
        """Open a py-amqp connection."""
        connection = amqp.Connection(
            f"{self.host}:{self.port}",
            self.user,
            self.password,
            virtual_host=self.vhost,
            connect_timeout=10,
            read_timeout=15,
        )
        connection.connect()
        return connection

    def ctl(self, verb: str, *arguments: str) -> list[list[str]]:
        """Have the broker's command do something; return the lines that it prints, split at tabs.

        The verbs that the tests use are the same for RabbitMQ and for Leveret.
        """
        if self.data is not None:
            # Not in a process of its own, of which each would import the whole command first.
            options = ["-q", "--data-dir", str(self.data)]
            result = CliRunner().invoke(cli, ["ctl", verb, *arguments, *options])
            assert result.exit_code == 0, result.output
            return [line.split("\t") for line in result.output.splitlines()]
        if not self.operate:
            pytest.skip("there is no command to operate the broker: see LEVERET_TEST_CTL")
        done = subprocess.run(
            [*self.operate, verb, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def wire(self, *, timeout_s: float = 15.0) -> Wire:
        """Open a bare socket to the broker, without a handshake."""
        return Wire(self.host, self.port, timeout_s=timeout_s)

    def open_wire(
        self,
        *,
        channel_max: int | None = None,
        frame_max: int | None = None,
        heartbeat: int = 0,
        properties: bytes = CLIENT_PROPERTIES,
    ) -> Wire:
        """Open a bare connection behind its handshake, with channel 1 open."""
        wire = self.wire()
        wire.connect(
            self.user,
            self.password,
            self.vhost,
            channel_max=channel_max,
            frame_max=frame_max,
            heartbeat=heartbeat,
            properties=properties,
        )
        wire.open_channel()
        return wire


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    running = os.environ.get("LEVERET_TEST_URL")
    if running:
        operate = shlex.split(os.environ.get("LEVERET_TEST_CTL", ""))
        yield Broker([url.strip() for url in running.split(",")], operate)
        return
    folder = tmp_path_factory.mktemp("node")
    process = nodes.node(folder)
    process.start()
    try:
        yield Broker(process.urls, data=folder / "data")
    finally:
        process.stop()


@pytest.fixture
def connect(broker: Broker) -> Iterator[Callable[..., pika.BlockingConnection]]:
    """Opens pika connections that are closed at the end of the test."""
    opened: list[pika.BlockingConnection] = []

    def open_connection(**changes: object) -> pika.BlockingConnection:
        connection = broker.connect(**changes)
        opened.append(connection)
        return connection

    yield open_connection
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def connection(connect: Callable[..., pika.BlockingConnection]) -> pika.BlockingConnection:
    return connect()


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    return connection.channel()


@pytest.fixture
def user(broker: Broker) -> Iterator[str]:
    """A user that may do everything in the broker's virtual host; its name is its password."""
    made = f"t-{uuid.uuid4().hex[:12]}"
    broker.ctl("add_user", made, made)
    broker.ctl("set_permissions", "-p", broker.vhost, made, ".*", ".*", ".*")
    yield made
    broker.ctl("delete_user", made)


@pytest.fixture
def name(broker: Broker) -> Iterator[Callable[[], str]]:
    """Makes names that nobody used; what is called so is deleted at the end of the test."""
    given: list[str] = []

    def make() -> str:
        given.append(f"t-{uuid.uuid4().hex[:12]}")
        return given[-1]

    yield make
    if given:
        connection = broker.connect()
        channel = connection.channel()
        for one in given:
            channel.exchange_delete(one)
            try:
                channel.queue_delete(one)
            except pika.exceptions.ChannelClosedByBroker as error:
                if error.reply_code != 405:
                    raise
                # An exclusive queue whose connection is still open goes with that one.
                channel = connection.channel()
        connection.close()


@pytest.fixture
def bench(broker: Broker) -> Iterator[Bench]:
    made = Bench(broker.connect_amqp, broker.vhost, broker.user)
    yield made
    made.clean_up()


@pytest.fixture(params=[True, False], ids=["durable", "transient"])
def durable(request: pytest.FixtureRequest) -> bool:
    """Whether the queue under test is durable: a broker keeps the two kinds in different ways."""
    return bool(request.param)


@pytest.fixture
def queue(channel: BlockingChannel, name: Callable[[], str], durable: bool) -> str:
    """The name of an empty queue, once durable and once not."""
    made = name()
    channel.queue_declare(made, durable=durable)
    return made


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: waits for one of the broker's own deadlines, > 2 s")
