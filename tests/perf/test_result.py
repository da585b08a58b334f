"""Figures over intervals and slices, and the picture of them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from leveret.perf.chart import linear_axis, log_axis, svg_of
from leveret.perf.plan import Plan
from leveret.perf.receipts import Verdict
from leveret.perf.reports import Interval
from leveret.perf.result import Frame, Phase, Result, frame_of, summary_of


def interval(number: int = 1, *, count: int = 0, us: int = 0, cpu_s: float = 0.0) -> Interval:
    made = Interval(
        number, published=count, confirmed=count, consumed=count, client_cpu_s=cpu_s,
        busiest_cpu_s=cpu_s, unconfirmed=number,
    )  # fmt: skip
    for _ in range(count):
        made.confirm.record(us)
        made.delivery.record(us)
    return made


def frame(of: Interval, *, phase: Phase = "load", span_s: float = 1.0) -> Frame:
    return frame_of(
        of, at_s=of.number, span_s=span_s, phase=phase, broker_cpu_s=None, broker_memory_bytes=None
    )


def result(
    count: int,
    *,
    seconds: float,
    us: int = 1000,
    cpu_s: float | None = None,
    verdict: Verdict | None = None,
) -> Result:
    return Result(
        broker="A", guarantee="at least once",
        plan=Plan(urls=("amqp://a",), run=1, queues=("q",)),
        total=interval(count=count, us=us, cpu_s=1.0),
        published_s=seconds, confirmed_s=seconds, consumed_s=seconds, watched_s=seconds,
        frames=[], broker_pids=[], broker_cpu_s=cpu_s, broker_memory_bytes=None, verdict=verdict,
    )  # fmt: skip


def test_intervals_of_workers_add_up_and_what_is_so_at_their_ends_too() -> None:
    whole = interval(count=2, us=10, cpu_s=0.5)
    whole.beside(interval(count=3, us=20, cpu_s=0.25))

    assert (5, 5, 2, 0.75, 0.5) == (
        whole.published, whole.confirm.count, whole.unconfirmed, whole.client_cpu_s,
        whole.busiest_cpu_s,
    )  # fmt: skip


def test_of_later_intervals_the_last_says_what_is_so_now() -> None:
    whole = interval(1, count=2, cpu_s=0.5)
    whole.then(interval(2, count=3, cpu_s=0.25))

    assert (5, 2, 2, 0.75) == (
        whole.published, whole.number, whole.unconfirmed, whole.busiest_cpu_s,
    )  # fmt: skip


def test_the_rate_of_slices_is_all_messages_by_all_time_beside_the_rate_of_each() -> None:
    summary = summary_of([result(100, seconds=1), result(100, seconds=3)])

    assert 50 == summary.published_per_s
    assert [100, pytest.approx(33.3, abs=0.1)] == summary.published_slices_per_s
    assert (200, 1.0) == (summary.confirm_ms.count, summary.confirm_ms.max)


def test_the_brokers_processor_time_is_told_for_a_message() -> None:
    assert 100 == pytest.approx(summary_of([result(1000, seconds=1, cpu_s=0.1)]).broker_cpu_us)
    assert summary_of([result(1000, seconds=1)]).broker_cpu_us is None


def test_a_run_without_a_message_has_no_rate_and_divides_by_nothing() -> None:
    summary = summary_of([result(0, seconds=0, cpu_s=0.1)])

    assert (0.0, None, 0) == (
        summary.published_per_s, summary.broker_cpu_us, summary.confirm_ms.count,
    )  # fmt: skip


def test_verdicts_of_slices_add_up() -> None:
    clean, broken = Verdict(5, 5, 0, 0, 0, 0, 0, 1, 0), Verdict(5, 4, 1, 0, 0, 0, 0, 0, 0)
    summary = summary_of(
        [result(5, seconds=1, verdict=clean), result(5, seconds=1, verdict=broken)]
    )

    assert Verdict(10, 9, 1, 0, 0, 0, 0, 1, 0) == summary.verdict


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(0, [0, 1]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (4100, [0, 1000, 2000, 3000, 4000, 5000]),
     (7, [0, 2, 4, 6, 8])],
)  # fmt: skip
def test_a_linear_axis_ends_at_a_round_number(highest: float, ticks: list[float]) -> None:
    axis = linear_axis(highest)

    assert pytest.approx(ticks) == axis.ticks
    assert 0 == axis.place(0)
    assert pytest.approx(1) == axis.place(ticks[-1])


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([], [1, 2]), ([3, 40], [2, 5, 10, 20, 50]), ([0.0001], [0.01, 0.02]),
     ([0.03, 900], [0.1, 1, 10, 100, 1000])],
)  # fmt: skip
def test_a_logarithmic_axis_holds_all_values(values: list[float], ticks: list[float]) -> None:
    axis = log_axis(values)

    assert pytest.approx(ticks) == axis.ticks
    assert all(0 <= axis.place(value) <= 1.0001 for value in values)


def test_the_picture_is_xml_with_a_row_for_each_broker() -> None:
    frames = [frame(interval(n, count=10 * n, us=500)) for n in range(1, 5)]
    cut_short = frame(interval(5, count=1), phase="drain", span_s=0.01)

    picture = svg_of([("A & B", [*frames, cut_short]), ("<C>", frames)], title="1 < 2")

    root = ET.fromstring(picture)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"1 < 2", "A & B: messages a second", "<C>: latency in ms"} <= set(texts)
    curves = [
        element.get("points", "").split()
        for element in root.iter("{http://www.w3.org/2000/svg}polyline")
    ]
    assert [4] * 14 == [len(points) for points in curves]


def test_a_run_without_intervals_can_be_drawn() -> None:
    ET.fromstring(svg_of([("A", [])], title=""))
