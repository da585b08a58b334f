"""OpenTelemetry's context in the headers of messages, if OpenTelemetry is installed.

What is propagated, and in which headers, is what the program set as its global propagator: by
default the W3C's `traceparent`, `tracestate` and `baggage`. Spans are the program's affair.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from leveret.amqp.fields import Table

try:
    from opentelemetry import context as _context
    from opentelemetry import propagate as _propagate
except ImportError:
    is_available = False
else:
    is_available = True


def inject(headers: Table) -> None:
    """Add the context of the running code to the headers of a message that it sends.

    Example:
        >>> headers = {}
        >>> inject(headers)
        >>> headers  # no span is running
        {}
    """
    if is_available:
        carrier: dict[str, str] = {}
        _propagate.inject(carrier)
        headers.update(carrier)


@contextmanager
def extracted(headers: Mapping[str, object]) -> Generator[None]:
    """A block that runs in the context that the headers of a message bring.

    Example:
        >>> with extracted({"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}):
        ...     pass  # spans that begin here are children of the sender's
    """
    if not is_available:
        yield
        return
    carrier = {name: value for name, value in headers.items() if isinstance(value, str)}
    token = _context.attach(_propagate.extract(carrier))
    try:
        yield
    finally:
        _context.detach(token)
