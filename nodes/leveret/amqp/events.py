"""What a connection reports: the values that `receive_data` returns, in the order of arrival.

One small object an event. Nothing in them is decoded that the receiver might not need.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.amqp.errors import AmqpError, ProtocolHeaderError
    from leveret.amqp.method import Method


@lru_cache(maxsize=4096)
def split_route(route: bytes) -> tuple[str, str]:
    """The exchange and the routing key in `route`, two shortstrs as on the wire."""
    end = 1 + route[0]
    return (
        route[1:end].decode("utf-8", "surrogateescape"),
        route[end + 1 :].decode("utf-8", "surrogateescape"),
    )


class Publish:
    """A whole basic.publish.

    route: exchange and routing key, two shortstrs verbatim; equal routes are mostly one object,
        so that a look-up by route costs no second hash.
    header: the content header payload verbatim, well-formed but for the inside of its table.
    """

    __slots__ = ("body", "channel", "header", "immediate", "mandatory", "route")

    def __init__(
        self,
        channel: int,
        route: bytes,
        mandatory: bool,  # noqa: FBT001 - positional for speed: built once a message
        immediate: bool,  # noqa: FBT001
        header: bytes,
        body: bytes,
    ) -> None:
        self.channel = channel
        self.route = route
        self.mandatory = mandatory
        self.immediate = immediate
        self.header = header
        self.body = body

    @property
    def exchange(self) -> str:
        """The exchange's name; "" is the default exchange."""
        return split_route(self.route)[0]

    @property
    def routing_key(self) -> str:
        """The routing key."""
        return split_route(self.route)[1]

    def __repr__(self) -> str:
        return (
            f"Publish(channel={self.channel}, route={self.route!r}, mandatory={self.mandatory}, "
            f"immediate={self.immediate}, {len(self.header)} + {len(self.body)} octets)"
        )

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]


class Ack:
    """A basic.ack: of deliveries at the server, of publishes (confirms) at the client."""

    __slots__ = ("channel", "delivery_tag", "multiple")

    def __init__(self, channel: int, delivery_tag: int, multiple: bool) -> None:  # noqa: FBT001
        self.channel = channel
        self.delivery_tag = delivery_tag
        self.multiple = multiple

    def __repr__(self) -> str:
        return (
            f"Ack(channel={self.channel}, delivery_tag={self.delivery_tag}, "
            f"multiple={self.multiple})"
        )

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]


class MethodReceived:
    """Any other method without content, on `channel` (0: about the connection)."""

    __slots__ = ("channel", "method")

    def __init__(self, channel: int, method: Method) -> None:
        self.channel = channel
        self.method = method

    def __repr__(self) -> str:
        return f"MethodReceived(channel={self.channel}, {self.method!r})"

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]


class ContentReceived:
    """A whole basic.deliver, basic.get-ok or basic.return, at the client.

    header: the content header payload verbatim, for `Properties.decode`.
    """

    __slots__ = ("body", "channel", "header", "method")

    def __init__(self, channel: int, method: Method, header: bytes, body: bytes) -> None:
        self.channel = channel
        self.method = method
        self.header = header
        self.body = body

    def __repr__(self) -> str:
        return (
            f"ContentReceived(channel={self.channel}, {self.method!r}, "
            f"{len(self.header)} + {len(self.body)} octets)"
        )

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]


class Delivery:
    """A whole basic.deliver, at a client that asked for deliveries in this form.

    consumer_tag: the octets of the tag; route: exchange and routing key, two shortstrs verbatim;
    header: the content header payload verbatim, for `Properties.decode`.
    A client gives a subclass of its own, so that one object a message is made and no second one.
    """

    __slots__ = (
        "body",
        "channel",
        "consumer_tag",
        "delivery_tag",
        "header",
        "redelivered",
        "route",
    )

    def __init__(
        self,
        channel: int,
        consumer_tag: bytes,
        delivery_tag: int,
        redelivered: bool,  # noqa: FBT001 - positional for speed: built once a message
        route: bytes,
        header: bytes,
        body: bytes,
    ) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.route = route
        self.header = header
        self.body = body

    @property
    def exchange(self) -> str:
        """The exchange that the message was published to; "" is the default exchange."""
        return split_route(self.route)[0]

    @property
    def routing_key(self) -> str:
        """The routing key that it was published with."""
        return split_route(self.route)[1]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(delivery_tag={self.delivery_tag}, "
            f"redelivered={self.redelivered}, exchange={self.exchange!r}, "
            f"routing_key={self.routing_key!r}, {len(self.header)} + {len(self.body)} octets)"
        )


class ChannelFailed:
    """The peer broke a rule on `channel` alone; the connection goes on.

    Do this about it: write `reply` (a channel.close), forget the channel's state. What the peer
    sends on the channel is dropped until its close-ok, which comes as MethodReceived.
    """

    __slots__ = ("channel", "error", "reply")

    def __init__(self, channel: int, error: AmqpError, reply: bytes) -> None:
        self.channel = channel
        self.error = error
        self.reply = reply

    def __repr__(self) -> str:
        return f"ChannelFailed(channel={self.channel}, {self.error})"


class ConnectionFailed:
    """The peer broke a rule of the connection; nothing but close and close-ok comes any more.

    Do this about it: write `reply` (a connection.close, the protocol header, or nothing). Then
    close the socket: at once if the connection's state is CLOSED, else when it becomes so.
    """

    __slots__ = ("error", "reply")

    def __init__(self, error: AmqpError | ProtocolHeaderError, reply: bytes) -> None:
        self.error = error
        self.reply = reply

    def __repr__(self) -> str:
        return f"ConnectionFailed({self.error})"


Event = (
    Publish | Ack | MethodReceived | ContentReceived | Delivery | ChannelFailed | ConnectionFailed
)


def _equal(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    names: tuple[str, ...] = type(one).__slots__  # type: ignore[attr-defined]
    return all(getattr(one, name) == getattr(other, name) for name in names)
