"""What a node keeps for each queue, binding, connection, channel, consumer and message.

    python tests/benchmarks/bench_objects.py [count] [connections]

Makes `count` of each on a single node of its own and prints how its resident memory grew, each.
Then three nodes get `count` replicated queues: how fast they are declared, one after the other and
without waiting, what they cost each node, and how long all three take to boot with them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from leveret.amqp import Method, spec
from tests.support import nodes
from tests.support.nodes import LeveretProcess
from tests.support.wire import BODY, HEADER, METHOD, Wire, content_header, frame

BATCH = 250
BODY_BYTES = 100
CHANNELS = 1000
ONE_BY_ONE = 200


def open_wire(node: LeveretProcess) -> Wire:
    wire = Wire("127.0.0.1", node.ports[0], timeout_s=600)
    wire.connect("guest", "guest")
    wire.open_channel()
    return wire


def send_all(wire: Wire, count: int, make: Callable[[int], Method], channel: int = 1) -> None:
    """Send `count` methods that are not answered, then one that is."""
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        wire.send(b"".join(frame(METHOD, channel, make(n).encode()) for n in numbers))
        ask(wire, spec.QueueDeclare(queue="asked", durable=False), channel)


def ask(wire: Wire, method: Method, channel: int = 1) -> None:
    wire.send(frame(METHOD, channel, method.encode()))
    while wire.read_frame().type != METHOD:
        pass


def publish_all(wire: Wire, count: int, queue: str) -> None:
    head = frame(METHOD, 1, spec.BasicPublish(routing_key=queue).encode())
    message = head + frame(HEADER, 1, content_header(BODY_BYTES)) + frame(BODY, 1, bytes(100))
    for _ in range(0, count, BATCH):
        wire.send(message * BATCH)
        ask(wire, spec.QueueDeclare(queue="asked", durable=False))


def declare(number: int, *, durable: bool = True) -> Method:
    return spec.QueueDeclare(queue=f"{durable}-{number}", durable=durable, nowait=True)


def measure(
    folder: Path, name: str, count: int, act: Callable[[Wire, LeveretProcess], None]
) -> None:
    """Print how a fresh node grows by what `act` does, a piece."""
    node = nodes.node(folder)
    node.start()
    try:
        wire = open_wire(node)
        ask(wire, spec.QueueDeclare(queue="asked", durable=False))
        time.sleep(1)
        before = node.rss_bytes()
        began_s = time.monotonic()
        act(wire, node)
        took_s = time.monotonic() - began_s
        time.sleep(1)
        each = (node.rss_bytes() - before) / count
        print(f"{name:34} {each:9.0f} B each   {count / took_s:8.0f} /s", flush=True)
    finally:
        node.kill()


def single(folder: Path, count: int, connections: int) -> None:
    held: list[Wire] = []

    def bindings(wire: Wire, _: LeveretProcess) -> None:
        send_all(
            wire,
            count,
            lambda n: spec.QueueBind(
                queue="asked", exchange="amq.topic", routing_key=f"a.{n}", nowait=True
            ),
        )

    def connect(wire: Wire, node: LeveretProcess) -> None:
        held.extend(open_wire(node) for _ in range(connections))

    def channels(wire: Wire, node: LeveretProcess) -> None:
        for _ in range(count // CHANNELS):
            wire = open_wire(node)
            held.append(wire)
            for channel in range(2, CHANNELS + 2):
                ask(wire, spec.ChannelOpen(), channel)

    def consumers(wire: Wire, _: LeveretProcess) -> None:
        send_all(
            wire,
            count,
            lambda n: spec.BasicConsume(queue="asked", consumer_tag=f"t-{n}", nowait=True),
        )

    for name, number, act in (
        ("durable queue", count, lambda wire, _: send_all(wire, count, declare)),
        (
            "transient queue",
            count,
            lambda wire, _: send_all(wire, count, lambda n: declare(n, durable=False)),
        ),
        ("binding", count, bindings),
        ("connection with a channel", connections, connect),
        ("channel", count // CHANNELS * CHANNELS, channels),
        ("consumer", count, consumers),
        (
            f"message of {BODY_BYTES} B, transient queue",
            count,
            lambda wire, _: publish_all(wire, count, "asked"),
        ),
    ):
        made = folder / name.replace(" ", "-")
        made.mkdir()
        measure(made, name, number, act)
        for wire in held:
            wire.socket.close()
        held.clear()


def replicated(folder: Path, count: int) -> None:
    members = nodes.members(folder)
    for member in members:
        member.launch()
    for member in members:
        member.wait_ready()
    try:
        wire = open_wire(members[0])
        began_s = time.monotonic()
        for number in range(ONE_BY_ONE):
            ask(wire, spec.QueueDeclare(queue=f"single-{number}", durable=True))
        print(
            f"declared one by one, three nodes   {ONE_BY_ONE / (time.monotonic() - began_s):.0f} /s"
        )
        before = [member.rss_bytes() for member in members]
        began_s = time.monotonic()
        send_all(wire, count, declare)
        print(f"declared without waiting           {count / (time.monotonic() - began_s):.0f} /s")
        grown = [
            (member.rss_bytes() - was) / count for member, was in zip(members, before, strict=True)
        ]
        print("replicated queue, on each node     " + ", ".join(f"{each:.0f} B" for each in grown))
        for member in members:
            member.kill()
        began_s = time.monotonic()
        for member in members:
            member.launch()
        for member in members:
            member.wait_ready()
        ask(open_wire(members[0]), spec.QueueDeclare(queue=f"True-{count - 1}", passive=True))
        print(f"boot of three nodes with {count}     {time.monotonic() - began_s:.1f} s")
    finally:
        for member in members:
            member.kill()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        single(folder, count, connections)
        made = folder / "three"
        made.mkdir()
        replicated(made, count)


if __name__ == "__main__":
    main()
