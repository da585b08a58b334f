"""Lines of a pipe."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio


async def lines_of(stream: trio.abc.ReceiveStream) -> AsyncGenerator[bytes]:
    """Yield the whole lines that come, until the end, without their ends."""
    pieces: list[bytes] = []
    async for chunk in stream:
        first, *others = bytes(chunk).split(b"\n")
        pieces.append(first)
        for other in others:
            yield b"".join(pieces)
            pieces = [other]
