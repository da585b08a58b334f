"""The clients that people use, unmodified: each does what its users do with it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Self

import aio_pika
import amqp
import pytest

from tests.conformance.conftest import Broker
from tests.support.programs import Program

HERE = Path(__file__).parent
AMQPLIB = HERE.parents[1] / "docs" / "examples" / "amqplib"

Names = Callable[[], str]


# ---- aio-pika -----------------------------------------------------------------------------


def test_aio_pika_robust_connection_works_through_a_day(broker: Broker, name: Names) -> None:
    """aio-pika: declare, bind, confirmed publish, iterate, ack, requeue, get."""
    queue_name, exchange_name = name(), name()

    async def day() -> list[tuple[bytes, bool]]:
        seen = []
        async with await aio_pika.connect_robust(broker.url) as connection:
            channel = await connection.channel(on_return_raises=True)
            await channel.set_qos(prefetch_count=5)
            exchange = await channel.declare_exchange(exchange_name, aio_pika.ExchangeType.TOPIC)
            queue = await channel.declare_queue(queue_name, durable=True)
            await queue.bind(exchange, "a.*")
            for number in range(3):
                message = aio_pika.Message(
                    str(number).encode(),
                    headers={"number": number},
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                await exchange.publish(message, "a.b")
            async with queue.iterator(timeout=10) as messages:
                async for got in messages:
                    assert got.headers["number"] == int(got.body)
                    seen.append((got.body, bool(got.redelivered)))
                    if got.body == b"1" and not got.redelivered:
                        await got.nack(requeue=True)
                    else:
                        await got.ack()
                    if len(seen) == 4:
                        break
            assert await queue.get(fail=False) is None
            with pytest.raises(aio_pika.exceptions.DeliveryError):
                await exchange.publish(aio_pika.Message(b""), "no.such.key", mandatory=True)
            await queue.delete()
            await exchange.delete()
        return seen

    seen = asyncio.run(asyncio.wait_for(day(), 30))

    assert sorted(seen) == [(b"0", False), (b"1", False), (b"1", True), (b"2", False)]


def test_aio_pika_robust_connection_comes_back_and_restores_its_consumer(
    broker: Broker, name: Names
) -> None:
    """aio-pika: connect_robust over a broken socket; consuming: redelivered flag."""
    queue_name = name()

    async def outage() -> list[tuple[bytes, bool]]:
        async with Cut(broker) as path:
            connection = await aio_pika.connect_robust(path.url, reconnect_interval=0.1)
            async with connection:
                channel = await connection.channel()
                await channel.set_qos(prefetch_count=1)
                queue = await channel.declare_queue(queue_name, durable=True)
                arrived: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
                await queue.consume(arrived.put)
                await channel.default_exchange.publish(aio_pika.Message(b"x"), queue_name)
                first = await arrived.get()
                path.cut()
                second = await arrived.get()
                await second.ack()
                return [(m.body, bool(m.redelivered)) for m in (first, second)]

    assert asyncio.run(asyncio.wait_for(outage(), 40)) == [(b"x", False), (b"x", True)]


class Cut:
    """A TCP relay in front of the broker whose connections can be cut."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"amqp://{self._broker.user}:{self._broker.password}@127.0.0.1:{port}/"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(
            self._broker.host, self._broker.port
        )
        pair = {writer, inner_writer}
        self._writers |= pair
        back = asyncio.create_task(self._copy(inner_reader, writer))
        await self._copy(reader, inner_writer)
        await back
        self._writers -= pair

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            # The other side was cut: this side ends with it.
            pass
        writer.close()

    def cut(self) -> None:
        """Reset all connections, as a network does that loses them."""
        for writer in self._writers:
            writer.transport.abort()


# ---- py-amqp ------------------------------------------------------------------------------


def test_py_amqp_heartbeats_by_hand(broker: Broker, name: Names) -> None:
    """py-amqp: send_heartbeat, heartbeat_tick; connection: heartbeats."""
    connection = amqp.Connection(
        f"{broker.host}:{broker.port}", broker.user, broker.password, heartbeat=2
    )
    connection.connect()
    assert connection.heartbeat == 2
    for _ in range(3):
        connection.heartbeat_tick()
        with pytest.raises((TimeoutError, socket.timeout)):
            connection.drain_events(timeout=0.05)
    connection.send_heartbeat()

    assert connection.channel().queue_declare("", exclusive=True).queue.startswith("amq.gen-")
    connection.close()


def test_py_amqp_confirm_select_makes_publish_wait(broker: Broker, name: Names) -> None:
    """py-amqp: confirm_publish; publishing: publisher confirms."""
    queue = name()
    connection = amqp.Connection(
        f"{broker.host}:{broker.port}", broker.user, broker.password, confirm_publish=True
    )
    with connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, auto_delete=False)
        for number in range(10):
            channel.basic_publish(amqp.Message(str(number)), "", queue)
            assert channel.queue_declare(queue, passive=True).message_count == number + 1


# ---- amqplib ------------------------------------------------------------------------------


def test_amqplib_probe_finds_nothing_wrong(broker: Broker) -> None:
    """amqplib: the checks of amqplib_probe.mjs."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (AMQPLIB / "node_modules" / "amqplib").is_dir():
        pytest.skip("amqplib is not installed: run npm install in docs/examples/amqplib")

    with Program([node, HERE / "amqplib_probe.mjs", broker.url], cwd=AMQPLIB) as probe:
        probe.wait_for("done", within_s=60)
        assert probe.end() == 0

    assert [line for line in probe.lines if not line.startswith("ok ")] == ["done"]
    assert len(probe.lines) == 14


# ---- rabbitmq-c's tools -------------------------------------------------------------------


def tool(name: str) -> str:
    """The path of one of the C tools; skips the test where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: amqp-tools)")
    return path


def option(broker: Broker) -> str:
    """The option --url; for these tools a path of `/` alone means the vhost without a name."""
    return f"--url={broker.url.rstrip('/')}/{urllib.parse.quote(broker.vhost, safe='')}"


def run_tool(broker: Broker, name: str, *arguments: str, given: bytes = b"") -> bytes:
    done = subprocess.run(
        [tool(name), option(broker), *arguments],
        input=given,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout


def test_c_tools_declare_publish_get_and_delete(broker: Broker, name: Names) -> None:
    """amqp-declare-queue, amqp-publish, amqp-get, amqp-delete-queue."""
    queue = name()
    made = run_tool(broker, "amqp-declare-queue", f"--queue={queue}", "--durable")
    assert made == f"{queue}\n".encode()
    run_tool(broker, "amqp-publish", f"--routing-key={queue}", "--body=one", "--persistent")
    run_tool(broker, "amqp-publish", f"--routing-key={queue}", given=b"two\n" * 50000)

    assert run_tool(broker, "amqp-get", f"--queue={queue}") == b"one"
    assert run_tool(broker, "amqp-get", f"--queue={queue}") == b"two\n" * 50000
    assert run_tool(broker, "amqp-delete-queue", f"--queue={queue}") == b"0\n"


def test_amqp_get_of_an_empty_queue_says_so_by_its_code(broker: Broker, name: Names) -> None:
    """amqp-get ends with code 2."""
    queue = name()
    run_tool(broker, "amqp-declare-queue", f"--queue={queue}")

    empty = subprocess.run(
        [tool("amqp-get"), option(broker), f"--queue={queue}"], timeout=30, check=False
    )

    assert empty.returncode == 2


def test_amqp_publish_and_consume_through_an_exchange(broker: Broker) -> None:
    """amqp-consume with a queue of its own, bound; amqp-publish to the exchange."""
    program = [tool("amqp-consume"), option(broker), "--exchange=amq.topic"]
    arguments = ["--routing-key=tools.*", "--count=2", "--prefetch-count=1"]
    with Program([*program, *arguments, "cat"]) as consumer:
        # "Server provided queue name: amq.gen-…" is written before the bind: publish until heard.
        consumer.wait_for("amq.gen-")
        for _ in range(200):
            run_tool(broker, "amqp-publish", "-e", "amq.topic", "-r", "tools.x", "-b", "hi\n")
            if consumer.ended:
                break

        assert consumer.end() == 0
    assert consumer.lines[-2:] == ["hi", "hi"]


def test_amqp_consume_shares_a_queue_until_it_is_stopped(broker: Broker, name: Names) -> None:
    """amqp-consume of a named queue."""
    queue = name()
    run_tool(broker, "amqp-declare-queue", f"--queue={queue}")
    run_tool(broker, "amqp-publish", f"--routing-key={queue}", "--body=before\n")
    program = [tool("amqp-consume"), option(broker), f"--queue={queue}", "cat"]
    with Program(program) as consumer:
        consumer.wait_for("before")
        run_tool(broker, "amqp-publish", f"--routing-key={queue}", "--body=after\n")
        consumer.wait_for("after")
        consumer.interrupt(signal.SIGTERM)
