"""A node on a small disk of its own: full, it holds publishers back, and goes on unaided."""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from chaos.load import WITHIN_S, Consumer, Publisher
from chaos.verdict import judge
from leveret.storage import Journal, JournalConfig, RealDisk
from tests.cluster.conftest import NodeMaker, Opener
from tests.support.nodes import NodeFailed

DISK_BYTES = 48 << 20
RESERVE = "storage.reserve_bytes=8MiB"
SMALL = (RESERVE, "storage.segment_bytes=1MiB", "storage.disk_free_limit_bytes=20MiB")
SMALLER_THAN_A_SEGMENT = (
    RESERVE,
    "storage.segment_bytes=16MiB",
    "storage.disk_free_limit_bytes=8MiB",
)
TO_THE_LAST_BYTE = (RESERVE, "storage.segment_bytes=1MiB", "storage.disk_free_limit_bytes=0")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if mounted.returncode:
        pytest.skip(f"no tmpfs of our own: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("settings", [SMALL, SMALLER_THAN_A_SEGMENT, TO_THE_LAST_BYTE])
def test_a_full_disk_blocks_publishers_and_consuming_makes_room_again(
    settings: tuple[str, ...],
    small_disk: Path,
    make_node: NodeMaker,
    connect: Opener,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    node = make_node(*settings, data=small_disk / "data")
    node.start()
    url = node.urls[0]
    connect(url).channel().queue_declare("q", durable=True)
    publisher = publish(url, "q", window=1000)

    publisher.wait("connection.blocked", lambda: publisher.is_blocked, within_s=WITHIN_S)
    assert not publisher.nacked
    confirmed = len(publisher.confirmed)
    consumer = consume(url, "q", prefetch=500)
    publisher.wait("unblocked", lambda: not publisher.is_blocked, within_s=WITHIN_S)
    publisher.wait_confirmed(confirmed + 2000, within_s=WITHIN_S)
    publisher.finish()
    consumer.wait_distinct(publisher.next)
    consumer.close()

    verdict = judge(publisher.next, publisher.confirmed, consumer.deliveries)
    assert verdict.is_clean, verdict
    assert node.is_running


def test_a_disk_filled_by_somebody_else_costs_nothing_confirmed(
    small_disk: Path,
    make_node: NodeMaker,
    connect: Opener,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    node = make_node(*SMALL, data=small_disk / "data")
    node.start()
    url = node.urls[0]
    connect(url).channel().queue_declare("q", durable=True)
    publisher = publish(url, "q")
    publisher.wait_confirmed(1000)

    ballast = small_disk / "ballast"
    fill(ballast)
    publisher.wait("connection.blocked", lambda: publisher.is_blocked, within_s=WITHIN_S)
    ballast.unlink()
    publisher.wait_confirmed(len(publisher.confirmed) + 1000)
    fill(ballast)
    publisher.wait("connection.blocked", lambda: publisher.is_blocked, within_s=WITHIN_S)
    node.kill()
    publisher.wait_ended()
    fill(ballast)  # again: what the journal sealed meanwhile gave some room back
    with pytest.raises(
        NodeFailed, match=r"code 4\n(?s:.*)the disk of .* failed: boot: No space left on device"
    ):
        node.start()
    ballast.unlink()
    node.start()

    consumer = consume(url, "q")
    consumer.wait("all", lambda: consumer.distinct >= set(publisher.confirmed), within_s=WITHIN_S)
    consumer.close()
    verdict = judge(publisher.next, publisher.confirmed, consumer.deliveries)
    assert verdict.is_clean, verdict


def test_a_disk_without_a_byte_left_takes_what_is_acknowledged(
    small_disk: Path,
    make_node: NodeMaker,
    connect: Opener,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    node = make_node(*SMALL, data=small_disk / "data")
    node.start()
    url = node.urls[0]
    connect(url).channel().queue_declare("q", durable=True)
    publisher = publish(url, "q", window=1000)
    publisher.wait_confirmed(3000)
    oldest = min(small_disk.glob("data/segments/*.log"))

    ballast = small_disk / "ballast"
    fill(ballast)
    publisher.wait("connection.blocked", lambda: publisher.is_blocked, within_s=WITHIN_S)
    consumer = consume(url, "q")
    consumer.wait("all", lambda: consumer.distinct >= set(publisher.confirmed), within_s=WITHIN_S)
    # Goes when what was in it is settled, its group's snapshot saved, and the drop itself stored.
    wait_gone(oldest)
    assert publisher.is_blocked

    ballast.unlink()
    publisher.wait_confirmed(len(publisher.confirmed) + 2000)
    publisher.finish()
    consumer.wait_distinct(publisher.next)
    consumer.close()
    verdict = judge(publisher.next, publisher.confirmed, consumer.deliveries)
    assert verdict.is_clean, verdict
    assert node.is_running


async def test_a_segment_is_smaller_where_a_whole_one_has_no_room(small_disk: Path) -> None:
    disk = RealDisk(small_disk / "data")
    journal = await Journal.open(disk, JournalConfig(segment_bytes=2 * DISK_BYTES))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        journal.log(1).append(b"settled", 1, 1)
        with trio.fail_after(5):
            await journal.wait_durable(journal.appended)
        nursery.cancel_scope.cancel()

    assert not journal.blocked
    assert disk.free_bytes() > 0
    journal.close()
    disk.close()


def wait_gone(path: Path) -> None:
    """Wait until there is no such file."""
    deadline = time.monotonic() + WITHIN_S
    while path.exists():
        assert time.monotonic() < deadline, f"{path} is still there"
        time.sleep(0.05)


def fill(ballast: Path) -> None:
    """Take all the room that the disk has."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - what ends the loop
