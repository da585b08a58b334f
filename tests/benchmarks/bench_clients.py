"""Python's AMQP clients side by side: one program for each, the same work, the same broker.

    python tests/benchmarks/bench_clients.py [amqp://127.0.0.1:5672/ …] [--count 20000]

Publishing: persistent messages of 1 KiB into a durable queue, confirms in a window of 100.
Consuming: prefetch 100, every message acknowledged by a call of its own. CPU is that of the
client's process alone. Without a URL a Leveret node is started, and RabbitMQ if it is installed.
The rounds of all clients take turns, and each figure is the median of its rounds: compare within
one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import aio_pika
import amqp
import pika
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from leveret.client import connect
from leveret.client.blocking import connect as connect_blocking
from tests.client.brokers import is_rabbitmq_installed, node_target, rabbitmq_target

QUEUE = "bench.clients"
WINDOW = 100
BODY = b"x" * 1024


class Clock:
    """Wall and CPU time of the part that is measured."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


Result = tuple[float, float]


def leveret_publish(url: str, count: int) -> Result:
    async def main() -> Result:
        async with connect(url) as connection, connection.channel() as channel:
            clock = Clock()
            async with channel.publisher(QUEUE, window=WINDOW) as publisher:
                for _ in range(count):
                    await publisher.send(BODY)
            return clock.stop()

    return trio.run(main)


def leveret_consume(url: str, count: int) -> Result:
    async def main() -> Result:
        async with connect(url) as connection, connection.channel() as channel:
            clock = Clock()
            left = count
            async for message in channel.consume(QUEUE, prefetch=WINDOW):
                await message.ack()
                left -= 1
                if not left:
                    break
            return clock.stop()

    return trio.run(main)


def blocking_publish(url: str, count: int) -> Result:
    with connect_blocking(url) as connection, connection.channel() as channel:
        clock = Clock()
        with channel.publisher(QUEUE, window=WINDOW) as publisher:
            for _ in range(count):
                publisher.send(BODY)
        return clock.stop()


def blocking_consume(url: str, count: int) -> Result:
    with connect_blocking(url) as connection, connection.channel() as channel:
        clock = Clock()
        left = count
        for message in channel.consume(QUEUE, prefetch=WINDOW):
            message.ack()
            left -= 1
            if not left:
                break
        return clock.stop()


def pika_publish(url: str, count: int) -> Result:
    """With the SelectConnection: pika's blocking channel confirms one at a time."""
    properties = pika.BasicProperties(delivery_mode=2)
    sent = confirmed = 0
    result: list[Result] = []

    def fill(channel: pika.channel.Channel) -> None:
        nonlocal sent
        while sent < count and sent - confirmed < WINDOW:
            channel.basic_publish("", QUEUE, BODY, properties)
            sent += 1

    def opened(channel: pika.channel.Channel) -> None:
        clock = Clock()

        def acked(frame: pika.frame.Method) -> None:
            nonlocal confirmed
            confirmed = frame.method.delivery_tag if frame.method.multiple else confirmed + 1
            if confirmed < count:
                fill(channel)
            elif not result:
                result.append(clock.stop())
                connection.close()

        channel.confirm_delivery(acked, lambda _: fill(channel))

    def connected(connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=opened)

    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=connected,
        on_close_callback=lambda closing, _: closing.ioloop.stop(),
    )
    connection.ioloop.start()
    return result[0]


def pika_consume(url: str, count: int) -> Result:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=WINDOW)
    clock = Clock()
    left = count
    for method, _, _ in channel.consume(QUEUE):
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if not left:
            break
    result = clock.stop()
    channel.cancel()
    connection.close()
    return result


def aio_pika_publish(url: str, count: int) -> Result:
    async def main() -> Result:
        async with await aio_pika.connect_robust(url) as connection:
            channel = await connection.channel()
            exchange = channel.default_exchange
            room = asyncio.Semaphore(WINDOW)

            async def publish() -> None:
                message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, QUEUE)
                room.release()

            clock = Clock()
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    await room.acquire()
                    group.create_task(publish())
            return clock.stop()

    return asyncio.run(main())


def aio_pika_consume(url: str, count: int) -> Result:
    async def main() -> Result:
        async with await aio_pika.connect_robust(url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=WINDOW)
            queue = await channel.get_queue(QUEUE)
            clock = Clock()
            left = count
            async with queue.iterator() as messages:
                async for message in messages:
                    await message.ack()
                    left -= 1
                    if not left:
                        break
                return clock.stop()

    return asyncio.run(main())


def py_amqp_connection(url: str) -> amqp.Connection:
    parameters = pika.URLParameters(url)
    connection = amqp.Connection(f"{parameters.host}:{parameters.port}")
    connection.connect()
    return connection


def py_amqp_publish(url: str, count: int) -> Result:
    with py_amqp_connection(url) as connection:
        channel = connection.channel()
        channel.confirm_select()
        sent = confirmed = 0

        def acked(tag: int, multiple: bool) -> None:
            nonlocal confirmed
            confirmed = tag if multiple else confirmed + 1

        channel.events["basic_ack"].add(acked)
        clock = Clock()
        while confirmed < count:
            while sent < count and sent - confirmed < WINDOW:
                channel.basic_publish(amqp.Message(BODY, delivery_mode=2), "", QUEUE)
                sent += 1
            connection.drain_events(timeout=30)
        return clock.stop()


def py_amqp_consume(url: str, count: int) -> Result:
    with py_amqp_connection(url) as connection:
        channel = connection.channel()
        channel.basic_qos(0, WINDOW, False)
        left = count

        def handle(message: amqp.Message) -> None:
            nonlocal left
            message.channel.basic_ack(message.delivery_tag)
            left -= 1

        channel.basic_consume(QUEUE, callback=handle)
        clock = Clock()
        while left:
            connection.drain_events(timeout=30)
        return clock.stop()


CLIENTS: dict[str, tuple[Callable[[str, int], Result], Callable[[str, int], Result]]] = {
    "leveret.client": (leveret_publish, leveret_consume),
    "leveret.client.blocking": (blocking_publish, blocking_consume),
    "pika": (pika_publish, pika_consume),
    "aio-pika": (aio_pika_publish, aio_pika_consume),
    "py-amqp": (py_amqp_publish, py_amqp_consume),
}


def measure(client: str, place: int, url: str, count: int) -> Result:
    """Run one client in a process of its own: its imports and garbage are nobody else's."""
    arguments = ["--client", client, "--place", str(place), "--count", str(count), url]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{client}: {done.stderr}")
    wall, cpu = json.loads(done.stdout)
    return wall, cpu


async def prepare(url: str) -> str:
    async with connect(url) as connection, connection.channel() as channel:
        await channel.delete_queue(QUEUE)
        await channel.declare_queue(QUEUE)
        properties = connection.server_properties
        return f"{properties.get('broker') or properties.get('product')} {url}"


def compare(url: str, count: int, rounds: int) -> None:
    print(f"{trio.run(prepare, url)}, {count} messages of {len(BODY)} octets, {rounds} rounds")
    print(f"{'':24} {'published/s':>12} {'CPU µs':>8} {'consumed/s':>12} {'CPU µs':>8}")
    results: dict[str, list[tuple[Result, Result]]] = {client: [] for client in CLIENTS}
    for _ in range(rounds):
        for client in CLIENTS:
            published = measure(client, 0, url, count)
            consumed = measure(client, 1, url, count)
            results[client].append((published, consumed))
    for client, measured in results.items():
        shown = [
            statistics.median(values)
            for place in (0, 1)
            for values in (
                [count / result[place][0] for result in measured],
                [result[place][1] / count * 1e6 for result in measured],
            )
        ]
        print(f"{client:24} {shown[0]:12,.0f} {shown[1]:8.1f} {shown[2]:12,.0f} {shown[3]:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("urls", nargs="*")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        print(json.dumps(CLIENTS[options.client][options.place](options.urls[0], options.count)))
        return
    with ExitStack() as stack:
        urls = options.urls
        if not urls:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for make in (node_target, rabbitmq_target):
                (folder / make.__name__).mkdir()
                target = make(folder / make.__name__)
                if target.kind == "rabbitmq" and not is_rabbitmq_installed():
                    continue
                stack.callback(target.stop)
                target.start()
                urls.append(target.url)
        for url in urls:
            compare(url, options.count, options.rounds)


if __name__ == "__main__":
    main()
