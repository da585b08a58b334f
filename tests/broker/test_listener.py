"""The listener ends when its socket is closed, whatever it is doing at that moment."""

from __future__ import annotations

import errno
from typing import cast

import trio

from leveret.broker.connections.handshake import Greeting
from leveret.broker.connections.listener import Listener, ListenerConfig
from leveret.broker.connections.session import Services


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
    config = ListenerConfig(
        handshake_timeout_s=1,
        tls_handshake_timeout_s=1,
        connections_max=1,
        unauthenticated_max=1,
        message_size_max=1,
        in_flight_bytes_max=1,
        in_flight_bytes_total=1,
        backlog=1,
    )
    listener = Listener(cast("Services", None), cast("Greeting", None), config)

    await listener.serve(cast("trio.socket.SocketType", Closing()))

    assert listener.connections == 0
