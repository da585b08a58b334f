"""The facade: answers, news, and time limits, over a group that commits when told to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from leveret.catalog import commands as c
from leveret.catalog.catalog import Catalog, CatalogTimeout, ChangeRefused
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import PasswordHash
from tests.catalog.links import Links

FOUND = c.Bootstrap("lab", 2, "guest", PasswordHash("sha256", b"s", b"h"))


class OneNodeGroup:
    """A group of one: commits in order, at once or, while it has lost its majority, later."""

    def __init__(self, machine: CatalogMachine) -> None:
        self.has_majority = True
        self.barriers = 0
        self.applied_index = 0
        self._machine = machine
        self._pending: list[Callable[[], None]] = []
        self._listeners: list[Callable[[], None]] = []

    def submit(self, command: bytes, done: Callable[[object], None]) -> None:
        def apply() -> None:
            self.applied_index += 1
            done(self._machine.apply(self.applied_index, 0, command, 0))

        self._pending.append(apply)
        self.commit()

    def barrier(self, done: Callable[[], None]) -> None:
        self.barriers += 1
        self._pending.append(done)
        self.commit()

    def on_applied(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def restore(self, state: bytes) -> None:
        self._machine.restore(state)
        self._tell()

    def commit(self) -> None:
        if self.has_majority:
            pending, self._pending = self._pending, []
            for entry in pending:
                entry()
            self._tell()

    def commit_one(self) -> None:
        """Commit the oldest entry alone, as a majority that comes and goes does."""
        self._pending.pop(0)()
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


@pytest.fixture
def machine() -> CatalogMachine:
    return CatalogMachine()


@pytest.fixture
def group(machine: CatalogMachine) -> OneNodeGroup:
    return OneNodeGroup(machine)


@pytest.fixture
def catalog(group: OneNodeGroup, machine: CatalogMachine) -> Catalog:
    return Catalog(group, machine, Links())


async def test_a_change_answers_with_the_entity_and_is_in_the_model(catalog: Catalog) -> None:
    await catalog.change(FOUND, 1)

    done = await catalog.change(c.AddVirtualHost("v"), 1)

    assert done.outcome == "created"
    assert done.entity is catalog.model.vhost("v")


async def test_a_refused_change_raises_with_the_reason(catalog: Catalog) -> None:
    with pytest.raises(ChangeRefused) as caught:
        await catalog.change(c.Bind("/", "x", "queue", "q", "", b""), 1)

    assert caught.value.refusal == c.Refusal("not_found", "exchange", "x", "/")


async def test_a_name_that_is_not_utf_8_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ChangeRefused) as caught:
        await catalog.change(c.AddVirtualHost(b"\xff".decode("utf-8", "surrogateescape")), 1)

    assert caught.value.refusal.kind == "malformed"


async def test_a_change_without_majority_times_out_and_may_happen_later(
    catalog: Catalog, group: OneNodeGroup, autojump_clock: trio.testing.MockClock
) -> None:
    group.has_majority = False

    with pytest.raises(CatalogTimeout):
        await catalog.change(FOUND, 2.5)

    assert trio.current_time() == 2.5
    assert catalog.model.cluster is None
    group.has_majority = True
    group.commit()
    assert catalog.model.cluster is not None


async def test_a_barrier_waits_for_the_majority(
    catalog: Catalog, group: OneNodeGroup, autojump_clock: trio.testing.MockClock
) -> None:
    await catalog.barrier(1)
    group.has_majority = False

    with pytest.raises(CatalogTimeout):
        await catalog.barrier(1)


def test_listeners_hear_of_a_change_before_its_submitter(catalog: Catalog) -> None:
    heard: list[object] = []
    catalog.on_change(heard.append)

    catalog.submit(FOUND, heard.append)

    assert isinstance(heard[-1], c.Done)
    assert heard[0] == c.Created(catalog.model.cluster)  # type: ignore[arg-type]
    assert heard[-2] == c.Created(catalog.model.permission("guest", "/"))  # type: ignore[arg-type]


def test_a_restored_snapshot_is_told_as_one_event(catalog: Catalog, group: OneNodeGroup) -> None:
    heard: list[c.Event] = []
    other = CatalogMachine()
    other.apply(1, 0, c.encode(FOUND), 0)
    catalog.on_change(heard.append)

    group.restore(other.snapshot())

    assert heard == [c.Restored()]
    assert catalog.model.vhost("/") is not None


async def test_those_who_wait_at_once_share_one_barrier_and_later_ones_the_next(
    catalog: Catalog, group: OneNodeGroup, autojump_clock: trio.testing.MockClock
) -> None:
    group.has_majority = False
    passed: list[str] = []

    async def wait(name: str) -> None:
        await catalog.barrier(5)
        passed.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "first")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(100):
            nursery.start_soon(wait, "later")
        await trio.testing.wait_all_tasks_blocked()
        assert group.barriers == 1

        group.commit_one()
        await trio.testing.wait_all_tasks_blocked()
        assert (passed, group.barriers) == (["first"], 2)

        group.commit_one()
        await trio.testing.wait_all_tasks_blocked()
        assert passed == ["first", *["later"] * 100]
        assert group.barriers == 2


async def test_a_barrier_that_was_given_up_does_not_hold_up_the_next(
    catalog: Catalog, group: OneNodeGroup, autojump_clock: trio.testing.MockClock
) -> None:
    group.has_majority = False
    for _ in range(2):
        with pytest.raises(CatalogTimeout):
            await catalog.barrier(1)

    group.has_majority = True
    group.commit()

    await catalog.barrier(1)
