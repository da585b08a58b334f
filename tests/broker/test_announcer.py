"""What the broker itself publishes, and what becomes of it when nobody can take it."""

from __future__ import annotations

import pytest

from leveret.amqp.delivery import Record
from leveret.amqp.properties import Properties
from leveret.broker import announcer as announcer_module
from leveret.broker.announcer import Announcer, headers_only
from leveret.broker.messages import PublishRun
from leveret.catalog.commands import Bind
from leveret.catalog.model import EMPTY_TABLE
from tests.broker.node_lab import lab


class Exchange:
    """An exchange's mailbox."""

    def __init__(self) -> None:
        self.runs: list[PublishRun] = []

    def tell(self, run: PublishRun) -> None:
        self.runs.append(run)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


async def test_it_is_heard_where_something_is_bound() -> None:
    async with lab() as node:
        assert not node.directory.announcer.is_heard("/", "amq.topic")

        await node.change(Bind("/", "amq.topic", "exchange", "amq.fanout", "#", EMPTY_TABLE))

        assert node.directory.announcer.is_heard("/", "amq.topic")


async def test_announcements_beyond_the_limit_are_lost_until_queues_catch_up(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer_module, "UNDER_WAY_MAX", 2)
    async with lab() as node:
        made = Announcer(node.catalog, lambda vhost, name: exchange)  # type: ignore[arg-type, return-value]
        for n in range(4):
            made.publish("/", "x", f"k{n}", headers_only({}))
        assert ["k0", "k1"] == [run.routing_key for run in exchange.runs]

        exchange.runs[0].go_home()
        made.publish("/", "x", "later", headers_only({}))

        assert ["k0", "k1", "later"] == [run.routing_key for run in exchange.runs]


async def test_a_key_is_cut_to_what_a_key_can_hold(exchange: Exchange) -> None:
    async with lab() as node:
        made = Announcer(node.catalog, lambda vhost, name: exchange)  # type: ignore[arg-type, return-value]

        made.publish("/", "x", "publish." + "é" * 200, Properties(), b"body")

        (run,) = exchange.runs
        assert 254 == len(run.routing_key.encode())
        assert b"body" == Record(run.records[0]).body
