"""Why a run cannot be made, or gone on with."""

from __future__ import annotations

from enum import Enum
from typing import Final

from leveret.client import (
    AccessRefused,
    AuthenticationRefused,
    ChannelClosed,
    ClientError,
    ConnectFailed,
    ConnectionClosed,
    InvalidUrl,
    NotFound,
    PreconditionFailed,
    VirtualHostRefused,
)


class Kind(Enum):
    """What can be done about it."""

    WRONG = "wrong"
    """Ask for something else."""
    UNREACHABLE = "unreachable"
    """See whether the broker runs, and where."""
    REFUSED = "refused"
    """The broker does not want it; the text says why."""
    STOPPED = "stopped"
    """Nothing: somebody wanted it to end."""
    BROKEN = "broken"
    """A bug in this program."""


class PerfError(Exception):
    """Ends a run; the text says what to do."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


_REMEDIES: Final[tuple[tuple[type[ClientError], Kind, str], ...]] = (
    (InvalidUrl, Kind.WRONG, "Write for example amqp://guest:guest@127.0.0.1:5672/"),
    (
        ConnectFailed,
        Kind.UNREACHABLE,
        "Start a broker there (leveret node), or name another one: leveret perf amqp://HOST:PORT",
    ),
    (
        AuthenticationRefused,
        Kind.REFUSED,
        "Give user and password in the URL: amqp://user:password@host/",
    ),
    (
        VirtualHostRefused,
        Kind.REFUSED,
        "Give another virtual host in the URL, amqp://host/name, or give the user rights on it",
    ),
    (
        AccessRefused,
        Kind.REFUSED,
        "Give the user rights to configure, write and read the queue and the exchange",
    ),
    (
        PreconditionFailed,
        Kind.REFUSED,
        "Options that matter here: --queue, --exchange, --transient, --queue-arg, --predeclared",
    ),
    (
        NotFound,
        Kind.REFUSED,
        "Declare it first, or leave --predeclared away so that it is declared here",
    ),
    (ChannelClosed, Kind.REFUSED, ""),
    (ConnectionClosed, Kind.UNREACHABLE, "See the broker's log"),
)


def explained(error: ClientError) -> PerfError:
    """The end of a run by an error of the client, with what to do about it."""
    for cls, kind, remedy in _REMEDIES:
        if isinstance(error, cls):
            return PerfError(kind, f"{error}\n{remedy}" if remedy else str(error))
    return PerfError(Kind.REFUSED, str(error))
