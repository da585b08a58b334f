"""Where a node tells clients that it is."""

from __future__ import annotations

from leveret.node.config import AmqpSection
from leveret.node.start import client_urls
from leveret.transport.identity import Address


def test_clients_are_told_all_listeners_with_their_schemes() -> None:
    amqp = AmqpSection(listen=(Address("h", 5672),), tls_listen=(Address("::1", 5671),))

    assert ("amqp://h:5672", "amqps://[::1]:5671") == client_urls(amqp, Address("peer", 25672))


def test_a_node_on_all_its_addresses_is_told_by_the_host_that_other_nodes_use() -> None:
    amqp = AmqpSection(listen=(Address("0.0.0.0", 5672), Address("::", 5673)))

    assert ("amqp://10.0.0.7:5672", "amqp://10.0.0.7:5673") == client_urls(
        amqp, Address("10.0.0.7", 25672)
    )
