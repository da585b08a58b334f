"""The topic exchange: binding keys are patterns over the words of the routing key. Pure.

`*` stands for one word, `#` for any number of words, none included. The patterns form a trie, which
is read as a non-deterministic automaton: a set of places advances word by word. So the cost of a
key is at most words times places, however the `#` are nested; descending the trie recursively
would be exponential in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from leveret.broker.routing.matcher import Reads
from leveret.catalog.model import Binding


def split_words(key: str) -> list[str]:
    """Return the words of a routing key or pattern; empty ones count, the empty key has none.

    `a.` has the two words `a` and ``, as RabbitMQ 3.10 counts them.
    """
    return key.split(".") if key else []


class _Place:
    """A node of the trie: what patterns go on with, and which end here."""

    __slots__ = ("any_words", "bindings", "is_any_words", "one_word", "words")

    def __init__(self, *, is_any_words: bool = False) -> None:
        self.words: dict[str, _Place] = {}
        self.one_word: _Place | None = None  # after `*`
        self.any_words: _Place | None = None  # after `#`
        self.is_any_words = is_any_words  # this is the place after `#`: every word stays here
        self.bindings: dict[Binding, None] = {}

    def is_empty(self) -> bool:
        return not (self.bindings or self.words or self.one_word or self.any_words)

    def next(self, word: str) -> _Place | None:
        """Return the place after the pattern word `word`, or None."""
        if word == "*":
            return self.one_word
        if word == "#":
            return self.any_words
        return self.words.get(word)

    def grow(self, word: str) -> _Place:
        """Return the place after the pattern word `word`, made if need be."""
        place = self.next(word)
        if place is None:
            place = _Place(is_any_words=word == "#")
            if word == "*":
                self.one_word = place
            elif word == "#":
                self.any_words = place
            else:
                self.words[word] = place
        return place

    def cut(self, word: str) -> None:
        """Remove the place after the pattern word `word`."""
        if word == "*":
            self.one_word = None
        elif word == "#":
            self.any_words = None
        else:
            del self.words[word]


class TopicMatcher:
    """Bindings in a trie of pattern words."""

    reads: ClassVar[Reads] = "key"

    def __init__(self) -> None:
        self._root = _Place()

    def add(self, binding: Binding) -> None:
        place = self._root
        for word in split_words(binding.routing_key):
            place = place.grow(word)
        place.bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        words = split_words(binding.routing_key)
        path = [self._root]
        for word in words:
            place = path[-1].next(word)
            if place is None:
                return
            path.append(place)
        path[-1].bindings.pop(binding, None)
        for word in reversed(words):
            if not path.pop().is_empty():
                return
            path[-1].cut(word)

    def match(self, routing_key: str, view: Mapping[str, object]) -> Iterable[Binding]:
        # Dicts serve as sets that keep their order.
        places = _with_any_words({self._root: None})
        for word in split_words(routing_key):
            after: dict[_Place, None] = {}
            for place in places:
                exact = place.words.get(word)
                if exact is not None:
                    after[exact] = None
                if place.one_word is not None:
                    after[place.one_word] = None
                if place.is_any_words:
                    after[place] = None
            if not after:
                return ()
            places = _with_any_words(after)
        return [binding for place in places for binding in place.bindings]


def _with_any_words(places: dict[_Place, None]) -> dict[_Place, None]:
    """Add to `places` what a `#` that takes no word leads to; returns the same dict."""
    pending = [place for place in places if place.any_words is not None]
    while pending:
        after = pending.pop().any_words
        if after is not None and after not in places:
            places[after] = None
            pending.append(after)
    return places
