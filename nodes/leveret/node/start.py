"""What a starting node waits for before it serves clients: a cluster, and its place in it."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from leveret.catalog import CatalogTimeout
from leveret.catalog.commands import Bootstrap, RegisterNode
from leveret.transport.identity import Address

from .config import is_any
from .definitions import Definitions, Start, read_definitions
from .membership import MembershipError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from leveret.catalog import Catalog
    from leveret.consensus import Replicas
    from leveret.transport import NodeId

    from .config import AmqpSection, NodeConfig
    from .membership import Membership
    from .outside import Outside

T = TypeVar("T")

log = logging.getLogger(__name__)

WAIT_LOG_S: Final = 5.0
"""How often a starting node says what it waits for."""
LOOK_S: Final = 0.05
"""How often it looks whether it has come."""


async def unless_stopped(stop: trio.Event, work: Callable[[], Awaitable[T]]) -> T | None:
    """Do what a start has to wait for, and return its result; None if stopped before."""
    found: T | None = None
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await stop.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        found = await work()
        nursery.cancel_scope.cancel()
    return found


async def register(
    config: NodeConfig, member: Membership, catalog: Catalog, boot: int, outside: Outside
) -> None:
    """Tell the cluster of this start, and fill its catalog if it is new.

    Raises:
        MembershipError: the cluster has another number of shards than is configured here.
    """
    definitions = _definitions(config)
    commands = await outside.in_thread(partial(definitions.commands, Start(member.node, boot)))
    while True:
        try:
            await catalog.barrier(WAIT_LOG_S)
            if catalog.model.cluster is None:
                password = await outside.in_thread(
                    partial(outside.hash_password, b"guest", outside.secret_bytes(16))
                )
                await catalog.change(
                    Bootstrap(member.cluster, config.consensus.shards, "guest", password),
                    WAIT_LOG_S,
                )
            _check_shards(config, catalog)
            await catalog.change(
                RegisterNode(
                    member.node,
                    member.name,
                    client_urls(config.amqp, member.members[member.node]),
                    boot,
                    str(member.members[member.node]),
                    member.incarnation,
                ),
                WAIT_LOG_S,
            )
            for command in commands:
                await catalog.change(command, WAIT_LOG_S)
        except CatalogTimeout:
            log.warning("waiting for a majority of the cluster's nodes")
        else:
            return


def client_urls(amqp: AmqpSection, peer: Address) -> tuple[str, ...]:
    """Return the URLs at which clients reach a node that other nodes reach at `peer`.

    Where the configuration does not say, a node that listens on all its addresses is reached at
    the host that the other nodes use.
    """

    def reached(listen: Collection[Address]) -> list[Address]:
        return [Address(peer.host, at.port) if is_any(at.host) else at for at in listen]

    plain = amqp.advertise or reached(amqp.listen)
    secured = amqp.tls_advertise or reached(amqp.tls_listen)
    return (*(f"amqp://{address}" for address in plain), *(f"amqps://{at}" for at in secured))


def _check_shards(config: NodeConfig, catalog: Catalog) -> None:
    cluster = catalog.model.cluster
    if cluster is not None and cluster.shards != config.consensus.shards:
        raise MembershipError(
            f"the cluster has {cluster.shards} shards, and consensus.shards is"
            f" {config.consensus.shards} here; set it to {cluster.shards}: a cluster keeps the"
            " number that it began with"
        )


def _definitions(config: NodeConfig) -> Definitions:
    path = config.node.definitions
    if path is None:
        return Definitions()
    definitions, left_out = read_definitions(path)
    if left_out:
        log.warning("definitions left out", extra={"file": str(path), "what": left_out})
    return definitions


async def until_voters(replicas: Replicas, nodes: Collection[NodeId]) -> None:
    """Wait until `nodes` vote in all groups."""
    next_log_s = trio.current_time() + WAIT_LOG_S
    while not replicas.are_voters(nodes):
        if trio.current_time() >= next_log_s:
            next_log_s += WAIT_LOG_S
            log.info("getting the cluster's data", extra={"until_voters": sorted(nodes)})
        await trio.sleep(LOOK_S)
