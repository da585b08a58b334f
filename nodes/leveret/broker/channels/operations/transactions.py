"""Committing a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.amqp import spec

if TYPE_CHECKING:
    from leveret.amqp.method import Method
    from leveret.broker.channels.channel import Channel


async def commit(channel: Channel, _method: spec.TxCommit) -> Method | None:
    """Publish and then settle what the channel's transaction holds.

    Nothing is settled before all publishes are stored, so whoever passes messages on in
    transactions loses none: if a publish is refused, what it came from is delivered again.
    """
    channel.publishing.commit()
    await channel.publishing.all_taken()
    if not channel.is_closed:
        channel.commit_settlements()
    return spec.TxCommitOk()
