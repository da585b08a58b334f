"""The `leveret` command with a small node inside, which listens, greets and behaves as it is told.

Run as a program it stands for `python -m leveret.cli.main`, with everything of the command real
but the broker. FAKE_NODE in the environment chooses the behaviour:

    (none)     greets clients with the first octet of a frame; stops when asked
    stubborn   as above, but does not stop when asked
    stuck      as above, but keeps the loop busy for ever once it is ready
    corrupt    finds its journal damaged
    bug        fails with an error that nobody expected
"""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Callable

import trio

from leveret.cli.main import main
from leveret.node.config import NodeConfig
from leveret.node.endpoints import Endpoints
from leveret.storage.errors import CorruptJournal
from leveret.transport.identity import Address

FRAME_OF_A_METHOD = b"\x01"


async def run_node(config: NodeConfig, *, on_ready: Callable[[Endpoints], None]) -> None:
    """Listen on the configured addresses and do as FAKE_NODE says."""
    behaviour = os.environ.get("FAKE_NODE", "")
    if behaviour == "corrupt":
        raise CorruptJournal("journal/00000001", 4711, "checksum")
    if behaviour == "bug":
        raise ZeroDivisionError("nobody expected this")
    listeners = []
    for address in config.amqp.listen:
        listeners += await trio.open_tcp_listeners(address.port, host=address.host)
    bound = tuple(Address(*one.socket.getsockname()[:2]) for one in listeners)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, _greet, listeners)
            on_ready(Endpoints(amqp=bound))
            if behaviour == "stuck":
                while True:
                    time.sleep(0.01)  # noqa: ASYNC251 - that is the fault played here
            await trio.sleep_forever()
    finally:
        if behaviour == "stubborn":
            print("stubborn", flush=True)
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()


async def _greet(stream: trio.SocketStream) -> None:
    async with stream:
        if await stream.receive_some(8):
            await stream.send_all(FRAME_OF_A_METHOD)


def install() -> None:
    """Put the small node where the command looks for the real one."""
    application = types.ModuleType("leveret.node.application")
    application.run_node = run_node  # type: ignore[attr-defined]
    sys.modules["leveret.node.application"] = application


if __name__ == "__main__":
    install()
    main()
