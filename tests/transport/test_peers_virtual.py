"""What takes time or silence: on a network in memory, by the clock that jumps."""

from __future__ import annotations

import itertools
import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.transport import Address, TransportConfig
from leveret.transport.notices import TOLD_MAX, Notices

from .support import ANYWHERE, MEMBERS, ONE, TWO, Node, identity, pair, reason, start
from .virtual import Net, Socket


async def test_an_idle_link_stays_up(autojump_clock: MockClock, net: Net) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        await trio.sleep(600)

        assert [("up", TWO)] == first.events
        assert [("up", ONE)] == second.events
        nursery.cancel_scope.cancel()


async def test_an_unplugged_peer_is_down_after_the_time_of_silence(
    autojump_clock: MockClock, net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        await trio.sleep(100)
        since = trio.current_time()
        net.cut()
        await first.heard("down", TWO)
        await second.heard("down", ONE)

        # The last sign of life was up to a second ago, and is looked at twice a second.
        assert 3.0 <= trio.current_time() - since <= 4.5
        await first.heard("up", TWO, times=2)
        await second.heard("up", ONE, times=2)
        nursery.cancel_scope.cancel()

    assert {"it was silent for 4 s"} == {
        reason(r) for r in caplog.records if r.message == "link down"
    }


async def test_a_stopped_peer_is_noticed_even_while_one_sends_to_it(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        _, second = await pair(nursery)
        dialler, acceptor = net.connections[-1]
        acceptor.outgoing.is_stuck = True  # node 1 is stopped: it neither sends ...
        dialler.outgoing.is_stuck = True  # ... nor reads
        since = trio.current_time()
        while "down" not in [event[0] for event in second.events]:
            second.peers.send(ONE, "test", bytes(1000))
            await trio.sleep(0.1)

        assert trio.current_time() - since <= 5
        nursery.cancel_scope.cancel()


async def test_a_new_connection_replaces_one_that_is_half_open(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        dialler, acceptor = net.connections[-1]
        acceptor.incoming.is_cut = True
        dialler.incoming.is_reset = True  # node 2 has lost its end, node 1 has not noticed
        dialler.incoming.changed.unpark_all()
        second.peers.send(ONE, "test", "lost")
        await first.heard("up", TWO, times=2)

        assert [("up", TWO), ("down", TWO), ("up", TWO)] == first.events
        await second.heard("up", ONE, times=2)
        assert first.peers.send(TWO, "test", "new")
        await second.heard(ONE, "new")
        nursery.cancel_scope.cancel()


async def test_down_comes_before_the_next_up_and_ends_what_was_handed_on(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery, config=TransportConfig(retry_max_s=0.05))
        numbers = itertools.count()

        async def chatter() -> None:
            while True:
                for _ in range(50):
                    second.peers.send(ONE, "test", next(numbers))
                await trio.sleep(0.001)

        nursery.start_soon(chatter)
        for turn in range(2, 22):
            await trio.sleep(0.003)
            for end in net.connections[-1]:  # a reset, with bytes under way
                end.incoming.is_reset = True
                end.incoming.changed.unpark_all()
            await first.heard("up", TWO, times=turn)
            await second.heard("up", ONE, times=turn)
        nursery.cancel_scope.cancel()

    for node in (first, second):
        changes = [event[0] for event in node.events if event[0] in ("up", "down")]
        assert ["up", "down"] * 20 + ["up"] == changes
    is_up, last = False, -1
    for kind, value in first.events:
        if kind in ("up", "down"):
            is_up = kind == "up"
        else:
            assert is_up
            assert isinstance(value, int)
            assert value > last
            last = value
    assert last > 100


async def test_a_handler_that_removes_its_peer_gets_nothing_more(
    autojump_clock: MockClock, net: Net
) -> None:
    got: list[object] = []
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)

        def take(_: object, payload: object) -> None:
            got.append(payload)
            if payload == 3:
                first.peers.remove_peer(TWO)

        first.peers.on_message("work", take)
        for number in range(10):
            second.peers.send(ONE, "work", number)
        await first.heard("down", TWO)
        nursery.cancel_scope.cancel()

    assert [0, 1, 2, 3] == got


async def test_messages_queued_in_one_turn_go_out_in_one_send(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        await wait_all_tasks_blocked()
        pipe = net.connections[-1][0].outgoing
        before = len(pipe.sizes)
        for number in range(1000):
            second.peers.send(ONE, "test", number)
        await first.heard(TWO, 999)
        nursery.cancel_scope.cancel()

    assert 1 == len(pipe.sizes) - before


async def test_a_peer_that_does_not_keep_up_is_dropped_and_linked_anew(
    autojump_clock: MockClock, net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    config = TransportConfig(
        frame_max_bytes=1 << 20, queue_congested_bytes=1 << 20, queue_limit_bytes=4 << 20
    )
    body = bytes(1 << 19)
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery, config=config)
        net.connections[-1][0].outgoing.is_stuck = True
        taken = 0
        was_congested: list[bool] = []
        while second.peers.send(ONE, "test", body):
            taken += 1
            was_congested.append(second.peers.congested(ONE))

        assert 7 == taken  # of 512 KiB and some bytes each; the eighth is above 4 MiB
        assert [False] + [True] * 6 == was_congested
        assert not second.peers.send(ONE, "test", "after the limit nothing is taken")
        await second.heard("up", ONE, times=2)
        assert second.peers.send(ONE, "test", "anew")
        await first.heard(TWO, "anew")
        nursery.cancel_scope.cancel()

    assert "it does not keep up: over 4194304 bytes are queued" in {
        reason(r) for r in caplog.records if r.message == "link down"
    }


@pytest.mark.parametrize("said", [b"", b"\x40\0", b"\x40\0\0\0\x92\xa6#hel"])
async def test_half_a_hello_is_closed_at_the_deadline(
    autojump_clock: MockClock, net: Net, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        first = Node(identity(1))
        address = await start(nursery, first)
        stranger = Socket(net)
        await stranger.connect(address)
        since = trio.current_time()
        if said:
            await stranger.send(said)
        while await stranger.recv(100):
            pass

        assert 5.0 == pytest.approx(trio.current_time() - since, abs=0.01)
        nursery.cancel_scope.cancel()
    assert ["the hello was not finished in time"] == [reason(r) for r in caplog.records]


async def test_strangers_beyond_the_limit_are_closed_at_once(
    autojump_clock: MockClock, net: Net
) -> None:
    config = TransportConfig(handshakes_max=3)
    async with trio.open_nursery() as nursery:
        first = Node(identity(1), config=config)
        address = await start(nursery, first)
        strangers = [Socket(net) for _ in range(5)]
        for stranger in strangers:
            await stranger.connect(address)
        await wait_all_tasks_blocked()

        assert [False] * 3 + [True] * 2 == [s.incoming.at_end for s in strangers]
        await trio.sleep(10)  # the three have missed their deadline
        second = Node(identity(2), members={ONE: address})
        await start(nursery, second)
        await second.heard("up", ONE)
        nursery.cancel_scope.cancel()


async def test_dialling_backs_off_with_jitter_to_half_a_second_and_says_so_once(
    autojump_clock: MockClock, net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        second = Node(identity(2), members={ONE: ANYWHERE._replace(port=9)})
        await start(nursery, second)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    times = [at for _, at in net.dials]
    waits = [after - before for before, after in itertools.pairwise(times)]
    limits = [min(0.5, 0.05 * 2**n) for n in range(len(waits))]
    assert all(
        max(0.05, most / 2) <= wait <= most for wait, most in zip(waits, limits, strict=True)
    )
    assert len({round(wait, 6) for wait in waits[8:]}) > 10
    assert ["node not reached, dialling on"] == [r.message for r in caplog.records]


async def test_a_node_that_was_down_for_long_is_linked_within_half_a_second_of_its_start(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        place = ANYWHERE._replace(port=9)
        second = Node(identity(2), members=MEMBERS | {ONE: place})
        await start(nursery, second)
        await trio.sleep(600)
        since = trio.current_time()
        first = Node(identity(1), listen=place)
        await start(nursery, first)
        await first.heard("up", TWO)

        assert trio.current_time() - since <= 0.5
        nursery.cancel_scope.cancel()


async def test_a_node_that_was_cut_off_is_linked_soon_after_the_cut_is_mended(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        net.vanishing.add(first.address.port)
        net.cut()
        await second.heard("down", ONE)
        await trio.sleep(600)
        since = trio.current_time()
        # Whatever attempt is under way has lost its packets, and will not hear of it.
        net.vanishing.clear()
        await first.heard("up", TWO, times=2)

        assert trio.current_time() - since <= 2.5
        nursery.cancel_scope.cancel()


async def test_nothing_is_said_to_a_peer_off_loopback_without_tls(
    autojump_clock: MockClock, net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        far = Socket(net)
        await far.bind(("10.0.0.9", 5))
        far.listen()
        second = Node(identity(2), members={ONE: Address("10.0.0.9", 5)})
        await start(nursery, second)
        await trio.sleep(10)

        assert len(net.connections) > 3
        assert all(not acceptor.incoming.data for _, acceptor in net.connections)
        nursery.cancel_scope.cancel()
    (said,) = [reason(r) for r in caplog.records]
    assert "refusing a link with 10.0.0.9 without TLS: give this node" in said


async def test_the_lower_id_never_dials(autojump_clock: MockClock, net: Net) -> None:
    async with trio.open_nursery() as nursery:
        first = Node(identity(1), members=MEMBERS | {TWO: ANYWHERE._replace(port=9)})
        await start(nursery, first)
        await trio.sleep(60)

        assert [] == net.dials
        nursery.cancel_scope.cancel()


async def test_a_removed_node_is_no_longer_dialled(autojump_clock: MockClock, net: Net) -> None:
    async with trio.open_nursery() as nursery:
        second = Node(identity(2), members={ONE: ANYWHERE._replace(port=9)})
        await start(nursery, second)
        await trio.sleep(10)
        second.peers.remove_peer(ONE)
        await wait_all_tasks_blocked()
        dials = len(net.dials)
        await trio.sleep(60)
        assert dials == len(net.dials)

        second.peers.add_peer(ONE, ANYWHERE._replace(port=9))
        await trio.sleep(1)
        assert dials < len(net.dials)
        nursery.cancel_scope.cancel()


async def test_another_address_is_dialled_at_once_and_what_goes_wrong_there_is_news(
    autojump_clock: MockClock, net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        second = Node(identity(2), members={ONE: ANYWHERE._replace(port=9)})
        await start(nursery, second)
        await trio.sleep(60)  # the next attempts are up to half a second apart
        second.peers.add_peer(ONE, ANYWHERE._replace(port=8))
        await wait_all_tasks_blocked()

        assert (8, trio.current_time()) == net.dials[-1]
        nursery.cancel_scope.cancel()
    assert ["127.0.0.1:9", "127.0.0.1:8"] == [r.__dict__["address"] for r in caplog.records]


async def test_a_link_stays_when_its_node_moves_and_the_next_is_made_there(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        second.peers.add_peer(ONE, ANYWHERE._replace(port=8))
        await trio.sleep(60)
        assert [("up", ONE)] == second.events

        first.scope.cancel()
        await second.heard("down", ONE)
        moved = Node(identity(1, boot=2), listen=ANYWHERE._replace(port=8))
        await start(nursery, moved)
        await second.heard("up", ONE, times=2)
        nursery.cancel_scope.cancel()


async def test_a_node_that_is_removed_and_added_again_is_dialled_and_told_of_anew(
    autojump_clock: MockClock, net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        second = Node(identity(2), members={ONE: ANYWHERE._replace(port=9)})
        await start(nursery, second)
        await trio.sleep(10)
        second.peers.remove_peer(ONE)
        second.peers.add_peer(ONE, ANYWHERE._replace(port=9))  # before its task has ended
        await trio.sleep(10)

        assert net.dials[-1][1] > 18
        nursery.cancel_scope.cancel()
    assert ["node not reached, dialling on"] * 2 == [r.message for r in caplog.records]


async def test_messages_for_nobody_are_dropped_and_said_once(
    autojump_clock: MockClock, net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await pair(nursery)
        for number in range(10):
            second.peers.send(ONE, "of a later version", number)
        second.peers.send(ONE, "test", "known")
        await first.heard(TWO, "known")
        nursery.cancel_scope.cancel()

    assert ["messages on an unknown channel are dropped"] == [r.message for r in caplog.records]


async def test_a_handler_that_raises_ends_the_node(autojump_clock: MockClock, net: Net) -> None:
    def take(_: object, __: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            first, second = await pair(nursery)
            first.peers.on_message("work", take)
            second.peers.send(ONE, "work", 1)

    assert caught.value.subgroup(ZeroDivisionError) is not None


def test_notices_are_news_once_and_bounded() -> None:
    notices = Notices()

    assert [True, False, True] == [notices.is_news("a", text) for text in ("x", "x", "y")]
    notices.forget("a")
    assert notices.is_news("a", "x")
    for number in range(TOLD_MAX):
        assert notices.is_news("b", str(number))
    assert notices.is_news("a", "x")
