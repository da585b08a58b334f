"""A run over time as a picture: rates and latencies, one row of charts for each broker. Pure.

SVG written by hand: two kinds of charts and a legend need no library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final, NamedTuple

from .result import Frame

WIDTH: Final = 960
_ROW: Final = 280
_TOP: Final = 64
_LEFT: Final = 64
_GAP: Final = 76
_PLOT_WIDTH: Final = (WIDTH - _LEFT - _GAP - 24) / 2
_PLOT_HEIGHT: Final = 190
_TICKS: Final = 5
_TICKS_MAX: Final = 8
_LOWEST_MS: Final = 0.01


class Curve(NamedTuple):
    """One line of a chart, the same in all rows."""

    name: str
    color: str
    dashes: str
    value: Callable[[Frame], float]


# Colours that are told apart by the colour-blind too (Okabe and Ito).
RATES: Final = (
    Curve("published/s", "#0072b2", "", lambda frame: _rate(frame.published, frame)),
    Curve("confirmed/s", "#e69f00", "6 3", lambda frame: _rate(frame.confirmed, frame)),
    Curve("consumed/s", "#009e73", "", lambda frame: _rate(frame.consumed, frame)),
)
LATENCIES: Final = (
    Curve("confirm p50", "#e69f00", "", lambda frame: frame.confirm_ms.p50),
    Curve("confirm p99", "#e69f00", "6 3", lambda frame: frame.confirm_ms.p99),
    Curve("delivery p50", "#009e73", "", lambda frame: frame.delivery_ms.p50),
    Curve("delivery p99", "#009e73", "6 3", lambda frame: frame.delivery_ms.p99),
)


class Axis(NamedTuple):
    """A vertical axis: where a value stands, from 0 at the bottom to 1, and its marks."""

    place: Callable[[float], float]
    ticks: list[float]


def svg_of(brokers: Sequence[tuple[str, Sequence[Frame]]], *, title: str) -> str:
    """The picture; each broker has the frames of all its slices, in order.

    All rows have the same scales, so that they can be compared by eye.
    """
    # The rates of what is cut short at a run's end say nothing.
    shortest_s = max((f.span_s for _, frames in brokers for f in frames), default=0.0) / 2
    kept = [
        (name, [frame for frame in frames if frame.span_s > shortest_s]) for name, frames in brokers
    ]
    every = [frame for _, frames in kept for frame in frames]
    rates = linear_axis(max((c.value(f) for c in RATES for f in every), default=0.0))
    values = [c.value(f) for c in LATENCIES for f in every]
    latencies = log_axis([value for value in values if value > 0])
    seconds = max((sum(frame.span_s for frame in frames) for _, frames in kept), default=0.0)
    height = _TOP + _ROW * len(kept)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(_LEFT, 24, title, size=15),
    ]
    right = _LEFT + _PLOT_WIDTH + _GAP
    parts += _legend(_LEFT, 46, RATES)
    parts += _legend(right, 46, LATENCIES)
    for row, (name, frames) in enumerate(kept):
        top = _TOP + row * _ROW
        parts += _chart(_LEFT, top, f"{name}: messages a second", frames, seconds, RATES, rates)
        parts += _chart(right, top, f"{name}: latency in ms", frames, seconds, LATENCIES, latencies)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def linear_axis(highest: float) -> Axis:
    """An axis from 0 to a round number above `highest`."""
    step = 10.0 ** math.floor(math.log10(highest / _TICKS)) if highest > 0 else 1.0
    step *= next((m for m in (1, 2, 5, 10) if step * m * _TICKS >= highest), 10)
    count = max(1, math.ceil(highest / step))
    top = step * count
    return Axis(lambda value: value / top, [step * number for number in range(count + 1)])


def log_axis(values: Sequence[float]) -> Axis:
    """An axis of equal ratios around `values`, which are above 0, from a round number to another.

    Its marks are 1, 2 and 5 and their multiples by ten, or over many decades those of 1 alone.
    """
    low = max(min(values, default=1.0), _LOWEST_MS)
    high = max(max(values, default=1.0), low)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounds = [mantissa * 10.0**decade for decade in decades for mantissa in (1, 2, 5)]
    bottom = max(one for one in rounds if one <= low)
    top = min(one for one in rounds if one >= high and one > bottom)
    ticks = [one for one in rounds if bottom <= one <= top]
    if len(ticks) > _TICKS_MAX:
        ticks = [10.0**decade for decade in decades if bottom <= 10.0**decade <= top]
    ratio = math.log10(top / bottom)
    return Axis(lambda value: math.log10(max(value, bottom) / bottom) / ratio, ticks)


def _rate(count: int, frame: Frame) -> float:
    return count / frame.span_s


def _chart(
    left: float,
    top: float,
    title: str,
    frames: Sequence[Frame],
    seconds: float,
    curves: Sequence[Curve],
    axis: Axis,
) -> list[str]:
    plot_top = top + 30
    bottom = plot_top + _PLOT_HEIGHT
    parts = [_text(left, top + 20, title, weight="bold")]
    for tick in axis.ticks:
        y = bottom - axis.place(tick) * _PLOT_HEIGHT
        parts += [_rule(left, y, left + _PLOT_WIDTH, y), _text(left - 6, y + 4, f"{tick:,g}",
                                                               anchor="end")]  # fmt: skip
    scale = _PLOT_WIDTH / seconds if seconds else 0.0
    across = linear_axis(seconds)
    for tick in across.ticks:
        if tick <= seconds:
            x = left + tick * scale
            parts.append(_text(x, bottom + 16, f"{tick:g} s", anchor="middle"))
    elapsed = 0.0
    ends: list[float] = []
    for frame in frames:
        elapsed += frame.span_s
        ends.append(left + elapsed * scale)
    for curve in curves:
        points = [
            f"{x:.1f},{bottom - axis.place(value) * _PLOT_HEIGHT:.1f}"
            for x, frame in zip(ends, frames, strict=True)
            if (value := curve.value(frame)) > 0 or curve in RATES
        ]
        parts.append(
            f'<polyline fill="none" stroke="{curve.color}" stroke-width="1.6" '
            f'stroke-dasharray="{curve.dashes}" points="{" ".join(points)}"/>'
        )
    return parts


def _legend(left: float, y: float, curves: Sequence[Curve]) -> list[str]:
    parts: list[str] = []
    for place, curve in enumerate(curves):
        x = left + place * 104
        parts += [
            (
                f'<line x1="{x:.1f}" y1="{y - 4}" x2="{x + 18:.1f}" y2="{y - 4}" '
                f'stroke="{curve.color}" stroke-width="2" stroke-dasharray="{curve.dashes}"/>'
            ),
            _text(x + 23, y, curve.name),
        ]
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="#222222">{escape(text)}</text>'
    )
