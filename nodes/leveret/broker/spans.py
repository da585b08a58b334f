"""Spans of time as streams' arguments say them: a number and a unit, as in `7D`. Pure."""

from __future__ import annotations

import re
from typing import Final

_SPAN: Final = re.compile(r"([0-9]{1,12})([YMDhms])", re.ASCII)
_UNITS_S: Final = {
    "Y": 365 * 86_400,
    "M": 30 * 86_400,
    "D": 86_400,
    "h": 3_600,
    "m": 60,
    "s": 1,
}


def span_ms(text: str) -> int | None:
    """Return the span in milliseconds; None if `text` is none, or of no length."""
    match = _SPAN.fullmatch(text)
    if match is None:
        return None
    return int(match[1]) * _UNITS_S[match[2]] * 1_000 or None
