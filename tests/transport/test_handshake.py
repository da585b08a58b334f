"""Each handshake runs between two parties, or between one and a script, over memory streams."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

import msgpack
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from leveret.transport import Address, ClusterCredentials, Identity, Refused
from leveret.transport.handshake import HELLO, Hello, Party
from leveret.transport.identity import NodeId
from leveret.transport.opening import read_opening, say_refused

from .support import ONE, TOKEN, identity


class MemoryWire:
    """A wire over one end of a memory stream; optionally as if under TLS."""

    def __init__(
        self,
        stream: trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream],
        certified: tuple[str, NodeId] | None = None,
    ) -> None:
        self.remote = Address("127.0.0.1", 1)
        self.certified = certified
        self.peer_certificate: bytes | None = None
        self.is_tls = certified is not None
        self._stream = stream

    async def receive(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray) -> None:
        await self._stream.send_all(data)

    async def finish(self) -> None:
        await self._stream.send_eof()

    def close(self) -> None:
        self._stream.send_stream.close()
        self._stream.receive_stream.close()

    async def read_frame(self) -> tuple[str, object]:
        (size,) = struct.unpack("<I", await self._stream.receive_some(4))
        channel, payload = msgpack.unpackb(await self._stream.receive_some(size))
        return channel, payload

    async def write_frame(self, channel: str, payload: object) -> None:
        body = msgpack.packb([channel, payload])
        await self._stream.send_all(struct.pack("<I", len(body)) + body)


def party(me: Identity, token: bytes = TOKEN) -> Party:
    def nonce(size: int) -> bytes:
        return bytes([me.node]) * size

    return Party(me, ClusterCredentials(me.cluster, token), nonce, 4096)


def wires(
    certified: tuple[tuple[str, NodeId], tuple[str, NodeId]] | None = None,
) -> tuple[MemoryWire, MemoryWire]:
    left, right = memory_stream_pair()
    return (
        MemoryWire(left, certified and certified[1]),
        MemoryWire(right, certified and certified[0]),
    )


async def accept(acceptor: Party, wire: MemoryWire) -> tuple[Hello, bytes]:
    """Speak as `acceptor` from the first byte on."""
    return await acceptor.accept(wire, await read_opening(wire, (HELLO,), max_bytes=4096))


def anyone(_: Hello) -> None:
    """Accept whoever answers."""


async def meet(
    dialler: Party,
    acceptor: Party,
    *,
    expected: NodeId = ONE,
    check: Callable[[Hello], None] = anyone,
    certified: tuple[tuple[str, NodeId], tuple[str, NodeId]] | None = None,
) -> tuple[object, object]:
    """Return how the handshake ended for dialler and acceptor: a Hello, or (by_peer, reason)."""
    near, far = wires(certified)
    ends: dict[str, object] = {}

    async def end(side: str, wire: MemoryWire, speak: Callable[[], Awaitable[object]]) -> None:
        try:
            ends[side] = await speak()
        except Refused as refused:
            ends[side] = (refused.by_peer, str(refused))
            if not refused.by_peer:
                await say_refused(wire, str(refused))
            wire.close()

    async def welcome() -> Hello:
        hello, proof = await accept(acceptor, far)
        await far.write_frame("#welcome", proof)
        return hello

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                end,
                "dial",
                near,
                lambda: dialler.dial(near, expected=expected, number=3, check=check),
            )
            nursery.start_soon(end, "accept", far, welcome)
    return ends["dial"], ends["accept"]


async def test_both_sides_learn_who_the_other_is() -> None:
    one = identity(1, boot=4, incarnation=1 << 40)
    two = identity(2, boot=9, name="zwei", incarnation=3)

    dialled, accepted = await meet(party(two), party(one))

    assert isinstance(dialled, Hello)
    assert isinstance(accepted, Hello)
    assert (one, 0) == (dialled.identity, dialled.dial)
    assert (two, 3) == (accepted.identity, accepted.dial)


@pytest.mark.parametrize(
    ("two", "token", "reason"),
    [
        (identity(2), b"another token, of 32 bytes too..", "tokens of the two nodes differ"),
        (identity(2, cluster="rabbits"), TOKEN, "node 2 belongs to the cluster 'rabbits'"),
        (identity(1, name="twin"), TOKEN, "both nodes have the id 1"),
        (identity(2, name="node-1"), TOKEN, "the same name 'node-1'"),
    ],
)
async def test_a_refusal_is_told_to_the_refused_with_its_reason(
    two: Identity, token: bytes, reason: str
) -> None:
    dialled, accepted = await meet(party(two, token), party(identity(1)))

    assert isinstance(accepted, tuple)
    assert accepted[0] is False
    assert reason in accepted[1]
    assert (True, accepted[1]) == dialled


async def test_the_dialler_refuses_another_node_than_it_dialled() -> None:
    dialled, accepted = await meet(party(identity(3)), party(identity(2)), expected=ONE)

    assert (False, "node 2 answers where node 1 should") == dialled
    assert (True, "node 2 answers where node 1 should") == accepted


async def test_what_the_dialler_does_not_accept_is_refused_before_the_link_is_made() -> None:
    def nobody(hello: Hello) -> None:
        raise Refused(f"not node {hello.identity.node}")

    dialled, accepted = await meet(party(identity(2)), party(identity(1)), check=nobody)

    assert ((False, "not node 1"), (True, "not node 1")) == (dialled, accepted)


@pytest.mark.parametrize(
    "stranger", [("hares", NodeId(3)), ("rabbits", NodeId(2))], ids=["node", "cluster"]
)
async def test_the_certificate_must_be_that_of_the_hello(stranger: tuple[str, NodeId]) -> None:
    dialled, accepted = await meet(
        party(identity(2)), party(identity(1)), certified=(stranger, ("hares", ONE))
    )

    reason = "the certificate is not that of node 2 of 'hares'"
    assert ((True, reason), (False, reason)) == (dialled, accepted)


async def test_a_proof_that_is_reflected_is_refused() -> None:
    near, far = wires()

    async def reflect() -> None:
        channel, hello = await far.read_frame()
        assert isinstance(hello, dict)
        await far.write_frame(channel, hello | {"node": 1, "name": "node-1"})
        _, proof = await far.read_frame()
        await far.write_frame("#welcome", proof)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reflect)
        with pytest.raises(Refused, match="tokens of the two nodes differ"):
            await party(identity(2)).dial(near, expected=ONE, number=1, check=anyone)


async def test_the_token_never_crosses_the_wire() -> None:
    near, far = wires()
    seen = bytearray()
    send_near, send_far = near.send_all, far.send_all

    async def spy_near(data: bytes | bytearray) -> None:
        seen.extend(data)
        await send_near(data)

    async def spy_far(data: bytes | bytearray) -> None:
        seen.extend(data)
        await send_far(data)

    near.send_all, far.send_all = spy_near, spy_far  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept, party(identity(1)), far)
        with trio.move_on_after(0.1):
            await party(identity(2)).dial(near, expected=ONE, number=1, check=anyone)
        nursery.cancel_scope.cancel()

    assert len(seen) > 300
    assert TOKEN not in seen
    assert TOKEN.hex().encode() not in seen


def hello_payload(**changes: object) -> dict[str, object]:
    whole = Hello(identity(2), 1, 1, 1, bytes(32)).payload()
    return whole | changes


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "not a Leveret node"),
        (hello_payload(magic="kafka"), "not a Leveret node"),
        (hello_payload(version=3, oldest=2), "incompatible peer protocols: 2 to 3, against 1 to 1"),
        (hello_payload(version=0, oldest=0), "incompatible peer protocols: 0 to 0, against 1 to 1"),
        (hello_payload(version="1"), "version is malformed"),
        (hello_payload(node=0), "node is out of bounds"),
        (hello_payload(node=True), "node is malformed"),
        (hello_payload(node=1 << 16), "node is out of bounds"),
        (hello_payload(name=""), "name is malformed"),
        (hello_payload(name="a\nERROR forged"), "name is malformed"),
        (hello_payload(name="x" * 256), "name is malformed"),
        (hello_payload(incarnation=-1), "incarnation is out of bounds"),
        (hello_payload(incarnation=1 << 63), "incarnation is out of bounds"),
        (hello_payload(boot=-1), "boot is out of bounds"),
        (hello_payload(nonce=b"short"), "nonce is malformed"),
        (hello_payload(instance=None), "instance is malformed"),
    ],
)
def test_a_hello_out_of_bounds_is_refused(payload: object, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        Hello.parse(payload)


def test_a_newer_node_that_still_speaks_our_protocol_is_welcome() -> None:
    hello = Hello.parse(hello_payload(version=7, oldest=1, colour="brown"))

    assert 7 == hello.version


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a Leveret node.*exceeds the limit of 4096"),
        (struct.pack("<I", 4097), "4097 bytes exceeds the limit of 4096"),
        (struct.pack("<I", 3) + b"\xc1\xc1\xc1", "not MessagePack"),
        (struct.pack("<I", 4) + b"\x92\xa1a\x01", "expected #hello, not a"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "speaks TLS"),
    ],
)
async def test_garbage_is_refused_with_a_reason(said: bytes, reason: str) -> None:
    near, far = wires()
    await far.send_all(said)

    with pytest.raises(Refused, match=reason):
        await accept(party(identity(1)), near)


async def test_a_refusal_cannot_forge_lines_of_the_log() -> None:
    near, far = wires()
    await far.write_frame("#refused", "no\n2026 ERROR all is lost" + "x" * 500)

    with pytest.raises(Refused, match=r"^no\?2026 ERROR all is lostx{175}$") as caught:
        await party(identity(2)).dial(near, expected=ONE, number=1, check=anyone)

    assert caught.value.by_peer


async def test_what_follows_the_welcome_is_left_to_the_link() -> None:
    near, far = wires()

    async def welcome() -> None:
        _, proof = await accept(party(identity(1)), far)
        await far.write_frame("#welcome", proof)
        await far.send_all(b"later")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(welcome)
        await party(identity(2)).dial(near, expected=ONE, number=1, check=anyone)

    assert b"later" == await near.receive(100)


@given(st.binary(max_size=100), st.booleans())
@settings(max_examples=100)
def test_arbitrary_first_bytes_end_in_a_refusal_or_a_lost_connection(
    said: bytes, as_body: bool
) -> None:
    async def main() -> None:
        near, far = wires()
        await far.send_all(struct.pack("<I", len(said)) + said if as_body else said)
        await far.finish()
        with pytest.raises((Refused, ConnectionResetError)):
            await accept(party(identity(1)), near)

    trio.run(main, clock=MockClock(autojump_threshold=0))
