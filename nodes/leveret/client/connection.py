"""The trio face of a connection: its sockets, its tasks, and its end.

One task keeps the connection: it dials, shakes hands, reads; beside it one writes whatever has
gathered since its last turn, and one sends heartbeats. They live in a nursery that `async with`
opens and closes, shielded from the program's cancellations, so that an orderly close is possible
whatever ends the program's block.
"""

from __future__ import annotations

import logging
import os
import secrets
import ssl
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final, Self

import trio

from . import streams
from .address import Target, parse_url
from .attempts import Attempts
from .channel import Channel
from .core.connection import ConnectionCore, State
from .core.outcome import Outcome
from .errors import ClientError, ConnectionClosed, ConnectionLost, Misuse
from .face import ConnectionFace
from .message import Message
from .results import ConnectionStatistics, statistics_of
from .waiting import Parking, misused, wait_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .address import Address
    from .streams import Stream

log = logging.getLogger("leveret.client")

CLOSE_WITHIN_S: Final = 3.0
"""How long the broker may take to answer a goodbye."""
CHUNK_MIN: Final = 16 * 1024
CHUNK_MAX: Final = 256 * 1024
"""Octets that one receive asks for: doubled while they come full, a large block costs pages."""
OUTPUT_MAX: Final = 4 * 1024 * 1024
"""Octets that wait to be written before a publisher without confirms has to wait."""
SILENCE_MAX: Final = 4
"""Half intervals of heartbeats without a word of the broker before it counts as gone."""


def connect(
    url: str | Sequence[str] = "amqp://guest:guest@localhost:5672/",
    *,
    robust: bool = True,
    tls: ssl.SSLContext | None = None,
    name: str = "",
    give_up_after_s: float = float("inf"),
    rng: Random | None = None,
    dial: Callable[[Address, ssl.SSLContext | None, str | None], Awaitable[Stream]] = streams.dial,
) -> Connection:
    """A connection to a broker, to be entered with `async with`.

    url: `amqp://user:password@host1,host2/vhost`, or several such; all hosts are of one cluster.
    robust: after a loss go on at another address, as if nothing had been; without it the loss
        ends the connection, and everything fails with `ConnectionLost`.
    tls: the context for `amqps`; by default the system's authorities are trusted.
    name: what the broker's lists call the connection.
    give_up_after_s: seconds without any broker after which a robust connection ends.
    rng, dial: for tests: the jitter of the back-off, and how a transport is opened.

    Raises:
        InvalidUrl: the URL is malformed. On entering, further:
        ConnectFailed: no address could be connected to; it lists each with the reason.
        AuthenticationRefused, VirtualHostRefused: the broker does not want us.

    Example:
        >>> async def main() -> None:
        ...     async with connect(url) as connection, connection.channel() as channel:
        ...         await channel.declare_queue("hello")
        ...         await channel.publish(b"Hello, hare!", "hello")
        >>> trio.run(main)
    """
    target = parse_url(url, tls=tls)
    if name:
        target = replace(target, login=replace(target.login, name=name))
    return Connection(
        target,
        is_robust=robust,
        give_up_after_s=give_up_after_s,
        rng=rng or Random(),  # noqa: S311 - for back-off
        dial=dial,
    )


class Connection(ConnectionFace):
    """A connection; make it with `connect`. All tasks of its trio run may use it together.

    Example:
        >>> async def main() -> None:
        ...     async with connect(url) as connection:
        ...         print(connection.guarantee in ("exactly once", "at least once"))
        >>> trio.run(main)
        True
    """

    def __init__(
        self,
        target: Target,
        *,
        is_robust: bool,
        give_up_after_s: float,
        rng: Random,
        dial: Callable[[Address, ssl.SSLContext | None, str | None], Awaitable[Stream]],
    ) -> None:
        core = ConnectionCore(
            Message, is_robust=is_robust, publisher=secrets.token_hex(12), wake=self._wake
        )
        super().__init__(core, Attempts(target, rng, give_up_after_s=give_up_after_s))
        self._target = target
        self._login = target.login
        self._dial = dial
        self._token: trio.lowlevel.TrioToken | None = None
        self._writer = Parking()
        self._reader = Parking()
        self._room: list[Outcome[None]] = []
        self._scope = trio.CancelScope(shield=True)
        self._nursery: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._has_spoken = False
        self._has_heard = False

    async def __aenter__(self) -> Self:
        if self._nursery is not None:
            raise Misuse("a connection is entered once: call connect() for another one")
        self._token = trio.lowlevel.current_trio_token()
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._run)
        try:
            await wait_for(self._core.ready)
        except BaseException:
            self._scope.cancel()
            await self._nursery.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._nursery is not None
        try:
            await self.close()
        finally:
            self._scope.cancel()
            # What the program raised goes on as it is, not in a group: no task of ours raises.
            await self._nursery.__aexit__(None, None, None)

    async def close(self) -> None:
        """Say goodbye to the broker; nothing can be done with the connection afterwards.

        Done by itself at the end of `async with`. Shielded, for `CLOSE_WITHIN_S` at most.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         await connection.close()
            ...         try:
            ...             connection.channel()
            ...         except ConnectionClosed as error:
            ...             print(error)
            >>> trio.run(main)
            the connection was closed by the program: open another one
        """
        core = self._core
        if core.state is not State.CLOSED:
            with trio.move_on_after(CLOSE_WITHIN_S, shield=True):
                ended: Outcome[None] = Outcome()
                core.ended.append(ended)
                core.close()
                await wait_for(ended)
        self._scope.cancel()
        core.end(ConnectionClosed("the connection was closed by the program: open another one"))

    def channel(self, *, confirms: bool = True, transactional: bool = False) -> Channel:
        """A channel, to be entered with `async with`.

        confirms: `publish` waits until the broker has the message, and raises if it has not.
        transactional: publishes and acknowledgements count from `commit` on; without confirms.

        Raises:
            ConnectionClosed: the connection is closed.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         print(await channel.declare_queue("hello", durable=True))
            >>> trio.run(main)
            hello
        """
        if self._token is None:
            raise Misuse("the connection is not open yet: async with connect(…) as connection")
        self._core.check()
        return Channel(self, confirms=confirms and not transactional, transactional=transactional)

    async def update_secret(self, secret: str, reason: str = "") -> None:
        """Give the broker a new password or token before the old one expires. A checkpoint.

        Later logins of a robust connection use it too.

        Raises:
            ConnectionClosed: the connection is closed.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         await connection.update_secret("guest", "nightly rotation")
            >>> trio.run(main)
        """
        self._login = replace(self._login, password=secret)
        await wait_for(self._core.update_secret(secret, reason))

    def statistics(self) -> ConnectionStatistics:
        """Counters, and how the connection is now.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         print(connection.statistics().state)
            >>> trio.run(main)
            READY
        """
        return statistics_of(self._core)

    # For the channels

    def _check_thread(self) -> None:
        """Raises Misuse in another thread or trio run than the connection's."""
        try:
            is_ours = trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            is_ours = False
        if not is_ours:
            raise misused()

    def _wake(self) -> None:
        """The core has something to be written."""
        self._check_thread()
        self._writer.wake()

    async def _until_live(self) -> None:
        """Wait until there is a broker to talk to.

        Raises:
            ClientError: the connection is closed.
        """
        while self._core.state is not State.READY:
            self._core.check()
            await wait_for(self._core.ready)

    async def _until_unblocked(self) -> None:
        """Wait until the broker takes publishes."""
        while self._core.blocked is not None:
            outcome: Outcome[None] = Outcome()
            self._core.unblocked.append(outcome)
            await wait_for(outcome)

    async def _until_room(self) -> None:
        """Wait until what was written has mostly left. A checkpoint."""
        if self._core.out_bytes < OUTPUT_MAX:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        outcome: Outcome[None] = Outcome()
        self._room.append(outcome)
        await wait_for(outcome)

    def _resume_reading(self) -> None:
        """A consumer has taken what held the reader."""
        self._reader.wake()

    # The task that keeps the connection

    async def _run(self) -> None:
        with self._scope:
            await self._keep()

    async def _keep(self) -> None:
        """Connect, and in robust mode again and again, until the core is closed."""
        core, attempts = self._core, self._attempts
        attempts.begin(trio.current_time())
        while True:
            address = attempts.next(trio.current_time())
            ready, error = await self._attempt(address)
            if ready:
                attempts.succeeded(trio.current_time())
            if core.state is State.CLOSED:
                return
            if ready:
                log.warning("connection lost", extra={"broker": str(address), "why": str(error)})
            else:
                end = attempts.failed(address, error, trio.current_time())
                if end is not None:
                    core.end(end)
                    return
            await trio.sleep(attempts.pause_s())

    async def _attempt(self, address: Address) -> tuple[bool, ClientError]:
        """Connect to one address and converse until that ends.

        Returns whether the connection was usable meanwhile, and why it is not any more.
        """
        core = self._core
        timeout_s = self._target.connect_timeout_s
        deadline = trio.current_time() + timeout_s
        try:
            with trio.fail_at(deadline):
                stream = await self._dial(address, self._target.tls, self._target.server_hostname)
        except trio.TooSlowError:
            return False, ConnectionLost(f"no answer within {timeout_s:g} s")
        except streams.GONE as gone:
            return False, ConnectionLost(_reason(gone))
        if core.state is State.CLOSED:
            stream.close()
            return False, ConnectionLost("the connection was closed by the program")
        self._address = address
        try:
            core.attach(self._login)
            error = await self._converse(stream, deadline, timeout_s)
        finally:
            stream.close()
        was_ready = core.was_ready
        core.lost(error)
        return was_ready, core.failure or error

    async def _converse(self, stream: Stream, deadline: float, timeout_s: float) -> ClientError:
        """Read and write until the transport is of no use any more; why that is."""
        end: list[ClientError] = []
        async with trio.open_nursery() as nursery:
            handshake = trio.CancelScope(deadline=deadline)

            def stop(error: ClientError) -> None:
                end.append(error)
                nursery.cancel_scope.cancel()

            nursery.start_soon(self._write, stream, stop)
            nursery.start_soon(self._beat, stop)
            with handshake:
                await self._read(stream, stop, handshake)
            if handshake.cancelled_caught and self._core.is_cut_off:
                stop(self._leave(trio.current_time()))
            elif handshake.cancelled_caught:
                stop(ConnectionLost(f"no handshake within {timeout_s:g} s"))
        return end[0]

    async def _read(
        self, stream: Stream, stop: Callable[[ClientError], None], handshake: trio.CancelScope
    ) -> None:
        core = self._core
        size = CHUNK_MIN
        try:
            while core.failure is None and core.state is not State.CLOSED:
                data = await stream.receive(size)
                if not data:
                    break
                self._has_heard = True
                core.receive(data)
                if len(data) == size:
                    size = min(size * 2, CHUNK_MAX)
                elif len(data) * 4 < size:
                    size = max(size // 2, CHUNK_MIN)
                self._set_deadline(handshake)
                while core.is_full:
                    await self._reader.wait()
            await self._say_last_words(stream)
        except streams.GONE as error:
            stop(ConnectionLost(_reason(error)))
        else:
            stop(core.failure or ConnectionLost(core.closed_silently()))

    def _set_deadline(self, scope: trio.CancelScope) -> None:
        """Give the transport time: for the handshake, or to get its cluster back, or for ever."""
        core = self._core
        is_limited = scope.deadline != float("inf")
        if core.state is not State.READY:
            return
        if self._is_better_left:
            if not is_limited:
                now_s = trio.current_time()
                scope.deadline = now_s + self._patience_s(now_s)
        elif is_limited:
            scope.deadline = float("inf")
            self._learn_addresses()

    async def _say_last_words(self, stream: Stream) -> None:
        """Write what the core answered to the end: a close-ok."""
        last = self._core.take_output()
        if last and self._core.failure is not None:
            with trio.move_on_after(1):
                await stream.send_all(last)

    async def _write(self, stream: Stream, stop: Callable[[ClientError], None]) -> None:
        core = self._core
        try:
            while True:
                data = core.take_output()
                if data:
                    self._has_spoken = True
                    await stream.send_all(data)
                else:
                    if self._room:
                        room, self._room = self._room, []
                        for outcome in room:
                            outcome.succeed(None)
                    await self._writer.wait()
        except streams.GONE as error:
            stop(ConnectionLost(_reason(error)))

    async def _beat(self, stop: Callable[[ClientError], None]) -> None:
        """Send heartbeats when nothing else is sent, and miss those of the broker."""
        core = self._core
        with suppress(ClientError):
            await wait_for(core.ready)  # before, the handshake's deadline holds
        interval_s = core.heartbeat_s
        silent = 0
        while interval_s:
            await trio.sleep(interval_s / 2)
            if not self._has_spoken:
                core.beat()
            self._has_spoken = False
            silent = 0 if self._has_heard or self._reader.is_taken else silent + 1
            self._has_heard = False
            if silent >= SILENCE_MAX:
                stop(ConnectionLost(f"the broker was silent for {silent * interval_s / 2:g} s"))


def _reason(error: BaseException) -> str:
    """Why a transport failed, in words."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(dict.fromkeys(_reason(one) for one in error.exceptions))
    if (
        isinstance(error, OSError)
        and (error.errno or 0) > 0
        and not isinstance(error, ssl.SSLError)
    ):
        return os.strerror(error.errno or 0)  # without the words that trio puts around it
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error.__cause__, BaseException):
        return _reason(error.__cause__)
    if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
        return "the connection broke"
    return str(error) or type(error).__name__
