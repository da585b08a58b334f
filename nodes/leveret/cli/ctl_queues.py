"""`leveret ctl`: looking after the messages of a queue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click
import msgspec

from leveret.broker.queues.peeking import PEEK_MAX
from leveret.cli.ctl_target import VHOST, asks
from leveret.node.control.queue_actions import Cancelled, Moved, PauseDone
from leveret.node.control.queue_messages import BODY_BYTES_MAX, MessageSeen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leveret.cli.ctl_target import Target

MOVE_AT_ONCE: Final = 1_000_000
"""Messages that are asked for in one request."""
PAYLOAD_CHARACTERS: Final = 60
"""Of a message in a table; JSON has all that was asked for."""


def which_messages(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which messages to show, and how much of them."""
    for option in (
        click.option(
            "--body",
            "body_bytes",
            type=click.IntRange(0, BODY_BYTES_MAX),
            default=200,
            show_default=True,
            help="Octets of each body.",
        ),
        click.option(
            "--count",
            type=click.IntRange(1, PEEK_MAX),
            default=10,
            show_default=True,
            help="How many messages.",
        ),
        click.option(
            "--offset",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="How many to pass over.",
        ),
    ):
        command = option(command)
    return command


@click.command("peek")
@VHOST
@which_messages
@click.argument("queue")
@asks
def peek(*, target: Target, **which: object) -> None:
    """Show messages of QUEUE without touching them, in the order in which they came.

    Each is ready; unacknowledged, with the consumer that holds it; delayed, with the time when it
    is due; or leaving: its end or return is under way. JSON has all properties and headers.
    Fewer than asked for come if they are large; go on with --offset.

    \b
    Examples:
      leveret ctl peek orders
      leveret ctl peek -p shop orders --offset 1000 --count 1 --body 4096 --json
    """  # noqa: D301 - click's mark for lines that are kept as they are
    columns = ("position", "state", "held_by", "since", "due", "routing_key", "bytes", "payload")
    _show(target, "peek", columns, **which)


@click.command("list_delayed")
@VHOST
@which_messages
@click.argument("queue")
@asks
def list_delayed(*, target: Target, **which: object) -> None:
    """Show the delayed messages of QUEUE, those first that will be due first.

    \b
    Examples:
      leveret ctl list_delayed reminders
      leveret ctl list_delayed reminders --count 100 --json
    """  # noqa: D301
    columns = ("sequence", "due", "routing_key", "bytes", "payload")
    _show(target, "list_delayed", columns, **which)


@click.command("cancel_delayed")
@VHOST
@click.option("--all", "is_all", is_flag=True, help="All that are delayed now.")
@click.argument("queue")
@click.argument("sequence", type=click.IntRange(1), required=False)
@asks
def cancel_delayed(
    *, target: Target, vhost: str, is_all: bool, queue: str, sequence: int | None
) -> None:
    """End the delayed message SEQUENCE of QUEUE (see list_delayed), or --all, before it is due.

    What is cancelled is never delivered, nor dead-lettered; what is due already is not cancelled.

    \b
    Examples:
      leveret ctl cancel_delayed reminders 17
      leveret ctl cancel_delayed -p shop reminders --all
    """  # noqa: D301
    if is_all == (sequence is not None):
        raise click.UsageError("give a SEQUENCE, or --all")
    reply = target.ask("cancel_delayed", Cancelled, vhost=vhost, queue=queue, sequence=sequence)
    target.say(reply, f'{reply.messages} delayed messages of queue "{queue}" are gone')


@click.command("pause_queue")
@VHOST
@click.argument("queue")
@asks
def pause_queue(*, target: Target, vhost: str, queue: str) -> None:
    """Stop all deliveries of QUEUE until resume_queue, whatever restarts in between.

    Consumers stay, and may settle what they hold; publishes go on; basic.get finds nothing.

    \b
    Examples:
      leveret ctl pause_queue -p shop orders
    """  # noqa: D301
    reply = target.ask("pause_queue", PauseDone, vhost=vhost, queue=queue)
    already = "" if reply.is_changed else " already"
    target.say(reply, f'queue "{queue}" is{already} paused')


@click.command("resume_queue")
@VHOST
@click.argument("queue")
@asks
def resume_queue(*, target: Target, vhost: str, queue: str) -> None:
    """Let the deliveries of QUEUE go on.

    \b
    Examples:
      leveret ctl resume_queue -p shop orders
    """  # noqa: D301
    reply = target.ask("resume_queue", PauseDone, vhost=vhost, queue=queue)
    already = "" if reply.is_changed else " already"
    target.say(reply, f'queue "{queue}" is{already} running')


@click.command("move_messages")
@VHOST
@click.option("--count", type=click.IntRange(1), metavar="N", help="At most N; without it all.")
@click.argument("source")
@click.argument("destination")
@asks
def move_messages(
    *, target: Target, vhost: str, count: int | None, source: str, destination: str
) -> None:
    """Move ready messages of queue SOURCE to queue DESTINATION, in their order, each once.

    They keep what they are; their time to live begins anew there. It ends when SOURCE is empty, or
    DESTINATION is at its limit: nothing is dropped for it.

    \b
    Examples:
      leveret ctl move_messages dead-orders orders
      leveret ctl move_messages -p shop orders parked --count 100
    """  # noqa: D301
    total = 0
    while True:
        left = MOVE_AT_ONCE if count is None else min(count - total, MOVE_AT_ONCE)
        moved = target.ask(
            "move_messages",
            Moved,
            vhost=vhost,
            source=source,
            destination=destination,
            count=left,
        )
        total += moved.messages
        if moved.end in {"empty", "full"} or total == count:
            break
    end = f'; queue "{destination}" is full' if moved.end == "full" else ""
    text = f'{total} messages are moved from queue "{source}" to "{destination}"{end}'
    target.say(Moved(messages=total, end=moved.end), text)


def _show(target: Target, verb: str, columns: Sequence[str], **which: object) -> None:
    """Print the messages that the node answers `verb` with; as JSON all that is known of them."""
    seen = target.ask(verb, list[MessageSeen], **which)
    rows = [_row(message, is_json=target.as_json) for message in seen]
    target.show(rows, MessageSeen.__struct_fields__ if target.as_json else columns)


def _row(message: MessageSeen, *, is_json: bool) -> dict[str, object]:
    """Return a message as a row: as it is for programs, shortened for people."""
    row: dict[str, object] = msgspec.to_builtins(message)
    if is_json:
        return row
    holder = message.holder
    held_by = None
    if holder is not None and holder.connection is None:
        held_by = f"node {holder.node}"
    elif holder is not None:
        held_by = f"{holder.connection}.{holder.channel} {holder.consumer_tag or '(basic.get)'}"
    row |= {
        "held_by": held_by,
        "since": None if holder is None else _time(holder.since_ms),
        "due": _time(message.due_at_ms),
        "bytes": message.payload_bytes,
        "payload": message.payload[:PAYLOAD_CHARACTERS],
    }
    return row


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


VERBS = (peek, list_delayed, cancel_delayed, pause_queue, resume_queue, move_messages)
