"""Exchanges that spread messages over their bindings: how evenly, and what moves."""

from __future__ import annotations

from collections import Counter

import pytest

from leveret.broker.routing.exchange_types import check_hash_exchange
from leveret.broker.routing.matcher import Matcher
from leveret.broker.routing.spreading import (
    ConsistentHashMatcher,
    ModulusHashMatcher,
    RandomMatcher,
    check_weight,
)
from leveret.catalog.model import Binding

KNOWN = "bcbcabcbaacaabcacbbc"
KEYS = [f"order.{n}" for n in range(4_000)]


def binding(queue: str, key: str = "1") -> Binding:
    return Binding("/", "x", "queue", queue, key, b"")


def chosen(matcher: Matcher, key: str, view: dict[str, object] | None = None) -> str:
    (found,) = matcher.match(key, view or {})
    return found.destination


def consistent(weights: dict[str, str]) -> ConsistentHashMatcher:
    matcher = ConsistentHashMatcher({})
    for queue, weight in weights.items():
        matcher.add(binding(queue, weight))
    return matcher


def test_keys_are_shared_out_by_weight() -> None:
    matcher = consistent({"a": "1", "b": "1", "c": "2"})

    counts = Counter(chosen(matcher, key) for key in KEYS)

    assert counts["a"] == pytest.approx(1_000, rel=0.1)
    assert counts["b"] == pytest.approx(1_000, rel=0.1)
    assert counts["c"] == pytest.approx(2_000, rel=0.1)


def test_a_new_binding_takes_its_share_and_nothing_else_moves() -> None:
    matcher = consistent({f"q{n}": "1" for n in range(9)})
    before = {key: chosen(matcher, key) for key in KEYS}

    matcher.add(binding("new"))

    moved = [key for key in KEYS if chosen(matcher, key) != before[key]]
    assert {"new"} == {chosen(matcher, key) for key in moved}
    assert len(moved) == pytest.approx(len(KEYS) / 10, rel=0.2)
    matcher.remove(binding("new"))
    assert before == {key: chosen(matcher, key) for key in KEYS}


def test_the_order_of_binding_decides_nothing() -> None:
    """Nodes may have compiled the bindings at different times."""
    weights = {"a": "1", "b": "3", "c": "2"}
    one, other = consistent(weights), consistent(dict(reversed(weights.items())))

    assert [chosen(one, key) for key in KEYS] == [chosen(other, key) for key in KEYS]


def test_a_known_key_goes_where_it_went_in_the_first_release() -> None:
    """Nodes of different versions must choose alike."""
    matcher = consistent({"a": "1", "b": "1", "c": "1"})

    assert KNOWN == "".join(chosen(matcher, str(n)) for n in range(20))


def test_a_header_or_a_property_may_be_hashed_in_place_of_the_key() -> None:
    for argument, name in (("hash-header", "customer"), ("hash-property", "message_id")):
        matcher = ConsistentHashMatcher({argument: name})
        for queue in ("a", "b", "c"):
            matcher.add(binding(queue))

        assert 1 == len({chosen(matcher, key, {name: "c1", "other": key}) for key in KEYS})
        assert 3 == len({chosen(matcher, "k", {name: key}) for key in KEYS})
        assert 1 == len({chosen(matcher, key) for key in KEYS})  # without it all go one way


def test_equal_numbers_hash_alike_whatever_their_width() -> None:
    matcher = ConsistentHashMatcher({"hash-header": "n"})
    for queue in ("a", "b", "c", "d"):
        matcher.add(binding(queue))

    assert all(
        chosen(matcher, "", {"n": n}) == chosen(matcher, "", {"n": Long(n)}) for n in range(50)
    )


class Long(int):
    """An integer of another wire type."""


def test_the_modulus_gives_each_binding_a_share() -> None:
    matcher = ModulusHashMatcher()
    for queue in ("a", "b", "c", "d"):
        matcher.add(binding(queue, ""))

    counts = Counter(chosen(matcher, key) for key in KEYS)

    assert set(counts) == {"a", "b", "c", "d"}
    assert all(count == pytest.approx(1_000, rel=0.15) for count in counts.values())
    assert chosen(matcher, "k") == chosen(matcher, "k")


def test_by_chance_the_same_key_goes_to_every_queue() -> None:
    matcher = RandomMatcher()
    for queue in ("a", "b", "c", "d"):
        matcher.add(binding(queue, ""))

    counts = Counter(chosen(matcher, "k") for _ in range(4_000))

    assert all(counts[queue] == pytest.approx(1_000, rel=0.15) for queue in "abcd")


@pytest.mark.parametrize(
    "matcher", [ConsistentHashMatcher({}), ModulusHashMatcher(), RandomMatcher()]
)
def test_without_a_binding_there_is_no_way(matcher: Matcher) -> None:
    matcher.add(binding("a"))
    matcher.remove(binding("a"))
    matcher.remove(binding("a"))

    assert not list(matcher.match("k", {}))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("abc", 'The binding key must be an integer: <<"abc">>'),
        ("1.5", 'The binding key must be an integer: <<"1.5">>'),
        ("", "The binding key must be an integer: <<>>"),
        ("0", "The binding key must be greater than 0"),
        ("-1", "The binding key must be greater than 0"),
    ],
)
def test_what_is_no_weight_is_refused(key: str, text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        check_weight(key)

    assert text == str(caught.value)


def test_a_header_and_a_property_are_not_hashed_together() -> None:
    with pytest.raises(ValueError, match="mutually exclusive"):
        check_hash_exchange({"hash-header": "a", "hash-property": "message_id"})
    with pytest.raises(ValueError, match="Unsupported property: nope"):
        check_hash_exchange({"hash-property": "nope"})
    check_hash_exchange({"hash-property": "timestamp"})
