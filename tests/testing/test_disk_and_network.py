"""What stands in for the machine under a broker in memory."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from leveret.storage import Disk
from leveret.testing.disk import MemoryDisk
from leveret.testing.network import WINDOW_BYTES, Host, MemorySocket, Network


def content(disk: Disk, name: str) -> bytes:
    return disk.read_file(name).read(0, 1000)


def test_what_was_appended_is_there_when_the_file_is_opened_again() -> None:
    disk: Disk = MemoryDisk()
    disk.append_file("segments/1", preallocate_bytes=1 << 30).write([b"one ", b"two"])
    again = disk.append_file("segments/1")

    assert again.size == 7
    again.write([b"!"])
    assert content(disk, "segments/1") == b"one two!"
    assert disk.list("segments") == ["1"]
    assert disk.list("snapshots") == []


def test_a_file_is_cut_read_in_part_and_written_again() -> None:
    disk = MemoryDisk()
    file = disk.append_file("log")
    file.write([b"0123456789"])
    file.truncate(6)
    file.write_again(2, b"23")

    assert content(disk, "log") == b"012345"
    assert disk.read_file("log").read(4, 10) == b"45"
    assert disk.read_file("log").read(10, 10) == b""


async def test_a_file_is_replaced_renamed_and_removed() -> None:
    disk = MemoryDisk()
    await disk.write_aside("boot", [b"1"])
    await disk.write_aside("boot", [b"2", b"3"])
    disk.rename("boot", "old")

    assert content(disk, "old") == b"23"
    with pytest.raises(FileNotFoundError):
        disk.read_file("boot")
    disk.remove("old")
    with pytest.raises(FileNotFoundError):
        disk.remove("old")
    assert disk.syncs == 2


async def connected() -> tuple[Host, MemorySocket, MemorySocket]:
    """Return a host that listens, a client's socket, and the host's end of it."""
    network = Network()
    server = Host(network)
    listening = server.socket()
    await listening.bind(("broker", 5672))
    listening.listen()
    client = await Host(network).connect(("broker", 5672))
    accepted, address = await listening.accept()
    assert address == client.getsockname() == accepted.getpeername()
    return server, client, accepted


async def test_bytes_come_in_order_and_an_end_comes_behind_them() -> None:
    _, client, accepted = await connected()
    await client.send(b"one ")
    await client.send(b"two")
    client.close()

    assert await accepted.recv(5) == b"one t"
    assert await accepted.recv(5) == b"wo"
    assert await accepted.recv(5) == b""
    with pytest.raises(ConnectionResetError):
        await accepted.send(b"three")


async def test_a_sender_waits_for_its_reader() -> None:
    _, client, accepted = await connected()
    assert await client.send(bytes(2 * WINDOW_BYTES)) == WINDOW_BYTES
    sent: list[int] = []

    async def send_more() -> None:
        sent.append(await client.send(b"more"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_more)
        await wait_all_tasks_blocked()
        assert sent == []

        await accepted.recv(10)
    assert sent == [4]


async def test_nobody_is_reached_where_nobody_listens() -> None:
    network = Network()
    with pytest.raises(ConnectionRefusedError):
        await Host(network).connect(("broker", 5672))


async def test_an_address_is_taken_once() -> None:
    network = Network()
    one = Host(network).socket()
    await one.bind(("broker", 5672))
    one.listen()
    with pytest.raises(OSError, match="Address already in use"):
        await Host(network).socket().bind(("broker", 5672))

    one.close()
    await Host(network).socket().bind(("broker", 5672))


async def test_a_crash_resets_what_a_host_had_and_frees_its_addresses() -> None:
    server, client, accepted = await connected()
    await accepted.send(b"on its way")
    server.crash()

    with pytest.raises(ConnectionResetError):
        await client.recv(10)
    with pytest.raises(ConnectionResetError):
        await client.send(b"hello?")
    await server.socket().bind(("broker", 5672))


async def test_a_socket_that_is_closed_by_another_task_says_so() -> None:
    _, client, _ = await connected()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.recv(10)

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        client.close()
