"""What streams are declared and consumed with, and what they refuse. Pure.

The texts are RabbitMQ's (observed on 3.10.8), but where it ends the connection with 541 and
without a word: there the client hears what a similar mistake is answered with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.amqp import errors
from leveret.amqp.fields import Timestamp, decode_table

from .spans import span_ms
from .wire_types import wire_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leveret.catalog.model import Queue

    from .messages import Start

STREAM: Final = "stream"
OFFSET: Final = "x-stream-offset"
"""A consumer's argument: where it begins; and a delivery's header: where it was."""

ONLY_STREAMS: Final = ("x-max-age", "x-stream-max-segment-size-bytes")
"""Arguments that other queues refuse."""

SEGMENT_BYTES_MAX: Final = 3_000_000_000
"""RabbitMQ's limit of `x-stream-max-segment-size-bytes`; here the argument has no effect."""

_NOT_FOR_STREAMS: Final = frozenset(
    {
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-delivery-limit",
        "x-expires",
        "x-max-in-memory-bytes",
        "x-max-in-memory-length",
        "x-max-length",
        "x-max-priority",
        "x-message-ttl",
        "x-overflow",
        "x-queue-master-locator",
        "x-queue-mode",
        "x-queue-version",
        "x-quorum-initial-group-size",
        "x-single-active-consumer",
    }
)


def is_stream(queue: Queue) -> bool:
    """Say whether a queue is a stream."""
    # Nearly every queue is none, and a look at the octets is quicker than a look into the table.
    if STREAM.encode() not in queue.arguments:
        return False
    return decode_table(queue.arguments, 0)[0].get("x-queue-type") == STREAM


def check_keys(arguments: Mapping[str, object], *, name: str, vhost: str) -> None:
    """Refuse the arguments of a queue.declare that do not go with the type of the queue.

    Raises:
        AmqpError: 406 with RabbitMQ's text.
    """
    queue_type = arguments.get("x-queue-type", "classic")
    if queue_type == STREAM:
        if name == "":
            raise errors.precondition_failed(
                "Cannot declare a server-named queue for type rabbit_stream_queue"
            )
        refused = [key for key in arguments if key in _NOT_FOR_STREAMS]
    else:
        refused = [key for key in ONLY_STREAMS if key in arguments]
    for key in refused:
        raise _wrong_argument(key, f"for queue '{name}' in vhost '{vhost}'", queue_type)


def check_properties(
    arguments: Mapping[str, object],
    *,
    where: str,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
) -> None:
    """Refuse the properties of a stream's declaration that would have it end by itself.

    Raises:
        AmqpError: 406 with RabbitMQ's text.
    """
    size = arguments.get("x-stream-max-segment-size-bytes", 0)
    if isinstance(size, int) and size > SEGMENT_BYTES_MAX:
        raise errors.precondition_failed("Exceeded max value for x-stream-max-segment-size-bytes")
    for is_set, text in (
        (auto_delete, "auto-delete"),
        (exclusive, "exclusive-owner"),
        (not durable, "non-durable"),
    ):
        if is_set:
            raise errors.precondition_failed(f"invalid property '{text}' {where}")


def check_age(value: object) -> str | None:
    """Say what is wrong with `x-max-age`, or None."""
    if not isinstance(value, str):
        return f"{{unacceptable_type,{wire_type(value)}}}"
    return None if span_ms(value) else "invalid_max_age"


def start_of(arguments: Mapping[str, object], *, where: str) -> Start:
    """Return where a consumer with these arguments begins; what `StreamLead` understands.

    That is `first`, `last` (the messages that came with the last one), `next`, `offset` with a
    number, `time` with milliseconds since 1970, or `ago` with a span in milliseconds.

    Raises:
        AmqpError: 406, it is none of what RabbitMQ takes.
    """
    value = arguments.get(OFFSET, "next")
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    start: Start | None = None
    match value:
        case "first" | "last" | "next":
            start = (value, 0)
        case Timestamp():
            start = ("time", int(value) * 1_000)
        case bool():
            pass
        case int():
            start = ("offset", int(value))
        case str():
            span = span_ms(value)
            start = None if span is None else ("ago", span)
    if start is None:
        raise errors.precondition_failed(
            f"invalid arg '{OFFSET}' {where}: {{invalid_stream_offset_arg,{_shown(value)}}}"
        )
    return start


def _shown(value: object) -> str:
    shown = f'<<"{value}">>' if isinstance(value, str) else str(value)
    return f"{{{wire_type(value)},{shown}}}"


def wrong_argument(key: str, queue: Queue, *, where: str) -> errors.AmqpError:
    """Return what a client hears whose argument does not go with the type of the queue: 406."""
    table = decode_table(queue.arguments, 0)[0] if queue.arguments else {}
    return _wrong_argument(key, where, table.get("x-queue-type", "classic"))


def _wrong_argument(key: str, where: str, queue_type: object) -> errors.AmqpError:
    return errors.precondition_failed(
        f"invalid arg '{key}' {where} of queue type rabbit_{queue_type}_queue"
    )


def not_supported(what: str, queue: Queue) -> errors.AmqpError:
    """Return what a client hears that asks a stream for what streams do not do: 540."""
    return errors.not_implemented(
        f"{what} not supported by stream queues queue '{queue.name}' in vhost '{queue.vhost}'"
    )
