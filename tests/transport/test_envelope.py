from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.transport import EnvelopeError
from leveret.transport.envelope import (
    LENGTH,
    SIGN_OF_LIFE,
    Decoder,
    append_frame,
    append_part,
    decode_body,
)

LIMIT = 4096

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=300)
)
payloads = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=10,
)
messages = st.lists(st.tuples(st.text(max_size=10), payloads), max_size=8)


def decoder(frame_max_bytes: int) -> Decoder:
    return Decoder(frame_max_bytes=frame_max_bytes, unfinished_max_bytes=4 * frame_max_bytes)


def in_parts(stream: int, message: tuple[str, object], part_bytes: int) -> list[bytes]:
    body = memoryview(encode(message))[LENGTH.size :]
    parts = []
    for start in range(0, len(body), part_bytes):
        out = bytearray()
        is_last = start + part_bytes >= len(body)
        append_part(out, stream, body[start : start + part_bytes], is_last=is_last)
        parts.append(bytes(out))
    return parts


def fed_in_pieces(cutter: Decoder, data: bytes, cuts: list[int]) -> list[tuple[str, object]]:
    got: list[tuple[str, object]] = []
    turn = 0
    while data:
        size = cuts[turn % len(cuts)]
        got += cutter.feed(data[:size])
        data, turn = data[size:], turn + 1
    return got


def encode(*parts: tuple[str, object]) -> bytes:
    out = bytearray()
    for channel, payload in parts:
        append_frame(out, channel, payload, frame_max_bytes=1 << 20)
    return bytes(out)


@given(messages, st.lists(st.integers(1, 60), min_size=1))
def test_messages_come_back_whatever_the_chunks(
    sent: list[tuple[str, object]], cuts: list[int]
) -> None:
    data = encode(*sent)
    cutter = decoder(1 << 20)

    got = fed_in_pieces(cutter, data, cuts)

    assert sent == got
    assert cutter.buffered_bytes == 0


@given(
    st.lists(st.tuples(st.text(max_size=10), payloads), min_size=1, max_size=5),
    st.integers(1, 40),
    st.lists(st.integers(1, 60), min_size=1),
    st.randoms(use_true_random=False),
)
def test_messages_in_parts_come_back_whatever_the_order_and_the_chunks(
    sent: list[tuple[str, object]], part_bytes: int, cuts: list[int], rng: random.Random
) -> None:
    whole = [(f"whole {number}", number) for number in range(3)]
    streams = [in_parts(number, message, part_bytes) for number, message in enumerate(sent)]
    streams += [[encode(message)] for message in whole]
    data = b""
    while streams:
        stream = rng.choice(streams)
        data += stream.pop(0)
        if not stream:
            streams.remove(stream)
    cutter = decoder(1 << 20)

    got = fed_in_pieces(cutter, data, cuts)

    assert sorted(map(repr, [*sent, *whole])) == sorted(map(repr, got))
    assert cutter.buffered_bytes == 0


def test_a_stream_of_parts_above_the_limit_of_a_frame_is_refused() -> None:
    parts = in_parts(1, ("a", bytes(LIMIT)), 1000)
    cutter = decoder(LIMIT)

    with pytest.raises(EnvelopeError, match=r"a frame of \d+ bytes exceeds the limit of 4096"):
        cutter.feed(b"".join(parts))


@pytest.mark.parametrize("size", [0, 1000])
def test_streams_that_never_end_are_refused_together(size: int) -> None:
    cutter = decoder(LIMIT)

    with pytest.raises(EnvelopeError, match=r"parts of \d+ frames exceed 16384 bytes"):
        for stream in range(100):
            out = bytearray()
            append_part(out, stream, memoryview(bytes(size)), is_last=False)
            cutter.feed(bytes(out))


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_arbitrary_bytes_give_messages_or_one_typed_error(chunks: list[bytes]) -> None:
    cutter = decoder(LIMIT)
    with contextlib.suppress(EnvelopeError):
        for chunk in chunks:
            cutter.feed(chunk)


@given(st.binary(max_size=200))
def test_arbitrary_bodies_give_a_message_or_one_typed_error(body: bytes) -> None:
    try:
        channel, _ = decode_body(body)
    except EnvelopeError:
        return
    assert isinstance(channel, str)


@given(messages, st.integers(0, 400), st.integers(0, 255))
def test_one_spoilt_byte_gives_messages_or_one_typed_error(
    sent: list[tuple[str, object]], place: int, value: int
) -> None:
    data = bytearray(encode(*sent))
    if data:
        data[place % len(data)] = value
    with contextlib.suppress(EnvelopeError):
        decoder(LIMIT).feed(bytes(data))


def test_a_frame_is_its_length_and_a_messagepack_array() -> None:
    frame = encode(("raft.3", {"term": 7}))

    assert len(frame) - 4 == struct.unpack_from("<I", frame)[0]
    assert ["raft.3", {"term": 7}] == msgpack.unpackb(frame[4:])


def test_lists_arrive_as_tuples_and_bytes_as_bytes() -> None:
    ((_, payload),) = decoder(LIMIT).feed(encode(("a", [1, [b"x", "y"]])))

    assert payload == (1, (b"x", "y"))


def test_signs_of_life_are_no_messages() -> None:
    data = SIGN_OF_LIFE + encode(("a", 1)) + SIGN_OF_LIFE * 2 + encode(("a", 2))
    whole, single = decoder(LIMIT), decoder(LIMIT)

    in_one = list(whole.feed(data))
    in_bytes = [m for i in range(len(data)) for m in single.feed(data[i : i + 1])]

    assert in_one == in_bytes == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 4096])
def test_a_frame_above_the_limit_is_refused_by_its_header(cut: int) -> None:
    data = struct.pack("<I", LIMIT + 1) + bytes(LIMIT + 1)
    cutter = decoder(LIMIT)

    with pytest.raises(EnvelopeError, match="4097 bytes exceeds the limit of 4096"):
        cutter.feed(data[:cut])
        cutter.feed(data[cut : cut + 4])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb("a"),
        msgpack.packb(["a"]),
        msgpack.packb(["a", 1, 2]),
        msgpack.packb([b"a", 1]),
        msgpack.packb({"a": 1, "b": 2}),
        msgpack.packb(["a", 1]) + b"\0",
        msgpack.packb(["a", 1])[:-1],
        msgpack.packb(["a", msgpack.ExtType(5, b"x")]),
        b"\x92\xa1a\xd6\xff\0\0\0\0",  # a timestamp
        b"\x92\xa1a\xa1\xff",  # no UTF-8
        b"\x92\xa1a\x81\x80\x01",  # a map as a key
        b"\x92\xa1a" + b"\x91" * 5000 + b"\xc0",
        b"\x92\xa1a\xdd\xff\xff\xff\xff",
        b"\x92\xa1a\xdf\x7f\xff\xff\xff",
        b"\x92\xa1a\xc6\xff\xff\xff\xff",
    ],
)
def test_a_body_that_is_no_message_is_an_envelope_error(body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode_body(body)


def test_an_announced_length_takes_no_memory_before_its_bytes_come() -> None:
    frame = struct.pack("<I", 160 << 20) + b"\x92\xa1a\xc6" + struct.pack(">I", 150 << 20)
    nest = b"\x92\xa1a" + b"\xdd\x00\x01\xff\xff" * 50
    tracemalloc.start()
    try:
        decoder(160 << 20).feed(frame)
        with pytest.raises(EnvelopeError):
            decode_body(nest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


@pytest.mark.parametrize("payload", [object(), 2**64, "\ud800", bytes(LIMIT)])
def test_a_payload_that_cannot_be_sent_leaves_the_queue_as_it_was(payload: object) -> None:
    out = bytearray(encode(("a", 1)))

    with pytest.raises(EnvelopeError, match="'b'"):
        append_frame(out, "b", (1, payload), frame_max_bytes=LIMIT)

    assert encode(("a", 1)) == out
