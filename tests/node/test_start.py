"""Where a node tells clients that it is."""

from __future__ import annotations

from dataclasses import replace

from leveret.node.config import AmqpSection
from leveret.node.start import client_urls
from leveret.transport.identity import Address


def test_clients_are_told_all_listeners_with_their_schemes() -> None:
    amqp = AmqpSection(listen=(Address("h", 5672),), tls_listen=(Address("::1", 5671),))

    assert ("amqp://h:5672", "amqps://[::1]:5671") == client_urls(amqp, Address("peer", 25672))


def test_clients_are_told_what_is_configured_for_them() -> None:
    amqp = AmqpSection(
        listen=(Address("0.0.0.0", 5672),),
        tls_listen=(Address("0.0.0.0", 5671),),
        advertise=(Address("mq.example.org", 5672), Address("192.0.2.1", 15672)),
    )
    peer = Address("10.0.0.7", 25672)

    assert client_urls(amqp, peer) == (
        "amqp://mq.example.org:5672",
        "amqp://192.0.2.1:15672",
        "amqps://10.0.0.7:5671",
    )
    secured = replace(amqp, advertise=(), tls_advertise=(Address("mq.example.org", 443),))
    assert client_urls(secured, peer) == ("amqp://10.0.0.7:5672", "amqps://mq.example.org:443")


def test_a_node_on_all_its_addresses_is_told_by_the_host_that_other_nodes_use() -> None:
    amqp = AmqpSection(listen=(Address("0.0.0.0", 5672), Address("::", 5673)))

    assert ("amqp://10.0.0.7:5672", "amqp://10.0.0.7:5673") == client_urls(
        amqp, Address("10.0.0.7", 25672)
    )
