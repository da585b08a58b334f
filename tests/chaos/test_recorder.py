"""The history is on disk at once, comes back as it was, and knows what is still to come."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from chaos.history import (
    Deliver,
    Depth,
    Ended,
    Event,
    Fault,
    Held,
    MessageId,
    Operation,
    Outcome,
    Publish,
    Recovered,
    Replica,
    Settle,
    event_of,
    line_of,
)
from chaos.recorder import Recorder, read

ID = MessageId("p", 1, 7)
ONE_OF_EACH: list[Event] = [
    Publish(0.1, ID, ("q", "r")),
    Outcome(0.2, ID, "ok"),
    Deliver(0.3, "q", "c.1", True, ID, 9),
    Deliver(0.3, "q", "c.1", False, None, 10),
    Settle(0.4, "q", "c.1", 9, "ack"),
    Ended(0.5, "q", "c.1"),
    Held(0.5, 0.7, "x.1", "e"),
    Depth(1.0, "calm", 1, "q", 3),
    Operation(0.1, float("inf"), "o", "look", "m", "unknown"),
    Fault(0.2, 0.9, "kill", (1, 2), is_down=False),
    Recovered(1.1, 1, "q", None),
    Replica(1, 2, 3, "abc"),
]


def test_every_kind_of_event_comes_back_from_its_line() -> None:
    assert ONE_OF_EACH == [event_of(line_of(event)) for event in ONE_OF_EACH]


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"event": "Publish"}', '{"event": "No"}'])
def test_what_is_no_line_of_a_history_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"line|Expecting"):
        event_of(line)


def test_an_event_is_in_the_file_before_the_next_one_happens(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with Recorder(path) as recorder:
        for count, event in enumerate(ONE_OF_EACH, 1):
            recorder.add(event)
            assert ONE_OF_EACH[:count] == list(read(path))
    packed = tmp_path / "history.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert ONE_OF_EACH == list(read(packed))


def test_what_is_confirmed_is_missing_until_each_of_its_queues_delivered_it(
    tmp_path: Path,
) -> None:
    with Recorder(tmp_path / "history.jsonl") as recorder:
        recorder.add(Publish(0.1, ID, ("q", "r")))
        assert set() == recorder.missing
        recorder.add(Deliver(0.2, "q", "c.1", False, ID, 1))
        recorder.add(Outcome(0.3, ID, "ok"))
        assert {("r", ID)} == recorder.missing
        recorder.add(Deliver(0.4, "r", "c.2", False, ID, 1))
        assert set() == recorder.missing
    assert {"published": 1, "confirmed": 1, "delivered": 2} == dict(recorder.counts)
