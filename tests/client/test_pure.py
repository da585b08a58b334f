"""The parts of the client without I/O: settlements, the window, addresses, back-off, topology."""

from __future__ import annotations

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.amqp import Properties, spec
from leveret.amqp.fields import Table
from leveret.client import (
    AuthenticationRefused,
    ClientError,
    ConnectFailed,
    ConnectionLost,
    InvalidUrl,
)
from leveret.client.address import parse_url
from leveret.client.attempts import Attempts
from leveret.client.core.settlements import Life
from leveret.client.core.templates import template_of
from leveret.client.core.topology import Topology


def acks(life: Life) -> list[tuple[int, bool]]:
    out: list[bytes] = []
    life.write_acks(out)
    frames = [struct.unpack(">BHIIQBB", octets) for octets in out]
    assert all(frame[:4] == (1, 7, 13, 60 << 16 | 80) and frame[6] == 0xCE for frame in frames)
    return [(frame[4], bool(frame[5])) for frame in frames]


@given(st.lists(st.lists(st.integers(1, 30), max_size=10), max_size=10), st.booleans())
def test_acknowledgements_settle_each_delivery_once_and_no_other(
    batches: list[list[int]], collapses: bool
) -> None:
    life = Life(7, collapses=collapses)
    open_, wanted = set(range(1, 31)), set[int]()
    for batch in batches:
        new = [tag for tag in dict.fromkeys(batch) if tag not in wanted]
        wanted |= set(new)
        life.acks.extend(new)
        for tag, multiple in acks(life):
            settled = {t for t in open_ if t == tag or (multiple and t < tag)}
            assert tag in settled
            open_ -= settled
        assert wanted == set(range(1, 31)) - open_


def test_a_run_from_the_lowest_is_one_frame() -> None:
    life = Life(7)
    life.acks.extend([2, 1, 3, 5])
    assert sorted(acks(life)) == [(3, True), (5, False)]
    life.acks.extend([4, 6])
    assert acks(life) == [(6, True)]


def test_rejections_fill_the_gaps_between_acknowledgements() -> None:
    life = Life(7)
    life.skip(2)
    life.acks.extend([1, 3])
    assert acks(life) == [(3, True)]


@given(st.text(max_size=20), st.integers(0, 9), st.integers(0, 1 << 40))
def test_a_template_encodes_as_the_properties_do(text: str, priority: int, size: int) -> None:
    tables: list[Table | None] = [None, {"x": text}]
    for headers in tables:
        properties = Properties(message_id=text, priority=priority, headers=headers)
        assert template_of(properties).encode(size) == properties.encode(size)
    assert template_of(None).encode(size) == Properties(delivery_mode=2).encode(size)


def test_a_changed_properties_object_is_not_mistaken_for_its_former_self() -> None:
    properties = Properties(message_id="one")
    first = template_of(properties).encode(1)
    properties.message_id = "two"

    assert template_of(properties).encode(1) == properties.encode(1) != first


@pytest.mark.parametrize(
    ("url", "addresses", "user", "password", "vhost"),
    [
        ("amqp://", ["localhost:5672"], "guest", "guest", "/"),
        ("amqp://h", ["h:5672"], "guest", "guest", "/"),
        ("amqp://h/", ["h:5672"], "guest", "guest", "/"),
        ("amqp://h/%2F", ["h:5672"], "guest", "guest", "/"),
        ("amqp://h/%2fa", ["h:5672"], "guest", "guest", "/a"),
        ("amqp://u:p%40%3A@a:1,b,[::1]:2,[f::1]/v", ["a:1", "b:5672", "[::1]:2", "[f::1]:5672"],
         "u", "p@:", "v"),
        ("amqp://u@h", ["h:5672"], "u", "", "/"),
    ],
)  # fmt: skip
def test_a_url_says_where_and_who(
    url: str, addresses: list[str], user: str, password: str, vhost: str
) -> None:
    target = parse_url(url)

    assert addresses == [str(address) for address in target.addresses]
    assert (user, password, vhost) == (
        target.login.user, target.login.password, target.login.vhost,
    )  # fmt: skip
    assert "p@" not in repr(target)


def test_amqps_has_its_own_port_and_context() -> None:
    target = parse_url("amqps://h/?verify=verify_none&server_name_indication=other&heartbeat=5")

    assert str(target.addresses[0]) == "h:5671"
    assert target.tls is not None
    assert not target.tls.check_hostname
    assert target.server_hostname == "other"
    assert target.login.heartbeat_s == 5


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://h", "begins with 'http'"),
        ("localhost:5672", "begins with 'localhost'"),
        ("amqp://h:99999", "99999 is not a port"),
        ("amqp://h:x", "'h:x' is not a host and port"),
        ("amqp://h/a/b", "write it as %2F"),
        ("amqp://h/#x", "write # in a password as %23"),
        ("amqp://h/?heartbeet=1", "'heartbeet' is not known; those are: heartbeat"),
        ("amqp://h/?heartbeat=-1", "heartbeat is a whole number, not '-1'"),
        ("amqp://h/?auth_mechanism=magic", "plain or external, not 'magic'"),
        ("amqps://h/?verify=maybe", "verify_peer or verify_none"),
        ("amqps://h/?cacertfile=/nowhere", "cannot be read"),
        ("amqp://[::1", "malformed"),
    ],
)
def test_a_wrong_url_is_refused_in_words(url: str, says: str) -> None:
    with pytest.raises(InvalidUrl) as raised:
        parse_url(url)

    assert says in str(raised.value)


def test_a_queue_with_a_new_name_is_asked_for_by_it() -> None:
    topology = Topology()
    topology.note(
        spec.QueueDeclare(), spec.QueueDeclareOk(queue="a", message_count=0, consumer_count=0)
    )
    topology.renamed("a", "b")
    topology.note(spec.QueueBind(queue="a", exchange="x"), spec.QueueBindOk())

    [bind] = topology.bindings()
    assert isinstance(bind, spec.QueueBind)
    assert bind.queue == "a"
    asked = topology.on_wire(bind)
    assert isinstance(asked, spec.QueueBind)
    assert asked.queue == "b"
    topology.note(spec.QueueDelete(queue="b"), spec.QueueDeleteOk(message_count=0))
    assert len(topology) == 0


# Attempts


def attempts(*, give_up_after_s: float = 60) -> Attempts:
    made = Attempts(parse_url("amqp://a,b"), Random(1), give_up_after_s=give_up_after_s)
    made.begin(100)
    return made


def fail(made: Attempts, *, now_s: float = 100, error: ClientError | None = None) -> object:
    return made.failed(made.next(now_s), error or ConnectionLost("gone"), now_s)


def test_every_address_is_tried_before_the_first_connect_fails() -> None:
    made = attempts()

    assert fail(made) is None
    assert made.pause_s() == 0
    end = fail(made)

    assert isinstance(end, ConnectFailed)
    assert [where for where, _ in end.attempts] == ["a:5672", "b:5672"]


def test_after_a_loss_there_are_rounds_with_pauses_until_it_is_enough() -> None:
    made = attempts(give_up_after_s=60)
    made.next(100)
    made.succeeded(200)

    for now_s in (200, 230, 260):
        assert fail(made, now_s=now_s) is None
        assert made.pause_s() == 0
        assert fail(made, now_s=now_s) is None
        assert made.pause_s() > 0
    assert fail(made, now_s=261) is None
    assert isinstance(fail(made, now_s=261), ConnectFailed)


def test_a_login_that_is_refused_ends_the_attempts_at_once() -> None:
    made = attempts()
    made.next(100)
    made.succeeded(200)
    refused = AuthenticationRefused("no")

    assert fail(made, error=refused) is refused


def test_announced_addresses_are_tried_behind_the_given_ones() -> None:
    made = attempts()
    made.learn(["amqp://c:5672", "amqps://d:5671", "amqp://a:5672"])

    assert [str(made.next(100)) for _ in range(4)] == ["a:5672", "b:5672", "c:5672", "a:5672"]


def test_a_fork_begins_with_a_first_round() -> None:
    made = attempts()
    made.next(99)
    made.succeeded(100)
    assert fail(made) is None
    made.begin(300)

    assert fail(made) is None
    assert isinstance(fail(made), ConnectFailed)


def test_a_loss_is_followed_by_another_attempt_at_once() -> None:
    made = attempts()
    made.next(100)
    made.succeeded(300)

    assert made.pause_s() == 0


def test_conversations_that_end_at_once_are_followed_by_longer_and_longer_pauses() -> None:
    made = attempts()
    pauses = []
    for _ in range(12):
        made.next(100)
        made.succeeded(100.1)
        pauses.append(made.pause_s())

    assert pauses[0] == 0
    assert 0 < pauses[1] <= 0.05
    assert 5 <= pauses[-1] <= 10
    made.next(200)
    made.succeeded(210)
    assert made.pause_s() == 0
