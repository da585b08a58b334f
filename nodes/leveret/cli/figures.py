"""Numbers as people read them."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")


def bytes_text(size: int) -> str:
    """Return a size with a decimal unit: `64.0 MB`."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{size} B"


def count_text(count: int) -> str:
    """Return a count with its thousands apart: `12,345`."""
    return f"{count:,}"


def rate_text(a_second: float) -> str:
    """Return a rate: `1,234/s`; small ones with a decimal."""
    return f"{a_second:.1f}/s" if 0 < a_second < 10 else f"{a_second:,.0f}/s"


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units: `3 d 4 h`, `5 min 12 s`, `12 s`."""
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def short_count(count: float) -> str:
    """Return a count in at most five characters: `9,999`, `12.3k`, `456k`, `7.8M`."""
    if count < 9_999.5:
        return f"{count:,.0f}"
    for unit in "kM":
        count /= 1000
        if count < 99.95:
            return f"{count:.1f}{unit}"
        if count < 999.5:
            return f"{count:.0f}{unit}"
    return f"{count / 1000:.0f}G"
