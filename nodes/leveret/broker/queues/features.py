"""What a queue does besides keeping messages, as its arguments and policies say. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from leveret.broker.policies.merging import NOTHING, effective_number, effective_text, smaller
from leveret.broker.spans import span_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .incoming import Limit
    from .state import QueueState

RetryType = Literal["all", "failed", "returned"]
Overflow = Literal["drop-head", "reject-publish", "reject-publish-dlx"]


@dataclass(frozen=True, slots=True)
class Retention:
    """What a stream keeps; None: no limit."""

    max_age_ms: int | None = None
    max_bytes: int | None = None
    """Of the messages as they are stored, with their properties."""


@dataclass(frozen=True, slots=True)
class DelayedRetry:
    """How long messages that came back wait before they are delivered again."""

    type: RetryType
    """Which wait: failed ones, whose consumer went or was too slow, or those that it returned."""
    min_ms: int
    """The wait after the first return; after the second it is twice as long, and so on."""
    max_ms: int | None
    """No wait is longer."""

    def is_for(self, *, failed: bool) -> bool:
        """Say whether messages wait that came back by a failure, or were returned."""
        return self.type in {"all", "failed" if failed else "returned"}


@dataclass(frozen=True, slots=True)
class QueueFeatures:
    """See the module; times are in milliseconds."""

    vhost: str = "/"
    name: str = ""
    auto_delete: bool = False
    message_ttl_ms: int | None = None
    expires_ms: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: Overflow = "drop-head"
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    max_priority: int = 0
    single_active: bool = False
    counts_returns: bool = False
    """Deliveries tell how often the message came back."""
    delivery_limit: int | None = None
    delayed_retry: DelayedRetry | None = None
    consumer_timeout_ms: int | None = None
    """How long a consumer may hold a message that says nothing of it itself."""
    stream: Retention | None = None
    """It is a stream, which has no other feature."""

    @property
    def looks_into_messages(self) -> bool:
        """Whether a message may have a life of its own here without saying so itself."""
        return bool(
            self.message_ttl_ms is not None
            or self.max_priority
            or self.max_length_bytes is not None
            or self.publish_limit
        )

    @property
    def ends_alone(self) -> bool:
        """Whether something may end by the time though nobody has to do with the queue."""
        return self.expires_ms is not None or (
            self.stream is not None and self.stream.max_age_ms is not None
        )

    @property
    def limit(self) -> Limit | None:
        """How much the queue holds, whatever happens beyond it; None: any number."""
        if self.max_length is None and self.max_length_bytes is None:
            return None
        return self.max_length, self.max_length_bytes

    @property
    def publish_limit(self) -> Limit | None:
        """At what the queue refuses publishes; None: it does not."""
        return None if self.overflow == "drop-head" else self.limit

    @property
    def drops_head(self) -> bool:
        """Whether the oldest messages go when there are too many."""
        return self.overflow == "drop-head" and (
            self.max_length is not None or self.max_length_bytes is not None
        )


PLAIN = QueueFeatures()


def features_of(
    arguments: Mapping[str, object],
    definition: Mapping[str, object] = NOTHING,
    *,
    vhost: str,
    name: str,
    auto_delete: bool,
) -> QueueFeatures:
    """Return the features of a queue that was declared with `arguments`, which were checked.

    definition: what the policies in force for it say together. A setting is called there like the
    argument without "x-"; what `number` and `text` are asked for heeds both.
    """

    def number(key: str) -> int | None:
        return effective_number(arguments, definition, key)

    def text(key: str) -> str | None:
        return effective_text(arguments, definition, key)

    if arguments.get("x-queue-type") == "stream":
        return QueueFeatures(
            vhost=vhost,
            name=name,
            stream=Retention(
                max_age_ms=smaller(
                    span_ms(str(arguments.get("x-max-age", ""))),
                    span_ms(str(definition.get("max-age", ""))),
                ),
                max_bytes=number("x-max-length-bytes"),
            ),
        )
    limit = number("x-delivery-limit")
    return QueueFeatures(
        vhost=vhost,
        name=name,
        auto_delete=auto_delete,
        message_ttl_ms=number("x-message-ttl"),
        expires_ms=number("x-expires"),
        max_length=number("x-max-length"),
        max_length_bytes=number("x-max-length-bytes"),
        overflow=cast("Overflow", text("x-overflow") or "drop-head"),
        dead_letter_exchange=text("x-dead-letter-exchange"),
        dead_letter_routing_key=text("x-dead-letter-routing-key"),
        max_priority=number("x-max-priority") or 0,
        single_active=arguments.get("x-single-active-consumer") is True,
        counts_returns=limit is not None or arguments.get("x-queue-type") == "quorum",
        delivery_limit=None if limit is None or limit < 0 else limit,
        delayed_retry=_delayed_retry(
            text("x-delayed-retry-type"),
            number("x-delayed-retry-min"),
            number("x-delayed-retry-max"),
        ),
        consumer_timeout_ms=number("x-consumer-timeout"),
    )


def _delayed_retry(
    retry_type: str | None, min_ms: int | None, max_ms: int | None
) -> DelayedRetry | None:
    if retry_type not in {"all", "failed", "returned"} or not min_ms:
        return None
    return DelayedRetry(cast("RetryType", retry_type), min_ms, max_ms)


def is_too_full(features: QueueFeatures, state: QueueState) -> bool:
    """Say whether a queue may have to drop its oldest messages."""
    if features.stream is not None:
        bytes_max = features.stream.max_bytes
        return bytes_max is not None and state.size_bytes > bytes_max
    count_max, bytes_max = features.max_length, features.max_length_bytes
    return features.drops_head and (
        (count_max is not None and state.live > count_max)
        # The sizes of bodies may not be known: as stored, messages are larger than these.
        or (bytes_max is not None and state.size_bytes > bytes_max)
    )
