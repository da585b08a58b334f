"""What a robust connection hides, and what it says when it cannot, over transports that break."""

from __future__ import annotations

import itertools
import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.amqp import errors
from leveret.client import (
    Channel,
    ChannelClosed,
    ConnectFailed,
    ConnectionLost,
    ConsumerCancelled,
    NotFound,
    PublishRefused,
    ReplyLost,
    TransactionLost,
    connect,
)
from tests.client.conftest import fake_connect
from tests.client.fake_broker import FakeCluster


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "leveret.client")


@pytest.mark.parametrize(
    ("deduplicates", "guarantee", "found"),
    [(True, "exactly once", [b"0", b"1", b"2"]),
     (False, "at least once", [b"0", b"1", b"2", b"0", b"1", b"2"])],
)  # fmt: skip
async def test_a_connection_that_dies_between_commit_and_confirm_keeps_the_promise(
    autojump_clock: MockClock, deduplicates: bool, guarantee: str, found: list[bytes]
) -> None:
    cluster = FakeCluster("one", "two", deduplicates=deduplicates)
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        cluster.holds_confirms = True
        async with channel.publisher("q") as publisher:
            for number in range(3):
                await publisher.send(b"%d" % number)
            await wait_all_tasks_blocked()
            assert cluster.bodies["q"] == [b"0", b"1", b"2"]
            cluster.holds_confirms = False
            cluster.stop("one")

        assert connection.guarantee == guarantee
        assert found == cluster.bodies["q"]
        assert publisher.confirmed == 3
        assert connection.statistics().recoveries == 1


async def test_whoever_wants_to_hear_of_each_confirm_hears_of_failures_there_too(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    cluster.refuses = {b"1"}
    heard: list[tuple[bytes, type[Exception] | None]] = []

    def hear(body: bytes, error: Exception | None) -> None:
        heard.append((body, None if error is None else type(error)))

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with channel.publisher("q", on_settled=hear) as publisher:
            for number in range(3):
                await publisher.send(b"%d" % number)

    assert heard == [(b"0", None), (b"1", PublishRefused), (b"2", None)]
    assert (publisher.confirmed, publisher.failed) == (2, [])


async def test_a_publisher_that_is_ready_sends_without_waiting(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        cluster.holds_confirms = True
        publisher = channel.publisher("q", window=1)
        await publisher.ready()
        await publisher.send(b"0")
        is_ready = False

        async def wait() -> None:
            nonlocal is_ready
            await publisher.ready()
            is_ready = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not is_ready
            cluster.confirm_held()

        assert is_ready
        assert publisher.in_flight == 0


async def test_numbers_go_on_over_losses_and_gaps(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(deduplicates=True)
    cluster.refuses = {b"1"}
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        for _ in range(3):
            cluster.holds_confirms = True
            async with trio.open_nursery() as nursery:

                async def publish(body: bytes) -> None:
                    if body in cluster.refuses:
                        with pytest.raises(PublishRefused):
                            await channel.publish(body, "q")
                    else:
                        await channel.publish(body, "q")

                for number in range(3):
                    nursery.start_soon(publish, b"%d" % number)
                    await wait_all_tasks_blocked()
                cluster.cut()
                cluster.holds_confirms = False

    # The refused one is not sent again, though its number lies between those that are.
    assert [b"0", b"2"] * 3 == cluster.bodies["q"]


async def test_what_is_published_while_no_broker_is_there_waits(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one")
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        cluster.stop("one")
        await wait_all_tasks_blocked()
        assert not connection.is_connected
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.publish, b"late", "q")
            await trio.sleep(30)
            assert cluster.bodies["q"] == []
            cluster.start("one")

    assert cluster.bodies["q"] == [b"late"]


async def test_a_publish_that_was_given_up_is_not_sent_later(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one")
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        cluster.stop("one")
        await wait_all_tasks_blocked()
        with trio.move_on_after(5):
            await channel.publish(b"given up", "q")
        cluster.start("one")
        await channel.publish(b"next", "q")

    assert cluster.bodies["q"] == [b"next"]


async def test_the_pauses_between_attempts_grow_and_are_jittered(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster) as connection, connection.channel():
        cluster.stop("one")
        cluster.stop("two")
        await trio.sleep(60)
        times = [at for at, host in cluster.dialled if host == "one"][1:]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        cluster.start("two")
        await trio.sleep(11)
        assert connection.is_connected
        assert connection.address == "two:5672"

    tops = [min(0.05 * 2**n, 10) for n in range(len(pauses))]
    assert len(pauses) > 8
    assert all(top / 2 <= pause <= top for pause, top in zip(pauses, tops, strict=True))
    assert len({pause / top for pause, top in zip(pauses, tops, strict=True)}) > 5


async def test_the_next_address_is_tried_at_once(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        begin = trio.current_time()
        cluster.stop("one")
        await channel.declare_queue("q")

        assert trio.current_time() == begin
        assert connection.address == "two:5672"


async def test_addresses_that_the_cluster_announces_are_used(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    cluster.announces = ["amqp://two:5672", "amqp://one:5672"]
    url = "amqp://one/"
    async with connect(url, dial=cluster.dial) as connection, connection.channel() as channel:
        assert connection.addresses == ["one:5672", "two:5672"]
        cluster.stop("one")
        await channel.declare_queue("q")
        assert connection.address == "two:5672"


async def test_topology_and_consumers_are_there_again(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_exchange("x", "direct")
        mine = await channel.declare_queue(exclusive=True)
        await channel.bind_queue(mine, "x", "key")
        before = mine.name
        async with channel.consume(mine) as deliveries:
            cluster.exchanges.clear()
            cluster.bindings.clear()
            cluster.cut()
            await channel.publish(b"after", "key", exchange="x")
            message = await anext(deliveries)

            assert message.body == b"after"
            assert await message.ack()
        assert mine.name != before
        assert list(cluster.queues) == [mine.name]


async def test_what_is_deleted_is_not_declared_again(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("kept")
        await channel.declare_queue("deleted")
        await channel.delete_queue("deleted")
        cluster.queues.clear()
        cluster.cut()
        await channel.declare_queue("kept", passive=True)

    assert list(cluster.queues) == ["kept"]


async def test_an_exclusive_queue_that_our_former_self_still_holds_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("mine", exclusive=True)
        [former] = cluster.connections
        cluster.notices_losses = False
        former.stream.end()
        await trio.sleep(3)
        assert not connection.is_connected
        former.end()
        await channel.declare_queue("mine", passive=True)


async def test_a_message_of_a_lost_connection_cannot_be_settled_and_comes_again(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        await channel.publish(b"one", "q")
        async with channel.consume("q") as deliveries:
            message = await anext(deliveries)
            cluster.cut()
            again = await anext(deliveries)

            assert message.is_stale
            assert not await message.ack()
            assert (again.body, again.redelivered) == (b"one", True)
            assert await again.ack()
        assert connection.statistics().stale == 1
    assert cluster.bodies["q"] == []


async def test_calls_that_were_not_answered_are_asked_again(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        cluster.is_silent = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.declare_queue, "q")
            await wait_all_tasks_blocked()
            cluster.queues.clear()
            cluster.is_silent = False
            cluster.cut()

    assert "q" in cluster.queues


async def test_a_reply_that_cannot_come_any_more_is_an_error(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("rpc")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose_after, cluster, 1)
            with pytest.raises(ReplyLost, match="between the request and its reply"):
                await channel.call(b"request", "rpc")


async def test_a_request_is_sent_again_if_that_is_wanted(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("rpc")
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await trio.sleep(2)
                async with connection.channel() as other:
                    async for request in other.consume("rpc"):
                        await other.reply(request, request.body * 2)
                        await request.ack()

            nursery.start_soon(lose_after, cluster, 1)
            nursery.start_soon(serve)
            reply = await channel.call(b"ab", "rpc", resend=True)
            nursery.cancel_scope.cancel()

    assert reply.body == b"abab"


async def lose_after(cluster: FakeCluster, seconds: float) -> None:
    await trio.sleep(seconds)
    cluster.cut()


async def test_a_transaction_in_which_the_connection_broke_is_lost(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection:
        async with connection.channel(transactional=True) as channel:
            await channel.declare_queue("q")
            await channel.publish(b"half", "q")
            await wait_all_tasks_blocked()
            cluster.cut()
            await wait_all_tasks_blocked()
            with pytest.raises(TransactionLost, match="repeat the whole transaction"):
                await channel.publish(b"other half", "q")
            async with channel.transaction():
                await channel.publish(b"half", "q")
                await channel.publish(b"other half", "q")

    assert cluster.bodies["q"] == [b"half", b"other half"]


async def test_a_commit_in_which_the_connection_broke_has_an_unknown_outcome(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection:
        async with connection.channel(transactional=True) as channel:
            await channel.declare_queue("q")
            await channel.publish(b"one", "q")
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lose_after, cluster, 1)
                cluster.is_silent = True
                with pytest.raises(ConnectionLost, match="look whether it was"):
                    await channel.commit()
                cluster.is_silent = False


async def test_a_consumer_whose_queue_moved_goes_on(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with channel.consume("q") as deliveries:
            cluster.cancel_consumers("q")
            await channel.publish(b"after", "q")

            assert (await anext(deliveries)).body == b"after"


async def test_a_consumer_whose_transient_queue_is_gone_goes_on_with_a_new_one(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q", durable=False)
        async with channel.consume("q") as deliveries:
            cluster.cancel_consumers("q")
            del cluster.queues["q"]
            await wait_all_tasks_blocked()
            await channel.publish(b"after", "q")

            assert (await anext(deliveries)).body == b"after"


async def test_a_consumer_whose_durable_queue_was_deleted_is_told(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with channel.consume("q") as deliveries:
            cluster.cancel_consumers("q")
            del cluster.queues["q"]
            with pytest.raises(ConsumerCancelled, match="was deleted or is not available"):
                await anext(deliveries)


async def test_an_error_of_one_call_leaves_the_rest_of_the_channel_alone(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster(deduplicates=True)
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with channel.consume("q") as deliveries:
            cluster.holds_confirms = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.publish, b"under way", "q")
                await wait_all_tasks_blocked()
                cluster.holds_confirms = False
                with pytest.raises(NotFound):
                    await channel.get("missing")
            await channel.publish(b"after", "q")
            bodies = [(await anext(deliveries)).body for _ in range(2)]

    assert bodies == [b"under way", b"after"]


async def test_a_publish_to_a_missing_exchange_fails_alone(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    outcomes: dict[bytes, object] = {}
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")

        async def publish(body: bytes, exchange: str) -> None:
            try:
                await channel.publish(body, "q", exchange=exchange)
                outcomes[body] = None
            except ChannelClosed as error:
                outcomes[body] = error.reply_code

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(publish, b"%d" % number, "" if number % 2 else "missing")

    assert outcomes == {b"%d" % n: None if n % 2 else 404 for n in range(6)}
    assert sorted(cluster.bodies["q"]) == [b"1", b"3", b"5"]


async def test_errors_that_the_program_hears_of_do_not_end_a_channel(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        for _ in range(20):
            with pytest.raises(NotFound):
                await channel.publish(b"astray", "q", exchange="missing")
        for _ in range(20):
            with pytest.raises(NotFound):
                await channel.get("missing")
        await channel.publish(b"goes", "q")

    assert cluster.bodies["q"] == [b"goes"]


async def test_a_channel_without_confirms_is_given_up_when_nothing_gets_through(
    autojump_clock: MockClock,
) -> None:
    async with (
        fake_connect(FakeCluster()) as connection,
        connection.channel(confirms=False) as channel,
    ):
        published = 0
        with pytest.raises(NotFound, match="no exchange 'missing'"):
            for _ in range(50):
                await channel.publish(b"astray", exchange="missing")
                await wait_all_tasks_blocked()
                published += 1

    assert published == 9


async def test_a_channel_that_is_closed_over_and_over_is_given_up(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:

        class Always(dict[str, errors.AmqpError]):
            def pop(self, key: str, default: object = None) -> object:  # type: ignore[override]
                return errors.access_refused("never", 0, 0) if key == "confirm.select" else None

        cluster.answers = Always()
        cluster.cut()
        with pytest.raises(ChannelClosed, match="never"):
            await channel.declare_queue("q")


async def test_blocked_publishers_wait(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        cluster.block("low on disk")
        await wait_all_tasks_blocked()
        assert connection.blocked == "low on disk"
        with trio.move_on_after(10) as scope:
            await channel.publish(b"waits", "q")
        assert scope.cancelled_caught
        assert cluster.bodies["q"] == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.publish, b"goes", "q")
            await wait_all_tasks_blocked()
            cluster.block(None)

    assert cluster.bodies["q"] == [b"goes"]


async def test_a_node_that_is_cut_off_from_its_cluster_is_left(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        cluster.block("no majority of the cluster's nodes")
        await wait_all_tasks_blocked()
        begin = trio.current_time()
        await channel.publish(b"elsewhere", "q")

        assert connection.address == "two:5672"
        assert trio.current_time() - begin == 0.5
    assert cluster.bodies["q"] == [b"elsewhere"]


async def test_a_connection_does_not_hurry_from_one_node_that_is_cut_off_to_the_next(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        left = []
        for place in ("two:5672", "one:5672", "two:5672"):
            cluster.block("no majority of the cluster's nodes")
            await wait_all_tasks_blocked()
            begin = trio.current_time()
            await channel.publish(b"elsewhere", "q")
            assert connection.address == place
            left.append(trio.current_time() - begin)

    assert left == [0.5, 2, 2]


async def test_a_node_that_is_back_with_its_cluster_in_time_is_stayed_with(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        cluster.block("no majority of the cluster's nodes")
        await trio.sleep(0.4)
        cluster.block(None)
        await trio.sleep(5)
        cluster.block("low on disk")
        await trio.sleep(5)

        assert connection.address == "one:5672"


async def test_a_broker_that_is_silent_is_given_up(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    cluster.heartbeat = 10
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        cluster.is_silent = True
        [first] = cluster.connections
        begin = trio.current_time()
        await first.ended.wait()
        assert 10 <= trio.current_time() - begin <= 31
        cluster.is_silent = False
        await channel.declare_queue("q")


async def test_a_new_password_is_used_for_later_logins(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await connection.update_secret("new")
        cluster.cut()
        await channel.declare_queue("q")

        assert cluster.password == b"new"


async def test_after_a_while_without_any_broker_a_connection_may_give_up(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster, give_up_after_s=60) as connection:
        async with connection.channel() as channel:
            cluster.stop("one")
            cluster.stop("two")
            with pytest.raises(ConnectFailed, match="one:5672: Connection refused"):
                await channel.publish(b"never", "q")
            assert 60 <= trio.current_time() < 90


async def test_without_robustness_a_loss_is_the_end(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    async with fake_connect(cluster, robust=False) as connection:
        assert connection.guarantee == "at most once"
        async with connection.channel() as channel:
            await channel.declare_queue("q")
            cluster.holds_confirms = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lose_after, cluster, 1)
                with pytest.raises(ConnectionLost):
                    await channel.publish(b"lost", "q")
            with pytest.raises(ConnectionLost):
                await channel.publish(b"later", "q")


async def test_external_logs_in_without_a_password(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(mechanisms=b"PLAIN EXTERNAL")
    async with connect("amqp://one/?auth_mechanism=external", dial=cluster.dial):
        [connection] = cluster.connections
        assert connection.start_ok is not None
        assert connection.start_ok.mechanism == "EXTERNAL"
        assert connection.start_ok.response == b""


async def test_a_request_made_while_no_broker_is_there_finds_its_reply(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()

    async def serve(channel: Channel) -> None:
        async for request in channel.consume("rpc"):
            await channel.reply(request, request.body * 2)
            await request.ack()

    async with (
        fake_connect(cluster) as connection,
        connection.channel() as channel,
        connection.channel() as other,
        trio.open_nursery() as nursery,
    ):
        await channel.declare_queue("rpc")
        nursery.start_soon(serve, other)
        assert (await channel.call(b"ab", "rpc")).body == b"abab"
        cluster.stop("one")
        await wait_all_tasks_blocked()
        replies: list[bytes] = []

        async def ask() -> None:
            replies.append((await channel.call(b"cd", "rpc")).body)

        nursery.start_soon(ask)
        await trio.sleep(60)
        cluster.start("one")
        await trio.sleep(60)
        assert replies == [b"cdcd"]
        nursery.cancel_scope.cancel()


async def test_a_request_after_a_loss_finds_its_reply(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()

    async def serve(channel: Channel) -> None:
        async for request in channel.consume("rpc"):
            await channel.reply(request, request.body * 2)
            await request.ack()

    async with (
        fake_connect(cluster) as connection,
        connection.channel() as channel,
        connection.channel() as other,
        trio.open_nursery() as nursery,
    ):
        await channel.declare_queue("rpc")
        nursery.start_soon(serve, other)
        assert (await channel.call(b"ab", "rpc")).body == b"abab"
        cluster.cut()
        await wait_all_tasks_blocked()
        assert (await channel.call(b"cd", "rpc")).body == b"cdcd"
        nursery.cancel_scope.cancel()
