"""What a connection tells of itself to an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from leveret.actors import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leveret.broker.channels.channel import Channel

ConnectionState = Literal["running", "blocked", "closing"]
"""blocked: it publishes, and an alarm has it wait."""


class ConsumerDescription(msgspec.Struct, frozen=True):
    """A consumer of a channel; `uid` is its queue's, `prefetch` its own, 0 without limit."""

    uid: int
    tag: str
    ack_required: bool
    prefetch: int
    priority: int
    exclusive: bool


class ChannelDescription(msgspec.Struct, frozen=True):
    """A channel; `prefetch` is for consumers to come, `global_prefetch` the channel's own limit."""

    number: int
    confirm: bool
    transactional: bool
    unacknowledged: int
    prefetch: int
    global_prefetch: int
    consumers: list[ConsumerDescription]


class ConnectionDescription(msgspec.Struct, frozen=True):
    """A connection with its channels."""

    state: ConnectionState
    channels: list[ChannelDescription]


class Describe(Request[ConnectionDescription]):
    """To a connection: tell what it has; answered between two batches, so not while it sends."""

    def answer_for(self, channels: Iterable[Channel], *, is_open: bool, is_held: bool) -> None:
        """Answer with what `channels` have.

        is_open: nobody has asked for the end. is_held: an alarm has the client wait.
        """
        state: ConnectionState = "closing" if not is_open else "blocked" if is_held else "running"
        self.reply(ConnectionDescription(state, [channel.describe() for channel in channels]))


def describe_consumers(channel: Channel) -> list[ConsumerDescription]:
    """Return the consumers of a channel, without that of direct reply-to."""
    return [
        ConsumerDescription(
            uid=entry.uid,
            tag=tag,
            ack_required=not entry.consumer.no_ack,
            prefetch=entry.own_prefetch,
            priority=entry.consumer.priority,
            exclusive=entry.consumer.exclusive,
        )
        for tag, entry in channel.consumers.items()
    ]
