"""What becomes of the queues that live on a node whose links are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from leveret.catalog import Catalog, CatalogMachine
from leveret.catalog import commands as c
from leveret.catalog.model import PasswordHash
from leveret.node.lost_nodes import LOOK_S, LostNodes
from tests.catalog.links import Links as CatalogLinks

LOST_AFTER_S = 5.0


class Group:
    """The catalog's group: commits at once, or not before `release`."""

    def __init__(self, machine: CatalogMachine) -> None:
        self.submitted = 0
        self.applied_index = 0
        self.is_held = False
        self._machine = machine
        self._held: list[tuple[bytes, Callable[[object], None]]] = []
        self._listeners: list[Callable[[], None]] = []

    def submit(self, command: bytes, done: Callable[[object], None]) -> None:
        self.submitted += 1
        self._held.append((command, done))
        if not self.is_held:
            self.release()

    def release(self) -> None:
        self.is_held = False
        held, self._held = self._held, []
        for command, done in held:
            self.applied_index += 1
            done(self._machine.apply(self.applied_index, 0, command, 0))
        for listener in self._listeners:
            listener()

    def barrier(self, done: Callable[[], None]) -> None:
        self.submit(b"", lambda _: done())

    def on_applied(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)


class Links:
    def __init__(self, up: set[int]) -> None:
        self.up = up


class Lab:
    """Node 1 of three; node 2 has the transient queue `q`."""

    def __init__(self) -> None:
        machine = CatalogMachine()
        self.group = Group(machine)
        self.catalog = Catalog(self.group, machine, CatalogLinks())
        self.links = Links({2, 3})
        self.is_leader = True
        self.do(c.Bootstrap("lab", 1, "guest", PasswordHash("sha256", b"s", b"h")))
        for number in (1, 2, 3):
            self.register(number, boot=1)
        self.declare("q", node=2, boot=1)
        self.group.submitted = 0

    def do(self, command: c.AnyCommand) -> None:
        self.catalog.submit(command, lambda _: None)

    def register(self, number: int, *, boot: int) -> None:
        self.do(c.RegisterNode(number, f"n{number}", (), boot))

    def declare(self, name: str, *, node: int, boot: int) -> None:
        self.do(c.DeclareQueue("/", name, False, False, False, b"", node, boot, 0))

    def queues(self) -> set[str]:
        return {queue.name for queue in self.catalog.model.queues("/")}

    async def run(self) -> None:
        await LostNodes(
            node=1,
            links=self.links,
            catalog=self.catalog,
            is_leader=lambda: self.is_leader,
            lost_after_s=LOST_AFTER_S,
        ).run()


@pytest.fixture
def lab(nursery: trio.Nursery) -> Lab:
    made = Lab()
    nursery.start_soon(made.run)
    return made


async def test_a_node_without_a_link_is_lost_after_the_set_time(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    await trio.sleep(1)
    lab.links.up = {3}

    await trio.sleep(LOST_AFTER_S - 0.1)
    assert lab.queues() == {"q"}

    await trio.sleep(2 * LOOK_S)
    assert lab.queues() == set()
    assert lab.catalog.model.node(2) is not None


async def test_a_link_that_comes_back_in_time_begins_the_wait_anew(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(3):
        lab.links.up = {3}
        await trio.sleep(LOST_AFTER_S - 1)
        lab.links.up = {2, 3}
        await trio.sleep(2 * LOOK_S)

    assert lab.queues() == {"q"}


async def test_only_the_leader_of_the_catalog_says_so_and_a_new_one_knows_since_when(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    lab.is_leader = False
    lab.links.up = {3}
    await trio.sleep(LOST_AFTER_S + 1)
    assert lab.group.submitted == 0

    lab.is_leader = True
    await trio.sleep(2 * LOOK_S)

    assert lab.queues() == set()


async def test_a_loss_is_said_once_while_its_command_is_on_the_way(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    lab.group.is_held = True
    lab.links.up = {3}

    await trio.sleep(LOST_AFTER_S + 10)
    assert lab.group.submitted == 1

    lab.group.release()
    assert lab.queues() == set()


async def test_a_node_that_started_again_meanwhile_keeps_its_new_queues(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    lab.group.is_held = True
    lab.links.up = {3}
    await trio.sleep(LOST_AFTER_S + 1)
    lab.links.up = {2, 3}
    held, lab.group._held = lab.group._held, []
    lab.group.is_held = False
    lab.register(2, boot=2)
    lab.declare("new", node=2, boot=2)

    lab.group._held = held
    lab.group.release()

    assert lab.queues() == {"new"}


async def test_nothing_is_said_of_a_node_that_has_no_queues_or_of_this_node(
    lab: Lab, autojump_clock: trio.testing.MockClock
) -> None:
    lab.declare("mine", node=1, boot=1)
    lab.links.up = {2}

    await trio.sleep(LOST_AFTER_S + 1)

    assert lab.queues() == {"q", "mine"}
    assert lab.group.submitted == 1  # the declaration
