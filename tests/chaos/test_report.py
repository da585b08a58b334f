"""What people see of a run: the last line, the picture, the page."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from chaos.history import (
    Deliver,
    Depth,
    Event,
    Fault,
    Held,
    MessageId,
    Outcome,
    Publish,
    Recovered,
    Replica,
)
from chaos.judge import Limits, Verdict, judge
from chaos.report.figures import sparkline, table
from chaos.report.page import page
from chaos.report.timeline import timeline

IDS = [MessageId("p", 1, number) for number in range(4)]


def clean() -> list[Event]:
    return [
        *(Publish(0.1, id_, ("q",)) for id_ in IDS),
        *(Outcome(0.2, id_, "ok") for id_ in IDS),
        Fault(1.0, 2.0, "kill", (1,)),
        Recovered(3.5, 1, "q", 1.5),
        *(Deliver(4.0 + tag, "q", "c.1", False, id_, tag) for tag, id_ in enumerate(IDS)),
        Deliver(9.0, "q", "c.2", True, IDS[0], 1),
        Held(0.1, 0.5, "x", "e"),
        Depth(10.0, "drained", 1, "q", 0),
        Replica(1, 0, 7, "abc"),
        Replica(2, 0, 7, "abc"),
    ]


def judged(events: list[Event], *failures: str) -> Verdict:
    return judge(events, nodes=3, limits=Limits(), one_consumer=["q"], failures=failures)


def test_the_last_line_says_what_was_proved() -> None:
    assert judged(clean()).line(7) == (
        "PASS seed=7 faults=1 confirmed=4 lost=0 phantom=0 dup=0+1 order=0 depth=0 other=0"
        " gap=0.1s recovery=1.5s"
    )


@pytest.mark.parametrize(
    ("field", "planted"),
    [
        ("lost=4", [event for event in clean() if not isinstance(event, Deliver)]),
        ("phantom=1", [*clean(), Deliver(9.5, "q", "c.3", True, None, 1)]),
        ("dup=1+1", [*clean(), Deliver(9.5, "q", "c.3", False, IDS[3], 1)]),
        ("order=1", [*clean(), Deliver(9.5, "q", "c.3", False, IDS[1], 1)]),
        ("depth=1", [*clean(), Depth(11.0, "drained", 1, "q", 1)]),
        ("depth=1", [*clean(), Depth(11.0, "calm", 1, "q", 9)]),
        ("other=1", [*clean(), Held(0.2, 0.4, "y", "e")]),
        ("other=1", [*clean(), Recovered(90.0, 1, "q", None)]),
        ("other=1", [*clean(), Replica(3, 0, 7, "abd")]),
        ("other=1", [*clean(), Publish(20.0, MessageId("p", 2, 1), ("q",)),
                     Outcome(20.1, MessageId("p", 2, 1), "nack")]),
        ("other=1", [*clean(), Publish(20.0, MessageId("p", 2, 1), ("q",)),
                     Outcome(60.0, MessageId("p", 2, 1), "ok"),
                     Deliver(61.0, "q", "c.3", False, MessageId("p", 2, 1), 1)]),
    ],
)  # fmt: skip
def test_each_mistake_fails_the_run_and_stands_in_its_last_line(
    field: str, planted: list[Event]
) -> None:
    line = judged(planted).line(7)

    assert line.startswith("FAIL seed=7 ")
    assert f" {field} " in line


def test_a_process_that_ended_by_itself_fails_the_run() -> None:
    verdict = judged(clean(), "node 2 ended by itself with code 70")

    assert not verdict.is_pass
    assert " other=1 " in verdict.line(7)


def test_the_picture_is_well_formed_and_marks_what_was_lost() -> None:
    events = [event for event in clean() if not isinstance(event, Deliver) or event.redelivered]

    for shown in (clean(), events, []):
        ET.fromstring(timeline(shown, title="a <run> & its end", nodes=3))
    assert "LOST" not in timeline(clean(), title="", nodes=3)
    assert "3 LOST" in timeline(events, title="", nodes=3)


def test_the_page_tells_verdict_complaints_and_faults() -> None:
    events = [*clean(), Depth(11.0, "drained", 1, "<q>", 1)]
    text = page(events, judged(events), title="run", seed=7, nodes=3)

    assert "FAIL seed=7" in text
    assert "&lt;q&gt; has 1" in text
    assert "<q>" not in text
    assert "<td>kill</td><td>1</td><td>1.00 s</td>" in text


def test_the_table_has_silence_and_recovery() -> None:
    text = "\n".join(table(judged(clean())))

    assert "silence    q 0.1 s" in text
    assert "recovery   1.5 s" in text
    [gap] = judged(clean()).gaps
    assert ("q", 0.1) == (gap.queue, gap.began)


def test_a_sparkline_has_a_character_a_value_and_a_blank_for_nothing_alone() -> None:
    assert sparkline([0, 1, 50, 100]) == " ▁▅█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "  "
    assert sparkline([5], top=50) == "▂"
