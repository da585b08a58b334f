"""Which process has which client, which client has which queue and host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.perf.hosts import single_hosts, without_password
from leveret.perf.plan import Plan


def plan(**fields: object) -> Plan:
    whole: dict[str, object] = {"urls": ("amqp://a", "amqp://b"), "run": 1, "queues": ("q",)}
    return Plan(**{**whole, **fields})  # type: ignore[arg-type]


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 8))
def test_every_client_runs_in_one_process_and_the_processes_have_equal_shares(
    producers: int, consumers: int, processes: int
) -> None:
    whole = plan(producers=producers, consumers=consumers, processes=processes)
    parts = [(whole.producers_in(p), whole.consumers_in(p)) for p in range(processes)]

    assert list(range(producers)) == sorted(n for part, _ in parts for n in part)
    assert list(range(consumers)) == sorted(n for _, part in parts for n in part)
    sizes = [len(mine) + len(others) for mine, others in parts]
    assert max(sizes) - min(sizes) <= 1


def test_producers_and_consumers_are_spread_over_the_queues() -> None:
    spread = plan(queues=("a", "b"), producers=3, consumers=3)

    assert [(0,), (1,), (0,)] == [spread.queues_of(n) for n in range(3)]
    assert ["a", "b", "a"] == [spread.key_of(n) for n in range(3)]
    assert [0, 1, 0] == [spread.queue_of(n) for n in range(3)]


@pytest.mark.parametrize("kind", ["direct", "topic", "headers"])
def test_an_exchange_that_compares_keys_takes_each_producer_to_one_queue(kind: str) -> None:
    spread = plan(queues=("a", "b"), exchange="x", exchange_type=kind)

    assert [(0,), (1,)] == [spread.queues_of(n) for n in range(2)]
    assert ["a", "b"] == [spread.binding_of(n) for n in range(2)]


@pytest.mark.parametrize(
    "fields", [{"exchange_type": "fanout"}, {"exchange_type": "topic", "routing_key": "k"}]
)
def test_a_fanout_or_one_key_for_all_takes_each_message_to_all_queues(
    fields: dict[str, object],
) -> None:
    everywhere = plan(queues=("a", "b"), exchange="x", **fields)

    assert (0, 1) == everywhere.queues_of(1)


def test_only_queues_with_a_consumer_are_waited_for() -> None:
    half = plan(queues=("a", "b"), exchange="x", exchange_type="fanout", consumers=1)

    assert 1 == half.consumed_queues_of(0)


def test_clients_begin_at_different_hosts_and_know_all() -> None:
    assert ("amqp://b", "amqp://a") == plan().urls_of(1)
    assert ("amqp://a", "amqp://b") == plan().urls_of(2)


def test_each_host_of_a_url_is_a_url_with_its_user_and_virtual_host() -> None:
    urls = ["amqp://u:p@a:1,b/v?heartbeat=5", "amqp://c", "amqp://c"]

    assert (
        "amqp://u:p@a:1/v?heartbeat=5",
        "amqp://u:p@b/v?heartbeat=5",
        "amqp://c",
    ) == single_hosts(urls)


def test_a_url_that_is_shown_has_no_password() -> None:
    assert "amqp://u@a:1/v" == without_password("amqp://u:p@a:1/v")
