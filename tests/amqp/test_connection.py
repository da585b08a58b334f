"""How a stream of octets becomes events, whatever its pieces; and how states guard it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.amqp import (
    HEARTBEAT,
    Ack,
    ClientConnection,
    ConnectionState,
    ContentReceived,
    Event,
    MethodReceived,
    Properties,
    Publish,
    ServerConnection,
    errors,
    spec,
)
from leveret.amqp.events import ChannelFailed, ConnectionFailed
from tests.amqp.peers import (
    SERVER_PROPERTIES,
    client_with_channel,
    failure,
    frame,
    header,
    method,
    publish,
    server_at,
    server_with_channel,
)


def _feed(connection: ServerConnection, octets: bytes, cuts: list[int]) -> list[Event]:
    events: list[Event] = []
    edges = [0, *sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)]
    for start, end in pairwise(edges):
        events += connection.receive_data(octets[start:end])
    return events


_FRAMES = st.sampled_from(
    [
        publish(1, b""),
        publish(1, b"body", key="a.b"),
        publish(1, b"x" * 4088, exchange="ex"),
        publish(1, b"y" * 4000)[:-1] + b"\xce",
        publish(2, b"other"),
        method(1, spec.BasicPublish(routing_key="two", mandatory=True))
        + frame(2, 1, header(6))
        + frame(3, 1, b"abc")
        + frame(3, 1, b"")
        + frame(3, 1, b"def"),
        method(1, spec.BasicPublish(routing_key="with", immediate=True))
        + frame(2, 1, Properties(type="t" * 90, headers={"k": 1}).encode(1))
        + frame(3, 1, b"z"),
        method(1, spec.BasicAck(delivery_tag=9, multiple=True)),
        method(2, spec.QueueDeclare(queue="q", arguments={"x-max-length": 3})),
        method(1, spec.BasicNack(delivery_tag=4)),
        HEARTBEAT,
        # Interleaved on two channels.
        method(1, spec.BasicPublish())
        + method(2, spec.BasicPublish(routing_key="i"))
        + frame(2, 2, header(2))
        + HEARTBEAT
        + frame(2, 1, header(1))
        + frame(3, 2, b"22")
        + frame(3, 1, b"1"),
    ]
)
_LAST = st.sampled_from(
    [
        b"",
        method(1, spec.ChannelClose(reply_code=200, class_id=0, method_id=0)) + publish(1, b"late"),
        method(0, spec.ConnectionClose(reply_code=0, class_id=0, method_id=0)) + publish(1, b"la"),
        publish(1, b"x" * 99_999),
        frame(1, 1, b"ab", end=0),
        publish(1, b"cut")[:-3],
        method(9, spec.BasicQos()),
    ]
)


def _two_channels() -> ServerConnection:
    server = server_with_channel(frame_max=4096, message_size_max=50_000)
    server.receive_data(method(2, spec.ChannelOpen()))
    return server


def _seen(events: list[Event]) -> list[object]:
    return [
        (type(e), str(e.error), e.reply) if isinstance(e, ChannelFailed | ConnectionFailed) else e
        for e in events
    ]


@given(st.lists(_FRAMES, max_size=8), _LAST, st.lists(st.integers(0, 1 << 20), max_size=12))
def test_the_cuts_between_chunks_change_nothing(
    pieces: list[bytes], last: bytes, cuts: list[int]
) -> None:
    octets = b"".join(pieces) + last

    assert _seen(_two_channels().receive_data(octets)) == _seen(
        _feed(_two_channels(), octets, cuts)
    )


def test_octet_by_octet_is_the_same_as_at_once() -> None:
    octets = publish(1, b"a") + publish(1, b"") + publish(2, b"x" * 300)

    events = _feed(_two_channels(), octets, list(range(len(octets))))

    assert _two_channels().receive_data(octets) == events


@pytest.mark.parametrize(
    "octets",
    [
        publish(1, b"some body"),
        method(1, spec.QueueDeclare(queue="q", arguments={"a": {"b": [1]}})),
        method(1, spec.BasicAck(delivery_tag=1)),
        publish(1, b""),
    ],
)
def test_what_is_cut_short_gives_no_event_and_no_error_until_the_rest_comes(
    octets: bytes,
) -> None:
    for cut in range(len(octets)):
        server = server_with_channel()

        assert [] == server.receive_data(octets[:cut])
        assert 1 == len(server.receive_data(octets[cut:]))


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 4090, 8176, 8177])
def test_bodies_around_frame_max_arrive_whole_and_leave_in_obedient_frames(size: int) -> None:
    body = bytes(range(256)) * 32
    body = body[:size]
    client = client_with_channel(frame_max=4096)
    server = server_with_channel(frame_max=4096)

    octets = client.send_content(
        1, spec.BasicPublish(routing_key="k"), Properties(priority=1).encode(size), body
    )
    (event,) = server.receive_data(octets)

    assert isinstance(event, Publish)
    assert body == event.body
    bodies = [len(p) for kind, p in _split(octets) if kind == 3]
    assert size == sum(bodies)
    assert all(n <= 4088 for n in bodies)
    assert (size + 4087) // 4088 == len(bodies)


def _split(octets: bytes) -> list[tuple[int, bytes]]:
    found = []
    while octets:
        size = int.from_bytes(octets[3:7], "big")
        assert 0xCE == octets[7 + size]
        found.append((octets[0], octets[7 : 7 + size]))
        octets = octets[8 + size :]
    return found


def test_a_payload_may_have_rabbitmqs_eight_octets_of_slack() -> None:
    server = server_with_channel(frame_max=4096)

    (event,) = server.receive_data(publish(1, b"x" * 4096))

    assert isinstance(event, Publish)


def test_a_publish_shows_its_exchange_key_and_flags() -> None:
    server = server_with_channel()

    (event,) = server.receive_data(
        method(1, spec.BasicPublish(exchange="ex", routing_key="a.b", mandatory=True))
        + frame(2, 1, header(1))
        + frame(3, 1, b"x")
    )

    assert isinstance(event, Publish)
    assert ("ex", "a.b", True, False) == (
        event.exchange,
        event.routing_key,
        event.mandatory,
        event.immediate,
    )
    assert b"\x02ex\x03a.b" == event.route


def test_equal_routes_and_headers_are_one_object() -> None:
    server = server_with_channel()

    one, other = server.receive_data(publish(1, b"a") + publish(1, b"b"))

    assert isinstance(one, Publish)
    assert isinstance(other, Publish)
    assert one.route is other.route
    assert one.header is other.header


def test_more_routes_than_are_remembered_are_still_read() -> None:
    server = server_with_channel()

    events = server.receive_data(b"".join(publish(1, b"x", key=f"k{i}") for i in range(2000)))

    assert [f"k{i}" for i in range(2000)] == [
        e.routing_key for e in events if isinstance(e, Publish)
    ]
    assert len(server._publishes) <= 512


# Handshake


def test_the_two_roles_shake_hands() -> None:
    server, client = ServerConnection(), ClientConnection()
    assert [] == server.receive_data(client.begin())

    start = spec.ConnectionStart(server_properties=SERVER_PROPERTIES)
    assert [MethodReceived(0, start)] == client.receive_data(server.send_method(0, start))
    start_ok = spec.ConnectionStartOk(client_properties={}, response=b"\0a\0b")
    assert [MethodReceived(0, start_ok)] == server.receive_data(client.send_method(0, start_ok))
    secure = spec.ConnectionSecure(challenge=b"?")
    assert [MethodReceived(0, secure)] == client.receive_data(server.send_method(0, secure))
    secure_ok = spec.ConnectionSecureOk(response=b"!")
    assert [MethodReceived(0, secure_ok)] == server.receive_data(client.send_method(0, secure_ok))
    tune = spec.ConnectionTune(channel_max=10, frame_max=8192, heartbeat=3)
    assert [MethodReceived(0, tune)] == client.receive_data(server.send_method(0, tune))
    tune_ok = spec.ConnectionTuneOk(channel_max=9, frame_max=4096, heartbeat=3)
    opening = spec.ConnectionOpen(virtual_host="v")
    assert [MethodReceived(0, tune_ok), MethodReceived(0, opening)] == server.receive_data(
        client.send_method(0, tune_ok) + client.send_method(0, opening)
    )
    open_ok = spec.ConnectionOpenOk()
    assert [MethodReceived(0, open_ok)] == client.receive_data(server.send_method(0, open_ok))

    assert client.state is server.state is ConnectionState.RUNNING
    assert (4096, 9) == (client.frame_max, client.channel_max)
    assert (4096, 9) == (server.frame_max, server.channel_max)


def test_a_client_that_sends_everything_ahead_is_served_as_soon_as_it_is_answered() -> None:
    server = ServerConnection()
    ahead = (
        spec.PROTOCOL_HEADER
        + method(0, spec.ConnectionStartOk(client_properties={}, response=b""))
        + method(0, spec.ConnectionTuneOk(channel_max=1, frame_max=4096))
        + method(0, spec.ConnectionOpen())
        + method(1, spec.ChannelOpen())
        + publish(1, b"x")
    )

    assert [] == server.receive_data(ahead)
    server.send_method(0, spec.ConnectionStart(server_properties={}))
    assert 1 == len(server.receive_data(b""))
    server.send_method(0, spec.ConnectionTune(channel_max=1, frame_max=4096))
    assert 2 == len(server.receive_data(b""))
    server.send_method(0, spec.ConnectionOpenOk())
    assert [MethodReceived, Publish] == [type(e) for e in server.receive_data(b"")]


# Closing


_CLOSE = spec.ChannelClose(reply_code=200, class_id=0, method_id=0)
_CLOSE_ALL = spec.ConnectionClose(reply_code=200, class_id=0, method_id=0)


def test_frames_are_dropped_while_a_channel_closes_until_close_ok() -> None:
    server = server_with_channel()
    server.fail(errors.not_found("no exchange 'x' in vhost '/'", 60, 40), 1)

    events = server.receive_data(
        publish(1, b"dropped")
        + frame(3, 1, b"even what is out of place")
        + method(1, spec.ChannelOpen())
        + method(1, spec.ChannelCloseOk())
        + method(1, spec.ChannelOpen())
    )

    assert [spec.ChannelCloseOk(), spec.ChannelOpen()] == [
        e.method for e in events if isinstance(e, MethodReceived)
    ]
    assert 2 == len(events)


def test_closes_of_a_channel_may_cross() -> None:
    server = server_with_channel()
    server.receive_data(method(1, _CLOSE))

    octets = server.fail(errors.not_found("x"), 1)
    octets += server.send_method(1, spec.ChannelCloseOk())
    client = client_with_channel()
    client.send_method(1, _CLOSE)

    assert [404, None] == [
        getattr(e.method, "reply_code", None)
        for e in client.receive_data(octets)
        if isinstance(e, MethodReceived)
    ]
    server.receive_data(client.send_method(1, spec.ChannelCloseOk()))
    assert (0, 0) == (server.open_channels, client.open_channels)


def test_a_channel_that_is_gone_is_not_closed_again() -> None:
    server = server_with_channel()
    assert server.fail(errors.not_found("x"), 1)

    assert b"" == server.fail(errors.not_found("y"), 1)
    assert b"" == server.fail(errors.not_found("z"), 44)


def test_a_channel_error_on_channel_0_closes_the_connection() -> None:
    server = server_at("running")

    (sent,) = client_with_channel().receive_data(server.fail(errors.access_refused("no")))

    assert isinstance(sent, MethodReceived)
    assert isinstance(sent.method, spec.ConnectionClose)
    assert ConnectionState.SERVER_CLOSING is server.state


def test_after_the_peers_close_nothing_else_is_heard() -> None:
    server = server_with_channel()

    events = server.receive_data(method(0, _CLOSE_ALL) + publish(1, b"x") + method(0, _CLOSE_ALL))
    server.send_method(0, spec.ConnectionCloseOk())

    assert [MethodReceived(0, _CLOSE_ALL)] == events
    assert ConnectionState.CLOSED is server.state
    assert [] == server.receive_data(publish(1, b"x"))


def test_closes_of_a_connection_may_cross() -> None:
    server, client = server_with_channel(), client_with_channel()
    ours, theirs = server.send_method(0, _CLOSE_ALL), client.send_method(0, _CLOSE_ALL)

    client.receive_data(ours)
    server.receive_data(theirs)
    ours = server.send_method(0, spec.ConnectionCloseOk())
    theirs = client.send_method(0, spec.ConnectionCloseOk())
    client.receive_data(ours)
    server.receive_data(theirs)

    assert client.state is server.state is ConnectionState.CLOSED


def test_a_late_channel_close_does_not_answer_a_connection_that_failed() -> None:
    server = server_with_channel()
    server.receive_data(method(1, spec.ChannelOpen()))

    assert b"" == server.fail(errors.not_found("x"), 1)
    assert b"" == server.fail(errors.not_allowed("x"))


# The client's side


def test_a_client_receives_deliveries_gets_returns_and_confirms() -> None:
    client = client_with_channel()
    deliver = spec.BasicDeliver(consumer_tag="c", delivery_tag=1, exchange="", routing_key="q")
    returned = spec.BasicReturn(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q")

    events = client.receive_data(
        method(1, deliver)
        + frame(2, 1, header(2))
        + frame(3, 1, b"hi")
        + method(1, returned)
        + frame(2, 1, header(0))
        + method(1, spec.BasicAck(delivery_tag=7, multiple=True))
        + method(1, spec.BasicCancel(consumer_tag="c", nowait=True))
        + method(0, spec.ConnectionBlocked(reason="low on memory"))
    )

    assert [
        ContentReceived(1, deliver, header(2), b"hi"),
        ContentReceived(1, returned, header(0), b""),
        Ack(1, 7, multiple=True),
        MethodReceived(1, spec.BasicCancel(consumer_tag="c", nowait=True)),
        MethodReceived(0, spec.ConnectionBlocked(reason="low on memory")),
    ] == events


def test_a_client_refuses_a_publish_from_the_server() -> None:
    events = client_with_channel().receive_data(publish(1, b"x"))

    assert ("connection", 503, "COMMAND_INVALID - unimplemented method", 60, 40) == failure(events)


# Anything at all


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=150)
def test_arbitrary_octets_give_at_most_one_error_and_little_memory(
    octets: bytes, is_new: bool
) -> None:
    server = server_at("new") if is_new else server_with_channel()

    events = _feed(server, octets * 4, [5, 77, 300])

    assert sum(isinstance(e, ConnectionFailed) for e in events) <= 1
    assert server._kept_size <= 4 * 300


_PIECE = st.one_of(
    st.builds(frame, st.sampled_from([1, 2, 3, 8, 9]), st.integers(0, 3), st.binary(max_size=40)),
    st.builds(
        lambda number, arguments: frame(1, 1, number.to_bytes(4, "big") + arguments),
        st.sampled_from(sorted(spec.METHODS)),
        st.binary(max_size=20),
    ),
    st.builds(
        lambda channel, size, body: publish(channel, body)[: size or None],
        st.integers(0, 3),
        st.integers(0, 40),
        st.binary(max_size=30),
    ),
    st.sampled_from([publish(1, b"x"), method(1, _CLOSE), method(1, spec.ChannelCloseOk())]),
    st.sampled_from([method(0, _CLOSE_ALL), method(0, spec.ConnectionCloseOk())]),
    st.sampled_from([method(n, spec.ChannelOpen()) for n in (1, 2, 3)]),
)


@given(st.lists(_PIECE, max_size=12), st.lists(st.integers(0, 500), max_size=5))
@settings(max_examples=200)
def test_frames_out_of_state_give_at_most_one_connection_error(
    pieces: list[bytes], cuts: list[int]
) -> None:
    server = server_with_channel(message_size_max=20)

    events = _feed(server, b"".join(pieces), cuts)

    failed = [i for i, e in enumerate(events) if isinstance(e, ConnectionFailed)]
    assert len(failed) <= 1
    if failed:
        assert all(
            isinstance(e, MethodReceived) and e.channel == 0 for e in events[failed[0] + 1 :]
        )


def test_a_body_that_comes_in_tiny_frames_costs_no_more_than_its_size() -> None:
    server = server_with_channel()
    server.receive_data(method(1, spec.BasicPublish()) + frame(2, 1, header(100_000)))

    server.receive_data(frame(3, 1, b"xy") * 49_999)

    assembly = server._channels[1].content
    assert assembly is not None
    assert 99_998 == assembly.received
    assert len(assembly._fragments) < 50


def test_a_frame_that_comes_octet_by_octet_is_kept_in_few_pieces() -> None:
    server = server_with_channel()
    octets = publish(1, b"x" * 60_000)

    for position in range(0, 50_000, 10):
        server.receive_data(octets[position : position + 10])

    assert len(server._kept) < 30
    assert isinstance(server.receive_data(octets[50_000:])[0], Publish)
