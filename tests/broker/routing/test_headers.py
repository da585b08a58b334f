"""Header values against binding arguments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from leveret.broker.routing.headers import HeadersMatcher, check_arguments
from leveret.catalog.model import Binding

BINDING = Binding("/", "x", "queue", "q", "", b"arguments")
MOMENT = datetime(2020, 1, 1, tzinfo=UTC)


def matches(arguments: Mapping[str, object], headers: Mapping[str, object]) -> bool:
    matcher = HeadersMatcher(lambda encoded: arguments)
    matcher.add(BINDING)
    return list(matcher.match("", headers)) == [BINDING]


# What RabbitMQ 3.10.8 answered, 1 for delivered.
OBSERVED: list[tuple[dict[str, object], dict[str, object], int]] = [
    ({}, {}, 1),
    ({}, {"a": 1}, 1),
    ({"x-match": "any"}, {}, 0),
    ({"x-match": "any"}, {"a": 1}, 0),
    ({"x-match": "all"}, {"a": 1}, 1),
    ({"a": 1}, {"a": 1}, 1),
    ({"a": 1}, {"a": 2**40}, 0),
    ({"a": True}, {"a": 1}, 0),
    ({"a": 1}, {"a": True}, 0),
    ({"a": True}, {"a": True}, 1),
    ({"a": False}, {"a": None}, 0),
    ({"a": None}, {"a": 5}, 1),
    ({"a": None}, {"a": None}, 1),
    ({"a": None}, {}, 0),
    ({"a": None}, {"b": 1}, 0),
    ({"a": 5}, {"a": None}, 0),
    ({"a": "x"}, {"a": b"x"}, 1),
    ({"a": "x"}, {"a": "x"}, 1),
    ({"a": "1"}, {"a": 1}, 0),
    ({"a": Decimal("1.5")}, {"a": Decimal("1.5")}, 1),
    ({"a": Decimal(1)}, {"a": 1}, 0),
    ({"a": MOMENT}, {"a": MOMENT}, 1),
    ({"a": MOMENT}, {"a": 1577836800}, 1),
    ({"a": [1, "b"]}, {"a": [1, "b"]}, 1),
    ({"a": [1]}, {"a": [2**40]}, 0),
    ({"a": {"k": 1}}, {"a": {"k": 1}}, 1),
    ({"a": {"k": 1, "j": 2}}, {"a": {"j": 2, "k": 1}}, 0),
    ({"x-match": "all", "x-foo": "1", "a": "1"}, {"a": "1"}, 1),
    ({"x-match": "all-with-x", "x-foo": "1", "a": "1"}, {"a": "1"}, 0),
    ({"x-match": "all-with-x", "x-foo": "1", "a": "1"}, {"a": "1", "x-foo": "1"}, 1),
    ({"x-match": "any", "x-foo": "1"}, {"x-foo": "1"}, 0),
    ({"x-match": "any-with-x", "x-foo": "1"}, {"x-foo": "1"}, 1),
    ({"x-match": "any-with-x", "x-foo": "1", "b": "2"}, {"x-foo": "1"}, 1),
    ({"x-match": "any-with-x"}, {"x-match": "any-with-x"}, 0),
    ({"x-match": "all-with-x"}, {}, 1),
    ({"x-match": "all-with-x", "b": "1"}, {"b": "1", "x-match": "zz"}, 1),
    ({"x-match": "all", "a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}, 1),
    ({"x-match": "any", "a": "1", "b": "2"}, {"a": "9", "b": "2", "c": "3"}, 1),
]


@pytest.mark.parametrize(("arguments", "headers", "delivered"), OBSERVED)
def test_headers_match_as_observed_on_rabbitmq(
    arguments: dict[str, object], headers: dict[str, object], delivered: int
) -> None:
    assert matches(arguments, headers) == bool(delivered)


def test_a_removed_binding_matches_no_more() -> None:
    matcher = HeadersMatcher(lambda encoded: {})
    matcher.add(BINDING)

    matcher.remove(BINDING)
    matcher.remove(BINDING)

    assert list(matcher.match("", {})) == []


# The details of the 406 that RabbitMQ 3.10.8 answered.
REFUSED = [
    ("maybe", 'value <<"maybe">>; expected all, any, all-with-x, or any-with-x'),
    ("", "value <<>>; expected all, any, all-with-x, or any-with-x"),
    ('ma"y\né', 'value <<"ma\\"y\\né">>; expected all, any, all-with-x, or any-with-x'),
    (
        "Maybe €",
        "value <<77,97,121,98,101,32,226,130,172>>; expected all, any, all-with-x, or any-with-x",
    ),
    (5, "type signedint (value 5); expected longstr"),
    (True, "type bool (value true); expected longstr"),
    (None, "type void (value undefined); expected longstr"),
    (b"all", 'type binary (value <<"all">>); expected longstr'),
    ([1], "type array (value [{signedint,1}]); expected longstr"),
    ({"a": 1}, 'type table (value [{<<"a">>,signedint,1}]); expected longstr'),
]


@pytest.mark.parametrize(("kind", "detail"), REFUSED)
def test_another_x_match_is_refused_with_the_text_of_rabbitmq(kind: object, detail: str) -> None:
    with pytest.raises(ValueError, match="Invalid x-match") as caught:
        check_arguments({"x-match": kind})

    assert str(caught.value) == f"Invalid x-match field {detail}"


@pytest.mark.parametrize("kind", ["all", "any", "all-with-x", "any-with-x"])
def test_the_four_kinds_of_x_match_are_accepted(kind: str) -> None:
    check_arguments({"x-match": kind, "a": 1})
    check_arguments({"a": 1})
