"""What one message costs on the protocol's hot path: `python tests/benchmarks/bench_amqp.py`.

Prints microseconds of CPU for a publish parsed and a delivery encoded, best of several rounds,
with pamqp beside it: compare within one run only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

import pamqp.frame

sys.path.insert(0, str(Path(__file__).parents[2]))

from leveret.amqp import (
    DeliverEncoder,
    Delivery,
    Properties,
    ServerConnection,
    encode_record,
    encode_route,
    spec,
)
from leveret.amqp.frames import encode_content, encode_method
from tests.amqp.peers import client_with_channel

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 40
CHUNK = 64 * 1024


def running_server() -> ServerConnection:
    """A server behind its handshake, with channel 1 open."""
    server = ServerConnection()
    server.receive_data(spec.PROTOCOL_HEADER)
    server.send_method(0, spec.ConnectionStart(server_properties={}))
    start_ok = spec.ConnectionStartOk(client_properties={}, response=b"")
    server.receive_data(encode_method(0, start_ok.encode()))
    limits = {"channel_max": 2047, "frame_max": 131072, "heartbeat": 60}
    server.send_method(0, spec.ConnectionTune(**limits))
    server.receive_data(
        encode_method(0, spec.ConnectionTuneOk(**limits).encode())
        + encode_method(0, spec.ConnectionOpen().encode())
    )
    server.send_method(0, spec.ConnectionOpenOk())
    server.receive_data(encode_method(1, spec.ChannelOpen().encode()))
    return server


def best(work: Callable[[], object], count: int) -> float:
    """Microseconds of CPU for each of the `count` things that one call of `work` does."""
    repeat = max(1, 2000 // count)
    lowest = float("inf")
    for _ in range(ROUNDS):
        begin = process_time()
        for _ in range(repeat):
            work()
        lowest = min(lowest, process_time() - begin)
    return lowest / repeat / count * 1e6


def message(size: int, key: str, properties: Properties) -> bytes:
    """The frames of one publish."""
    method = spec.BasicPublish(exchange="exchange", routing_key=key).encode()
    return encode_content(1, method, properties.encode(size), b"x" * size, 131072)


def bench_publish(size: int, label: str, *, distinct: bool = False) -> None:
    """Parse chunks of publishes of `size` octets, all alike or each with its own key and id."""
    # Distinct ones are more than the parser remembers, so each is met as for the first time.
    count = 2000 if distinct else max(1, CHUNK // (size + 120))
    messages = [
        message(
            size,
            f"key.{i}" if distinct else "key",
            Properties(
                delivery_mode=2,
                content_type="application/json",
                message_id=f"{i:036}" if distinct else None,
            ),
        )
        for i in range(count)
    ]
    server, stream = running_server(), b"".join(messages)
    chunks = [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]

    def receive() -> None:
        for chunk in chunks:
            server.receive_data(chunk)

    ours = best(receive, count)
    print(f"publish parsed, {size} octets, {label}: {ours:.2f} us")


def pamqp_parse(chunk: bytes) -> None:
    """The same chunk through pamqp, frame by frame."""
    while chunk:
        used, _channel, _frame = pamqp.frame.unmarshal(chunk)
        chunk = chunk[used:]


def bench_deliver(size: int) -> None:
    """Encode deliveries of a stored message, joining included."""
    record = encode_record(
        encode_route("exchange", "key"), Properties(delivery_mode=2).encode(size), b"x" * size
    )
    encoder = DeliverEncoder(1, "ctag1.0123456789abcdef")

    def deliver() -> bytes:
        out: list[bytes | memoryview] = []
        for tag in range(100):
            encoder.append(out, tag, False, record, 131072)
        return b"".join(out)

    def encode() -> None:
        out: list[bytes | memoryview] = []
        for tag in range(100):
            encoder.append(out, tag, False, record, 131072)

    print(
        f"deliver encoded, {size} octets: {best(encode, 100):.2f} us, "
        f"and joined {best(deliver, 100):.2f} us"
    )


def bench_delivery(size: int) -> None:
    """Parse chunks of deliveries at the client, as `Delivery` objects and as `ContentReceived`."""
    record = encode_record(
        encode_route("exchange", "key"), Properties(delivery_mode=2).encode(size), b"x" * size
    )
    encoder = DeliverEncoder(1, "ctag1.0123456789abcdef")
    out: list[bytes | memoryview] = []
    count = max(1, CHUNK // (size + 120))
    for tag in range(1, count + 1):
        encoder.append(out, tag, False, record, 131072)
    chunk = b"".join(out)
    fast = client_with_channel(delivery_type=Delivery)
    slow = client_with_channel()
    print(
        f"delivery parsed, {size} octets: {best(lambda: fast.receive_data(chunk), count):.2f} us, "
        f"frame by frame {best(lambda: slow.receive_data(chunk), count):.2f} us"
    )


def main() -> None:
    """Print every figure."""
    bench_publish(100, "all alike")
    bench_publish(1024, "all alike")
    bench_publish(1024, "each its own key and id", distinct=True)
    chunk = message(1024, "key", Properties(delivery_mode=2, content_type="a/b")) * 50
    print(f"the same with pamqp: {best(lambda: pamqp_parse(chunk), 50):.2f} us")
    server = running_server()
    acks = encode_method(1, spec.BasicAck(delivery_tag=7).encode()) * 1000
    print(f"ack parsed: {best(lambda: server.receive_data(acks), 1000):.2f} us")
    bench_deliver(100)
    bench_deliver(1024)
    bench_delivery(100)
    bench_delivery(1024)


if __name__ == "__main__":
    main()
