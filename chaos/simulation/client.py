"""A small AMQP client for simulated worlds: one connection, one channel, no tasks of its own.

It pulls: whoever owns it asks for the next event, and nothing is read in between. On the product's
own codec, whose client's role is tested against foreign brokers' octets elsewhere.
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

import trio

from leveret.amqp import (
    HEARTBEAT,
    ChannelFailed,
    ClientConnection,
    ConnectionFailed,
    Event,
    Method,
    MethodReceived,
    Properties,
    spec,
)

M = TypeVar("M", bound=Method)

CHANNEL = 1
RECEIVE_BYTES = 1 << 16


class Gone(Exception):
    """The connection is over, or nothing is heard of the broker any more; says why."""


class Refused(Exception):
    """The broker closed the channel: the operation is not allowed or its object is missing."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Client:
    """A connection with channel 1 open. Close it by `close` or, without a word, by `drop`.

    out_of_band: what the channel is opened with, at first.
    """

    def __init__(self, address: str, port: int, *, out_of_band: str = "") -> None:
        self._address = address, port
        self._out_of_band = out_of_band
        self._socket = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_STREAM)
        self._protocol = ClientConnection()
        self._events: deque[Event] = deque()
        self._heartbeat_s = 0.0
        self._heard_s = self._sent_s = trio.current_time()

    async def open(self, *, within_s: float) -> None:
        """Connect, log in, open the channel.

        Raises:
            Gone: not in time, or not at all.
        """
        with trio.move_on_after(within_s) as scope:
            try:
                await self._socket.connect(self._address)
                await self._shake_hands()
            except OSError as error:
                raise self._gone(str(error)) from error
        if scope.cancelled_caught:
            raise self._gone("no answer to the connection")

    async def _shake_hands(self) -> None:
        await self._send(self._protocol.begin())
        await self._expect(0, spec.ConnectionStart)
        await self._say(
            0,
            spec.ConnectionStartOk(
                client_properties={
                    "capabilities": {
                        "consumer_cancel_notify": True,
                        "connection.blocked": True,
                        "publisher_confirms": True,
                        "basic.nack": True,
                    }
                },
                mechanism="PLAIN",
                response=b"\0guest\0guest",
                locale="en_US",
            ),
        )
        tune = await self._expect(0, spec.ConnectionTune)
        self._heartbeat_s = tune.heartbeat
        await self._say(
            0,
            spec.ConnectionTuneOk(
                channel_max=tune.channel_max, frame_max=tune.frame_max, heartbeat=tune.heartbeat
            ),
        )
        await self._say(0, spec.ConnectionOpen(virtual_host="/"))
        await self._expect(0, spec.ConnectionOpenOk)
        await self._say(CHANNEL, spec.ChannelOpen(out_of_band=self._out_of_band))
        await self._expect(CHANNEL, spec.ChannelOpenOk)

    async def call(self, method: Method, answer: type[M], *, within_s: float = 5.0) -> M:
        """Send a method and return its answer; events that come before it stay.

        Raises:
            Refused: the channel was closed; it is open again.
            Gone: no answer in time.
        """
        with trio.move_on_after(within_s):
            await self._say(CHANNEL, method)
            return await self._expect(CHANNEL, answer)
        raise self._gone(f"no answer to {method.NAME} within {within_s} s")

    async def tell(self, method: Method) -> None:
        """Send a method that has no answer."""
        await self._say(CHANNEL, method)

    async def publish(self, exchange: str, routing_key: str, body: bytes) -> None:
        """Send a message, persistent and mandatory."""
        header = Properties(delivery_mode=2).encode(len(body))
        method = spec.BasicPublish(exchange=exchange, routing_key=routing_key, mandatory=True)
        await self._send(self._protocol.send_content(CHANNEL, method, header, body))

    async def next(self, *, within_s: float) -> Event | None:
        """Return the next event, or None after a time without one.

        Raises:
            Gone: the connection is over.
            Refused: the channel was closed; it is open again.
        """
        until_s = trio.current_time() + within_s
        while not self._events:
            wait_s = until_s - trio.current_time()
            if wait_s <= 0:
                return None
            await self._read(wait_s)
        event = self._events.popleft()
        match event:
            case MethodReceived(method=spec.ChannelClose() as close):
                await self._reopen(close)
            case MethodReceived(method=spec.ConnectionClose() as ending):
                raise self._gone(f"{ending.reply_code} {ending.reply_text}")
            case ChannelFailed() | ConnectionFailed():
                raise AssertionError(f"the broker broke the protocol: {event}")
        return event

    async def close(self) -> None:
        """Close the connection in order; within a second, whatever happens."""
        with trio.move_on_after(1):
            try:
                await self._say(
                    0,
                    spec.ConnectionClose(reply_code=200, reply_text="bye", class_id=0, method_id=0),
                )
                while True:
                    await self._expect(0, spec.ConnectionCloseOk)
                    break
            except (Gone, Refused):
                pass
        self.drop()

    def drop(self) -> None:
        """Close the socket without a word."""
        self._socket.close()

    async def _reopen(self, close: spec.ChannelClose) -> None:
        await self._say(CHANNEL, spec.ChannelCloseOk())
        self._events.clear()
        await self._say(CHANNEL, spec.ChannelOpen())
        await self._expect(CHANNEL, spec.ChannelOpenOk)
        raise Refused(close.reply_code, close.reply_text)

    async def _expect(self, channel: int, kind: type[M]) -> M:
        kept: list[Event] = []
        try:
            while True:
                event = await self.next(within_s=60)
                if (
                    isinstance(event, MethodReceived)
                    and event.channel == channel
                    and isinstance(event.method, kind)
                ):
                    return event.method
                if event is not None:
                    kept.append(event)
        finally:
            self._events.extendleft(reversed(kept))

    async def _read(self, wait_s: float) -> None:
        """Read once, for so long; meanwhile keep the connection alive."""
        if self._heartbeat_s:
            if trio.current_time() - self._sent_s >= self._heartbeat_s / 2:
                await self._send(HEARTBEAT)
            if trio.current_time() - self._heard_s > 2 * self._heartbeat_s:
                raise self._gone("silence")
            wait_s = min(wait_s, self._heartbeat_s / 2)
        data: bytes | None = None
        with trio.move_on_after(wait_s):
            try:
                data = await self._socket.recv(RECEIVE_BYTES)
            except OSError as error:
                raise self._gone(str(error)) from error
        if data is None:
            return
        if not data:
            raise self._gone("closed by the broker")
        self._heard_s = trio.current_time()
        self._events.extend(self._protocol.receive_data(data))

    async def _say(self, channel: int, method: Method) -> None:
        await self._send(self._protocol.send_method(channel, method))

    async def _send(self, data: bytes) -> None:
        self._sent_s = trio.current_time()
        try:
            while data:
                with trio.move_on_after(10) as scope:
                    data = data[await self._socket.send(data) :]
                if scope.cancelled_caught:
                    raise self._gone("it takes nothing any more")
        except OSError as error:
            raise self._gone(str(error)) from error

    def _gone(self, reason: str) -> Gone:
        self._socket.close()
        return Gone(reason)
