"""The control socket: who may open the node's data folder may ask it things.

Bounded in everything: connections, the length of a line, the time for a line, for the answer and
for taking it. Whatever comes in is answered with a line, or hung up on.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path
from typing import Final

import trio

from .controls import ControlError, Controls, encode_error
from .place import SOCKET_FILE, short_path

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 32
"""A further one is told so and closed."""
LINE_BYTES_MAX: Final = 64 * 1024
"""A longer request is told so, and its connection is closed."""
LINE_WITHIN_S: Final = 60.0
"""A connection on which no request is complete for so long is closed."""
SEND_WITHIN_S: Final = 5.0
"""A connection that does not take its answer for so long is closed."""
ACCEPT_PAUSE_S: Final = 0.5
"""Rest after an accept that failed for want of file descriptors or memory."""


class ControlServer:
    """Serves `controls` on the socket in a data folder, which this process holds."""

    def __init__(self, folder: Path, controls: Controls) -> None:
        self._folder = folder
        self._controls = controls
        self._connections = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; a node without its control socket still serves clients.

        An earlier process's socket is replaced; the file goes at the end.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
            try:
                self._bind(bound)
            except OSError as error:
                log.warning(
                    "no control socket: `leveret ctl` cannot reach this node",
                    extra={"folder": str(self._folder), "reason": error.strerror or str(error)},
                )
                task_status.started()
                return
            listening = trio.socket.from_stdlib_socket(bound)
            try:
                task_status.started()
                await self._accept_forever(listening)
            finally:
                (self._folder / SOCKET_FILE).unlink(missing_ok=True)

    def _bind(self, bound: socket.socket) -> None:
        (self._folder / SOCKET_FILE).unlink(missing_ok=True)
        bound.setblocking(False)
        # Before it is bound, so that there is no moment at which others may connect (Linux);
        # and behind, for systems that heed only the file.
        os.fchmod(bound.fileno(), 0o600)
        with short_path(self._folder) as path:
            bound.bind(path)
        (self._folder / SOCKET_FILE).chmod(0o600)
        bound.listen(CONNECTIONS_MAX)

    async def _accept_forever(self, listening: trio.socket.SocketType) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    client, _ = await listening.accept()
                except OSError as error:
                    if error.errno in _SCARCE:
                        log.warning("cannot accept", extra={"reason": error.strerror})
                        await trio.sleep(ACCEPT_PAUSE_S)
                    continue
                nursery.start_soon(self._serve, client)

    async def _serve(self, client: trio.socket.SocketType) -> None:
        self._connections += 1
        try:
            with client:
                if self._connections > CONNECTIONS_MAX:
                    text = f"{CONNECTIONS_MAX} connections are open already"
                    error = ControlError("unavailable", text, remedy="close some, or wait")
                    await _send(client, encode_error(error))
                else:
                    await self._converse(client)
        except OSError:
            return  # it is gone
        finally:
            self._connections -= 1

    async def _converse(self, client: trio.socket.SocketType) -> None:
        buffer = b""
        while True:
            with trio.move_on_after(LINE_WITHIN_S) as waiting:
                while b"\n" not in buffer and len(buffer) <= LINE_BYTES_MAX:
                    chunk = await client.recv(LINE_BYTES_MAX)
                    if not chunk:
                        return
                    buffer += chunk
            if waiting.cancelled_caught:
                return
            line, end, rest = buffer.partition(b"\n")
            if len(line) > LINE_BYTES_MAX or not end:
                text = f"a request is a line of at most {LINE_BYTES_MAX} bytes"
                await _send(client, encode_error(ControlError("malformed", text)))
                return
            buffer = rest
            if line.strip() and not await _send(client, await self._controls.answer(line)):
                return


async def _send(client: trio.socket.SocketType, line: bytes) -> bool:
    """Send a line; False if it was not taken in time."""
    view = memoryview(line + b"\n")
    with trio.move_on_after(SEND_WITHIN_S) as sending:
        while view:
            view = view[await client.send(view) :]
    return not sending.cancelled_caught


_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
