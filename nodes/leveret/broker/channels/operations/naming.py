"""What a method's names mean on its channel, and whether its client may use them."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from leveret.amqp import errors
from leveret.catalog.model import Exchange, Queue

if TYPE_CHECKING:
    from leveret.broker.access import ResourceKind, Right
    from leveret.broker.channels.channel import Channel


RESERVED: Final = "amq."
"""What names begin with that only the broker gives."""


def exchange_named(channel: Channel, name: str) -> Exchange | None:
    """Return the exchange as far as this node knows."""
    connection = channel.connection
    return connection.services.catalog.model.exchange(connection.vhost, name)


def queue_named(channel: Channel, name: str) -> Queue | None:
    """Return the queue as far as this node knows."""
    connection = channel.connection
    return connection.services.catalog.model.queue(connection.vhost, name)


def queue_name(channel: Channel, name: str) -> str:
    """Return what the client means: an empty name is the queue that the channel declared last."""
    if name:
        return name
    if not channel.last_queue:
        raise errors.not_found("no previously declared queue")
    return channel.last_queue


def no_exchange(channel: Channel, name: str) -> errors.AmqpError:
    """Return what a client hears that names an exchange which is not there."""
    return errors.not_found(f"no exchange '{name}' in vhost '{channel.connection.vhost}'")


def no_queue(channel: Channel, name: str) -> errors.AmqpError:
    """Return what a client hears that names a queue which is not there."""
    return errors.not_found(f"no queue '{name}' in vhost '{channel.connection.vhost}'")


def check(channel: Channel, kind: ResourceKind, name: str, right: Right) -> None:
    """Refuse what the channel's user has no right to, by 403."""
    channel.connection.check(kind, name, right)


def check_not_default(name: str) -> None:
    """Refuse to change the default exchange or its bindings, by 403."""
    if not name:
        raise errors.access_refused("operation not permitted on the default exchange")


def check_owner(channel: Channel, queue: Queue, *, exclusive: bool | None = None) -> None:
    """Refuse a queue that another connection has for itself.

    exclusive: what a declaration says of it; None if the method declares nothing.
    """
    if (queue.exclusive and not is_mine(channel, queue)) or (
        exclusive is not None and exclusive != queue.exclusive
    ):
        raise errors.resource_locked(
            f"cannot obtain exclusive access to locked queue '{queue.name}' "
            f"in vhost '{queue.vhost}'. It could be originally declared on another connection "
            "or the exclusive property value does not match that of the original declaration."
        )


def is_mine(channel: Channel, queue: Queue) -> bool:
    """Whether the channel's connection declared the exclusive `queue`."""
    directory, number = channel.connection.services.directory, channel.connection.number
    return (queue.home, queue.boot, queue.owner) == (directory.node, directory.boot, number)


def make_consumer_tag(channel: Channel) -> str:
    """Return a tag for a consumer whose client gave it none."""
    return f"amq.ctag-{unique(channel.connection.services.random_bytes(16))}"


def unique(octets: bytes) -> str:
    """Return `octets` as a part of a name."""
    return urlsafe_b64encode(octets).decode().rstrip("=")
