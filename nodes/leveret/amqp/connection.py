"""The two roles of a connection: what each checks, begins with, and reads most of.

The rest is `core`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from leveret.amqp import spec
from leveret.amqp.core import MESSAGE_SIZE_MAX, Connection
from leveret.amqp.errors import not_allowed
from leveret.amqp.events import ContentReceived, Delivery, Event
from leveret.amqp.fields import encode_shortstr
from leveret.amqp.frames import frame_too_large
from leveret.amqp.method import Method
from leveret.amqp.states import ConnectionState, Role

CHANNEL_MAX_MIN: Final = 1

_ROUTES_MAX: Final = 512
_unpack_head: Final = Struct(">BHI").unpack_from
_unpack_tag: Final = Struct(">QB").unpack_from
_DELIVER: Final = spec.BasicDeliver.ID.to_bytes(4, "big")


class ServerConnection(Connection):
    """The broker's end.

    Answers what needs an answer in the handshake: `MethodReceived(0, …)` comes, `send_method`
    follows, then `receive_data(b"")`. The first answer, connection.start, is owed when the state
    is GREETED.
    """

    role = Role.SERVER

    def __init__(self, *, message_size_max: int = MESSAGE_SIZE_MAX) -> None:
        super().__init__(message_size_max=message_size_max)
        self._offered = spec.ConnectionTune()

    def _settle(self, method: Method) -> None:
        if isinstance(method, spec.ConnectionTune):
            self._offered = method
        super()._settle(method)

    def _check(self, method: Method) -> None:
        """A client may lower what was offered, not raise it. Spec: 1.4.2.6, tune-ok."""
        if isinstance(method, spec.ConnectionTuneOk):
            offered = self._offered
            _check_limit("frame_max", spec.FRAME_MIN_SIZE, offered.frame_max, method.frame_max)
            _check_limit("channel_max", CHANNEL_MAX_MIN, offered.channel_max, method.channel_max)


class ClientConnection(Connection):
    """The client's end. Write `begin()` first; every method of the broker comes as an event.

    delivery_type: deliveries come as objects of this class, `Delivery` or a subclass; without it
        they come as `ContentReceived` like all other content, which costs three times as much.
    """

    role = Role.CLIENT

    def __init__(
        self,
        *,
        message_size_max: int = MESSAGE_SIZE_MAX,
        delivery_type: type[Delivery] | None = None,
    ) -> None:
        super().__init__(message_size_max=message_size_max)
        self._delivery_type = delivery_type
        self._routes: dict[bytes, bytes] = {}

    def begin(self) -> bytes:
        """The protocol header, which opens the conversation."""
        assert self.state is ConnectionState.NEW
        self.state = ConnectionState.GREETED
        return spec.PROTOCOL_HEADER

    def _receive_frames(self, data: bytes, used: int, events: list[Event]) -> int:
        """The loop over whole frames of a client that wants deliveries as objects.

        Flat for speed, as the loop of `core` is: a delivery whose three frames lie in `data` is
        cut out in one step; where anything is unusual, frame by frame the way below is right.
        """
        make = self._delivery_type
        if make is None:
            return super()._receive_frames(data, used, events)
        end = len(data)
        append = events.append
        idle = self._idle
        route_of = self._routes.get
        payload_max = self._payload_max
        while True:
            if end - used < 7:
                self._needed = 7
                return used
            kind, channel, size = _unpack_head(data, used)
            start = used + 7
            stop = start + size
            if size > payload_max:
                raise self._unframed(frame_too_large(kind, size, self.frame_max), end)
            if stop >= end:
                self._needed = stop + 1 - used
                return used
            if kind == 1 and channel in idle and stop + 20 <= end:
                method = data[start : start + 4]
                tag_end = start + 5 + data[start + 4]
                if method == _DELIVER and tag_end + 11 <= stop:
                    route = data[tag_end + 9 : stop]
                    route = route_of(route) or self._checked_route(route)
                    content = self._content_at(data, stop, channel)
                    if content is not None and route:
                        header, body, used = content
                        tag, bits = _unpack_tag(data, tag_end)
                        consumer_tag = data[start + 5 : tag_end]
                        append(make(channel, consumer_tag, tag, bits & 1 != 0, route, header, body))
                        continue
            self._receive_frame(kind, channel, data, start, stop, events)
            used = stop + 1

    def _checked_route(self, route: bytes) -> bytes:
        """`route`, remembered, if it is two shortstrs and nothing else; else b""."""
        size = len(route)
        key_at = 1 + route[0]
        if key_at >= size or key_at + 1 + route[key_at] != size:
            return b""
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        self._routes[route] = route
        return route

    def _content_received(
        self, number: int, method: Method, header: bytes, body: bytes
    ) -> ContentReceived | Delivery:
        make = self._delivery_type
        if make is None or not isinstance(method, spec.BasicDeliver):
            return super()._content_received(number, method, header, body)
        return make(
            number,
            method.consumer_tag.encode("utf-8", "surrogateescape"),
            method.delivery_tag,
            method.redelivered,
            encode_shortstr(method.exchange) + encode_shortstr(method.routing_key),
            header,
            body,
        )


def _check_limit(name: str, least: int, offered: int, wanted: int) -> None:
    """Refuse a limit below `least` or above what was offered, in RabbitMQ's words; 0 = no limit."""
    if wanted and wanted < least:
        relation, bound, value = "lower", "minimum", least
    elif offered and (not wanted or wanted > offered):
        relation, bound, value = "higher", "maximum", offered
    else:
        return
    detail = " (no limit)" if name == "channel_max" and not wanted else ""
    raise not_allowed(
        f"negotiated {name} = {wanted}{detail} is {relation} than the {bound} allowed value "
        f"({value})",
        spec.ConnectionTune.CLASS_ID,
        spec.ConnectionTune.METHOD_ID,
    )
