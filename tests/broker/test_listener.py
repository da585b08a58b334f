"""How the listener ends, whatever it and its clients are doing at that moment."""

from __future__ import annotations

import errno
from hashlib import sha256
from typing import cast

import trio

from leveret.amqp import ClientConnection, spec
from leveret.amqp.events import Event, MethodReceived
from leveret.amqp.method import Method
from leveret.broker.connections.handshake import Greeting
from leveret.broker.connections.listener import Listener, ListenerConfig
from leveret.broker.connections.session import Services
from leveret.catalog.commands import PutUser, SetPermission
from leveret.catalog.model import PasswordHash
from tests.broker.node_lab import lab
from tests.broker.test_greeting import greeting

CONFIG = ListenerConfig(
    handshake_timeout_s=30,
    tls_handshake_timeout_s=30,
    connections_max=1,
    unauthenticated_max=1,
    message_size_max=1,
    in_flight_bytes_max=1,
    in_flight_bytes_total=1,
    backlog=1,
)


class Closing:
    """A socket that is closed between two accepts."""

    accepts = 0

    def listen(self, backlog: int) -> None:
        pass

    async def accept(self) -> object:
        await trio.lowlevel.checkpoint()
        self.accepts += 1
        assert self.accepts < 10, "it does not end"
        raise OSError(errno.EBADF, "Bad file descriptor")


async def test_a_socket_that_is_closed_between_two_accepts_ends_the_serving() -> None:
    listener = Listener(cast("Services", None), cast("Greeting", None), CONFIG)

    await listener.serve(cast("trio.socket.SocketType", Closing()))

    assert listener.connections == 0


async def test_who_logs_in_while_the_node_ends_is_hung_up_on() -> None:
    """Nothing would serve it: its publishes would find no actors, and no log that takes them."""
    async with lab() as node, trio.open_nursery() as nursery:
        password = PasswordHash("sha256", b"salt", sha256(b"saltpw").digest())
        await node.change(PutUser("ada", password, ()))
        await node.change(SetPermission("ada", "/", ".*", ".*", ".*"))
        listener = Listener(node.services, greeting([]), CONFIG)
        bound = await listener.bind("127.0.0.1", 0)
        await nursery.start(listener.serve, bound)
        client, protocol = await trio.open_tcp_stream(*bound.getsockname()), ClientConnection()
        nursery.start_soon(closed_at_the_end, bound, client)
        await client.send_all(protocol.begin())
        protocol.receive_data(await client.receive_some())  # connection.start

        await listener.close_all("broker forced connection closure with reason 'shutdown'")

        start_ok = spec.ConnectionStartOk(client_properties={}, response=b"\0ada\0pw")
        await client.send_all(protocol.send_method(0, start_ok))
        protocol.receive_data(await client.receive_some())  # connection.tune
        limits = {"channel_max": 1, "frame_max": 4096, "heartbeat": 0}
        await client.send_all(protocol.send_method(0, spec.ConnectionTuneOk(**limits)))
        await client.send_all(protocol.send_method(0, spec.ConnectionOpen(virtual_host="/")))
        channel_open = protocol.receive_data(await client.receive_some())  # open-ok
        assert [type(m) for m in methods(channel_open)] == [spec.ConnectionOpenOk]
        with trio.fail_after(30):
            assert b"" == await client.receive_some()
        assert listener.connections == 0
        nursery.cancel_scope.cancel()


async def closed_at_the_end(bound: trio.socket.SocketType, client: trio.SocketStream) -> None:
    with bound, client.socket:
        await trio.sleep_forever()


def methods(events: list[Event]) -> list[Method]:
    return [event.method for event in events if isinstance(event, MethodReceived)]
