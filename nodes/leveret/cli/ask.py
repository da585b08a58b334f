"""Asks a running node over its control socket."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import trio

from leveret.cli.exits import DataUnusable, Failure, InternalFailure, NodeUnreachable, NotDone
from leveret.node.control.controls import (
    ControlError,
    ErrorKind,
    decode_answer,
    encode_request,
)
from leveret.node.control.place import short_path

R = TypeVar("R")

ANSWER_WITHIN_S: Final = 15.0
"""Longer than a node takes for any request."""
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024

_FAILURES: Final[dict[ErrorKind, type[Failure]]] = {
    "malformed": InternalFailure,
    "not_found": NotDone,
    "refused": NotDone,
    "unavailable": NotDone,
    "timeout": NotDone,
    "internal": InternalFailure,
}


class NodeSocket:
    """A connection to the control socket of the node with a data folder.

    An asynchronous context manager.

    Raises:
        OSError: on enter, nobody listens there, or the folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buffer = b""

    async def __aenter__(self) -> Self:
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(self._folder) as path:
                await self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    async def ask(self, do: str, kind: type[R], **arguments: object) -> R:
        """Have the node do something; return its answer.

        Raises:
            ControlError: it answered with an error.
            OSError: it is gone.
        """
        view = memoryview(encode_request(do, arguments) + b"\n")
        while view:
            view = view[await self._socket.send(view) :]
        while b"\n" not in self._buffer:
            chunk = await self._socket.recv(64 * 1024)
            if not chunk or len(self._buffer) > ANSWER_BYTES_MAX:
                raise ConnectionResetError("the node hung up")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return decode_answer(line, kind)


async def ask_node(folder: Path, do: str, kind: type[R], **arguments: object) -> R:
    """Ask the node with this data folder one thing.

    Raises:
        Failure: it does not run, or did not do it; the text says what to do.
    """
    try:
        with trio.fail_after(ANSWER_WITHIN_S):
            async with NodeSocket(folder) as node:
                return await node.ask(do, kind, **arguments)
    except ControlError as error:
        remedy = f"; {error.remedy}" if error.remedy else ""
        raise _FAILURES[error.kind](f"{error.text}{remedy}") from None
    except PermissionError:
        raise DataUnusable(
            f"{folder} may not be read; run this as the user that runs the node"
        ) from None
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NodeUnreachable(
            f"no node runs on {folder}; start it with: leveret node --data-dir {folder}"
        ) from None
    except (OSError, trio.TooSlowError) as error:
        raise NodeUnreachable(
            f"the node on {folder} did not answer: {str(error) or 'no answer in time'}; see its log"
        ) from None


def ask_once(folder: Path, do: str, kind: type[R], **arguments: object) -> R:
    """Do `ask_node` outside of trio; blocks."""
    return trio.run(partial(ask_node, folder, do, kind, **arguments))
