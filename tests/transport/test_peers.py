"""Nodes in one process, over real sockets on loopback."""

from __future__ import annotations

import logging
import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from leveret.transport import (
    Address,
    CertificateAuthority,
    EnvelopeError,
    NodeId,
    TlsFiles,
    TransportConfig,
    TransportError,
)

from .support import ANYWHERE, MEMBERS, ONE, THREE, TWO, Node, identity, pair, reason, start

NOW = datetime.now(UTC)


async def test_three_nodes_link_each_with_each() -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        third = Node(identity(3), members={ONE: ANYWHERE, TWO: ANYWHERE})
        third.peers.add_peer(ONE, first.address)
        third.peers.add_peer(TWO, second.address)
        await start(nursery, third)
        for node in (first, second, third):
            for other in {ONE, TWO, THREE} - {node.me.node}:
                await node.heard("up", other)
            assert {ONE, TWO, THREE} - {node.me.node} == node.peers.up

        assert third.peers.send(ONE, "test", ("hello", 1))
        assert first.peers.send(THREE, "test", {"body": b"x" * 65536})
        await first.heard(THREE, ("hello", 1))
        await third.heard(ONE, {"body": b"x" * 65536})
        nursery.cancel_scope.cancel()


async def test_a_message_to_a_node_without_a_link_is_not_taken() -> None:
    async with trio.open_nursery() as nursery:
        first, _ = await pair(nursery)

        assert first.peers.send(THREE, "test", 1) is False
        assert first.peers.send(TWO, "test", 1) is True
        nursery.cancel_scope.cancel()


async def test_100_000_small_messages_arrive_in_order() -> None:
    got: list[object] = []
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        done = trio.Event()

        def take(_: object, payload: object) -> None:
            got.append(payload)
            if len(got) == 100_000:
                done.set()

        first.peers.on_message("load", take)
        for number in range(100_000):
            assert second.peers.send(ONE, "load", number)
            if number % 1000 == 0:
                await trio.lowlevel.checkpoint()
        with trio.fail_after(60):
            await done.wait()
        nursery.cancel_scope.cancel()

    assert list(range(100_000)) == got


async def test_a_large_payload_does_not_silence_the_link() -> None:
    # The pings behind it wait; its own bytes are the sign of life. The limits are tight enough
    # that a link which counted only pings would be given up while it crosses.
    config = TransportConfig(ping_idle_s=0.02, silence_s=0.04)
    body = bytes(32 << 20)
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery, config=config)
        for _ in range(3):
            assert second.peers.send(ONE, "test", body)
        assert second.peers.congested(ONE)
        await first.heard(TWO, body, times=3)

        assert not second.peers.congested(ONE)
        assert [("up", TWO)] + [(TWO, body)] * 3 == first.events
        nursery.cancel_scope.cancel()


async def test_an_oversize_payload_is_refused_where_it_is_sent() -> None:
    config = TransportConfig(frame_max_bytes=10_000)
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery, config=config)

        with pytest.raises(EnvelopeError, match="exceeds the limit of 10000"):
            first.peers.send(TWO, "test", bytes(10_000))
        assert first.peers.send(TWO, "test", "still up")
        await second.heard(ONE, "still up")
        nursery.cancel_scope.cancel()


async def test_an_oversize_frame_drops_the_link_and_both_sides_say_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        first = Node(identity(1), config=TransportConfig(frame_max_bytes=10_000))
        second = Node(identity(2), members={ONE: await start(nursery, first)})
        await start(nursery, second)
        await second.heard("up", ONE)

        second.peers.send(ONE, "test", bytes(10_000))
        await first.heard("down", TWO)
        await second.heard("down", ONE)
        await second.heard("up", ONE, times=2)
        nursery.cancel_scope.cancel()

    why = "a frame of 10009 bytes exceeds the limit of 10000"
    assert [
        f"it broke the protocol: {why}",
        f"it refused this node: {why}",
    ] == [reason(r) for r in caplog.records if r.message == "link down"]


async def test_a_stranger_who_sends_garbage_hears_why_and_harms_nobody() -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        stream = await trio.open_tcp_stream(*first.address)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        said = b""
        with trio.fail_after(5):
            async for chunk in stream:
                said += chunk
        await stream.aclose()

        assert b"#refused" in said
        assert second.peers.send(ONE, "test", "still up")
        await first.heard(TWO, "still up")
        nursery.cancel_scope.cancel()


async def test_a_wrong_token_is_logged_once_on_each_side(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        first = Node(identity(1))
        address = await start(nursery, first)
        second = Node(
            identity(2),
            members={ONE: address},
            token=b"another token, of 32 bytes too..",
            config=TransportConfig(retry_min_s=0.001, retry_max_s=0.001),
        )
        await start(nursery, second)
        with trio.fail_after(30):
            while second.peers._dial_count < 5:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    why = "the cluster tokens of the two nodes differ"
    assert {f"refused by this node: {why}", f"refused by the other node: {why}"} == {
        reason(r) for r in caplog.records
    }
    assert 2 == len(caplog.records)


async def test_a_member_that_is_not_known_is_taken_only_while_that_is_wanted() -> None:
    async with trio.open_nursery() as nursery:
        first = Node(identity(1))
        taken = True
        first.peers.take_unknown(lambda: taken)
        address = await start(nursery, first)
        seventh = Node(identity(7), members={ONE: address})
        await start(nursery, seventh)
        await first.heard("up", NodeId(7))
        await seventh.heard("up", ONE)

        taken = False
        seventh.scope.cancel()
        await first.heard("down", NodeId(7))
        again = Node(identity(7, boot=2), members={ONE: address})
        await start(nursery, again)
        with trio.move_on_after(0.5) as scope:
            await again.heard("up", ONE)
        nursery.cancel_scope.cancel()

    assert scope.cancelled_caught


async def test_the_second_process_with_an_id_is_refused_while_the_first_is_linked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        twin = Node(identity(2, instance=b"copy"), members={ONE: first.address})
        await start(nursery, twin)
        with trio.fail_after(30):
            while not any("refused by the other" in reason(r) for r in caplog.records):
                await trio.lowlevel.checkpoint()

        assert [("up", TWO)] == first.events
        assert [("up", ONE)] == second.events
        assert [] == twin.events
        nursery.cancel_scope.cancel()
    assert any("another process is linked as node 2 already" in reason(r) for r in caplog.records)


async def test_a_restarted_node_replaces_its_former_self() -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        reborn = Node(identity(2, boot=2, instance=b"new"), members={ONE: first.address})
        await start(nursery, reborn)
        await first.heard("up", TWO, times=2)

        assert [("up", TWO), ("down", TWO), ("up", TWO)] == first.events
        await reborn.heard("up", ONE)
        await second.heard("down", ONE)
        nursery.cancel_scope.cancel()


async def test_a_newer_incarnation_replaces_the_link_whatever_its_boots() -> None:
    async with trio.open_nursery() as nursery:
        first = Node(identity(1, incarnation=5))
        address = await start(nursery, first)
        members = {ONE: address}
        second = Node(identity(2, incarnation=7, boot=100), members=members)
        await start(nursery, second)
        await second.heard("up", ONE)
        assert 7 == first.peers.incarnation(TWO)
        assert 5 == second.peers.incarnation(ONE)
        assert 0 == first.peers.incarnation(THREE)

        reborn = Node(identity(2, incarnation=8, boot=1, instance=b"new"), members=members)
        await start(nursery, reborn)
        await first.heard("up", TWO, times=2)

        assert [("up", TWO), ("down", TWO), ("up", TWO)] == first.events
        assert 8 == first.peers.incarnation(TWO)
        reborn.scope.cancel()
        second.scope.cancel()
        await first.heard("down", TWO, times=2)
        assert 0 == first.peers.incarnation(TWO)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("old_dials", [True, False], ids=["dialler", "acceptor"])
async def test_an_older_incarnation_is_refused_and_both_sides_say_why(
    caplog: pytest.LogCaptureFixture, *, old_dials: bool
) -> None:
    old = identity(2 if old_dials else 1, incarnation=7, boot=100)
    other = identity(1 if old_dials else 2)
    known = {old.node: ANYWHERE}
    async with trio.open_nursery() as nursery:
        first, second = (Node(other, members=known), Node(old))
        if not old_dials:
            first, second = second, first
        second.peers.add_peer(ONE, await start(nursery, first))
        witness = first if old_dials else second
        await start(nursery, second)
        await first.heard("up", TWO)
        await second.heard("up", ONE)
        # The catalog says that the node has a newer folder: its link breaks and is not made anew.
        witness.peers.add_peer(
            old.node, second.address if old_dials else first.address, incarnation=8
        )
        await witness.heard("down", old.node)
        with trio.fail_after(30):
            while sum(r.message == "no link" for r in caplog.records) < 2:
                await trio.lowlevel.checkpoint()
        assert [("up", old.node), ("down", old.node)] == witness.events
        reasons = {reason(r) for r in caplog.records if r.message == "no link"}
        nursery.cancel_scope.cancel()

    why = f"the data folder of node {old.node} was replaced by a newer one; start the node with the"
    why += " newer folder, or with an empty one"
    assert {f"refused by this node: {why}", f"refused by the other node: {why}"} == reasons


async def test_the_newest_incarnation_is_remembered_while_its_node_is_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        first = Node(identity(1))
        members = {ONE: await start(nursery, first)}
        newer = Node(identity(2, incarnation=8), members=members)
        await start(nursery, newer)
        await first.heard("up", TWO)
        newer.scope.cancel()
        await first.heard("down", TWO)
        older = Node(identity(2, incarnation=7), members=members)
        await start(nursery, older)
        with trio.fail_after(30):
            while not any("was replaced by a newer one" in reason(r) for r in caplog.records):
                await trio.lowlevel.checkpoint()
        assert [("up", TWO), ("down", TWO)] == first.events

        first.peers.remove_peer(TWO)  # with everything that belongs to it
        first.peers.add_peer(TWO, ANYWHERE)
        await first.heard("up", TWO, times=2)
        nursery.cancel_scope.cancel()


async def test_a_name_can_be_had_only_once(caplog: pytest.LogCaptureFixture) -> None:
    async with trio.open_nursery() as nursery:
        first, _ = await pair(nursery)
        third = Node(identity(3, name="node-2"), members={ONE: first.address})
        await start(nursery, third)
        with trio.fail_after(30):
            while not any("refused by the other" in reason(r) for r in caplog.records):
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    assert any("nodes 3 and 2 have the same name 'node-2'" in reason(r) for r in caplog.records)


async def test_a_node_is_linked_when_it_becomes_a_member_and_not_after() -> None:
    config = TransportConfig(retry_min_s=0.001, retry_max_s=0.001)
    async with trio.open_nursery() as nursery:
        first = Node(identity(1), members={})
        second = Node(identity(2), members={ONE: await start(nursery, first)}, config=config)
        await start(nursery, second)
        with trio.fail_after(30):
            while second.peers._dial_count < 3:
                await trio.lowlevel.checkpoint()
        assert [] == first.events

        first.peers.add_peer(TWO, ANYWHERE)
        await first.heard("up", TWO)
        first.peers.remove_peer(TWO)
        await first.heard("down", TWO)

        assert frozenset() == first.peers.up
        assert first.peers.send(TWO, "test", 1) is False
        nursery.cancel_scope.cancel()


async def test_a_node_off_loopback_without_tls_does_not_listen() -> None:
    peers = Node(identity(1), listen=Address("0.0.0.0", 0)).peers

    with pytest.raises(TransportError, match=r"without TLS: give this node.*or listen on a loop"):
        await peers.run()


async def test_an_address_in_use_is_a_clear_error() -> None:
    async with trio.open_nursery() as nursery:
        first, _ = await pair(nursery)

        with pytest.raises(TransportError, match=r"cannot listen for other nodes on 127\.0\.0\.1"):
            await Node(identity(3), listen=first.address).peers.run()
        nursery.cancel_scope.cancel()


# TLS


def certificates(folder: Path, *nodes: int, cluster: str = "hares") -> list[TlsFiles]:
    authority = CertificateAuthority.create(cluster, now=NOW)
    return [authority.issue(identity(n).node, folder / str(n), now=NOW) for n in nodes]


async def test_nodes_link_under_mutual_tls(tmp_path: Path) -> None:
    one, two = certificates(tmp_path, 1, 2)
    body = bytes(range(256)) * 8192
    async with trio.open_nursery() as nursery:
        first = Node(identity(1), tls=one)
        second = Node(identity(2), members={ONE: await start(nursery, first)}, tls=two)
        await start(nursery, second)
        await second.heard("up", ONE)

        for number in range(100):
            second.peers.send(ONE, "test", number)
        second.peers.send(ONE, "test", body)
        first.peers.send(TWO, "test", "back")
        await first.heard(TWO, body)
        await second.heard(ONE, "back")
        nursery.cancel_scope.cancel()

    assert [("up", TWO), *((TWO, n) for n in range(100)), (TWO, body)] == first.events


async def refused_link(caplog: pytest.LogCaptureFixture, first: Node, second: Node) -> set[str]:
    """Return the reasons logged when `second` cannot link with `first`; asserts that it cannot."""
    async with trio.open_nursery() as nursery:
        second.peers.add_peer(ONE, await start(nursery, first))
        await start(nursery, second)
        with trio.fail_after(30):
            while len(caplog.records) < 2:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert [] == first.events == second.events
    return {reason(r) for r in caplog.records}


async def test_a_certificate_of_another_authority_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = certificates(tmp_path / "ours", 1)
    (two,) = certificates(tmp_path / "theirs", 2)
    # The dialler trusts the acceptor's authority, so that it is the acceptor who refuses.
    two = TlsFiles(one.authority, two.certificate, two.key)

    reasons = await refused_link(
        caplog,
        Node(identity(1), tls=one),
        Node(identity(2), members={}, tls=two),
    )

    assert any("certificate" in r for r in reasons)
    assert any("unknown ca" in r for r in reasons)


async def test_a_certificate_of_another_node_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, three = certificates(tmp_path, 1, 3)

    reasons = await refused_link(
        caplog,
        Node(identity(1), tls=one),
        Node(identity(2), members={}, tls=three),
    )

    why = "the certificate is not that of node 2 of 'hares'"
    assert {f"refused by this node: {why}", f"refused by the other node: {why}"} == reasons


async def test_a_node_without_tls_is_refused_by_one_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = certificates(tmp_path, 1)

    reasons = await refused_link(caplog, Node(identity(1), tls=one), Node(identity(2), members={}))

    assert any(r.startswith("TLS:") for r in reasons)


async def test_a_node_with_tls_is_told_that_the_other_has_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (two,) = certificates(tmp_path, 2)

    reasons = await refused_link(caplog, Node(identity(1)), Node(identity(2), members={}, tls=two))

    assert any("speaks TLS and this node has no certificate" in r for r in reasons)


async def test_half_a_frame_and_a_lost_connection_hand_nothing_on() -> None:
    async with trio.open_nursery() as nursery:
        first, _ = await pair(nursery)
        stream = await trio.open_tcp_stream(*first.address)
        await stream.send_all(struct.pack("<I", 100) + b"half")
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()

        assert [("up", TWO)] == first.events
        assert MEMBERS.keys() >= first.peers.up
        nursery.cancel_scope.cancel()
