"""Topic patterns against routing keys."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.broker.routing.topic import TopicMatcher
from leveret.catalog.model import Binding


def binding(pattern: str, queue: str = "q") -> Binding:
    return Binding("/", "x", "queue", queue, pattern, b"")


def matches(pattern: str, key: str) -> bool:
    matcher = TopicMatcher()
    matcher.add(binding(pattern))
    return list(matcher.match(key, {})) == [binding(pattern)]


# What RabbitMQ 3.10.8 answered, 1 for delivered.
OBSERVED = [
    ("#", "", 1),
    ("a.#", "a", 1),
    ("a.*", "a.", 1),
    ("*.b", ".b", 1),
    ("#.b", "b", 1),
    ("a.#.b", "a.b", 1),
    ("a.#.b", "a.x.y.b", 1),
    ("a.*.b", "a.b", 0),
    ("#.#", "x", 1),
    ("a..b", "a..b", 1),
    ("a.*.b", "a..b", 1),
    ("", "", 1),
    ("*", "", 0),
    ("*", ".", 0),
    ("*.*", ".", 1),
    ("#.*", "", 0),
    ("#.*", "a", 1),
    ("*.#", "a", 1),
    ("*.#", "", 0),
    ("a.#.#", "a", 1),
    ("#.a.#", "b.a.c", 1),
    ("a*", "ab", 0),
    ("a.##", "a.##", 1),
    ("a.b", "a.B", 0),
    ("*", "*", 1),
    ("a.#.#.b", "a.b", 1),
    ("#", "a.b..c", 1),
    ("..", "..", 1),
]


@pytest.mark.parametrize(("pattern", "key", "delivered"), OBSERVED)
def test_a_pattern_matches_as_observed_on_rabbitmq(pattern: str, key: str, delivered: int) -> None:
    assert matches(pattern, key) == bool(delivered)


WORDS = st.sampled_from(["a", "b", ""])
KEYS = st.lists(WORDS, max_size=6).map(".".join)
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), max_size=6).map(".".join)


def matches_by_expression(pattern: str, key: str) -> bool:
    """Match by a regular expression in which each word is written `word;`."""
    parts = {"*": "[^;]*;", "#": "([^;]*;)*"}
    words = pattern.split(".") if pattern else []
    expression = "".join(parts.get(word, re.escape(word) + ";") for word in words)
    text = "".join(word + ";" for word in (key.split(".") if key else []))
    return re.fullmatch(expression, text) is not None


@given(PATTERNS, KEYS)
def test_a_pattern_matches_as_its_regular_expression(pattern: str, key: str) -> None:
    assert matches(pattern, key) == matches_by_expression(pattern, key)


@given(st.lists(PATTERNS, max_size=8), st.sets(st.integers(0, 7)), KEYS)
def test_a_removed_pattern_leaves_the_others_as_they_were(
    patterns: list[str], removed: set[int], key: str
) -> None:
    bindings = [binding(pattern, f"q{n}") for n, pattern in enumerate(patterns)]
    matcher = TopicMatcher()
    for each in bindings:
        matcher.add(each)

    for n in removed:
        if n < len(bindings):
            matcher.remove(bindings[n])
            matcher.remove(bindings[n])

    found = list(matcher.match(key, {}))
    assert len(found) == len(set(found))
    assert set(found) == {
        each
        for n, each in enumerate(bindings)
        if n not in removed and matches_by_expression(each.routing_key, key)
    }


@given(st.lists(PATTERNS, max_size=8))
def test_nothing_is_kept_of_removed_patterns(patterns: list[str]) -> None:
    matcher = TopicMatcher()
    for pattern in patterns:
        matcher.add(binding(pattern))

    for pattern in patterns:
        matcher.remove(binding(pattern))

    assert matcher._root.is_empty()


def test_removing_an_unknown_pattern_changes_nothing() -> None:
    matcher = TopicMatcher()
    matcher.add(binding("a.b"))

    matcher.remove(binding("a.b.c"))
    matcher.remove(binding("a"))

    assert list(matcher.match("a.b", {})) == [binding("a.b")]


def test_nested_hashes_cost_no_more_than_words_times_places() -> None:
    # Descending the trie recursively takes some 10**20 steps for this one.
    assert not matches(".".join(["#.a"] * 40 + ["b"]), ".".join(["a"] * 100))
