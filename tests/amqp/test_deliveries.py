"""Deliveries as objects: what a client reads in one step is what it reads frame by frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.amqp import (
    Ack,
    ConnectionFailed,
    ContentReceived,
    DeliverEncoder,
    Delivery,
    Properties,
    encode_get_ok,
    encode_record,
    encode_route,
    spec,
)
from tests.amqp.peers import client_with_channel, header, method


class Parcel(Delivery):
    """A client's own kind of delivery."""

    __slots__ = ("owner",)


def delivered(tag: int, body: bytes, *, key: str = "key", frame_max: int = 131072) -> bytes:
    record = encode_record(
        encode_route("ex", key), Properties(delivery_mode=2).encode(len(body)), body
    )
    out: list[bytes | memoryview] = []
    DeliverEncoder(1, "ctag").append(out, tag, tag % 2 == 0, record, frame_max)
    return b"".join(out)


def parts(event: object) -> tuple[object, ...]:
    """What a delivery says, in whichever form it came."""
    if isinstance(event, ContentReceived):
        deliver = event.method
        assert isinstance(deliver, spec.BasicDeliver)
        route = (deliver.exchange, deliver.routing_key)
        return (deliver.consumer_tag.encode(), deliver.delivery_tag, deliver.redelivered, *route,
                event.header, event.body)  # fmt: skip
    assert isinstance(event, Delivery), event
    return (event.consumer_tag, event.delivery_tag, event.redelivered, event.exchange,
            event.routing_key, event.header, event.body)  # fmt: skip


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.text("kéy.", max_size=20)), max_size=6),
    st.lists(st.integers(1, 400)),
    st.sampled_from([131072, 4096, 108]),
)
def test_deliveries_cut_anywhere_say_what_they_say_frame_by_frame(
    messages: list[tuple[bytes, str]], cuts: list[int], frame_max: int
) -> None:
    stream = b"".join(
        delivered(tag, body, key=key, frame_max=frame_max)
        for tag, (body, key) in enumerate(messages, 1)
    )
    fast, slow = client_with_channel(delivery_type=Parcel), client_with_channel()
    events: list[object] = []
    at = 0
    for cut in [*cuts, len(stream)]:
        events += fast.receive_data(stream[at : at + cut])
        at += cut

    assert [parts(e) for e in slow.receive_data(stream)] == [parts(e) for e in events]
    assert all(type(event) is Parcel for event in events)


def test_what_stands_between_deliveries_comes_in_its_place() -> None:
    client = client_with_channel(delivery_type=Delivery)
    record = encode_record(encode_route("", "q"), header(1), b"g")
    events = client.receive_data(
        delivered(1, b"one")
        + method(1, spec.BasicAck(delivery_tag=7, multiple=True))
        + encode_get_ok(1, 2, record, redelivered=False, message_count=0, frame_max=131072)
        + delivered(3, b"three")
    )

    assert [Delivery, Ack, ContentReceived, Delivery] == [type(event) for event in events]


def test_a_delivery_without_body_comes_too() -> None:
    client = client_with_channel(delivery_type=Delivery)

    [event] = client.receive_data(delivered(1, b""))

    assert isinstance(event, Delivery)
    assert event.body == b""


@pytest.mark.parametrize("at", [-1, 5])
def test_a_damaged_delivery_fails_the_connection_as_any_frame_does(at: int) -> None:
    client = client_with_channel(delivery_type=Delivery)
    octets = bytearray(delivered(1, b"one"))
    octets[at] ^= 0xFF

    events = client.receive_data(bytes(octets) + delivered(2, b"two"))

    assert not any(isinstance(event, Delivery) for event in events)
    assert any(isinstance(event, ConnectionFailed) for event in events) or not events
