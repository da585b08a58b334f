"""The histogram is as good as a list of all values, within the width of a bucket."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from leveret.perf.histogram import Histogram

durations_us = st.integers(0, 10**12)


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(durations_us, min_size=1), st.sampled_from([0.1, 50, 95, 99, 99.9, 100]))
def test_a_percentile_is_that_of_the_sorted_values_within_one_part_in_64(
    values: list[int], percent: float
) -> None:
    rank = max(1, math.ceil(len(values) * percent / 100))
    exact = sorted(values)[rank - 1]

    assert abs(histogram_of(values).percentile_us(percent) - exact) <= exact / 64


@given(st.lists(durations_us), st.lists(durations_us))
def test_adding_is_recording_all(first: list[int], second: list[int]) -> None:
    histogram = histogram_of(first)
    histogram.add(histogram_of(second))

    assert histogram_of(first + second) == histogram


@given(st.lists(durations_us))
def test_it_comes_out_of_json_as_it_went_in(values: list[int]) -> None:
    histogram = histogram_of(values)

    assert histogram == msgspec.json.decode(msgspec.json.encode(histogram), type=Histogram)


def test_small_values_are_exact() -> None:
    for value in range(128):
        assert value == histogram_of([value]).percentile_us(50)


def test_without_values_all_is_zero() -> None:
    assert (0, 0, 0.0) == (
        Histogram().percentile_us(99), Histogram().max_us, Histogram().mean_us,
    )  # fmt: skip


def test_a_duration_below_zero_counts_as_none() -> None:
    assert (1, 0) == (histogram_of([-5]).count, histogram_of([-5]).max_us)


def test_a_million_values_take_no_more_room_than_some_hundred_buckets() -> None:
    histogram = Histogram()
    for value in range(0, 10**9, 1000):
        histogram.record(value)

    assert len(histogram.buckets) < 1500
