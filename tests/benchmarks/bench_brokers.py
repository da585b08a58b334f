"""Throughput of a broker as one client program sees it: the same program for any AMQP broker.

One durable queue, persistent messages, publisher confirms in a window, manual acknowledgements
with a prefetch.  Producer and consumer are processes of their own that speak AMQP through
`leveret.amqp` over plain blocking sockets, so that the client costs little and the same for all.

    python tests/benchmarks/bench_brokers.py amqp://127.0.0.1:5672 [amqp://…] --window 1000 \
        --seconds 8 --size 1024 [--quorum] [--pids 12,13]

With several addresses the producer uses the first one, the consumer the last.  CPU is that of
`--pids` (the broker's processes), a message published and consumed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import select
import socket
import statistics
import struct
import time
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from leveret.amqp import (
    Ack,
    ClientConnection,
    ContentReceived,
    Event,
    Method,
    MethodReceived,
    spec,
)
from leveret.amqp.properties import Properties

QUEUE = "bench"
TICKS = os.sysconf("SC_CLK_TCK")


class Client:
    """A blocking connection with one channel."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 5672))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.protocol = ClientConnection()
        self.events: list[Event] = []
        self.socket.sendall(self.protocol.begin())
        self.expect(spec.ConnectionStart)
        self.say(
            0,
            spec.ConnectionStartOk(
                client_properties={},
                mechanism="PLAIN",
                response=b"\0guest\0guest",
                locale="en_US",
            ),
        )
        tune = self.expect(spec.ConnectionTune)
        assert isinstance(tune, spec.ConnectionTune)
        self.say(0, _tune_ok(tune))
        self.say(0, spec.ConnectionOpen(virtual_host="/"))
        self.expect(spec.ConnectionOpenOk)
        self.say(1, spec.ChannelOpen())
        self.expect(spec.ChannelOpenOk)

    def say(self, channel: int, method: Method) -> None:
        self.socket.sendall(self.protocol.send_method(channel, method))
        self.events += self.protocol.receive_data(b"")

    def receive(self) -> list[Event]:
        events, self.events = self.events, []
        while not events:
            data = self.socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the broker closed the connection")
            events = self.protocol.receive_data(data)
        return events

    def expect(self, kind: type[Method]) -> Method:
        while True:
            events = self.receive()
            event = events.pop(0)
            self.events = events + self.events
            if isinstance(event, MethodReceived) and isinstance(event.method, kind):
                return event.method
            raise ConnectionError(f"expected {kind.__name__}, got {event}")


def _tune_ok(tune: spec.ConnectionTune) -> Method:
    return spec.ConnectionTuneOk(
        channel_max=tune.channel_max, frame_max=tune.frame_max, heartbeat=0
    )


def declare(url: str, *, quorum: bool) -> None:
    client = Client(url)
    client.say(1, spec.QueueDelete(queue=QUEUE))
    client.expect(spec.QueueDeleteOk)
    arguments = {"x-queue-type": "quorum"} if quorum else {}
    client.say(1, spec.QueueDeclare(queue=QUEUE, durable=True, arguments=dict(arguments)))
    client.expect(spec.QueueDeclareOk)
    client.socket.close()


def produce(url: str, window: int, size: int, until: float, pipe: Connection) -> None:
    """Publish with `window` messages unconfirmed; report the count and confirm latencies (s)."""
    client = Client(url)
    client.say(1, spec.ConfirmSelect())
    client.expect(spec.ConfirmSelectOk)
    header = Properties(delivery_mode=2).encode(size)
    publish = spec.BasicPublish(exchange="", routing_key=QUEUE)
    body = bytearray(os.urandom(size))
    sent = confirmed = 0
    sent_at: dict[int, float] = {}
    latencies: list[float] = []
    out: set[int] = set()
    while True:
        now = time.time()
        if now < until and len(out) < window:
            parts: list[bytes] = []
            while len(out) < window and len(parts) < 256:
                sent += 1
                body[:8] = struct.pack(">d", now)
                parts.append(client.protocol.send_content(1, publish, header, bytes(body)))
                out.add(sent)
                if sent % 16 == 0 or window == 1:
                    sent_at[sent] = now
            client.socket.sendall(b"".join(parts))
        elif now >= until and not out:
            break
        if len(out) >= window or now >= until or select.select([client.socket], [], [], 0)[0]:
            for event in client.receive():
                assert isinstance(event, Ack), event
                now = time.time()
                tags = range(confirmed + 1, event.delivery_tag + 1)
                done = [t for t in tags if t in out] if event.multiple else [event.delivery_tag]
                for tag in done:
                    out.discard(tag)
                    if tag in sent_at:
                        latencies.append(now - sent_at.pop(tag))
                if event.multiple:
                    confirmed = event.delivery_tag
    pipe.send((sent, latencies))


def consume(url: str, prefetch: int, until: float, pipe: Connection) -> None:
    """Consume and acknowledge every message; report the count and latencies (s)."""
    client = Client(url)
    client.say(1, spec.BasicQos(prefetch_count=prefetch))
    client.expect(spec.BasicQosOk)
    client.say(1, spec.BasicConsume(queue=QUEUE))
    client.expect(spec.BasicConsumeOk)
    client.socket.settimeout(3)
    count = 0
    latencies: list[float] = []
    try:
        while True:
            events = client.receive()
            last = 0
            now = time.time()
            for event in events:
                assert isinstance(event, ContentReceived), event
                assert isinstance(event.method, spec.BasicDeliver)
                last = event.method.delivery_tag
                if now < until:
                    count += 1
                if last % 16 == 0:
                    latencies.append(now - struct.unpack(">d", event.body[:8])[0])
            if last:
                client.say(1, spec.BasicAck(delivery_tag=last, multiple=True))
    except TimeoutError:
        pass
    pipe.send((count, latencies))


def cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def quantile(values: list[float], at: float) -> float:
    return sorted(values)[int(len(values) * at)] * 1_000 if values else 0.0


def run(urls: list[str], window: int, size: int, seconds: float, pids: list[int]) -> str:
    until = time.time() + seconds + 1
    ours, theirs = multiprocessing.Pipe()
    ours_too, theirs_too = multiprocessing.Pipe()
    before = cpu_seconds(pids)
    began = time.time()
    consumer = multiprocessing.Process(target=consume, args=(urls[-1], 200, until, theirs_too))
    producer = multiprocessing.Process(target=produce, args=(urls[0], window, size, until, theirs))
    consumer.start()
    producer.start()
    sent, confirm_s = ours.recv()
    took = time.time() - began
    count, deliver_s = ours_too.recv()
    cpu = cpu_seconds(pids) - before
    producer.join()
    consumer.join()
    return (
        f"{window:>7} {sent / took:>11,.0f} {count / took:>11,.0f} {cpu / sent * 1e6:>9.0f}"
        f" {statistics.median(confirm_s) * 1e3:>9.1f} {quantile(confirm_s, 0.99):>8.1f}"
        f" {statistics.median(deliver_s) * 1e3:>9.1f} {quantile(deliver_s, 0.99):>8.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--window", type=int, action="append")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--quorum", action="store_true")
    parser.add_argument("--pids", type=lambda text: [int(p) for p in text.split(",")], default=[])
    options = parser.parse_args()
    print(" window confirmed/s  consumed/s   CPU µs  conf p50   p99 ms  deliv p50   p99 ms")
    for window in options.window or [1, 100, 1000]:
        declare(options.urls[0], quorum=options.quorum)
        print(run(options.urls, window, options.size, options.seconds, options.pids), flush=True)


if __name__ == "__main__":
    main()
