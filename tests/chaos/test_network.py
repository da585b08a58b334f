"""The simulated network and processes behave as TCP and an operating system do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from trio.testing import MockClock

from chaos.simulation.network import CLIENTS, WINDOW_BYTES, Network, Socket, Weather
from chaos.simulation.process import HERE, Process, hold_tasks_of_stopped_processes

HERE_AT, THERE_AT = f"{CLIENTS}0.1", "127.0.0.2"
DELAY_S = 0.01


class Pair:
    """A connection from one process to another."""

    def __init__(self, network: Network, near: Socket, far: Socket) -> None:
        self.network = network
        self.near, self.far = near, far


@asynccontextmanager
async def connected() -> AsyncIterator[Pair]:
    events: list[str] = []
    network = Network(Random(1), weather=Weather((DELAY_S, DELAY_S)), trace=events.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        HERE.set(Process("there", THERE_AT))
        listener = network.socket()
        await listener.bind((THERE_AT, 5))
        listener.listen()
        HERE.set(Process("here", HERE_AT))
        near = network.socket()
        await near.connect((THERE_AT, 5))
        far, address = await listener.accept()
        assert address == near.getsockname()
        yield Pair(network, near, far)
        nursery.cancel_scope.cancel()


async def test_octets_arrive_in_order_and_after_the_delay(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        began = trio.current_time()
        for part in (b"one ", b"two ", b"three"):
            await pair.near.send(part)

        assert await pair.far.recv(5) == b"one t"
        assert trio.current_time() - began == pytest.approx(DELAY_S)
        assert await pair.far.recv(100) == b"wo three"


async def test_an_end_is_read_after_what_was_sent_before(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        await pair.near.send(b"last")
        pair.near.close()

        assert await pair.far.recv(100) == b"last"
        assert await pair.far.recv(100) == b""


async def test_a_sender_waits_for_a_reader_that_does_not_read(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sent = 0
        with trio.move_on_after(60):
            while True:
                sent += await pair.near.send(bytes(10_000))

        assert WINDOW_BYTES <= sent < WINDOW_BYTES + 10_000
        await pair.far.recv(WINDOW_BYTES)
        await trio.sleep(DELAY_S)
        assert await pair.near.send(b"more") == 4


async def test_what_is_sent_into_a_partition_arrives_after_it(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        pair.network.block(HERE_AT, THERE_AT)
        await pair.near.send(b"kept")
        await pair.far.send(b"the other way")
        with trio.move_on_after(10) as scope:
            await pair.far.recv(100)
        assert scope.cancelled_caught
        assert await pair.near.recv(100) == b"the other way"

        pair.network.unblock(HERE_AT, THERE_AT)
        pair.network.let_flow()

        assert await pair.far.recv(100) == b"kept"


async def test_nobody_connects_through_a_partition(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        pair.network.block(THERE_AT, HERE_AT)
        socket = pair.network.socket()
        with trio.move_on_after(5) as scope:
            await socket.connect((THERE_AT, 5))

        assert scope.cancelled_caught


async def test_a_killed_process_resets_its_connections(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        pair.far.process.die(tell_peers=True)

        with pytest.raises(ConnectionResetError):
            await pair.near.recv(100)
        with pytest.raises(ConnectionRefusedError):
            await pair.network.socket().connect((THERE_AT, 5))


async def test_a_host_without_power_says_nothing_until_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with connected() as pair:
        pair.network.dark[THERE_AT] = None
        pair.far.process.die(tell_peers=False)
        await pair.near.send(b"anybody?")
        with trio.move_on_after(10) as scope:
            await pair.near.recv(100)
        assert scope.cancelled_caught

        del pair.network.dark[THERE_AT]
        pair.network.let_flow()

        with pytest.raises(ConnectionResetError):
            await pair.near.recv(100)


async def test_a_forgotten_connection_is_silent_for_ever(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        pair.network.forget(pair.network.of_clients(THERE_AT))
        await pair.near.send(b"lost")
        with trio.move_on_after(1000) as scope:
            await pair.far.recv(100)

        assert scope.cancelled_caught


@pytest.mark.parametrize("end", [Socket.close, lambda socket: socket.orphan(tell_peer=False)])
async def test_whoever_waits_on_a_socket_that_is_closed_meanwhile_is_told(
    autojump_clock: MockClock, end: Callable[[Socket], None]
) -> None:
    async with connected() as pair, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pair.near.recv(100)

        nursery.start_soon(wait)
        await trio.sleep(1)
        end(pair.near)
        await trio.sleep(1)

        with pytest.raises(OSError, match="Bad file descriptor"):
            await pair.near.send(b"x")


async def test_a_stopped_process_does_nothing_while_time_and_others_go_on(
    autojump_clock: MockClock,
) -> None:
    hold_tasks_of_stopped_processes()
    process, ticks = Process("stopped", THERE_AT), []

    async def tick(name: str) -> None:
        while True:
            await trio.sleep(1)
            ticks.append((name, trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, "other")
        HERE.set(process)
        nursery.start_soon(tick, "stopped")
        HERE.set(Process("test", HERE_AT))
        await trio.sleep(2.5)
        process.stop()
        await trio.sleep(3)
        assert [("other", 3), ("other", 4), ("other", 5)] == ticks[4:]

        process.resume()
        await trio.sleep(0.1)

        assert ("stopped", 5.5) == ticks[7]
        nursery.cancel_scope.cancel()
