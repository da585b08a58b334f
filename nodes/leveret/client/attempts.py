"""Which address is tried next, after which pause, and when it is enough. Pure, for both faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .address import announced, merged
from .backoff import Backoff
from .core.connection import is_final
from .errors import ClientError, ConnectFailed

if TYPE_CHECKING:
    from random import Random

    from .address import Address, Target


SHORT_S: Final = 1.0
"""A conversation that is over sooner is short; from the second in a row on each is followed by a
pause, longer each time."""


class Attempts:
    """The addresses of a broker, and the attempts to converse with it at one after the other.

    All are tried at once, and then again after a pause. The first round must succeed; later, after
    a loss, there are rounds until `give_up_after_s` seconds have passed. A broker that ends every
    conversation as soon as it has begun is not asked again without a pause either.

    Example:
        >>> from random import Random
        >>> from leveret.client.address import parse_url
        >>> from leveret.client.errors import ConnectionLost
        >>> attempts = Attempts(parse_url("amqp://a,b"), Random(1), give_up_after_s=60)
        >>> for name in ("a", "b"):
        ...     address = attempts.next(now_s=0)
        ...     end = attempts.failed(address, ConnectionLost("no answer"), now_s=0)
        >>> type(end).__name__
        'ConnectFailed'
    """

    def __init__(self, target: Target, rng: Random, *, give_up_after_s: float) -> None:
        self.addresses = target.addresses
        """Those that were given, and those that the cluster announced."""
        self._given = target.addresses
        self._is_secure = target.tls is not None
        self._give_up_after_s = give_up_after_s
        self._backoff = Backoff(rng)
        self._place = 0
        self._failed: list[tuple[str, str]] = []
        self._began_at_s = 0.0
        self._lost_at_s = 0.0
        self._has_succeeded = False
        self._short = 0
        """Short conversations in a row."""

    def begin(self, now_s: float) -> None:
        """Begin with a first round, also in the child of a fork."""
        self._failed = []
        self._lost_at_s = now_s
        self._has_succeeded = False

    def next(self, now_s: float) -> Address:
        """The address to be tried now."""
        self._began_at_s = now_s
        address = self.addresses[self._place % len(self.addresses)]
        self._place += 1
        return address

    def learn(self, told: object) -> None:
        """Add the addresses that a cluster announces, in its property `cluster_addresses`."""
        found = announced(told, is_secure=self._is_secure)
        self.addresses = merged([self._given, found])

    def succeeded(self, now_s: float) -> None:
        """Note that an attempt led to a conversation, which has ended."""
        self._failed = []
        self._lost_at_s = now_s
        self._has_succeeded = True
        if now_s - self._began_at_s < SHORT_S:
            self._short += 1
        else:
            self._short = 0
        if self._short < 2:
            self._backoff.reset()

    def failed(self, address: Address, error: ClientError, now_s: float) -> ClientError | None:
        """Note that an attempt led to nothing; return what the connection ends with, if it does."""
        self._failed.append((str(address), str(error)))
        if is_final(error):
            return error
        if self._is_round_over:
            del self._failed[: -len(self.addresses)]
            if not self._has_succeeded or now_s - self._lost_at_s > self._give_up_after_s:
                return ConnectFailed(self._failed)
        return None

    def pause_s(self) -> float:
        """Seconds to wait before the next attempt: none within a round, or after a loss."""
        if self._is_round_over or (not self._failed and self._short > 1):
            return self._backoff.next()
        return 0.0

    @property
    def _is_round_over(self) -> bool:
        return bool(self._failed) and len(self._failed) % len(self.addresses) == 0
