"""Where runs of publishes go, and in which order."""

from __future__ import annotations

from typing import cast

from leveret.actors import ActorStopped, Ref
from leveret.amqp import encode_record, encode_route
from leveret.broker.exchange import ExchangeActor
from leveret.broker.messages import PublishRun, QueueMessage, Returned
from leveret.broker.routing.router import Router, Routers
from leveret.catalog.model import Binding, Exchange, Model, Queue, State, VirtualHost
from tests.broker.node_lab import HEADER


class Mailbox:
    def __init__(self) -> None:
        self.got: list[object] = []
        self.is_closed = False

    def tell(self, message: object) -> None:
        if self.is_closed:
            raise ActorStopped("closed")
        self.got.append(message)


def ref(mailbox: Mailbox) -> Ref[PublishRun]:
    return cast("Ref[PublishRun]", mailbox)


def run_for(
    connection: Mailbox, exchange: str = "x", *, count: int = 1, mandatory: bool = False
) -> PublishRun:
    run = PublishRun(
        connection=cast("Ref[object]", connection),
        channel=1,
        epoch=1,
        exchange=exchange,
        routing_key="k",
        mandatory=mandatory,
        first_confirm=1,
    )
    run.records += [encode_record(encode_route(exchange, "k"), HEADER, b"x")] * count
    run.size_bytes = sum(map(len, run.records))
    return run


def queue(uid: int) -> Queue:
    return Queue(uid, "/", f"q{uid}", True, False, False, b"", 1, 0, 0, 0)


def router(exchange_type: str, bound: list[int]) -> Router:
    model = Model()
    exchange = Exchange("/", "x", exchange_type, True, False, False, b"")
    bindings = tuple(Binding("/", "x", "queue", f"q{uid}", "k", b"") for uid in bound)
    queues = tuple(queue(uid) for uid in bound)
    model.load(State(None, 9, (), (VirtualHost("/"),), (), (), (exchange,), queues, bindings))
    routers = Routers(model, decode=lambda octets: {}, alternate=lambda exchange: None)
    found = routers.router("/", "x")
    assert found is not None
    return found


def exchange(found: Router | None, queues: dict[int, Mailbox]) -> ExchangeActor:
    return ExchangeActor(
        lambda: found, lambda uid: cast("Ref[QueueMessage] | None", queues.get(uid))
    )


def test_a_run_comes_home_when_the_last_of_its_queues_has_it() -> None:
    home, queues = Mailbox(), {1: Mailbox(), 2: Mailbox()}
    run = run_for(home)

    exchange(router("direct", [1, 2]), queues).receive(run)

    assert [run] == queues[1].got == queues[2].got
    run.answer()
    assert home.got == []
    run.answer(taken=0)
    assert home.got == [run]
    assert run.refused


def test_mandatory_messages_without_a_queue_are_returned_before_they_come_home() -> None:
    home = Mailbox()
    run = run_for(home, mandatory=True)

    exchange(router("direct", []), {}).receive(run)

    assert [Returned, PublishRun] == [type(message) for message in home.got]


def test_a_queue_that_has_ended_counts_as_one_that_has_answered() -> None:
    home, queues = Mailbox(), {1: Mailbox(), 2: Mailbox()}
    queues[2].is_closed = True
    run = run_for(home)

    exchange(router("direct", [1, 2]), queues).receive(run)
    run.answer()

    assert home.got == [run]


def test_runs_that_are_split_by_headers_cost_what_the_whole_did() -> None:
    home = Mailbox()
    run = run_for(home, count=5)
    run.first_confirm = 10

    exchange(router("headers", []), {}).receive(run)

    parts = [message for message in home.got if isinstance(message, PublishRun)]
    assert [10, 11, 12, 13, 14] == [part.first_confirm for part in parts]
    assert run.cost_bytes == sum(part.cost_bytes for part in parts)
    assert run.is_routed


def test_the_next_run_for_another_exchange_waits_until_this_one_is_routed() -> None:
    home, one, two = Mailbox(), Mailbox(), Mailbox()
    first, second, third = run_for(home, "1"), run_for(home, "2"), run_for(home, "2")
    first.is_told = True

    first.goes_before(second, ref(two))
    second.goes_before(third, ref(two))
    assert two.got == one.got == []
    first.routed()

    assert two.got == [second, third]


def test_thousands_of_runs_to_an_exchange_that_is_gone_come_home() -> None:
    home, gone = Mailbox(), Mailbox()
    gone.is_closed = True
    first = before = run_for(home, "1")
    first.is_told = True
    for _ in range(5_000):
        following = run_for(home, "2")
        before.goes_before(following, ref(gone))
        before = following

    first.routed()

    assert len(home.got) == 5_000


def test_what_is_under_way_to_a_deleted_exchange_comes_home() -> None:
    home = Mailbox()
    run = run_for(home)

    exchange(None, {}).receive(run)

    assert home.got == [run]
