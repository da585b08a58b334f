"""A newcomer and members: on a network in memory, and under TLS over real sockets."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.transport import (
    Address,
    Admission,
    CertificateAuthority,
    ClusterCredentials,
    JoinRequest,
    NotReached,
    Peers,
    Refused,
    TlsFiles,
    found_cluster,
)
from leveret.transport.admission import Admitted, JoinAnswer, Proofs
from leveret.transport.opening import read_opening, say
from leveret.transport.security import binding, newcomer_context
from leveret.transport.wire import TlsWire, connect, plain, secure

from .joins import HERE, NOW, Cluster, frame, is_empty, liar, newcomer
from .support import ANYWHERE, ONE, THREE, TOKEN, TWO, Node, identity, reason, start
from .virtual import Net, Socket


@pytest.fixture
async def net() -> Net:
    return Net()


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return message and reason of each warning."""
    return [(r.message, reason(r)) for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_newcomer_gets_its_number_and_the_members(
    autojump_clock: MockClock, net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cluster = Cluster()
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        joined = await newcomer(at, tmp_path)
        nursery.cancel_scope.cancel()

    credentials = ClusterCredentials("hares", TOKEN)
    assert credentials == joined.credentials == ClusterCredentials.load(tmp_path)
    assert ("hares", TWO, "node-2", HERE) == (
        joined.cluster,
        joined.node,
        joined.name,
        joined.address,
    )
    assert {ONE: at, TWO: HERE} == joined.members
    (request,) = cluster.requests
    assert ("", HERE, 7, "leveret test", b"") == (
        request.name,
        request.address,
        request.incarnation,
        request.software,
        request.public_key,
    )
    assert ["node admitted"] == [r.message for r in caplog.records]


async def test_a_join_that_is_repeated_gives_the_same(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        at = await Cluster().start(nursery)
        first = await newcomer(at, tmp_path, name="zwei")
        again = await newcomer(at, tmp_path, name="zwei")
        nursery.cancel_scope.cancel()

    assert first == again
    assert "zwei" == first.name


async def test_nodes_that_joined_link_with_each_other(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    cluster = Cluster()
    nodes = []
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        for number in (2, 3):
            listen_on = Address("127.0.0.1", 30000 + number)
            joined = await newcomer(
                at, tmp_path / str(number), listen_on=listen_on, incarnation=number
            )
            node = Node(identity(joined.node), members=joined.members, listen=listen_on)
            await start(nursery, node)
            nodes.append(node)
        for other in (TWO, THREE):
            await cluster.node.heard("up", other)
        nodes[0].peers.add_peer(THREE, nodes[1].address)
        await nodes[1].heard("up", TWO)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"token": b"another token, of 32 bytes too.."}, "the token is not that of this cluster"),
        ({"cluster": "rabbits"}, "this is the cluster 'hares', not 'rabbits'"),
    ],
    ids=["token", "cluster"],
)
async def test_a_stranger_is_refused_and_the_cluster_is_not_asked(
    autojump_clock: MockClock,
    net: Net,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    given: dict[str, object],
    why: str,
) -> None:
    cluster = Cluster()
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        with pytest.raises(Refused, match=why) as caught:
            await newcomer(at, tmp_path, **given)  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert caught.value.by_peer
    assert [("no link", f"refused by this node: {caught.value}")] == said(caplog)
    assert [] == cluster.requests
    assert is_empty(tmp_path)


async def test_what_the_cluster_refuses_is_told_to_both_each_time(
    autojump_clock: MockClock, net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster()
    cluster.refuses = "the name 'zwei' is taken by node 2"
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        for _ in range(2):
            with pytest.raises(Refused, match="the name 'zwei' is taken by node 2") as caught:
                await newcomer(at, tmp_path, name="zwei")
            assert caught.value.by_peer
        nursery.cancel_scope.cancel()

    assert [("node not admitted", cluster.refuses)] * 2 == said(caplog)
    assert is_empty(tmp_path)


async def test_a_node_that_does_not_admit_says_so(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        at = await start(nursery, Node(identity(1)))
        with pytest.raises(Refused, match="not ready to admit others"):
            await newcomer(at, tmp_path)
        nursery.cancel_scope.cancel()


async def test_a_cluster_that_does_not_decide_refuses_after_half_a_minute(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    cluster = Cluster()
    cluster.is_stuck = True
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        since = trio.current_time()
        with pytest.raises(Refused, match="did not decide within 30 s; is a majority"):
            await newcomer(at, tmp_path)

        assert 30.0 == pytest.approx(trio.current_time() - since, abs=0.1)
        cluster.is_stuck = False
        assert TWO == (await newcomer(at, tmp_path)).node
        nursery.cancel_scope.cancel()


async def test_no_more_than_four_join_at_once(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    cluster = Cluster()
    cluster.is_stuck = True
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)

        async def wait(number: int) -> None:
            listen_on = Address("127.0.0.1", 30000 + number)
            with pytest.raises(Refused, match="did not decide"):
                await newcomer(at, tmp_path, listen_on=listen_on, incarnation=number)

        async with trio.open_nursery() as waiting:
            for number in range(2, 6):
                waiting.start_soon(wait, number)
            await wait_all_tasks_blocked()
            with pytest.raises(Refused, match="4 other nodes are joining here; try again"):
                await newcomer(at, tmp_path, listen_on=Address("127.0.0.1", 30009))
        cluster.is_stuck = False
        await newcomer(at, tmp_path)
        nursery.cancel_scope.cancel()


async def test_a_newcomer_that_is_not_where_it_says_is_refused(
    autojump_clock: MockClock, net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster()
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)

        async def lose_port() -> None:
            while tuple(HERE) not in net.listeners:
                await trio.lowlevel.checkpoint()
            net.listeners.pop((HERE.host, HERE.port))

        nursery.start_soon(lose_port)
        with pytest.raises(Refused, match=r"not reached at 127.0.0.1:30002 \(.*refused\); give it"):
            await newcomer(at, tmp_path)
        nursery.cancel_scope.cancel()

    assert ["node not admitted"] == [message for message, _ in said(caplog)]
    assert [] == cluster.requests


async def test_somebody_else_at_the_newcomers_address_is_no_newcomer(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    cluster = Cluster()
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)

        async def take_port() -> None:
            while tuple(HERE) not in net.listeners:
                await trio.lowlevel.checkpoint()
            net.listeners[HERE.host, HERE.port] = net.listeners[at.host, at.port]

        nursery.start_soon(take_port)
        with pytest.raises(Refused, match=r"somebody else answers at 127\.0\.0\.1:30002"):
            await newcomer(at, tmp_path)
        nursery.cancel_scope.cancel()
    assert [] == cluster.requests


async def test_an_address_of_all_interfaces_becomes_the_one_that_reaches_the_member(
    tmp_path: Path,
) -> None:
    cluster = Cluster(founded(tmp_path / "1"))
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        joined = await newcomer(at, tmp_path / "2", listen_on=Address("0.0.0.0", 0))
        nursery.cancel_scope.cancel()

    assert "127.0.0.1" == joined.address.host
    assert joined.address == cluster.requests[0].address


@pytest.mark.parametrize("stays", [True, False], ids=["silent", "closed"])
async def test_a_member_that_goes_away_is_not_reached(
    autojump_clock: MockClock, net: Net, tmp_path: Path, *, stays: bool
) -> None:
    async with trio.open_nursery() as nursery:
        listener = Socket(net)
        await listener.bind(("127.0.0.1", 9))
        listener.listen()

        async def accept() -> None:
            socket, _ = await listener.accept()
            if not stays:
                socket.close()

        nursery.start_soon(accept)
        with pytest.raises(NotReached, match=r"127\.0\.0\.1:9 (did not answer|was lost)"):
            await newcomer(Address("127.0.0.1", 9), tmp_path)
        with pytest.raises(NotReached, match=r"no node is reached at 127\.0\.0\.1:8: Connection"):
            await newcomer(Address("127.0.0.1", 8), tmp_path)


async def test_nothing_is_said_to_a_member_off_loopback_without_tls(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    far = Socket(net)
    await far.bind(("10.0.0.9", 5))
    far.listen()
    with pytest.raises(NotReached, match="did not answer in time"):
        await newcomer(Address("10.0.0.9", 5), tmp_path)

    ((_, acceptor),) = net.connections
    assert b"\x16\x03" == acceptor.incoming.data[:2]  # a TLS client's hello


@pytest.mark.parametrize("host", ["10.0.0.2", "0.0.0.0"])
async def test_without_tls_a_node_that_listens_off_loopback_does_not_join(
    autojump_clock: MockClock, net: Net, tmp_path: Path, host: str
) -> None:
    cluster = Cluster()
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        with pytest.raises(
            Refused, match=rf"is without TLS, so all.*not on {host}:30002"
        ) as caught:
            await newcomer(at, tmp_path, listen_on=Address(host, 30002))
        nursery.cancel_scope.cancel()

    assert not caught.value.by_peer
    assert [] == cluster.requests


async def test_without_tls_a_member_admits_nobody_from_off_loopback(
    autojump_clock: MockClock, net: Net
) -> None:
    cluster = Cluster()
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        far = Socket(net)
        await far.bind(("10.0.0.2", 30002))
        far.listen()
        socket = Socket(net)
        await socket.connect(at)
        wire = plain(socket)
        request = JoinRequest(
            name="",
            address=Address("10.0.0.2", 30002),
            incarnation=1,
            software="x",
            cluster="",
            public_key=b"",
        )
        asked = await say(wire, "#join", request.payload(bytes(32)))
        answer = await read_opening(wire, ("#join",), max_bytes=4096)
        proofs = Proofs(token=TOKEN, binding=binding(None), request=asked, answer=answer.body)
        await say(wire, "#proof", proofs.newcomer())
        with pytest.raises(Refused, match=r"is without TLS, so all.*not on 10\.0\.0\.2:30002"):
            await read_opening(wire, ("#admitted",), max_bytes=4096)
        nursery.cancel_scope.cancel()
    assert [] == cluster.requests


# TLS


def founded(folder: Path) -> TlsFiles:
    credentials = found_cluster("hares", ONE, folder, needs_tls=True, token=TOKEN, now=NOW)
    assert credentials.tls is not None
    return credentials.tls


async def test_under_tls_a_newcomer_becomes_a_member_like_any_other(tmp_path: Path) -> None:
    cluster = Cluster(founded(tmp_path / "1"))
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        joined = await newcomer(
            at, tmp_path / "2", listen_on=Address("127.0.0.2", 0), incarnation=2
        )
        assert "127.0.0.2" == joined.address.host

        credentials = ClusterCredentials.load(tmp_path / "2")
        assert joined.credentials == credentials
        second = Node(
            identity(2), members=joined.members, tls=credentials.tls, listen=joined.address
        )
        await start(nursery, second)
        await second.heard("up", ONE)
        await cluster.node.heard("up", TWO)

        # It admits others itself, for it has the authority's key.
        async def admit(request: JoinRequest) -> Admission:
            return Admission(node=THREE, name="drei", members={THREE: request.address})

        second.peers.on_join(admit, now=lambda: NOW)
        third = await newcomer(second.address, tmp_path / "3", listen_on=Address("127.0.0.3", 0))
        assert (THREE, "drei") == (third.node, third.name)
        nursery.cancel_scope.cancel()


async def test_without_the_authoritys_key_a_member_says_who_can_admit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = founded(tmp_path / "1")
    tls.authority_key.unlink()
    cluster = Cluster(tls)
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        with pytest.raises(Refused, match=r"has no ca\.key beside its ca\.pem.*join through a"):
            await newcomer(at, tmp_path / "2", listen_on=ANYWHERE)
        nursery.cancel_scope.cancel()

    assert [] == cluster.requests
    assert "node not admitted" in {message for message, _ in said(caplog)}
    assert not (tmp_path / "2").exists()


async def test_without_a_certificate_one_may_only_ask_to_join(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(founded(tmp_path / "1"))
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        cluster.node.peers.add_peer(TWO, ANYWHERE)
        second = Node(identity(2), members={ONE: at}, tls=founded(tmp_path / "2"))
        second.peers._client_tls = newcomer_context()
        await start(nursery, second)
        with trio.fail_after(30):
            while not any("shows no certificate" in why for _, why in said(caplog)):
                await trio.lowlevel.checkpoint()
        assert frozenset() == cluster.node.peers.up
        nursery.cancel_scope.cancel()


class ManInTheMiddle:
    """Speaks TLS with both, under a certificate of his own, and passes on what each says."""

    def __init__(self, folder: Path, target: Address) -> None:
        authority = CertificateAuthority.create("hares", now=NOW)
        self._tls = authority.issue(ONE, folder, now=NOW)
        self._target = target
        self.heard = bytearray()

    async def run(self, *, task_status: trio.TaskStatus[Address]) -> None:
        with trio.socket.socket() as listener:
            await listener.bind(("127.0.0.1", 0))
            listener.listen()
            task_status.started(Address(*listener.getsockname()))
            async with trio.open_nursery() as nursery:
                while True:
                    socket, _ = await listener.accept()
                    nursery.start_soon(self._serve, socket)

    async def _serve(self, socket: trio.socket.SocketType) -> None:
        with socket, await connect(self._target) as onward:
            if (await socket.recv(1, trio.socket.MSG_PEEK)) != b"\x16":
                await socket.send(b"\x15\x03\x03\x00\x02\x02\x46")  # an alert, as a TLS server's
                return
            context = self._tls.context(server_side=True)
            near = await secure(socket, context, server_side=True)
            far = await secure(onward, newcomer_context(), server_side=False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, near, far)
                await self._pass_on(far, near)

    async def _pass_on(self, source: TlsWire, sink: TlsWire) -> None:
        while chunk := await source.receive(65536):
            self.heard += chunk
            await sink.send_all(chunk)
        await sink.finish()


async def test_a_man_in_the_middle_learns_no_secret_and_changes_nothing(tmp_path: Path) -> None:
    cluster = Cluster(founded(tmp_path / "1"))
    async with trio.open_nursery() as nursery:
        man = ManInTheMiddle(tmp_path / "man", await cluster.start(nursery))
        at = await nursery.start(man.run)
        with pytest.raises(Refused, match="or somebody stands between the nodes"):
            await newcomer(at, tmp_path / "2", listen_on=ANYWHERE)
        nursery.cancel_scope.cancel()

    assert b"#proof" in man.heard
    assert b"#admitted" not in man.heard
    assert [] == cluster.requests
    assert not (tmp_path / "2").exists()


async def test_a_member_that_does_not_hold_the_token_gives_nothing_to_keep(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    admission = Admission(node=TWO, name="zwei", members={TWO: HERE})
    admitted = Admitted(cluster="hares", admission=admission, certified=None)
    answer = JoinAnswer(cluster="hares", node=ONE, name="eins", software="x")
    async with trio.open_nursery() as nursery:
        at = await liar(
            net,
            nursery,
            [
                frame("#join", answer.payload(bytes(32))),
                frame("#admitted", admitted.payload()),
                frame("#proof", bytes(32)),
            ],
        )
        with pytest.raises(Refused, match="does not hold the token") as caught:
            await newcomer(at, tmp_path)
        nursery.cancel_scope.cancel()

    assert not caught.value.by_peer
    assert is_empty(tmp_path)


async def test_the_newcomers_port_answers_nobody_but_the_member(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    cluster = Cluster()
    cluster.is_stuck = True
    async with trio.open_nursery() as nursery:
        at = await cluster.start(nursery)
        nursery.start_soon(newcomer_until_refused, at, tmp_path)
        await wait_all_tasks_blocked()
        strangers = [Socket(net) for _ in range(12)]
        for number, stranger in enumerate(strangers):
            await stranger.connect((HERE.host, HERE.port))
            await stranger.send((b"GET /", frame("#reach", b"x"), b"\x16\x03\x01\0\0")[number % 3])
            stranger.shutdown(1)
        await trio.sleep(6)

        assert {b""} == {bytes(stranger.incoming.data) for stranger in strangers}
        nursery.cancel_scope.cancel()


async def newcomer_until_refused(at: Address, folder: Path) -> None:
    with pytest.raises(Refused):
        await newcomer(at, folder)


def test_an_address_that_leads_each_machine_to_itself_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        cluster = Cluster(founded(tmp_path / "1"))
        async with trio.open_nursery() as nursery:
            at = await cluster.start(nursery)
            cluster.node.peers.add_peer(THREE, Address("10.0.0.3", 25672))
            with pytest.raises(Refused, match=r"no other machine gets to 127\.0\.0\.1"):
                await newcomer(at, tmp_path / "2", listen_on=ANYWHERE)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_handler_is_set_once() -> None:
    peers = Peers(
        identity(1),
        ClusterCredentials("hares", TOKEN),
        listen=ANYWHERE,
        members={},
        rng=random.Random(1),
    )
    peers.on_join(Cluster().admit, now=lambda: NOW)
    with pytest.raises(AssertionError):
        peers.on_join(Cluster().admit, now=lambda: NOW)
