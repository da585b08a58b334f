"""What a data folder is: founded, fixed or joined, over all its starts."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chaos.simulation.disk import SimulatedDisk
from leveret.node.config import NodeConfig
from leveret.node.membership import (
    MEMBER_FILE,
    Membership,
    MembershipError,
    become_member,
    keep_members,
    provide_credentials,
    read_membership,
    settled,
)
from leveret.node.sources import Flag, load_config
from leveret.storage import CorruptJournal, Disk
from leveret.transport import (
    Address,
    Admission,
    ClusterCredentials,
    Identity,
    JoinRequest,
    NodeId,
    NotReached,
    Peers,
    Refused,
)

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
HERE = Address("127.0.0.1", 25672)
TOKEN = b"a token of the tests, 32 bytes.."
FIXED = "1@127.0.0.1:25672,2@127.0.0.1:25673"
NOW_MS = 1_795_000_000_000
DAY_MS = 86_400_000


def configured(folder: Path, **values: str) -> NodeConfig:
    """Return a configuration by flags: `node_id="2"` is node.id."""
    flags = [Flag("--set", name.replace("_", ".", 1), raw) for name, raw in values.items()]
    return load_config(folder=folder, environment={}, flags=flags)


def written(**changes: object) -> bytes:
    """Return a file with some changes."""
    whole = {
        "cluster": "x",
        "node": 1,
        "name": "a",
        "incarnation": 1,
        "is_founder": True,
        "listen": None,
        "members": {"1": "h:1"},
    }
    return json.dumps(whole | changes).encode()


def new_disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


async def start(config: NodeConfig, disk: Disk, *, now_ms: int = NOW_MS) -> Membership:
    rng = random.Random(2)
    return await become_member(
        config, disk, software="leveret test", now_ms=now_ms, random_bytes=rng.randbytes
    )


def secrets_of(
    config: NodeConfig, member: Membership, *, now_ms: int = NOW_MS
) -> ClusterCredentials:
    return provide_credentials(
        config, member, now_ms=now_ms, random_bytes=random.Random(3).randbytes
    )


async def test_a_node_alone_is_its_own_cluster_and_takes_no_links(tmp_path: Path) -> None:
    config, disk = configured(tmp_path), new_disk()

    member = await start(config, disk)

    assert (
        Membership(
            cluster="leveret",
            node=ONE,
            name="node-1",
            incarnation=NOW_MS,
            is_founder=True,
            listen=None,
            members={ONE: HERE},
        )
        == member
    )
    assert member == read_membership(disk)
    assert 32 == len(secrets_of(config, member).token)
    assert not config.node.data_dir.exists()


async def test_the_incarnation_is_the_folders_for_life(tmp_path: Path) -> None:
    config, disk = configured(tmp_path), new_disk()
    first = await start(config, disk)

    again = await start(config, disk, now_ms=NOW_MS + 5)
    other = await start(config, new_disk(), now_ms=NOW_MS + 5)

    assert first == again
    assert NOW_MS + 5 == other.incarnation


async def test_it_survives_a_loss_of_power(tmp_path: Path) -> None:
    config, disk = configured(tmp_path), new_disk()
    member = await start(config, disk)

    disk = disk.power_loss()

    assert member == read_membership(disk)


async def test_of_fixed_members_the_lowest_may_found(tmp_path: Path) -> None:
    token = TOKEN.hex()
    members = [
        await start(
            configured(tmp_path, node_id=str(n), node_cluster=FIXED, node_token=token), new_disk()
        )
        for n in (1, 2)
    ]

    assert [True, False] == [member.is_founder for member in members]
    assert [HERE, Address("127.0.0.1", 25673)] == [member.listen for member in members]
    assert {ONE: HERE, TWO: Address("127.0.0.1", 25673)} == members[1].members


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"node_id": "2"},
            r"node\.id = 2 \(flag --set\), but the data folder .* is that of node 1",
        ),
        ({"node_cluster_name": "hares"}, r"node\.cluster_name = hares .* cluster 'leveret'"),
    ],
)
async def test_a_folder_of_another_node_is_not_used(
    tmp_path: Path, given: dict[str, str], text: str
) -> None:
    disk = new_disk()
    await start(configured(tmp_path), disk)

    with pytest.raises(MembershipError, match=text):
        await start(configured(tmp_path, **given), disk)


async def test_names_and_addresses_may_change(tmp_path: Path) -> None:
    disk = new_disk()
    await start(configured(tmp_path), disk)

    moved = await start(configured(tmp_path, node_name="eins", peers_listen="127.0.0.1:9"), disk)
    again = await start(configured(tmp_path), disk)

    assert ("eins", Address("127.0.0.1", 9)) == (moved.name, moved.listen)
    assert {ONE: Address("127.0.0.1", 9)} == moved.members
    assert moved == again


async def test_members_that_came_and_went_are_remembered_but_fixed_addresses_are_followed(
    tmp_path: Path,
) -> None:
    disk, token = new_disk(), TOKEN.hex()
    cluster = FIXED + ",3@127.0.0.1:25674"
    member = await start(configured(tmp_path, node_cluster=cluster, node_token=token), disk)
    four = {NodeId(4): Address("10.0.0.4", 1)}

    left = {node: at for node, at in member.members.items() if node != THREE}
    kept = await keep_members(disk, member, left | four)
    assert kept == read_membership(disk)
    assert kept is await keep_members(disk, kept, left | four)

    moved = cluster.replace("2@127.0.0.1:25673", "2@127.0.0.1:9")
    after = await start(configured(tmp_path, node_cluster=moved, node_token=token), disk)
    assert {ONE: HERE, TWO: Address("127.0.0.1", 9)} | four == after.members


async def test_a_node_that_was_removed_keeps_what_it_knew(tmp_path: Path) -> None:
    disk = new_disk()
    member = await start(configured(tmp_path), disk)

    assert member is await keep_members(disk, member, {TWO: HERE})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        written(members={}),
        written(members={"1": "nowhere"}),
        written(cluster="x/y"),
        written(incarnation=0),
        written(listen="nowhere"),
    ],
)
async def test_a_damaged_file_is_said_to_be(tmp_path: Path, data: bytes) -> None:
    disk = new_disk()
    await disk.write_aside(MEMBER_FILE, [data])

    with pytest.raises(CorruptJournal, match="member, offset 0"):
        await start(configured(tmp_path), disk)


async def test_members_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    disk = new_disk()
    member = await start(configured(tmp_path), disk)
    file = disk.read_file(MEMBER_FILE)
    data = json.loads(file.read(0, 9999)) | {"colour": "brown"}
    await disk.write_aside(MEMBER_FILE, [json.dumps(data).encode()])

    assert member == read_membership(disk)


async def test_the_configuration_of_the_rest_is_that_of_the_folder(tmp_path: Path) -> None:
    member = Membership(
        cluster="hares",
        node=THREE,
        name="drei",
        incarnation=1,
        is_founder=False,
        listen=Address("127.0.0.1", 9),
        members={},
    )

    config = settled(configured(tmp_path), member)

    assert (3, "drei", "hares") == (config.node.id, config.node.name, config.node.cluster_name)
    assert Address("127.0.0.1", 9) == config.peers.listen
    assert "data folder" == config.origin("node.id")


# Secrets


async def test_a_founder_off_loopback_makes_its_secrets_once(tmp_path: Path) -> None:
    config, disk = configured(tmp_path, peers_listen="192.0.2.1:25672"), new_disk()
    member = await start(config, disk)

    made = secrets_of(config, member)
    again = secrets_of(config, member)

    folder = config.node.data_dir / "tls"
    assert made == again == ClusterCredentials.load(folder)
    assert made.tls is not None
    assert made.tls.authority_key.exists()
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


async def test_a_founder_on_loopback_makes_a_token_and_certificates_when_it_moves(
    tmp_path: Path,
) -> None:
    disk = new_disk()
    config = configured(tmp_path, peers_listen="127.0.0.1:25672")
    near = secrets_of(config, await start(config, disk))
    assert near.tls is None

    config = configured(tmp_path, peers_listen="192.0.2.1:25672")
    far = secrets_of(config, await start(config, disk))
    assert far.tls is not None
    assert near.token == far.token


async def test_secrets_of_the_configuration_come_first(tmp_path: Path) -> None:
    config = configured(tmp_path, peers_listen="127.0.0.1:25672", node_token=TOKEN.hex())

    assert TOKEN == secrets_of(config, await start(config, new_disk())).token
    assert not config.node.data_dir.exists()


async def test_an_address_of_all_interfaces_is_nothing_to_tell_others(tmp_path: Path) -> None:
    wildcard = configured(tmp_path, peers_listen="0.0.0.0:25672")
    with pytest.raises(MembershipError, match="is no address that other nodes can be told"):
        await start(wildcard, new_disk())

    disk = new_disk()
    await start(configured(tmp_path), disk)
    with pytest.raises(MembershipError, match="is no address that other nodes can be told"):
        await start(wildcard, disk)


async def test_a_certificate_is_made_anew_before_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tmp_path, peers_listen="192.0.2.1:25672")
    member = await start(config, new_disk())
    tls = secrets_of(config, member).tls
    assert tls is not None
    made = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    assert made + timedelta(days=825) == tls.ends()

    secrets_of(config, member, now_ms=NOW_MS + 500 * DAY_MS)
    assert made + timedelta(days=825) == tls.ends()
    secrets_of(config, member, now_ms=NOW_MS + 600 * DAY_MS)
    assert made + timedelta(days=600 + 825) == tls.ends()

    tls.authority_key.unlink()
    secrets_of(config, member, now_ms=NOW_MS + 1300 * DAY_MS)
    assert "the node's certificate ends and its authority's key is not here" in caplog.messages


# Joining


@contextlib.asynccontextmanager
async def cluster(refuses: str = "") -> AsyncIterator[tuple[Address, list[JoinRequest]]]:
    """Run node 1 of the cluster `hares`, which admits; give its address and what was asked."""
    requests: list[JoinRequest] = []
    at = HERE

    async def admit(request: JoinRequest) -> Admission:
        requests.append(request)
        await trio.lowlevel.checkpoint()
        if refuses:
            raise Refused(refuses)
        return Admission(
            node=TWO, name=request.name or "node-2", members={ONE: at, TWO: request.address}
        )

    peers = Peers(
        Identity(
            cluster="hares",
            node=ONE,
            name="eins",
            incarnation=1,
            boot=1,
            software="x",
            instance=b"x",
        ),
        ClusterCredentials("hares", TOKEN),
        listen=Address("127.0.0.1", 0),
        members={},
        rng=random.Random(1),
    )
    peers.on_join(admit, now=lambda: datetime.now(UTC))
    async with trio.open_nursery() as nursery:
        at = await nursery.start(peers.run)
        yield at, requests
        nursery.cancel_scope.cancel()


def joining(folder: Path, at: Address, **values: str) -> NodeConfig:
    values = {"node_token": TOKEN.hex(), "peers_listen": "127.0.0.1:0"} | values
    return configured(folder, node_join=str(at), **values)


async def test_a_node_joins_at_its_first_start_and_is_a_member_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    disk = new_disk()
    async with cluster() as (at, requests):
        config = joining(tmp_path, at)
        member = await start(config, disk)
    (request,) = requests
    assert ("", "", NOW_MS) == (request.name, request.cluster, request.incarnation)
    assert (
        Membership(
            cluster="hares",
            node=TWO,
            name="node-2",
            incarnation=NOW_MS,
            is_founder=False,
            listen=request.address,
            members={ONE: at, TWO: request.address},
        )
        == member
    )

    assert member == await start(config, disk, now_ms=NOW_MS + 1)  # nobody is there to ask
    assert "a member already, not joining again" in caplog.messages
    later = configured(tmp_path)
    assert member == await start(later, disk)
    assert ClusterCredentials("hares", TOKEN) == secrets_of(later, member)


async def test_a_name_and_a_cluster_that_are_given_are_asked_for(tmp_path: Path) -> None:
    async with cluster() as (at, requests):
        member = await start(
            joining(tmp_path, at, node_name="zwei", node_cluster_name="hares"), new_disk()
        )

    assert "zwei" == member.name
    assert ("zwei", "hares") == (requests[0].name, requests[0].cluster)


async def test_who_asks_again_after_a_crash_is_the_same(tmp_path: Path) -> None:
    disk = new_disk()
    async with cluster("not now") as (at, requests):
        with pytest.raises(Refused, match="not now"):
            await start(joining(tmp_path, at), disk)
        disk = disk.power_loss()
        assert read_membership(disk) is None
        with pytest.raises(Refused, match="not now"):
            await start(joining(tmp_path, at), disk, now_ms=NOW_MS + 77)

    assert [NOW_MS, NOW_MS] == [request.incarnation for request in requests]


async def test_a_folder_with_data_does_not_join(tmp_path: Path) -> None:
    disk = new_disk()
    disk.append_file("segments/1.log").close()

    with pytest.raises(MembershipError, match="holds the data of a node that was not joined"):
        await start(joining(tmp_path, HERE), disk)


async def test_joining_takes_a_token(tmp_path: Path) -> None:
    with pytest.raises(MembershipError, match="joining takes the cluster's token: give --token"):
        await start(joining(tmp_path, HERE, node_token=""), new_disk())


async def test_a_member_that_is_not_up_yet_is_tried_for_a_minute(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = trio.socket.socket()
    await nobody.bind(("127.0.0.1", 0))  # and does not listen
    since = trio.current_time()

    with nobody, pytest.raises(NotReached, match="Connection refused"):
        await start(joining(tmp_path, Address(*nobody.getsockname())), new_disk())

    assert 60 <= trio.current_time() - since <= 63
    assert ["not joined yet, trying on"] == caplog.messages
