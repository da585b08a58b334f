"""What a dead letter tells of its deaths, and from whom it believes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from leveret.amqp import Properties, encode_route
from leveret.amqp.delivery import Record, encode_record
from leveret.amqp.fields import Long, Timestamp, Value
from leveret.broker.queues.dead_letters import DeadLetter, Reason
from leveret.broker.queues.features import QueueFeatures

if TYPE_CHECKING:
    from leveret.actors import Ref

NOBODY = cast("Ref[object]", None)
"""Nobody is told: the letters are only made."""

FORGED: dict[str, Value] = {
    "x-death": [{"count": Long(7), "reason": "expired", "queue": "wait", "time": Timestamp(1)}],
    "x-first-death-reason": "expired",
    "x-first-death-queue": "wait",
    "x-first-death-exchange": "nowhere",
    "mine": "kept",
}


def published(headers: dict[str, Value]) -> bytes:
    """Return a message as a client published it."""
    return encode_record(encode_route("", "work"), Properties(headers=headers).encode(1), b"m")


def dies(octets: bytes, queue: str, reason: Reason, *, now_s: int = 100) -> DeadLetter:
    """Let a message die in a queue whose dead letters come to `next`."""
    features = QueueFeatures(name=queue, dead_letter_exchange="", dead_letter_routing_key="next")
    return DeadLetter(1, 1, octets, ref=NOBODY, features=features, reason=reason, now_s=now_s)


def headers_of(letter: DeadLetter) -> dict[str, Value]:
    (octets,) = letter.records
    headers = Properties.decode(Record(octets).header).headers
    assert headers is not None
    return dict(headers)


def test_what_a_client_wrote_of_deaths_means_nothing() -> None:
    letter = dies(published(FORGED), "wait", "expired")

    headers = headers_of(letter)
    deaths = headers.pop("x-death")
    assert isinstance(deaths, list)
    assert [(death["count"], death["time"]) for death in deaths] == [(1, Timestamp(100))]
    assert headers == {
        "mine": "kept",
        "x-first-death-reason": "expired",
        "x-first-death-queue": "wait",
        "x-first-death-exchange": "",
    }


def test_what_a_client_wrote_of_deaths_keeps_no_queue_from_the_message() -> None:
    letter = dies(published(FORGED), "work", "maxlen")

    assert letter.visited == {"work"}


def test_deaths_are_counted_from_queue_to_queue() -> None:
    letter = dies(published({}), "work", "rejected", now_s=1)
    letter = dies(letter.records[0], "wait", "expired", now_s=2)
    letter = dies(letter.records[0], "work", "rejected", now_s=3)

    headers = headers_of(letter)
    deaths = headers["x-death"]
    assert isinstance(deaths, list)
    assert [(d["queue"], d["reason"], d["count"], d["time"]) for d in deaths] == [
        ("work", "rejected", 2, Timestamp(1)),
        ("wait", "expired", 1, Timestamp(2)),
    ]
    assert headers["x-first-death-queue"] == "work"
    assert letter.visited == frozenset()


@pytest.mark.parametrize("body", [b"", b"x" * 10])
def test_what_is_stored_says_that_it_is_a_dead_letter(body: bytes) -> None:
    octets = encode_record(encode_route("e" * 255, "k" * 255), Properties().encode(len(body)), body)
    record = Record(dies(octets, "work", "rejected").records[0])

    assert record.is_dead_letter
    assert not Record(octets).is_dead_letter
    assert (record.exchange, record.routing_key, record.body) == ("", "next", body)
