"""The figures of `leveret perf` as text: a line an interval, a table at the end. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.table import Table

from leveret.cli.figures import bytes_text, count_text
from leveret.perf.plan import Plan
from leveret.perf.receipts import Verdict
from leveret.perf.result import Frame, Latency, Summary

HEADER: Final = (
    "           messages a second         confirm, ms         delivery, ms   uncon-\n"
    "    time  publ.  conf.  cons.     p50   p95   p99     p50   p95   p99  firmed"
)
FAULTS: Final = (
    ("lost", "lost"),
    ("duplicated", "duplicated"),
    ("out of order", "unordered"),
    ("corrupt", "corrupt"),
    ("never sent", "invented"),
)
"""What a verdict counts against a broker: in words, and its field."""
BUSY: Final = 0.9
"""The part of a processor from which a process of clients is what limits the load."""


def ms_text(ms: float) -> str:
    """Return milliseconds in at most five characters: `0.123`, `12.3`, `1,234`, `12.3k`.

    Example:
        >>> [ms_text(ms) for ms in (0, 0.1234, 9.876, 12.34, 123.4, 1234.5, 123456)]
        ['0', '0.123', '9.88', '12.3', '123', '1,234', '123k']
    """
    if ms == 0:
        return "0"
    if ms < 1:
        return f"{ms:.3f}"
    if ms < 9.995:
        return f"{ms:.2f}"
    if ms < 99.95:
        return f"{ms:.1f}"
    if ms < 9_999.5:
        return f"{ms:,.0f}"
    return f"{ms / 1000:,.0f}k"


def rate_of(count: int, frame: Frame) -> float:
    """Return a count of an interval, a second."""
    return count / frame.span_s if frame.span_s else 0.0


def line_of(frame: Frame) -> str:
    """Return an interval as a line below `HEADER`; what is unusual stands at its end."""
    rates = (frame.published, frame.confirmed, frame.consumed)
    text = f"{frame.at_s:>6.1f} s"
    text += "".join(f" {rate_of(count, frame):>6,.0f}" for count in rates)
    for latency in (frame.confirm_ms, frame.delivery_ms):
        text += "  " + "".join(f" {percentile:>5}" for percentile in _percentiles(latency))
    return text + f" {frame.unconfirmed:>7,}" + "".join(f"  {note}" for note in notes_of(frame))


def _percentiles(latency: Latency) -> tuple[str, str, str]:
    if not latency.count:
        return ("-", "-", "-")
    return ms_text(latency.p50), ms_text(latency.p95), ms_text(latency.p99)


def notes_of(frame: Frame) -> list[str]:
    """Return what is unusual in an interval."""
    counts = (
        (frame.disconnected, "without a broker"),
        (frame.blocked, "blocked by the broker"),
        (frame.reconnects, "reconnected"),
        (frame.refused, "refused"),
        (frame.returned, "returned"),
        (frame.cancelled, "consumers cancelled"),
    )
    notes = [] if frame.phase == "load" else [frame.phase]
    return notes + [f"{count:,} {what}" for count, what in counts if count]


def load_text(plan: Plan) -> str:
    """Return a load in a line."""
    parts = [
        _count(plan.producers, "producer"),
        _count(plan.consumers, "consumer"),
        _count(len(plan.queues), "durable queue" if plan.is_durable else "transient queue"),
    ]
    if plan.processes > 1:
        parts.append(f"{plan.processes} processes")
    if plan.producers:
        parts.append(f"{plan.size_bytes:,} B")
        parts.append(f"window {plan.window:,}" if plan.window else "no confirms")
        if plan.rate_per_s:
            parts.append(f"{plan.rate_per_s:,g}/s each")
    if plan.consumers:
        parts.append("auto-ack" if plan.is_auto_ack else f"prefetch {plan.prefetch:,}")
    return ", ".join(parts)


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


# The table at the end

Row = tuple[str, Callable[[Summary], str | None], Callable[[Summary], float | None] | None]
"""Its label, its text for a broker, and the figure by which two brokers are compared, if any."""


def _rate_row(
    label: str,
    rate: Callable[[Summary], float],
    slices: Callable[[Summary], list[float]],
) -> Row:
    def text(summary: Summary) -> str | None:
        if not rate(summary):
            return None
        parts = slices(summary)
        spread = f" ({min(parts):,.0f}-{max(parts):,.0f})" if len(parts) > 1 else ""
        return f"{rate(summary):,.0f}{spread}"

    return label, text, rate


def _latency_rows(label: str, latency: Callable[[Summary], Latency]) -> list[Row]:
    def row(name: str, value: Callable[[Latency], float]) -> Row:
        def text(summary: Summary) -> str | None:
            return ms_text(value(latency(summary))) if latency(summary).count else None

        return f"{label} {name}, ms", text, lambda summary: value(latency(summary))

    return [
        row("p50", lambda of: of.p50),
        row("p95", lambda of: of.p95),
        row("p99", lambda of: of.p99),
        row("p99.9", lambda of: of.p999),
        row("max", lambda of: of.max),
    ]


def _count_row(label: str, count: Callable[[Summary], int]) -> Row:
    return label, lambda summary: count_text(count(summary)) if count(summary) else None, None


def _verdict_row(label: str, field: str) -> Row:
    def text(summary: Summary) -> str | None:
        verdict = summary.verdict
        return None if verdict is None else count_text(getattr(verdict, field))

    return label, text, None


ROWS: Final[tuple[Row, ...]] = (
    _count_row("published", lambda of: of.published),
    _count_row("confirmed", lambda of: of.confirmed),
    _count_row("consumed", lambda of: of.consumed),
    _rate_row("published/s", lambda of: of.published_per_s, lambda of: of.published_slices_per_s),
    _rate_row("confirmed/s", lambda of: of.confirmed_per_s, lambda of: of.confirmed_slices_per_s),
    _rate_row("consumed/s", lambda of: of.consumed_per_s, lambda of: of.consumed_slices_per_s),
    *_latency_rows("confirm", lambda of: of.confirm_ms),
    *_latency_rows("delivery", lambda of: of.delivery_ms),
    (
        "broker CPU a message, µs",
        lambda of: None if of.broker_cpu_us is None else f"{of.broker_cpu_us:,.1f}",
        lambda of: of.broker_cpu_us,
    ),
    (
        "broker memory, most",
        lambda of: None if of.broker_memory_bytes is None else bytes_text(of.broker_memory_bytes),
        lambda of: of.broker_memory_bytes,
    ),
    ("client CPU a message, µs", lambda of: f"{of.client_cpu_us:,.1f}", None),
    _count_row("reconnects", lambda of: of.reconnects),
    _count_row("consumers cancelled", lambda of: of.cancelled),
    _count_row("refused (basic.nack)", lambda of: of.refused),
    _count_row("returned (no queue)", lambda of: of.returned),
    *(
        _verdict_row(label, field)
        for label, field in (
            ("verify: messages to come", "expected"),
            ("came", "received"),
            *FAULTS,
            ("marked as redelivered", "redelivered"),
            ("of other runs", "foreign"),
        )
    ),
)


def cells_of(summaries: Sequence[Summary]) -> list[list[str]]:
    """Return the rows that have anything: label, a cell for each broker, first to second."""
    rows: list[list[str]] = []
    for label, text, figure in ROWS:
        texts = [text(summary) for summary in summaries]
        if any(one is not None for one in texts):
            cells = [label, *("-" if one is None else one for one in texts)]
            if len(summaries) > 1:
                cells.append("" if figure is None else _ratio(*map(figure, summaries[:2])))
            rows.append(cells)
    return rows


def _ratio(first: float | None, second: float | None) -> str:
    return f"{first / second:.2f}" if first and second else ""


def table_of(summaries: Sequence[Summary]) -> Table:
    """Return the table at the end."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for summary in summaries:
        table.add_column(summary.broker, justify="right", no_wrap=True)
    if len(summaries) > 1:
        table.add_column("ratio", justify="right", no_wrap=True)
    for cells in cells_of(summaries):
        table.add_row(*cells)
    return table


def remarks_of(summary: Summary) -> list[str]:
    """Return what a reader of the table has to know besides."""
    remarks: list[str] = []
    if summary.broker_cpu_us is None:
        remarks.append(
            "CPU and memory of the broker are not known: it is not on this machine, or its"
            " processes are another user's"
        )
    if summary.client_busiest >= BUSY:
        remarks.append(
            f"a process of clients used {summary.client_busiest:.0%} of a core: it, not the"
            " broker, may be the limit; try more --processes"
        )
    return remarks


def verdict_text(verdict: Verdict) -> str:
    """Return a verdict in a line."""
    if verdict.is_clean:
        return f"each of {verdict.expected:,} messages came once, whole and in order"
    counts = [(getattr(verdict, field), label) for label, field in FAULTS]
    found = ", ".join(f"{count:,} {label}" for count, label in counts if count)
    return f"of {verdict.expected:,} messages to come: {found}"
