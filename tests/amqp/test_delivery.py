"""Deliveries framed around stored messages are what a client decodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.amqp import (
    ContentReceived,
    DeliverEncoder,
    Properties,
    Record,
    encode_get_ok,
    encode_record,
    encode_return,
    encode_route,
    spec,
)
from leveret.amqp.delivery import with_header
from leveret.amqp.properties import is_well_formed
from tests.amqp.peers import client_with_channel
from tests.amqp.strategies import properties, short_text

_HEADER = Properties(delivery_mode=2, type="t").encode


@given(short_text, short_text, properties, st.binary(max_size=50))
def test_a_record_gives_back_its_parts(
    exchange: str, key: str, props: Properties, body: bytes
) -> None:
    route = encode_route(exchange, key)
    header = props.encode(len(body))

    record = Record(encode_record(route, header, body))

    assert (route, header, body) == (record.route, record.header, record.body)
    assert (exchange, key) == (record.exchange, record.routing_key)


@pytest.mark.parametrize("as_view", [False, True])
@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177])
def test_a_delivery_is_what_the_client_decodes(size: int, as_view: bool) -> None:
    body = b"b" * size
    record = encode_record(encode_route("ex", "a.key"), _HEADER(size), body)
    client = client_with_channel(frame_max=4096)
    encoder = DeliverEncoder(1, "ctag")
    out: list[bytes | memoryview] = []

    encoder.append(out, 7, True, memoryview(record) if as_view else record, 4096)
    encoder.append(out, 8, False, record, 4096)

    first = spec.BasicDeliver(
        consumer_tag="ctag", delivery_tag=7, redelivered=True, exchange="ex", routing_key="a.key"
    )
    second = spec.BasicDeliver(
        consumer_tag="ctag", delivery_tag=8, redelivered=False, exchange="ex", routing_key="a.key"
    )
    assert [
        ContentReceived(1, first, _HEADER(size), body),
        ContentReceived(1, second, _HEADER(size), body),
    ] == client.receive_data(b"".join(out))


def test_without_a_frame_max_a_body_is_one_frame() -> None:
    record = encode_record(encode_route("", "q"), _HEADER(200_000), b"x" * 200_000)
    out: list[bytes | memoryview] = []

    DeliverEncoder(1, "c").append(out, 1, False, record, 0)

    assert b"x" * 200_000 in out


@pytest.mark.parametrize("size", [0, 10, 4089])
def test_get_ok_and_return_are_what_the_client_decodes(size: int) -> None:
    record = encode_record(encode_route("ex", "key"), _HEADER(size), b"b" * size)
    client = client_with_channel(frame_max=4096)

    events = client.receive_data(
        encode_get_ok(1, 3, record, redelivered=True, message_count=9, frame_max=4096)
        + encode_return(1, 312, "NO_ROUTE", record, frame_max=4096)
    )

    get_ok = spec.BasicGetOk(
        delivery_tag=3, redelivered=True, exchange="ex", routing_key="key", message_count=9
    )
    returned = spec.BasicReturn(
        reply_code=312, reply_text="NO_ROUTE", exchange="ex", routing_key="key"
    )
    assert [
        ContentReceived(1, get_ok, _HEADER(size), b"b" * size),
        ContentReceived(1, returned, _HEADER(size), b"b" * size),
    ] == events


@pytest.mark.parametrize(
    "present",
    [
        Properties(),
        Properties(content_type="text/plain", content_encoding="x", app_id="a"),
        Properties(headers={}),
        Properties(content_type="t", headers={"own": 1}, priority=3, expiration="9"),
        Properties(headers={"x-delivery-count": 5, "own": 1}),
    ],
)
def test_a_stored_message_gets_one_more_header(present: Properties) -> None:
    record = encode_record(encode_route("e", "k"), present.encode(4), b"body")

    changed = Record(with_header(record, "x-delivery-count", 7))

    wanted = present.copy()
    wanted.headers = {**(present.headers or {}), "x-delivery-count": 7}
    assert Properties.decode(changed.header) == wanted
    assert (changed.exchange, changed.routing_key, changed.body) == ("e", "k", b"body")
    assert is_well_formed(changed.header)
