"""Brokers in memory, as a user's test sees them."""

from __future__ import annotations

import logging
import socket

import pytest
import trio
from trio.testing import MockClock

from leveret.client import (
    Channel,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    ConnectionLost,
    connect,
)
from leveret.client.address import parse_url
from leveret.client.streams import dial
from leveret.node.definitions import DefinitionsError
from leveret.testing import broker, cluster


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def bodies(channel: Channel, queue: str, count: int) -> list[bytes]:
    """Take and acknowledge so many messages."""
    taken: list[bytes] = []
    async for message in channel.consume(queue):
        taken.append(message.body)
        await message.ack()
        if len(taken) == count:
            break
    return taken


async def send(connection: Connection, queue: str, *sent: bytes) -> None:
    async with connection.channel() as channel:
        await channel.declare_queue(queue, durable=True)
        for body in sent:
            await channel.publish(body, queue)


async def receive(connection: Connection, queue: str, count: int) -> list[bytes]:
    async with connection.channel() as channel:
        return await bodies(channel, queue, count)


async def test_a_message_goes_through_a_broker_in_memory() -> None:
    async with broker() as b, connect(b.url) as connection:
        await send(connection, "orders", b"one", b"two")

        assert [b"one", b"two"] == await receive(connection, "orders", 2)


async def test_two_brokers_of_one_test_know_nothing_of_each_other() -> None:
    async with broker() as one, broker() as other:
        async with connect(one.url) as connection:
            await send(connection, "orders", b"one")
        async with connect(other.url) as connection, connection.channel() as channel:
            queue = await channel.declare_queue("orders", durable=True)

            assert 0 == queue.message_count


async def test_a_broker_that_is_gone_refuses_connections_at_once() -> None:
    async with broker() as b:
        pass

    with pytest.raises(ConnectFailed):
        async with connect(b.url, robust=False):
            pass


async def test_a_broker_that_was_killed_has_what_was_confirmed() -> None:
    async with broker() as b:
        async with connect(b.url) as connection:
            await send(connection, "orders", b"one")
        await b.restart()

        async with connect(b.url) as connection:
            assert [b"one"] == await receive(connection, "orders", 1)


async def test_a_robust_client_goes_on_when_its_broker_was_killed(
    autojump_clock: MockClock,
) -> None:
    async with broker() as b, connect(b.url) as connection:
        await send(connection, "orders", b"one")
        await b.kill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, connection, "orders", b"two")
            await trio.sleep(60)
            await b.start()

        assert [b"one", b"two"] == await receive(connection, "orders", 2)


async def test_a_client_that_is_not_robust_learns_of_a_kill() -> None:
    async with broker() as b, connect(b.url, robust=False) as connection:
        await b.kill()

        with pytest.raises(ConnectionLost):
            await send(connection, "orders", b"one")


async def test_a_broker_that_is_stopped_tells_its_clients() -> None:
    async with broker() as b, connect(b.url, robust=False) as connection:
        await b.stop()

        with pytest.raises((ConnectionClosed, ConnectionLost), match="shutdown"):
            await send(connection, "orders", b"one")


async def test_ten_minutes_of_silence_take_no_time_and_no_connection(
    autojump_clock: MockClock,
) -> None:
    """Heartbeats keep it, by the virtual clock."""
    async with (
        broker(settings={"amqp.heartbeat_s": 30}) as b,
        connect(b.url, robust=False) as connection,
    ):
        began_s = trio.current_time()
        await trio.sleep(600)

        assert connection.is_connected
        assert 600 <= trio.current_time() - began_s < 601


async def test_who_does_not_log_in_is_cut_off_by_the_virtual_clock(
    autojump_clock: MockClock,
) -> None:
    async with broker(settings={"amqp.handshake_timeout_s": 10}) as b:
        began_s = trio.current_time()
        stranger = await dial(parse_url(b.url).addresses[0], None, None)
        await stranger.send_all(b"AMQP\0\0\x09\x01")

        while await stranger.receive(65536):
            pass
        stranger.close()
        assert 10 == pytest.approx(trio.current_time() - began_s, abs=0.1)


async def test_what_the_test_raises_comes_out_as_it_is() -> None:
    reason = LookupError("the reason")
    with pytest.raises(ValueError, match="of the test") as caught:
        async with broker():
            raise ValueError("of the test") from reason

    assert caught.value.__cause__ is reason


async def test_what_the_broker_fails_with_ends_the_test() -> None:
    with pytest.raises(DefinitionsError):
        async with broker(settings={"node.definitions": "there/is/none.json"}):
            raise AssertionError("it did not start")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"amqp.heartbeats": 1}, "no setting 'amqp.heartbeats'"),
        ({"amqp.heartbeat_s": -1}, "amqp.heartbeat_s = -1: "),
        ({"node.id": 3}, "node.id is decided by leveret.testing"),
    ],
)
async def test_a_wrong_setting_is_told(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        async with broker(settings=settings):
            pass


async def test_a_timeout_around_a_broker_ends_it() -> None:
    with trio.move_on_after(0.2) as scope:
        async with broker():
            await trio.sleep_forever()

    assert scope.cancelled_caught


async def test_a_broker_on_loopback_is_there_for_anybody_and_comes_back_at_its_port() -> None:
    async with broker(loopback=True) as b:
        url = b.url
        port = int(url.removesuffix("/").rpartition(":")[2])
        await trio.to_thread.run_sync(lambda: socket.create_connection(("127.0.0.1", port)).close())
        async with connect(url) as connection:
            await send(connection, "orders", b"one")
            await b.restart()

            assert url == b.url
            assert [b"one"] == await receive(connection, "orders", 1)


async def test_other_sockets_of_the_test_stay_what_they_are() -> None:
    async with broker():
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = listeners[0].socket.getsockname()
        async with await trio.open_tcp_stream(address[0], address[1]), listeners[0]:
            assert socket.AF_INET == listeners[0].socket.family
            assert listeners[0].socket.fileno() >= 0


# A cluster


async def test_a_cluster_goes_on_without_one_of_its_nodes(autojump_clock: MockClock) -> None:
    async with cluster(3) as c, connect(c.url) as connection:
        await send(connection, "orders", b"one")
        for number in (1, 2, 3):
            await c.kill(number)
            assert number not in c.running
            await send(connection, "orders", b"without %d" % number)
            await c.start(number)

        assert [b"one", b"without 1", b"without 2", b"without 3"] == await receive(
            connection, "orders", 4
        )


async def test_a_cluster_without_a_majority_confirms_nothing_until_it_has_one(
    autojump_clock: MockClock,
) -> None:
    confirmed: list[float] = []
    async with (
        cluster(3) as c,
        connect(c.urls[2]) as connection,
        connection.channel() as channel,
        trio.open_nursery() as nursery,
    ):
        await channel.declare_queue("orders", durable=True)
        await c.kill(1)
        await c.kill(2)
        back_s = trio.current_time() + 120

        @nursery.start_soon
        async def publish() -> None:
            await channel.publish(b"one", "orders")
            confirmed.append(trio.current_time())

        await trio.sleep(120)
        assert confirmed == []
        await c.start(1)

    [confirmed_s] = confirmed
    assert back_s <= confirmed_s <= back_s + 60


async def test_the_nodes_of_a_cluster_have_a_url_each_and_one_together() -> None:
    async with cluster(2) as c:
        hosts = [url.removeprefix("amqp://guest:guest@").removesuffix("/") for url in c.urls]

        assert 2 == len(set(hosts))
        assert f"amqp://guest:guest@{','.join(hosts)}/" == c.url
        for url in c.urls:
            async with connect(url):
                pass


async def test_a_node_that_is_not_there_is_told() -> None:
    async with cluster(2) as c:
        with pytest.raises(ValueError, match="there is no node 3: they are 1 to 2"):
            await c.kill(3)
    with pytest.raises(ValueError, match="1 to 9 nodes"):
        cluster(0)
