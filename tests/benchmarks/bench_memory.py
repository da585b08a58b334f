"""Memory of a real node: idle, with idle connections, and a message of a long queue.

    python tests/benchmarks/bench_memory.py [messages] [connections]

Publishes the messages (1 KiB, persistent, confirmed) into one durable queue of a single node,
starts the node again, and takes them all out in order. Prints a table; exit code 1 if a message
costs more than `BYTES_A_MESSAGE_MAX`, is missing, or comes out of order.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import nodes
from tests.support.wire import (
    BASIC_ACK,
    BASIC_CONSUME,
    BASIC_DELIVER,
    BODY,
    CONFIRM_SELECT,
    CONFIRM_SELECT_OK,
    HEADER,
    METHOD,
    Wire,
    content_header,
    frame,
    method,
    publish,
    shortstr,
    table,
)

BYTES_A_MESSAGE_MAX = 300
BODY_BYTES = 1024
DIGITS = 10
BATCH = 250
WINDOW = 5_000
PREFETCH = 2_000
BASIC_QOS = (60, 10)
PERSISTENT = struct.pack(">HB", 0x1000, 2)[2:]
QUEUE = "long"
MIB = 1 << 20


def open_wire(node: nodes.LeveretProcess) -> Wire:
    """Return a connection with channel 1 open."""
    wire = Wire("127.0.0.1", node.ports[0], timeout_s=60)
    wire.connect("guest", "guest")
    wire.open_channel()
    return wire


def publish_all(node: nodes.LeveretProcess, count: int) -> None:
    """Publish the messages 0 to `count` - 1 and see all of them confirmed."""
    head = (
        frame(METHOD, 1, publish("", QUEUE))
        + frame(HEADER, 1, content_header(BODY_BYTES, 0x1000, PERSISTENT))
        + struct.pack(">BHI", BODY, 1, BODY_BYTES)
    )
    tail = b"." * (BODY_BYTES - DIGITS) + b"\xce"
    with open_wire(node) as wire:
        wire.declare_queue(QUEUE, bits=0b00010)
        wire.send_method(1, CONFIRM_SELECT, b"\x00")
        wire.expect(CONFIRM_SELECT_OK, 1)
        sent = confirmed = 0
        while confirmed < count:
            while sent < count and sent - confirmed <= WINDOW - BATCH:
                stop = min(sent + BATCH, count)
                wire.send(b"".join(head + b"%0*d" % (DIGITS, i) + tail for i in range(sent, stop)))
                sent = stop
            tag, is_multiple = struct.unpack(">Q?", wire.expect(BASIC_ACK, 1))
            # Alone in its queue, a run of messages is confirmed in order.
            assert is_multiple or tag == confirmed + 1
            confirmed = tag


def consume_all(node: nodes.LeveretProcess, count: int) -> None:
    """Take `count` messages out and see that they come in order, unmarked."""
    with open_wire(node) as wire:
        wire.send_method(1, BASIC_QOS, struct.pack(">IHB", 0, PREFETCH, 0))
        wire.read_frame()
        arguments = struct.pack(">H", 0) + shortstr(QUEUE) + shortstr("c") + b"\x00" + table()
        wire.send_method(1, BASIC_CONSUME, arguments)
        wire.read_frame()
        buffer = wire._buffer  # what came with consume-ok
        expected = 0
        while expected < count:
            offset = 0
            while offset + 7 <= len(buffer):
                kind, _, size = struct.unpack_from(">BHI", buffer, offset)
                if offset + size + 8 > len(buffer):
                    break
                if kind == METHOD:
                    assert struct.unpack_from(">HH", buffer, offset + 7) == BASIC_DELIVER
                elif kind == BODY:
                    assert int(buffer[offset + 7 : offset + 7 + DIGITS]) == expected
                    expected += 1
                    if expected % 500 == 0 or expected == count:
                        ack = method(BASIC_ACK, struct.pack(">QB", expected, 1))
                        wire.send(frame(METHOD, 1, ack))
                offset += size + 8
            buffer = buffer[offset:]
            if expected < count:
                buffer += wire.socket.recv(1 << 18)
        wire._buffer = buffer
        wire.declare_queue(QUEUE, bits=0b00011)


def report(what: str, value: str) -> None:
    print(f"{what:<44}{value:>16}", flush=True)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    with tempfile.TemporaryDirectory(prefix="leveret-memory-") as folder:
        node = nodes.node(Path(folder))
        node.start()
        try:
            idle = node.rss_bytes()
            report("idle", f"{idle / MIB:.1f} MiB")
            opened = [open_wire(node) for _ in range(connections)]
            grown = node.rss_bytes() - idle
            report(f"{connections} idle connections", f"{(idle + grown) / MIB:.1f} MiB")
            report("  each", f"{grown / connections / 1024:.1f} KiB")
            for wire in opened:
                wire.socket.close()
            node.restart()

            began_s, before = time.monotonic(), node.rss_bytes()
            publish_all(node, count)
            took_s, after = time.monotonic() - began_s, node.rss_bytes()
            # The cache of bodies is bounded, and part of the node, not of the messages.
            report(f"{count} messages of 1 KiB", f"{after / MIB:.1f} MiB")
            report("  published and confirmed", f"{count / took_s:.0f} /s")
            each = (after - before) / count
            report("  each, with the cache of bodies", f"{each:.0f} B")

            node.kill()
            began_s = time.monotonic()
            node.start()
            report("  restart after SIGKILL", f"{time.monotonic() - began_s:.1f} s")
            restarted = node.rss_bytes()
            report("  after the restart", f"{restarted / MIB:.1f} MiB")
            report("  each, after the restart", f"{(restarted - idle) / count:.0f} B")

            began_s = time.monotonic()
            consume_all(node, count)
            report("  consumed and acked", f"{count / (time.monotonic() - began_s):.0f} /s")
            report("  when all are gone", f"{node.rss_bytes() / MIB:.1f} MiB")
        finally:
            node.kill()
    return int(each > BYTES_A_MESSAGE_MAX)


if __name__ == "__main__":
    sys.exit(main())
