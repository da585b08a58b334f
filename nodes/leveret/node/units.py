"""How configuration values are written: sizes, durations, addresses. Pure text and numbers.

A `Kind` reads a value from TOML (which has numbers and lists) as well as from the environment or
a flag (which have text only), and writes it in a form that it reads back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from leveret.transport.identity import Address, NodeId

T = TypeVar("T")

_SIZES = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


class Member(NamedTuple):
    """One node of a static cluster, and where the others reach it."""

    id: NodeId
    address: Address

    def __str__(self) -> str:
        return f"{self.id}@{self.address}"


class Watermark(NamedTuple):
    """How much memory may be used: a fraction of what there is, or so many bytes."""

    fraction: float | None = None
    size_bytes: int | None = None

    def of(self, total_bytes: int | None) -> int | None:
        """Return the limit in bytes where there is so much memory; None if nobody can say."""
        if self.fraction is None or total_bytes is None:
            return self.size_bytes
        return int(self.fraction * total_bytes)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A type of configuration value.

    parse raises ValueError, whose text is what was expected, with an example.
    """

    name: str
    parse: Callable[[object], T]
    show: Callable[[T], str]


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(  # noqa: TRY004 - the contract of Kind.parse
            'expected text, such as "node-1"'
        )
    return raw.strip()


def _name(raw: object) -> str:
    if not isinstance(raw, str) or not _NAME.fullmatch(raw):
        raise ValueError(
            "expected 1 to 64 letters, digits, '_', '.' and '-', the first a letter or digit"
        )
    return raw


def _integer(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9]+", raw.strip()):
        return int(raw)
    raise ValueError("expected a whole number, such as 8")


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError("expected true or false")


def _size(raw: object) -> int:
    expected = 'expected a size in bytes, such as 65536, "64KiB" or "50MB"'
    number, unit = _quantity(raw, expected)
    if unit not in _SIZES:
        raise ValueError(expected)
    size = number * _SIZES[unit]
    if size != int(size):
        raise ValueError(expected)
    return int(size)


def _show_size(size: int) -> str:
    if size:
        for unit in ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB"):
            if size % _SIZES[unit.lower()] == 0:
                return f"{size // _SIZES[unit.lower()]}{unit}"
    return str(size)


def _watermark(raw: object) -> Watermark:
    expected = 'expected a fraction of the memory, such as 0.6, or a size, such as "2GiB"'
    number, unit = _quantity(raw, expected)
    if not unit and number <= 1:
        return Watermark(fraction=float(number))
    try:
        return Watermark(size_bytes=_size(raw))
    except ValueError:
        raise ValueError(expected) from None


def _show_watermark(watermark: Watermark) -> str:
    if watermark.fraction is not None:
        return f"{watermark.fraction:g}"
    return _show_size(watermark.size_bytes or 0)


def _seconds(raw: object) -> float:
    expected = 'expected a duration, such as 10, "10s", "500ms" or "5min"'
    number, unit = _quantity(raw, expected)
    if unit not in _DURATIONS:
        raise ValueError(expected)
    # Rounded to the microsecond, so that "100ms" is the 0.1 that everybody writes.
    return round(number * _DURATIONS[unit], 6)


def _show_seconds(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    return f"{seconds:g}s"


def _whole_seconds(raw: object) -> int:
    seconds = _seconds(raw)
    if seconds != int(seconds):
        raise ValueError('expected a duration in whole seconds, such as 60 or "60s"')
    return int(seconds)


def _quantity(raw: object, expected: str) -> tuple[float, str]:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool) and 0 <= raw < float("inf"):
        return raw, ""
    found = _QUANTITY.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if found is None:
        raise ValueError(expected)
    number, unit = found.groups()
    return (float(number) if "." in number else int(number)), unit.lower()


def parse_address(text: str) -> Address:
    """Read `host:port` or `[IPv6]:port`.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{text}" needs brackets around its IPv6 address: "[::1]:5672"')
    if not (colon and host and re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 65536):
        raise ValueError('expected an address and a port, such as "127.0.0.1:5672"')
    return Address(host, int(port))


def _address(raw: object) -> Address:
    return parse_address(raw if isinstance(raw, str) else "")


def _address_or_none(raw: object) -> Address | None:
    return None if raw == "" else _address(raw)


def _words(raw: object) -> list[str]:
    if isinstance(raw, str):
        return [word for word in re.split(r"[,\s]+", raw) if word]
    if isinstance(raw, (list, tuple)) and all(isinstance(word, str) for word in raw):
        return [str(word) for word in raw]
    raise ValueError("expected a list of texts, or one text with commas")


def _addresses(raw: object) -> tuple[Address, ...]:
    return tuple(parse_address(word) for word in _words(raw))


def _member(text: str) -> Member:
    number, at, address = text.partition("@")
    if not (at and re.fullmatch(r"[0-9]{1,5}", number)):
        raise ValueError(f'"{text}" is no member; write ID@HOST:PORT, such as "1@127.0.0.1:25672"')
    return Member(NodeId(int(number)), parse_address(address))


def _members(raw: object) -> tuple[Member, ...]:
    members = tuple(_member(word) for word in _words(raw))
    if len({member.id for member in members}) < len(members):
        raise ValueError("two members have the same id; each needs its own")
    if len({member.address for member in members}) < len(members):
        raise ValueError("two members have the same address; each needs its own")
    return members


def _path(raw: object) -> Path | None:
    if not isinstance(raw, str):
        raise ValueError(  # noqa: TRY004 - the contract of Kind.parse
            'expected a path, such as "/etc/leveret/token"'
        )
    return Path(raw).expanduser() if raw.strip() else None


def _folder(raw: object) -> Path:
    path = _path(raw)
    if path is None:
        raise ValueError('expected a folder, such as "/var/lib/leveret"')
    return path


def _token(raw: object) -> bytes:
    try:
        token = bytes.fromhex(raw) if isinstance(raw, str) else b""
    except ValueError:
        token = b""
    if len(token) < 16 and raw != "":
        raise ValueError(
            "expected at least 32 hexadecimal digits; make them with: openssl rand -hex 32"
        )
    return token


def _show_list(values: tuple[object, ...]) -> str:
    return ", ".join(map(str, values))


TEXT = Kind("text", _text, str)
NAME = Kind("name", _name, str)
INTEGER = Kind("number", _integer, str)
BOOLEAN = Kind("true or false", _boolean, lambda value: str(value).lower())
SIZE = Kind("size", _size, _show_size)
SECONDS = Kind("duration", _seconds, _show_seconds)
WATERMARK = Kind("fraction or size", _watermark, _show_watermark)
WHOLE_SECONDS = Kind("duration, whole seconds", _whole_seconds, _show_seconds)
ADDRESS = Kind("host:port", _address, str)
ADDRESS_OR_NONE: Kind[Address | None] = Kind(
    "host:port", _address_or_none, lambda address: str(address) if address else ""
)
ADDRESSES = Kind("list of host:port", _addresses, _show_list)
MEMBERS = Kind("list of id@host:port", _members, _show_list)
FOLDER = Kind("path", _folder, str)
FILE: Kind[Path | None] = Kind("path", _path, lambda path: str(path) if path else "")
TOKEN = Kind("hexadecimal digits", _token, lambda token: "(secret)" if token else "")
