"""The table's feed: what is known of nodes that answer, are silent, or are gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from leveret.cli.local import LocalNode, State
from leveret.cli.watch import Watch
from leveret.transport.identity import Address
from tests.cli.canned_node import canned_node, group_here, node_status


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for that of a node."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


def local(number: int, process: subprocess.Popen[bytes] | None = None) -> LocalNode:
    address = Address("127.0.0.1", 5671 + number)
    state = State.UP if process else State.DOWN
    return LocalNode(number, address, Path("log"), process=process, state=state)


@asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield
        nursery.cancel_scope.cancel()


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not is_so():  # noqa: ASYNC110 - what another thread tells has no event here
            await trio.sleep(0.01)


async def test_what_nodes_tell_is_put_together(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    one, two, gone = local(1, process), local(2, process), local(3)
    leads = [group_here("leader", group=0, lags={2: 4, 3: 50}), group_here("follower")]
    follows = [group_here("follower", group=0), group_here("leader", lags={1: 0, 3: 7})]
    watch = Watch(tmp_path, [one, two, gone])
    assert watch.leaderless() is None
    with (
        canned_node(tmp_path / "node-1", {"status": node_status(pid=process.pid, groups=leads)}),
        canned_node(tmp_path / "node-2", {"status": node_status(pid=process.pid, groups=follows)}),
    ):
        async with watching(watch):
            await until(lambda: bool(watch.told(one) and watch.told(two)))

            assert [0, 4, 57] == [watch.lag(node) for node in (one, two, gone)]
            assert [] == watch.leaderless()
            assert watch.told(gone) is None
            assert not watch.is_minority


async def test_a_leader_of_an_older_term_counts_for_nothing(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    one, two = local(1, process), local(2, process)
    old = node_status(pid=process.pid, groups=[group_here("leader", term=3, lags={2: 99})])
    new = node_status(pid=process.pid, groups=[group_here("leader", term=4, lags={1: 2})])
    watch = Watch(tmp_path, [one, two])
    with (
        canned_node(tmp_path / "node-1", {"status": old}),
        canned_node(tmp_path / "node-2", {"status": new}),
    ):
        async with watching(watch):
            await until(lambda: bool(watch.told(one) and watch.told(two)))

            assert [2, 0] == [watch.lag(one), watch.lag(two)]


async def test_a_node_that_ends_is_forgotten_and_asked_again_when_it_is_back(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    one = local(1, process)
    watch = Watch(tmp_path, [one])
    answers = {"status": node_status(pid=process.pid, groups=[group_here("candidate", group=5)])}
    async with watching(watch):
        with canned_node(tmp_path / "node-1", answers):
            await until(lambda: watch.told(one) is not None)
            assert [5] == watch.leaderless()
            assert watch.lag(one) is None
        await until(lambda: watch.told(one) is None)
        assert watch.is_minority
        with canned_node(tmp_path / "node-1", answers):
            await until(lambda: watch.told(one) is not None)


async def test_what_an_earlier_process_told_is_not_shown_for_the_next(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    one, other = local(1, process), local(2, process)
    watch = Watch(tmp_path, [one, other])
    with (
        canned_node(tmp_path / "node-1", {"status": node_status(pid=process.pid + 1)}),
        canned_node(tmp_path / "node-2", {"status": node_status(pid=process.pid)}),
    ):
        async with watching(watch):
            await until(lambda: watch.told(other) is not None)
            await trio.sleep(0.1)
            assert watch.told(one) is None
