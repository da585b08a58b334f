"""URLs with one host each, of those with several."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit


def single_hosts(urls: Sequence[str]) -> tuple[str, ...]:
    """Each host of the URLs with the rest of its URL, in order, each once.

    Example:
        >>> single_hosts(["amqp://ann:pw@a,b:5673/hares"])
        ('amqp://ann:pw@a/hares', 'amqp://ann:pw@b:5673/hares')
    """
    found: list[str] = []
    for url in urls:
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        found += [
            urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")
        ]
    return tuple(dict.fromkeys(found))


def without_password(url: str) -> str:
    """A URL that may be shown.

    Example:
        >>> without_password("amqp://ann:pw@a/hares"), without_password("amqp://a")
        ('amqp://ann@a/hares', 'amqp://a')
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}"))
