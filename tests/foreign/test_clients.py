"""kombu, pika and aio-pika while a node is killed: all that was confirmed comes.

Each does what its documentation tells a program to do for that: kombu retries over its list of
nodes, pika's and amqplib's programs connect again to the next of their nodes, aio-pika's robust
connection waits for the node it has.
"""

# kombu has no types: its names are resolved when they are first used.
# mypy: allow-untyped-calls, disable-error-code="attr-defined,name-defined"

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aio_pika
import kombu
import pika
import pytest
from kombu.mixins import ConsumerMixin
from pika.adapters.blocking_connection import BlockingChannel

from tests.foreign.conftest import WITHIN_S, Cluster, wait_until
from tests.support.programs import Program

HERE = Path(__file__).parent
AMQPLIB = HERE.parents[1] / "docs" / "examples" / "amqplib"
BEFORE, AFTER = 30, 30
"""Confirms that are waited for before and after the kill."""
# pika and kombu forget to close the sockets of a node that died.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
POLICY = {"max_retries": 60, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.5}


@dataclass
class Tally:
    """What a client's two sides did: numbers confirmed, and numbers delivered."""

    confirmed: list[int] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)

    def run_through_a_kill(self, cluster: Cluster, *, victim: int, comes_back: bool) -> None:
        """Kill a node under what runs already, and see that all goes on and nothing is lost."""
        wait_until(lambda: len(self.confirmed) >= BEFORE or bool(self.failures), "it publishes")
        cluster.kill(victim)
        if comes_back:
            cluster.heal()
        goal = len(self.confirmed) + AFTER
        wait_until(lambda: len(self.confirmed) >= goal or bool(self.failures), "it goes on")
        self.is_over.set()
        wait_until(
            lambda: set(self.confirmed) <= set(self.delivered) or bool(self.failures),
            "all that was confirmed came",
        )


@contextlib.contextmanager
def in_threads(tally: Tally, *loops: Callable[[], None]) -> Iterator[None]:
    """Run the client's sides in threads for the length of a block; they end with `is_over`."""

    def run(loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # noqa: BLE001 - raised at the end
            tally.failures.append(error)

    threads = [threading.Thread(target=run, args=(loop,), daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        tally.is_over.set()
        for thread in threads:
            thread.join(WITHIN_S)
    if tally.failures:
        raise tally.failures[0]


@pytest.fixture
def queue() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


def test_kombu_retries_over_its_list_of_nodes(cluster: Cluster, queue: str) -> None:
    tally = Tally()
    urls = ";".join(cluster.urls)
    declared = kombu.Queue(queue, kombu.Exchange("", type="direct"), routing_key=queue)

    class Worker(ConsumerMixin):
        connection = kombu.Connection(urls)

        def get_consumers(self, consumer: Callable[..., object], channel: object) -> list[object]:
            return [consumer([declared], callbacks=[self.take], prefetch_count=10)]

        def take(self, body: object, message: kombu.Message) -> None:
            tally.delivered.append(int(str(body)))
            message.ack()

    worker = Worker()

    def publish() -> None:
        with kombu.Connection(urls, transport_options={"confirm_publish": True}) as connection:
            producer = connection.Producer(serializer="json")
            while not tally.is_over.is_set():
                number = len(tally.confirmed)
                producer.publish(
                    number,
                    routing_key=queue,
                    declare=[declared],
                    retry=True,
                    retry_policy=POLICY,
                )
                tally.confirmed.append(number)
                time.sleep(0.02)

    with in_threads(tally, publish, worker.run):
        try:
            tally.run_through_a_kill(cluster, victim=0, comes_back=False)
        finally:
            worker.should_stop = True


def test_pika_goes_on_at_the_next_of_its_nodes(cluster: Cluster, queue: str) -> None:
    tally = Tally()
    nodes = [pika.URLParameters(url) for url in cluster.urls]

    def with_channels(use: Callable[[pika.BlockingConnection, BlockingChannel], None]) -> None:
        while not tally.is_over.is_set() or not set(tally.confirmed) <= set(tally.delivered):
            try:
                connection = pika.BlockingConnection(nodes)
                channel = connection.channel()
                channel.queue_declare(queue, durable=True)
                use(connection, channel)
                connection.close()
            except pika.exceptions.AMQPConnectionError:
                time.sleep(0.1)

    def publish(connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
        channel.confirm_delivery()
        while not tally.is_over.is_set():
            number = len(tally.confirmed)
            channel.basic_publish("", queue, str(number).encode())
            tally.confirmed.append(number)
            time.sleep(0.02)
        raise pika.exceptions.ConnectionClosed(0, "done")

    def consume(connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
        channel.basic_qos(prefetch_count=10)
        for method, _, body in channel.consume(queue, inactivity_timeout=0.2):
            if method is not None:
                tally.delivered.append(int(body))
                channel.basic_ack(method.delivery_tag)
            elif tally.is_over.is_set() and set(tally.confirmed) <= set(tally.delivered):
                break

    with in_threads(tally, lambda: with_channels(publish), lambda: with_channels(consume)):
        tally.run_through_a_kill(cluster, victim=0, comes_back=False)


def test_aio_pikas_robust_connection_waits_for_its_node(cluster: Cluster, queue: str) -> None:
    tally = Tally()

    async def work() -> None:
        connection = await aio_pika.connect_robust(cluster.urls[0], reconnect_interval=0.2)
        async with connection:
            channel = await connection.channel(publisher_confirms=True)
            await channel.set_qos(prefetch_count=10)
            declared = await channel.declare_queue(queue, durable=True)

            async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                tally.delivered.append(int(message.body))
                with contextlib.suppress(aio_pika.exceptions.AMQPError):
                    await message.ack()

            await declared.consume(take)
            while not tally.is_over.is_set():
                number = len(tally.confirmed)
                try:
                    await asyncio.wait_for(
                        channel.default_exchange.publish(
                            aio_pika.Message(str(number).encode()), queue
                        ),
                        WITHIN_S,
                    )
                except (aio_pika.exceptions.AMQPError, ConnectionError, RuntimeError):
                    await asyncio.sleep(0.2)
                else:
                    tally.confirmed.append(number)
                await asyncio.sleep(0.02)
            while not set(tally.confirmed) <= set(tally.delivered):  # noqa: ASYNC110 - threads
                await asyncio.sleep(0.05)

    with in_threads(tally, lambda: asyncio.run(work())):
        tally.run_through_a_kill(cluster, victim=0, comes_back=True)


def test_amqplib_goes_on_at_the_next_of_its_nodes(cluster: Cluster, queue: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: apt-get install nodejs")
    if not (AMQPLIB / "node_modules" / "amqplib").is_dir():
        pytest.skip("amqplib is not installed: run npm install in docs/examples/amqplib")
    tally = Tally()
    with Program([node, HERE / "amqplib_team.mjs", queue, *cluster.urls], cwd=AMQPLIB) as team:

        def listen() -> None:
            while not tally.is_over.is_set() or not set(tally.confirmed) <= set(tally.delivered):
                verb, number = team.wait_for("ed ", within_s=WITHIN_S).split()
                (tally.confirmed if verb == "confirmed" else tally.delivered).append(int(number))

        with in_threads(tally, listen):
            tally.run_through_a_kill(cluster, victim=0, comes_back=False)
