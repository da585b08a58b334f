"""What the broker says of itself and of its cluster before anybody has logged in."""

from __future__ import annotations

from leveret.broker.connections.handshake import ADDRESSES_OCTETS_MAX, Greeting


def greeting(addresses: list[str]) -> Greeting:
    return Greeting(
        product="RabbitMQ",
        version="3.13.0",
        own_version="0",
        cluster_name="c",
        addresses=lambda: addresses,
        channel_max=1,
        frame_max=4096,
        heartbeat_s=0,
        refused_login_delay_s=0,
    )


def test_it_names_the_nodes_that_the_cluster_has_at_that_moment() -> None:
    addresses = ["amqp://a:5672"]
    said = greeting(addresses)
    assert said.properties["cluster_addresses"] == ["amqp://a:5672"]

    addresses.append("amqp://b:5672")

    assert said.properties["cluster_addresses"] == addresses


def test_a_large_cluster_names_as_many_nodes_as_fit() -> None:
    addresses = [f"amqp://node-{number:03}.example:5672" for number in range(1_000)]

    named = greeting(addresses).properties["cluster_addresses"]

    assert isinstance(named, list)
    assert addresses[: len(named)] == named
    assert len(named) == ADDRESSES_OCTETS_MAX // len(addresses[0])
