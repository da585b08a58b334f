"""What holds publishers back, and which reason they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import pytest
import trio
import trio.testing

from leveret.node.alarms import GIVE_BACK_S, LOOK_S, Alarms
from leveret.node.majority import Majority
from leveret.node.memory import MemoryWatch
from leveret.node.units import Watermark
from leveret.storage import Disk, Journal
from leveret.transport import NodeId, Peers

T = TypeVar("T")

LIMIT_BYTES = 1000


class FakeDisk:
    def __init__(self) -> None:
        self.free = 2 * LIMIT_BYTES

    def free_bytes(self) -> int:
        return self.free


class FakeJournal:
    blocked = False

    def on_blocked(self, listener: Callable[[bool], None]) -> None:
        self.tell = listener

    def on_segment(self, listener: Callable[[], None]) -> None:
        self.make_segment = listener


class FakePeers:
    """The links to nodes 2 and 3."""

    def __init__(self) -> None:
        self.up = {2, 3}
        self.told: list[tuple[int, object]] = []

    def send(self, node: int, channel: str, payload: object) -> bool:
        self.told.append((node, payload))
        return True

    def on_message(self, channel: str, handler: Callable[[int, object], None]) -> None:
        self.says = handler

    def on_up(self, handler: Callable[[int], None]) -> None:
        self.link_up = handler

    def on_down(self, handler: Callable[[int], None]) -> None:
        self.link_down = handler


class FakeMemory:
    """Of 1,000 bytes."""

    def __init__(self) -> None:
        self.used = 0
        self.given_back = 0

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return 1000

    def give_back(self) -> None:
        self.given_back += 1


class FakeMajority:
    lost = False

    def is_lost(self) -> bool:
        return self.lost


async def at_once(work: Callable[[], T], *, limiter: object = None) -> T:
    return work()


class Lab:
    """The alarms of node 1, and what publishers were told."""

    def __init__(self) -> None:
        self.disk, self.journal, self.peers = FakeDisk(), FakeJournal(), FakePeers()
        self.majority = FakeMajority()
        self.memory = FakeMemory()
        self.told: list[str | None] = []
        self.alarms = Alarms(
            cast("Disk", self.disk),
            cast("Journal", self.journal),
            cast("Peers", self.peers),
            node=NodeId(1),
            free_limit_bytes=LIMIT_BYTES,
            memory=MemoryWatch(self.memory, Watermark(fraction=0.6)),
            majority=cast("Majority", self.majority),
            in_thread=at_once,
            changed=self.told.append,
        )


@pytest.fixture
async def lab(nursery: trio.Nursery) -> Lab:
    made = Lab()
    nursery.start_soon(made.alarms.run)
    return made


async def looked() -> None:
    await trio.sleep(2 * LOOK_S)


async def test_a_disk_that_is_low_is_told_to_publishers_and_to_the_other_nodes(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    lab.disk.free = LIMIT_BYTES - 1
    await looked()
    assert lab.told == ["low on disk"]
    assert lab.peers.told == [(2, ["low on disk"]), (3, ["low on disk"])]
    assert lab.alarms.texts() == ["low on disk on node 1"]

    lab.disk.free = LIMIT_BYTES
    await looked()
    assert lab.told == ["low on disk", None]
    assert lab.peers.told[2:] == [(2, []), (3, [])]


async def test_a_new_segment_that_leaves_little_room_is_noticed_at_once(lab: Lab) -> None:
    lab.disk.free = LIMIT_BYTES - 1
    lab.journal.make_segment()

    assert lab.told == ["low on disk"]


async def test_a_disk_that_is_low_elsewhere_counts_until_that_link_breaks(lab: Lab) -> None:
    lab.peers.says(2, ("low on disk",))
    assert lab.told == ["low on disk"]
    assert not lab.alarms.is_disk_low

    lab.peers.link_down(2)
    assert lab.told == ["low on disk", None]


async def test_a_lost_majority_is_told_to_the_own_publishers_alone_until_it_is_back(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    lab.majority.lost = True
    await looked()
    assert lab.told == ["no majority of the cluster's nodes"]
    assert lab.alarms.texts() == ["no majority of the cluster's nodes"]
    assert lab.peers.told == []

    lab.majority.lost = False
    await looked()
    assert lab.told[1:] == [None]
    assert lab.alarms.texts() == []


async def test_publishers_go_on_when_the_last_reason_is_gone(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    lab.majority.lost = True
    await looked()
    lab.peers.says(2, ("low on disk",))
    lab.majority.lost = False
    await looked()
    lab.peers.says(2, ())

    assert lab.told == [
        "no majority of the cluster's nodes",
        "low on disk & no majority of the cluster's nodes",
        "low on disk",
        None,
    ]


async def test_memory_above_the_watermark_is_told_to_publishers_and_to_the_other_nodes(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    lab.memory.used = 601
    await looked()
    assert lab.told == ["low on memory"]
    assert lab.peers.told == [(2, ["low on memory"]), (3, ["low on memory"])]
    assert lab.alarms.texts() == ["low on memory on node 1"]

    lab.memory.used = 600
    await looked()
    assert lab.told == ["low on memory", None]


async def test_publishers_are_told_of_memory_and_disk_in_rabbitmqs_words(lab: Lab) -> None:
    lab.peers.says(2, ("low on disk",))
    lab.peers.says(3, ("low on memory",))
    lab.peers.says(2, ())
    lab.peers.says(3, ())

    assert lab.told == ["low on disk", "low on memory & disk", "low on memory", None]


async def test_publishers_go_on_when_all_nodes_have_memory_again(lab: Lab) -> None:
    lab.peers.says(2, ("low on memory",))
    lab.peers.says(3, ("low on memory",))
    lab.peers.says(2, ())
    assert lab.told == ["low on memory"]

    lab.peers.link_down(3)
    assert lab.told == ["low on memory", None]


async def test_another_watermark_holds_at_once(lab: Lab) -> None:
    lab.memory.used = 500
    lab.alarms.set_memory_watermark(Watermark(size_bytes=499))
    assert lab.told == ["low on memory"]
    assert lab.alarms.memory_limit_bytes == 499

    lab.alarms.set_memory_watermark(Watermark(fraction=0.5))
    assert lab.told == ["low on memory", None]


async def test_while_memory_is_low_what_is_free_inside_the_process_is_given_back(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    await looked()
    assert 0 == lab.memory.given_back

    lab.memory.used = 601
    await looked()
    assert 1 == lab.memory.given_back
    await trio.sleep(GIVE_BACK_S)
    assert 2 == lab.memory.given_back
