"""A client for RabbitMQ's protocol, for programs on trio; `leveret.client.blocking` for others.

It works with every broker that speaks AMQP 0-9-1 as RabbitMQ does, and hides the failures of a
cluster: see docs/guides/client.md.

    async with connect("amqp://guest:guest@localhost/") as connection:
        async with connection.channel() as channel:
            await channel.declare_queue("hello")
            await channel.publish(b"Hello, hare!", "hello")
            async for message in channel.consume("hello"):
                print(message.body)
                await message.ack()
"""

from leveret.amqp import Properties

from .channel import Channel
from .connection import Connection, connect
from .consumer import Consumer
from .deliveries import Deliveries
from .errors import (
    AccessRefused,
    AlreadySettled,
    AuthenticationRefused,
    BrokerError,
    ChannelClosed,
    ClientError,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    ConsumerCancelled,
    InvalidUrl,
    MessageTooLarge,
    Misuse,
    NotFound,
    PreconditionFailed,
    PublishRefused,
    ReplyLost,
    ResourceLocked,
    TimedOut,
    TransactionLost,
    Unroutable,
    VirtualHostRefused,
)
from .handling import ConsumerStatistics, Retry
from .message import Message
from .outgoing import ProducerStatistics
from .producer import Producer
from .publisher import Publisher
from .results import ConnectionStatistics, Guarantee, Queue
from .serializers import JSON, MSGPACK, RAW, Serializer

__all__ = [
    "JSON",
    "MSGPACK",
    "RAW",
    "AccessRefused",
    "AlreadySettled",
    "AuthenticationRefused",
    "BrokerError",
    "Channel",
    "ChannelClosed",
    "ClientError",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionStatistics",
    "Consumer",
    "ConsumerCancelled",
    "ConsumerStatistics",
    "Deliveries",
    "Guarantee",
    "InvalidUrl",
    "Message",
    "MessageTooLarge",
    "Misuse",
    "NotFound",
    "PreconditionFailed",
    "Producer",
    "ProducerStatistics",
    "Properties",
    "PublishRefused",
    "Publisher",
    "Queue",
    "ReplyLost",
    "ResourceLocked",
    "Retry",
    "Serializer",
    "TimedOut",
    "TransactionLost",
    "Unroutable",
    "VirtualHostRefused",
    "connect",
]
