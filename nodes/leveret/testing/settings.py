"""How a node under test is configured: small, quick to agree, and without a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leveret.node.config import (
    SETTINGS,
    ConsensusSection,
    NodeConfig,
    PeersSection,
)
from leveret.node.units import Member
from leveret.testing.network import LOOPBACK
from leveret.transport import Address, NodeId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AMQP_PORT: Final = 5672
PEER_PORT: Final = 25_672
TOKEN: Final = b"leveret.testing: no secret at all"
"""The nodes of a test are linked in memory, where nobody else can be."""
FOLDER: Final = Path("in-memory")
"""Stands where texts name the data folder; there is none."""

FIXED: Final = frozenset(
    {
        "amqp.listen",
        "node.cluster",
        "node.data_dir",
        "node.id",
        "node.join",
        "node.name",
        "node.token",
        "node.token_file",
        "peers.listen",
    }
)
"""What the test kit decides."""


def node_configs(
    hosts: Sequence[Address], settings: Mapping[str, object]
) -> dict[NodeId, NodeConfig]:
    """Return the configurations of nodes that take clients at `hosts` and form a cluster.

    settings: by their names in the reference (`amqp.heartbeat_s`), for all nodes.

    Raises:
        ValueError: a setting is unknown, out of range, or not to be set in a test.
    """
    base = _with_settings(
        NodeConfig(
            # One shard: a test has few queues, and each shard is a group to start and to keep.
            # Quick elections: nothing here is far away or busy with anything else.
            consensus=ConsensusSection(
                shards=1,
                heartbeat_s=0.05,
                election_timeout_min_s=0.25,
                election_timeout_max_s=0.5,
                quorum_timeout_s=0.5,
            ),
        ),
        settings,
    )
    members = tuple(
        Member(NodeId(number), Address(LOOPBACK, PEER_PORT + number))
        for number in range(1, len(hosts) + 1)
    )
    return {
        member.id: replace(
            base,
            node=replace(
                base.node,
                id=member.id,
                name=f"node-{member.id}",
                data_dir=FOLDER,
                token=TOKEN,
                cluster=members if len(members) > 1 else (),
            ),
            amqp=replace(base.amqp, listen=(host,)),
            peers=PeersSection(listen=member.address),
        )
        for member, host in zip(members, hosts, strict=True)
    }


def _with_settings(config: NodeConfig, settings: Mapping[str, object]) -> NodeConfig:
    for name, raw in settings.items():
        setting = SETTINGS.get(name)
        if setting is None:
            raise ValueError(
                f"there is no setting {name!r}: see the reference of the configuration"
            )
        if name in FIXED:
            raise ValueError(f"{name} is decided by leveret.testing")
        try:
            value = setting.parse(raw)
        except ValueError as error:
            raise ValueError(f"{name} = {raw!r}: {error}") from None
        section, _, key = name.partition(".")
        config = replace(config, **{section: replace(getattr(config, section), **{key: value})})
    return config
