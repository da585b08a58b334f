"""What the catalog decides about newcomers, in the words that their operators read."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from leveret.catalog import Catalog
from leveret.catalog import commands as c
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import PasswordHash
from leveret.node.admission import Admissions, follow_catalog, members_of
from leveret.transport import Address, Admission, JoinRequest, NodeId, Refused
from tests.catalog.links import Links as CatalogLinks
from tests.catalog.test_catalog import OneNodeGroup

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


def at(number: int) -> Address:
    return Address(f"10.0.0.{number}", 25672)


def request(number: int, *, name: str = "", incarnation: int = 0) -> JoinRequest:
    return JoinRequest(
        name=name,
        address=at(number),
        incarnation=incarnation or number,
        software="x",
        cluster="",
        public_key=b"",
    )


class Lab:
    """A cluster of node 1."""

    def __init__(self) -> None:
        machine = CatalogMachine()
        self.group = OneNodeGroup(machine)
        self.catalog = Catalog(self.group, machine, CatalogLinks())
        self.admissions = Admissions(self.catalog)
        self.do(c.Bootstrap("lab", 2, "guest", PasswordHash("sha256", b"s", b"h")))
        self.do(c.RegisterNode(1, "node-1", (), 1, str(at(1)), 1))

    def do(self, command: c.AnyCommand) -> None:
        replies: list[object] = []
        self.group.submit(c.encode(command), replies.append)
        assert isinstance(replies[0], c.Done)


async def test_a_newcomer_gets_the_next_number_a_name_and_all_members() -> None:
    lab = Lab()

    assert Admission(node=TWO, name="node-2", members={ONE: at(1), TWO: at(2)}) == (
        await lab.admissions.admit(request(2))
    )
    third = await lab.admissions.admit(request(3, name="drei"))

    assert (
        Admission(node=THREE, name="drei", members={ONE: at(1), TWO: at(2), THREE: at(3)}) == third
    )
    assert {ONE: at(1), TWO: at(2), THREE: at(3)} == members_of(lab.catalog.model)


@pytest.mark.parametrize("name", ["", "zwei"])
async def test_asking_again_gives_the_same(name: str) -> None:
    lab = Lab()
    first = await lab.admissions.admit(request(2, name=name))
    await lab.admissions.admit(request(3))

    again = await lab.admissions.admit(request(2, name=name))

    assert (first.node, first.name) == (again.node, again.name)
    assert {ONE, TWO, THREE} == set(again.members)


async def test_two_folders_of_one_millisecond_are_two_nodes() -> None:
    lab = Lab()

    numbers = [(await lab.admissions.admit(request(n, incarnation=7))).node for n in (2, 3)]

    assert [TWO, THREE] == numbers


async def test_newcomers_without_a_name_at_once_get_one_each() -> None:
    lab = Lab()
    lab.group.has_majority = False
    admitted: list[Admission] = []

    async def admit(number: int) -> None:
        admitted.append(await lab.admissions.admit(request(number)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(admit, 2)
        nursery.start_soon(admit, 3)
        await trio.testing.wait_all_tasks_blocked()
        while lab.group._pending:
            lab.group.commit()
            lab.group.commit_one()
            await trio.testing.wait_all_tasks_blocked()

    assert {(TWO, "node-2"), (THREE, "node-3")} == {(a.node, a.name) for a in admitted}


async def test_a_name_that_is_taken_is_refused_with_what_to_do() -> None:
    with pytest.raises(Refused, match="the name 'node-1' belongs to another node; choose another"):
        await Lab().admissions.admit(request(2, name="node-1"))


async def test_without_a_majority_nobody_joins(autojump_clock: trio.testing.MockClock) -> None:
    lab = Lab()
    lab.group.has_majority = False

    with pytest.raises(Refused, match="no majority of the cluster's nodes answers; try again"):
        await lab.admissions.admit(request(2))


class Links:
    def __init__(self) -> None:
        self.peers: dict[NodeId, tuple[Address, int]] = {}

    def add_peer(self, node: NodeId, address: Address, *, incarnation: int = 0) -> None:
        self.peers[node] = (address, incarnation)

    def remove_peer(self, node: NodeId) -> None:
        self.peers.pop(node, None)


async def test_links_are_those_of_the_catalogs_nodes_and_of_fixed_members_to_come() -> None:
    lab, links = Lab(), Links()
    await lab.admissions.admit(request(2))
    fixed = NodeId(9)
    links.add_peer(fixed, at(9))

    follow_catalog(links, lab.catalog.model)
    assert {ONE: (at(1), 1), TWO: (at(2), 2), fixed: (at(9), 0)} == links.peers

    lab.do(c.RemoveNode(2))
    follow_catalog(links, lab.catalog.model)
    assert {ONE, fixed} == set(links.peers)


async def test_an_address_that_is_not_understood_is_passed_over() -> None:
    lab, links = Lab(), Links()
    lab.do(c.RegisterNode(2, "zwei", (), 1, "somewhere", 1))

    follow_catalog(links, lab.catalog.model)

    assert {ONE} == set(links.peers) == set(members_of(lab.catalog.model))
