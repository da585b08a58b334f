"""One established connection to one other node: its queue, writer, reader and pulse.

Owns: the order of bytes, the bound of the queue, the silence of the other side. Must not know:
who dials, what other links there are, who listens.

A large frame goes in parts, one at a time and between those of other channels; what is small
passes them. So nobody waits for the megabytes of another: a heartbeat least of all. Within a
channel the order stands: what is behind a large frame goes after its last part.

Each way is watched by itself: a side that has nothing to send sends an empty frame now and then,
and a side that hears no byte for long enough gives the link up. So a large payload under way,
however slow, is a sign of life; pings queued behind it need not arrive.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

import trio

from . import envelope
from .errors import EnvelopeError
from .opening import REFUSED, refusal, say_refused
from .wire import WIRE_ERRORS, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .config import TransportConfig
    from .handshake import Hello
    from .identity import NodeId
    from .wire import Wire

    Handler = Callable[[NodeId, object], None]

__all__ = ["Link", "tick_s"]

log = logging.getLogger("leveret.transport")


_STREAMS = 1 << 32


class _Lane:
    """What one channel has to send: the bodies of a large frame and of those behind it, in order.

    stream, offset: of the first one: its number, and how much of it has gone.
    """

    __slots__ = ("frames", "offset", "stream")

    def __init__(self) -> None:
        self.frames: deque[memoryview] = deque()
        self.offset = 0
        self.stream = 0


def tick_s(config: TransportConfig) -> float:
    """Return the seconds between two calls of `Link.tick`."""
    return config.ping_idle_s / 2


class Link:
    """A connection after its handshake. `run` until it fails; then it stays failed."""

    def __init__(
        self, wire: Wire, hello: Hello, handlers: Mapping[str, Handler], config: TransportConfig
    ) -> None:
        self.hello = hello
        self.node = hello.identity.node
        self.remote = wire.remote
        self.failure: str | None = None
        """Why the link is of no more use. Once set, nothing is queued or handed on."""
        self._wire = wire
        self._handlers = handlers
        self._config = config
        self._scope = trio.CancelScope()

        self._out = bytearray()
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        """Channels with a large frame under way; the first one sends the next part."""
        self._lanes_bytes = 0
        self._streams = 0
        self._sending_bytes = 0  # of the batch with the socket; > 0 also means a frame may be cut
        self._writer = trio.lowlevel.ParkingLot()

        self._heard = True
        self._silent_ticks = 0
        self._silent_ticks_max = math.ceil(config.silence_s / tick_s(config))
        self._has_queued = True
        self._last_words: str | None = None
        self._has_warned = False

    @property
    def queued_bytes(self) -> int:
        """Bytes that the socket has not taken yet; the batch under way counts whole."""
        return len(self._out) + self._lanes_bytes + self._sending_bytes

    def queue(self, channel: str, payload: object) -> bool:
        """Encode now, send with whatever else is queued by then; False if the link has failed.

        Raises:
            EnvelopeError: the payload cannot be sent at all (see `envelope.append_frame`).
        """
        if self.failure is not None:
            return False
        out, config = self._out, self._config
        start = len(out)
        envelope.append_frame(out, channel, payload, frame_max_bytes=config.frame_max_bytes)
        if len(out) - start > config.whole_bytes_max or (self._lanes and channel in self._lanes):
            self._set_aside(channel, start)
        self._has_queued = True
        if self._writer:
            self._writer.unpark()
        if self.queued_bytes > config.queue_limit_bytes:
            self.fail(f"it does not keep up: over {config.queue_limit_bytes} bytes are queued")
            return False
        return True

    def _set_aside(self, channel: str, start: int) -> None:
        """Have the frame that was appended last go in the channel's lane."""
        out, body_start = self._out, start + envelope.LENGTH.size
        # What is smaller is copied: a frame may have 100 MB, and what is before it would stay in
        # memory as long as a frame that refers to it.
        if start < len(out) - start:
            self._out, body = out[:start], memoryview(out)[body_start:]
        else:
            body = memoryview(out[body_start:])
            del out[start:]
        self._lanes.setdefault(channel, _Lane()).frames.append(body)
        self._lanes_bytes += len(body)

    def fail(self, reason: str) -> None:
        """Give the link up; the first reason stands. `run` returns soon."""
        if self.failure is None:
            self.failure = reason
            self._out = bytearray()
            self._lanes.clear()
            self._lanes_bytes = 0
            self._scope.cancel()

    def tick(self) -> None:
        """Count silence and show life. Called every `tick_s`.

        Ticks are counted, not seconds: after a pause of this very process (a stop, a long
        collection) one tick has passed, and what came meanwhile is read before the next.
        """
        self._silent_ticks = 0 if self._heard else self._silent_ticks + 1
        self._heard = False
        if self._silent_ticks >= self._silent_ticks_max:
            self.fail(f"it was silent for {self._config.silence_s:g} s")
            return
        if not self._has_queued and not self._sending_bytes and self.failure is None:
            self._out += envelope.SIGN_OF_LIFE
            self._writer.unpark()
        self._has_queued = False

    async def run(self) -> None:
        """Send and receive until the link fails; then `failure` has the reason."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()

    async def say_last_words(self) -> None:
        """Tell the other side of its mistake, if it made one and the stream allows."""
        if self._last_words is not None and not self._sending_bytes:
            await say_refused(self._wire, self._last_words)

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    async def _write(self) -> None:
        wire = self._wire
        try:
            while True:
                if not self._out and not self._lanes:
                    await self._writer.park()
                batch, self._out = self._out, bytearray()
                if self._lanes:
                    self._add_part(batch)
                self._sending_bytes = len(batch)
                await wire.send_all(batch)
                self._sending_bytes = 0
        except WIRE_ERRORS as error:
            self.fail(describe(error))

    def _add_part(self, batch: bytearray) -> None:
        """Append the next part of the lane whose turn it is."""
        channel, lane = self._lanes.popitem(last=False)
        frame = lane.frames[0]
        if not lane.offset:
            self._streams = lane.stream = (self._streams + 1) % _STREAMS
        end = min(lane.offset + self._config.part_bytes, len(frame))
        is_last = end == len(frame)
        envelope.append_part(batch, lane.stream, frame[lane.offset : end], is_last=is_last)
        self._lanes_bytes -= end - lane.offset
        lane.offset = 0 if is_last else end
        if is_last:
            lane.frames.popleft()
            self._add_whole(batch, lane.frames)
        if lane.frames:
            self._lanes[channel] = lane  # behind the others

    def _add_whole(self, batch: bytearray, frames: deque[memoryview]) -> None:
        """Append what waited behind a large frame, up to the next one.

        In parts it would take a turn for each frame, and a lane that gets more than that meanwhile
        would never come to its end.
        """
        small_max = self._config.whole_bytes_max - envelope.LENGTH.size
        while frames and len(frames[0]) <= small_max:
            body = frames.popleft()
            self._lanes_bytes -= len(body)
            batch += envelope.LENGTH.pack(len(body))
            batch += body

    async def _read(self) -> None:
        wire, config = self._wire, self._config
        receive_bytes = config.receive_bytes
        decoder = envelope.Decoder(
            frame_max_bytes=config.frame_max_bytes,
            unfinished_max_bytes=config.queue_limit_bytes,
        )
        try:
            while chunk := await wire.receive(receive_bytes):
                self._heard = True
                self._hand_on(decoder.feed(chunk))
            self.fail("it closed the connection")
        except EnvelopeError as error:
            self._last_words = str(error)
            self.fail(f"it broke the protocol: {error}")
        except WIRE_ERRORS as error:
            self.fail(describe(error))

    def _hand_on(self, messages: Sequence[envelope.Message]) -> None:
        handlers, node = self._handlers, self.node
        for channel, payload in messages:
            # A handler may have made the link fail: by what it sent, or by removing the peer.
            if self.failure is not None:
                return
            handler = handlers.get(channel)
            if handler is not None:
                handler(node, payload)
            else:
                self._unhandled(channel, payload)

    def _unhandled(self, channel: str, payload: object) -> None:
        if channel == REFUSED:
            self.fail(f"it refused this node: {refusal(payload)}")
        elif not self._has_warned:  # a newer node may have channels that this one lacks
            self._has_warned = True
            log.warning(
                "messages on an unknown channel are dropped",
                extra={"peer": self.node, "channel": channel[:64]},
            )
