"""The blocking face of a connection: its thread, its locks, and what becomes of it in a fork.

Threads of the program call the core under one lock, and write what comes of it themselves, as far
as the socket takes it; so a publish costs no change of threads on its way out. The connection's
own thread reads, and does what is due at a time: heartbeats, new attempts, acknowledgements that
nobody has flushed. It holds the lock only while the core is at work, never while it waits.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import threading
import time
import weakref
from contextlib import nullcontext, suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final, Self, TypeVar

from leveret.client.address import parse_url
from leveret.client.attempts import Attempts
from leveret.client.core.connection import ConnectionCore, State
from leveret.client.core.outcome import Outcome
from leveret.client.errors import (
    ClientError,
    ConnectionClosed,
    ConnectionLost,
    Misuse,
    TimedOut,
)
from leveret.client.face import ConnectionFace
from leveret.client.results import ConnectionStatistics, statistics_of

from .channel import Channel
from .message import Message
from .transport import Transport, dial

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from types import TracebackType

    from leveret.client.address import Address, Target

log = logging.getLogger("leveret.client")

CLOSE_WITHIN_S: Final = 3.0
"""How long the broker may take to answer a goodbye."""
TICK_S: Final = 0.02
"""How long acknowledgements wait at most for company."""
SILENCE_MAX: Final = 4
"""Half intervals of heartbeats without a word of the broker before it counts as gone."""
OUTPUT_MAX: Final = 4 * 1024 * 1024
"""Octets that wait to be written before a publisher without confirms has to wait."""

T = TypeVar("T")


def connect(
    url: str | Sequence[str] = "amqp://guest:guest@localhost:5672/",
    *,
    robust: bool = True,
    tls: ssl.SSLContext | None = None,
    name: str = "",
    timeout_s: float = float("inf"),
    give_up_after_s: float = float("inf"),
    rng: Random | None = None,
) -> Connection:
    """Open a connection to a broker; close it with `close`, or use `with`.

    url, robust, tls, name, give_up_after_s: as for `leveret.client.connect`.
    timeout_s: seconds that any one call may take before it raises `TimedOut`.

    Raises:
        InvalidUrl: the URL is malformed.
        ConnectFailed: no address could be connected to; it lists each with the reason.
        AuthenticationRefused, VirtualHostRefused: the broker does not want us.

    Example:
        >>> with connect(url) as connection:
        ...     channel = connection.channel()
        ...     queue = channel.declare_queue("hello")
        ...     channel.publish(b"Hello, hare!", "hello")
    """
    target = parse_url(url, tls=tls)
    if name:
        target = replace(target, login=replace(target.login, name=name))
    connection = Connection(
        target,
        is_robust=robust,
        timeout_s=timeout_s,
        give_up_after_s=give_up_after_s,
        rng=rng or Random(),  # noqa: S311 - for back-off
    )
    connection._open()
    return connection


class Connection(ConnectionFace):
    """A connection; make it with `connect`. Any number of threads may use it.

    Example:
        >>> with connect(url) as connection:
        ...     print(connection.is_connected)
        True
    """

    def __init__(
        self,
        target: Target,
        *,
        is_robust: bool,
        timeout_s: float,
        give_up_after_s: float,
        rng: Random,
    ) -> None:
        core = ConnectionCore(
            Message, is_robust=is_robust, publisher=secrets.token_hex(12), wake=self._wake
        )
        super().__init__(core, Attempts(target, rng, give_up_after_s=give_up_after_s))
        self.timeout_s = timeout_s
        """Seconds that any one call may take."""
        self._target = target
        self._login = target.login
        self._lock = threading.RLock()
        self._core.lock = self._lock
        self._thread: threading.Thread | None = None
        self._transport: Transport | None = None
        self._is_ticking = False
        self._has_spoken = False
        self._pause = threading.Event()
        _connections.add(self)

    def _open(self) -> None:
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye to the broker; nothing can be done with the connection afterwards.

        Example:
            >>> connection = connect(url)
            >>> connection.close()
            >>> connection.channel()
            Traceback (most recent call last):
            leveret.client.errors.ConnectionClosed: the connection was closed by the ...
        """
        core = self._core
        ended: Outcome[None] = Outcome()
        with self._lock:
            if not core.is_closed:
                core.ended.append(ended)
                core.close()
                self._flush()
        if not core.is_closed:
            with suppress(TimedOut):  # it has had its time
                self._wait(ended, CLOSE_WITHIN_S)
        with self._lock:
            core.end(ConnectionClosed("the connection was closed by the program: open another one"))
            self._pause.set()
            if self._transport is not None:
                self._transport.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_WITHIN_S)

    def channel(self, *, confirms: bool = True, transactional: bool = False) -> Channel:
        """Open a channel; close it with `close`, or use `with`.

        confirms: `publish` waits until the broker has the message, and raises if it has not.
        transactional: publishes and acknowledgements count from `commit` on; without confirms.

        Raises:
            ConnectionClosed: the connection is closed.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     print(channel.declare_queue("hello"))
            hello
        """
        with self._lock:
            core = self._core.open_channel(
                confirms=confirms and not transactional, transactional=transactional
            )
            self._flush()
        self._wait(core.opened)
        return Channel(self, core)

    def update_secret(self, secret: str, reason: str = "") -> None:
        """Give the broker a new password or token before the old one expires.

        Raises:
            ConnectionClosed: the connection is closed.

        Example:
            >>> with connect(url) as connection:
            ...     connection.update_secret("guest", "nightly rotation")
        """
        with self._lock:
            self._login = replace(self._login, password=secret)
            call = self._core.update_secret(secret, reason)
            self._flush()
        self._wait(call)

    def statistics(self) -> ConnectionStatistics:
        """Counters, and how the connection is now.

        Example:
            >>> with connect(url) as connection:
            ...     print(connection.statistics().state)
            READY
        """
        with self._lock:
            return statistics_of(self._core)

    # For the channels

    def _wake(self) -> None:
        """The core has something to be written: at the latest at the next tick."""
        if not self._is_ticking:
            self._is_ticking = True
            if self._transport is not None:
                self._transport.wake()

    def _flush(self) -> None:
        """Write what there is, as far as the socket takes it; under the lock."""
        self._ensure_thread()
        transport = self._transport
        if transport is None:
            return
        data = self._core.take_output()
        if data:
            self._has_spoken = True
            try:
                transport.send(data)
            except OSError as error:
                self._core.broken(_reason(error))
                transport.wake()

    def _wait(self, outcome: Outcome[T], timeout_s: float | None = None) -> T:
        """The value of `outcome`, when it is done.

        Raises:
            ClientError: it failed. TimedOut: it is not done in time.
        """
        if not outcome.is_done:
            if threading.current_thread() is self._thread:
                raise Misuse("a callback of the connection's own thread must not wait for it")
            woken = threading.Lock()
            woken.acquire()
            with self._lock:
                if not outcome.is_done:
                    others = outcome.notify

                    def wake(done: Outcome[T]) -> None:
                        woken.release()
                        if others is not None:
                            others(done)

                    outcome.notify = wake
            limit_s = self.timeout_s if timeout_s is None else timeout_s
            if not outcome.is_done and not woken.acquire(
                timeout=-1 if limit_s == float("inf") else max(limit_s, 0)
            ):
                raise TimedOut(f"no answer within {limit_s:g} s")
        return outcome.result()

    def _wait_ready(self) -> None:
        """Wait until there is a broker to talk to.

        Raises:
            ClientError: the connection is closed.
        """
        while self._core.state is not State.READY:
            with self._lock:
                self._core.check()
                self._ensure_thread()
                ready = self._core.ready
            self._wait(ready)

    def _wait_unblocked(self) -> None:
        """Wait until the broker takes publishes."""
        while self._core.blocked is not None:
            outcome: Outcome[None] = Outcome()
            with self._lock:
                if self._core.blocked is None:
                    return
                self._core.unblocked.append(outcome)
            self._wait(outcome)

    def _wait_room(self) -> None:
        """Wait while too much waits to be written."""
        while (transport := self._transport) is not None and transport.unsent > OUTPUT_MAX:
            self._pause.wait(TICK_S)
            self._core.check()

    # The connection's own thread

    def _ensure_thread(self) -> None:
        if self._thread is None and not self._core.is_closed:
            self._thread = threading.Thread(target=self._keep, name="leveret.client", daemon=True)
            self._thread.start()

    def _keep(self) -> None:
        """Connect, and in robust mode again and again, until the core is closed."""
        core, attempts = self._core, self._attempts
        attempts.begin(time.monotonic())
        while not core.is_closed:
            address = attempts.next(time.monotonic())
            ready, error = self._attempt(address)
            if ready:
                attempts.succeeded(time.monotonic())
                if not core.is_closed:
                    log.warning(
                        "connection lost", extra={"broker": str(address), "why": str(error)}
                    )
            else:
                end = attempts.failed(address, error, time.monotonic())
                if end is not None:
                    with self._lock:
                        core.end(end)
                    return
            self._pause.wait(attempts.pause_s())

    def _attempt(self, address: Address) -> tuple[bool, ClientError]:
        """Connect to one address and converse until that ends, see the trio face."""
        core = self._core
        target = self._target
        timeout_s = target.connect_timeout_s
        deadline = time.monotonic() + timeout_s
        try:
            transport = dial(address, target.tls, target.server_hostname, timeout_s)
        except OSError as gone:
            return False, ConnectionLost(_reason(gone))
        with self._lock:
            if core.is_closed:
                transport.close()
                return False, ConnectionLost("the connection was closed by the program")
            self._transport = transport
            self._address = address
            core.attach(self._login)
            self._flush()
        error: ClientError
        try:
            error = self._converse(transport, deadline)
        except OSError as gone:
            error = ConnectionLost(_reason(gone))
        with self._lock:
            was_ready = core.was_ready
            self._transport = None
            self._is_ticking = False
            transport.close()
            core.lost(error)
            return was_ready, core.failure or error

    def _converse(self, transport: Transport, deadline: float) -> ClientError:
        """Read and write until the transport is of no use any more; why that is."""
        core = self._core
        silent = 0
        beat_at = tick_at = float("inf")
        has_heard = False
        while True:
            now = time.monotonic()
            if self._is_ticking and tick_at == float("inf"):
                tick_at = now + TICK_S
            next_at = min(beat_at, deadline, tick_at)
            transport.wait(max(min(next_at, now + 60) - now, 0))
            data = None
            if not core.is_full:
                # TLS has one state for both directions, so nobody may write meanwhile.
                with self._lock if transport.is_tls else nullcontext():
                    data = transport.receive()
            if data == b"":
                return core.failure or ConnectionLost(core.closed_silently())
            now = time.monotonic()
            with self._lock:
                if data:
                    has_heard = True
                    core.receive(data)
                    if core.state is State.READY:
                        if self._is_better_left:
                            deadline = min(deadline, now + self._patience_s(now))
                        elif deadline != float("inf"):
                            deadline = float("inf")
                            self._learn_addresses()
                        if core.heartbeat_s and beat_at == float("inf"):
                            beat_at = now + core.heartbeat_s / 2
                if transport.unsent:
                    transport.send(b"")
                if data or now >= tick_at:
                    self._is_ticking = False
                    tick_at = float("inf")
                    self._flush()
                if core.failure is not None:
                    return core.failure
                if core.is_closed:
                    return ConnectionLost("the connection was closed by the program")
                if now >= deadline and core.is_cut_off:
                    return self._leave(now)
                if now >= deadline:
                    limit_s = self._target.connect_timeout_s
                    return ConnectionLost(f"no handshake within {limit_s:g} s")
                if now >= beat_at:
                    beat_at = now + core.heartbeat_s / 2
                    if not self._has_spoken:
                        core.beat()
                        self._flush()
                    self._has_spoken = False
                    silent = 0 if has_heard or core.is_full else silent + 1
                    has_heard = False
                    if silent >= SILENCE_MAX:
                        silent_s = silent * core.heartbeat_s / 2
                        return ConnectionLost(f"the broker was silent for {silent_s:g} s")
            if core.is_full:
                self._pause.wait(TICK_S)

    # Forks

    def _forked(self) -> None:
        """In the child: let go of the parent's transport, begin anew when used."""
        self._lock = threading.RLock()
        self._core.lock = self._lock
        self._pause = threading.Event()
        self._thread = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        self._is_ticking = False
        if not self._core.is_closed:
            self._core.forked(secrets.token_hex(12))


def _reason(error: OSError) -> str:
    """Why a transport failed, in words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or str(error) or type(error).__name__


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_held: list[Connection] = []


def _before_fork() -> None:
    """Wait until no core is in the middle of something."""
    _held[:] = list(_connections)
    for connection in _held:
        connection._lock.acquire()


def _after_fork_in_parent() -> None:
    for connection in _held:
        connection._lock.release()
    _held.clear()


def _after_fork_in_child() -> None:
    for connection in _held:
        connection._forked()
    _held.clear()


def _close_all() -> None:
    """At the program's end: what was acknowledged and not told yet would be lost."""
    for connection in list(_connections):
        connection.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):  # there are no forks on Windows
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
