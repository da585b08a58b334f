"""What the consumers of both faces share: retries, the marks of failed messages, and counters.

What a failed message goes through: it stays with its consumer, unacknowledged, for the delay;
then it is published to the tail of its queue with one more attempt in its headers, and when that
is confirmed the old one is acknowledged. So a delay needs nothing of the broker, a crash loses
nothing, and other messages are not held up. When its attempts are used up it goes to the queue for
dead letters, or is rejected, which dead-letters it if its queue says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from .serializers import RAW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leveret.amqp import Properties
    from leveret.amqp.fields import Table

    from .core.message import BaseMessage
    from .serializers import Serializer

ATTEMPTS: Final = "x-leveret-attempts"
"""Header: how often handling the message has failed."""
ERROR: Final = "x-leveret-error"
"""Header of a dead letter: the last failure, in words."""
ORIGIN: Final = "x-leveret-queue"
"""Header of a dead letter: the queue that it was in."""
EXCHANGE: Final = "x-leveret-exchange"
ROUTING_KEY: Final = "x-leveret-routing-key"
"""Headers of a message that was published again: where it was published first."""
_ERROR_MAX: Final = 1_000


@dataclass(frozen=True)
class Retry:
    """How often a failed message is handled again, and when.

    attempts: handlings in all, 1 for no retry. delay_s: before the second one; each further delay
    is `factor` times as long, up to `delay_max_s`. jitter: the part of a delay that is drawn.

    Example:
        >>> retry = Retry(attempts=5, delay_s=1, factor=3, delay_max_s=5, jitter=0)
        >>> [retry.delay(failures, Random(1)) for failures in (1, 2, 3)]
        [1.0, 3.0, 5.0]
    """

    attempts: int = 5
    delay_s: float = 1.0
    factor: float = 2.0
    delay_max_s: float = 60.0
    jitter: float = 0.2

    def delay(self, failures: int, rng: Random) -> float:
        """Seconds before the next attempt after so many failures.

        Example:
            >>> 0.8 <= Retry(delay_s=1, jitter=0.2).delay(1, Random(1)) <= 1
            True
        """
        full = min(self.delay_s * self.factor ** (failures - 1), self.delay_max_s)
        return full * (1 - self.jitter * rng.random())


@dataclass(frozen=True)
class ConsumerStatistics:
    """Counters of a consumer, and what it is at.

    Example:
        >>> ConsumerStatistics(3, 2, 1, 1, 0, 0, 0).succeeded
        2
    """

    received: int
    succeeded: int
    failed: int
    """Handlings that raised."""
    retried: int
    """Messages that were published again for another attempt."""
    dead: int
    """Messages that were given up."""
    running: int
    held: int
    """Messages that wait for their next attempt."""


class Undecodable(ValueError):
    """The body is not what its content type says; another attempt would find the same."""


def value_of(message: BaseMessage, serializers: Mapping[str, Serializer]) -> object:
    """The value in a message's body, by its content type; the body itself if that is unknown.

    Raises:
        Undecodable: it is malformed.
    """
    content_type = message.properties.content_type or ""
    try:
        return serializers.get(content_type, RAW).decode(message.body)
    except (TypeError, ValueError) as error:
        raise Undecodable(f"a body that is not {content_type}: {error}") from error


def failures_of(message: BaseMessage) -> int:
    """How often handling a message has failed before."""
    failures = message.headers.get(ATTEMPTS, 0)
    return failures if isinstance(failures, int) else 0


def once_more(message: BaseMessage, failures: int) -> Properties:
    """The properties of a message that is published again for another attempt."""
    return _marked(message, {ATTEMPTS: failures})


def dead_letter(message: BaseMessage, failures: int, error: Exception, queue: str) -> Properties:
    """The properties of a message of `queue` that is given up for `error`."""
    text = f"{type(error).__name__}: {error}"[:_ERROR_MAX]
    return _marked(message, {ATTEMPTS: failures, ERROR: text, ORIGIN: queue})


def _marked(message: BaseMessage, marks: Table) -> Properties:
    """The properties of a message with more headers, and where it was published first."""
    properties = message.properties.copy()
    origin: Table = {EXCHANGE: message.exchange, ROUTING_KEY: message.routing_key}
    properties.headers = {**origin, **message.headers, **marks}
    return properties
