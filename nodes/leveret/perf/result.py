"""What a run found, and what it comes to in figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from .histogram import Histogram
from .plan import Plan
from .receipts import Verdict
from .reports import Interval

Phase = Literal["warm-up", "load", "drain"]


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    p999: float
    max: float


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One interval of all workers, as it is shown and kept."""

    at_s: float
    """Its end, in seconds since the beginning."""
    span_s: float
    """How long it was: the last one is cut short."""
    phase: Phase
    published: int
    confirmed: int
    consumed: int
    refused: int
    returned: int
    unconfirmed: int
    reconnects: int
    cancelled: int
    disconnected: int
    blocked: int
    confirm_ms: Latency
    delivery_ms: Latency
    client_cpu_s: float
    broker_cpu_s: float | None
    """What the broker's processes used in it; None if they are not known."""
    broker_memory_bytes: int | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run against one broker. The spans are seconds after the warm-up."""

    broker: str
    """What it calls itself, such as `RabbitMQ 3.10.8`."""
    guarantee: str
    plan: Plan
    total: Interval
    """All behind the warm-up."""
    published_s: float
    confirmed_s: float
    consumed_s: float
    """Until the last message was published, confirmed, consumed."""
    watched_s: float
    """How long the workers were watched, to the end of the last one."""
    frames: list[Frame]
    broker_pids: list[int]
    broker_cpu_s: float | None
    broker_memory_bytes: int | None
    """The most that was seen."""
    verdict: Verdict | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a broker, over one run or several slices."""

    broker: str
    published: int
    confirmed: int
    consumed: int
    refused: int
    returned: int
    published_per_s: float
    confirmed_per_s: float
    consumed_per_s: float
    published_slices_per_s: list[float]
    confirmed_slices_per_s: list[float]
    consumed_slices_per_s: list[float]
    """The same for each slice: how much they differ says how much a difference means."""
    confirm_ms: Latency
    delivery_ms: Latency
    reconnects: int
    cancelled: int
    broker_cpu_us: float | None
    """A message; None if the broker's processes are not known."""
    broker_memory_bytes: int | None
    client_cpu_us: float
    client_busiest: float
    """The part of a processor that the busiest of the client's processes used."""
    verdict: Verdict | None


def frame_of(
    interval: Interval,
    *,
    at_s: float,
    span_s: float,
    phase: Phase,
    broker_cpu_s: float | None,
    broker_memory_bytes: int | None,
) -> Frame:
    """What is kept of an interval: percentiles for the histograms."""
    return Frame(
        at_s=round(at_s, 3),
        span_s=round(span_s, 3),
        phase=phase,
        published=interval.published,
        confirmed=interval.confirmed,
        consumed=interval.consumed,
        refused=interval.refused,
        returned=interval.returned,
        unconfirmed=interval.unconfirmed,
        reconnects=interval.reconnects,
        cancelled=interval.cancelled,
        disconnected=interval.disconnected,
        blocked=interval.blocked,
        confirm_ms=latency_of(interval.confirm),
        delivery_ms=latency_of(interval.delivery),
        client_cpu_s=interval.client_cpu_s,
        broker_cpu_s=broker_cpu_s,
        broker_memory_bytes=broker_memory_bytes,
    )


def latency_of(histogram: Histogram) -> Latency:
    """The usual percentiles."""
    p50, p95, p99, p999 = (histogram.percentile_us(at) / 1000 for at in (50, 95, 99, 99.9))
    return Latency(
        count=histogram.count,
        mean=round(histogram.mean_us / 1000, 3),
        p50=p50,
        p95=p95,
        p99=p99,
        p999=p999,
        max=histogram.max_us / 1000,
    )


def summary_of(results: Sequence[Result]) -> Summary:
    """The figures of one broker's runs together."""
    total = Interval(0)
    for result in results:
        total.then(result.total)
    handled = total.published or total.consumed
    seconds = sum(one.watched_s for one in results)
    cpu_s = [result.broker_cpu_s for result in results if result.broker_cpu_s is not None]
    memory = [one.broker_memory_bytes for one in results if one.broker_memory_bytes is not None]
    published = [_rate(one.total.published, one.published_s) for one in results]
    confirmed = [_rate(one.total.confirmed, one.confirmed_s) for one in results]
    consumed = [_rate(one.total.consumed, one.consumed_s) for one in results]
    return Summary(
        broker=results[0].broker,
        published=total.published,
        confirmed=total.confirmed,
        consumed=total.consumed,
        refused=total.refused,
        returned=total.returned,
        published_per_s=_rate(total.published, sum(one.published_s for one in results)),
        confirmed_per_s=_rate(total.confirmed, sum(one.confirmed_s for one in results)),
        consumed_per_s=_rate(total.consumed, sum(one.consumed_s for one in results)),
        published_slices_per_s=published,
        confirmed_slices_per_s=confirmed,
        consumed_slices_per_s=consumed,
        confirm_ms=latency_of(total.confirm),
        delivery_ms=latency_of(total.delivery),
        reconnects=total.reconnects,
        cancelled=total.cancelled,
        broker_cpu_us=sum(cpu_s) / handled * 1e6 if cpu_s and handled else None,
        broker_memory_bytes=max(memory, default=None),
        client_cpu_us=total.client_cpu_s / handled * 1e6 if handled else 0.0,
        client_busiest=total.busiest_cpu_s / seconds if seconds else 0.0,
        verdict=_verdict_of([one.verdict for one in results if one.verdict is not None]),
    )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _verdict_of(verdicts: Sequence[Verdict]) -> Verdict | None:
    """All verdicts together, None for none."""
    if not verdicts:
        return None
    names = Verdict.__struct_fields__
    return Verdict(**{name: sum(getattr(one, name) for one in verdicts) for name in names})
