"""The bytes of commands: every command survives them, and no bytes raise."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from leveret.catalog import commands as c
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import PasswordHash

EVERY_COMMAND: list[c.AnyCommand] = [
    c.Bootstrap("lab", 8, "guest", PasswordHash("scrypt", b"s", b"h")),
    c.AddVirtualHost("v"),
    c.DeleteVirtualHost("v"),
    c.PutUser("bob", None, ("administrator", "x")),
    c.DeleteUser("bob"),
    c.SetPermission("bob", "v", "", "a", ".*"),
    c.ClearPermission("bob", "v"),
    c.DeclareExchange("v", "x", "topic", True, False, True, b"\0\0\0\0"),
    c.DeleteExchange("v", "x", True),
    c.Bind("v", "x", "queue", "q", "a.*", b"1"),
    c.Unbind("v", "x", "exchange", "y", "é", b""),
    c.DeclareQueue("v", "q", True, True, True, b"", 1, 2, 3),
    c.DeleteQueue("v", "q", 2**40),
    c.RegisterNode(3, "n3", ("amqp://h:1", "amqps://h:2"), 5, "h:3", 6),
    c.AdmitNode(0, "n4", "h:3", 2**41),
    c.RemoveNode(3),
    c.LoseNode(3, 5),
    c.SetTopicPermission("bob", "v", "x", "^a", ""),
    c.ClearTopicPermission("bob", "v", None),
    c.SetPolicy("v", False, "p", "^a", "queues", -3, b'{"max-length":1}'),
    c.ClearPolicy("v", True, "p"),
]


def test_every_command_survives_its_encoding() -> None:
    assert [c.decode(c.encode(command)) for command in EVERY_COMMAND] == EVERY_COMMAND


def test_op_codes_are_frozen() -> None:
    codes = [msgspec.msgpack.decode(c.encode(command)[1:])[0] for command in EVERY_COMMAND]

    assert codes == list(range(1, 22))


def test_a_registration_of_the_first_release_has_no_incarnation() -> None:
    first_release = b"\x01" + msgspec.msgpack.encode((14, 3, "n3", (), 5))

    assert c.decode(first_release) == c.RegisterNode(3, "n3", (), 5, peer="", incarnation=0)


def test_a_user_put_by_the_first_release_is_put_as_a_whole() -> None:
    first_release = b"\x01" + msgspec.msgpack.encode((4, "bob", None, ()))

    assert c.decode(first_release) == c.PutUser("bob", None, (), part="all")


def test_a_command_of_a_later_version_is_refused_as_such() -> None:
    assert c.decode(b"\x02\x90") == c.Refusal("version", "command", "2")


def test_a_command_with_an_overlong_name_is_malformed() -> None:
    answer = c.decode(c.encode(c.AddVirtualHost("v" * 256)))

    assert isinstance(answer, c.Refusal)
    assert answer.kind == "malformed"


@given(st.binary(max_size=64))
def test_no_bytes_make_the_machine_raise(data: bytes) -> None:
    machine = CatalogMachine()

    assert isinstance(machine.apply(1, 0, data, 0), c.Refusal)
    assert isinstance(machine.apply(1, 0, b"\x01" + data, 0), c.Refusal)


@given(
    st.sampled_from(EVERY_COMMAND), st.integers(min_value=0, max_value=10**6), st.integers(0, 255)
)
def test_a_damaged_command_is_another_one_or_refused(
    command: c.AnyCommand, place: int, value: int
) -> None:
    data = bytearray(c.encode(command))
    data[place % len(data)] = value

    assert isinstance(CatalogMachine().apply(1, 0, bytes(data), 0), c.Done | c.Refusal)


def test_deep_nesting_is_malformed() -> None:
    deep = b"\x91" * 100_000 + b"\xc0"
    password_with_a_deep_field_of_a_later_version = b"\x94\xa1a\xc4\x00\xc4\x00" + deep

    answer = c.decode(
        b"\x01\x94\x04\xa1u" + password_with_a_deep_field_of_a_later_version + b"\x90"
    )

    assert isinstance(answer, c.Refusal)
    assert answer.kind == "malformed"
