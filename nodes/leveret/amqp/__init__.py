"""AMQP 0-9-1 without I/O: both roles, the Python standard library only.

`ServerConnection` and `ClientConnection` turn received octets into events and methods into octets;
whoever owns the socket moves the octets:

    events = connection.receive_data(socket_gave)      # never raises
    socket_takes = connection.send_method(channel, spec.QueueDeclareOk(…))

- `spec` has a class for every method; `definitions` the tables it is generated from.
- `fields` and `properties` read and write field tables and the 14 message properties.
- `delivery` frames stored messages for consumers.
- `errors` has the reply codes, their scopes and RabbitMQ's texts.

The hot path's event is `Publish`: it carries the route (exchange and routing-key shortstrs), the
content header and the body as they came; nothing of them is decoded until asked for.
"""

from leveret.amqp.connection import ClientConnection, ServerConnection
from leveret.amqp.delivery import (
    DeliverEncoder,
    Record,
    encode_get_ok,
    encode_record,
    encode_return,
    encode_route,
)
from leveret.amqp.errors import AmqpError, ProtocolError, ProtocolHeaderError
from leveret.amqp.events import (
    Ack,
    ChannelFailed,
    ConnectionFailed,
    ContentReceived,
    Delivery,
    Event,
    MethodReceived,
    Publish,
)
from leveret.amqp.frames import HEARTBEAT
from leveret.amqp.method import Method
from leveret.amqp.properties import Properties
from leveret.amqp.states import ChannelState, ConnectionState, Role

__all__ = [
    "HEARTBEAT",
    "Ack",
    "AmqpError",
    "ChannelFailed",
    "ChannelState",
    "ClientConnection",
    "ConnectionFailed",
    "ConnectionState",
    "ContentReceived",
    "DeliverEncoder",
    "Delivery",
    "Event",
    "Method",
    "MethodReceived",
    "Properties",
    "ProtocolError",
    "ProtocolHeaderError",
    "Publish",
    "Record",
    "Role",
    "ServerConnection",
    "encode_get_ok",
    "encode_record",
    "encode_return",
    "encode_route",
]
