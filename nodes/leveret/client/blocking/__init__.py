"""The client for programs without trio: scripts, threads, Django, Flask.

The same core and the same names as `leveret.client`, without `async` and `await`:

    with connect("amqp://guest:guest@localhost/") as connection:
        channel = connection.channel()
        channel.declare_queue("hello")
        channel.publish(b"Hello, hare!", "hello")
        for message in channel.consume("hello"):
            print(message.body)
            message.ack()

`Producer` takes values in place of octets, and `Consumer` has them handled in threads.

Connections and channels may be used by any number of threads. A thread of the connection's own
reads, sends heartbeats while the program is busy, and connects again after a loss. In a forked
child a robust connection opens a transport of its own when it is used first; what was under way
stays with the parent.
"""

from .channel import Channel
from .connection import Connection, connect
from .consumer import Consumer
from .deliveries import Deliveries
from .message import Message
from .producer import Producer
from .publisher import Publisher

__all__ = [
    "Channel",
    "Connection",
    "Consumer",
    "Deliveries",
    "Message",
    "Producer",
    "Publisher",
    "connect",
]
