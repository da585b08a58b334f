"""What a node that others may join says of that."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from leveret.cli.welcome import node_welcome
from leveret.node.config import NodeConfig, NodeSection
from leveret.node.endpoints import Endpoints
from leveret.node.membership import Membership
from leveret.transport.identity import Address, NodeId

TOKEN = bytes(range(32))
MEMBER = Membership(
    cluster="hares",
    node=NodeId(2),
    name="zwei",
    incarnation=1,
    is_founder=False,
    listen=Address("0.0.0.0", 25672),
    members={NodeId(1): Address("192.0.2.1", 25672), NodeId(2): Address("192.0.2.2", 25672)},
)
ENDPOINTS = Endpoints(
    amqp=(Address("127.0.0.1", 5672),),
    peers=Address("0.0.0.0", 25672),
    member=MEMBER,
    token=TOKEN,
)
CONFIG = NodeConfig(node=NodeSection(data_dir=Path("/data")))


def welcome(endpoints: Endpoints, *, shows_secrets: bool = False) -> str:
    return node_welcome(CONFIG, endpoints, version="1", pid=7, shows_secrets=shows_secrets)


def test_it_says_which_node_of_which_members_it_is() -> None:
    text = welcome(ENDPOINTS)

    assert "node zwei, process 7, is ready" in text
    assert "(this is 2 of 1@192.0.2.1:25672, 2@192.0.2.2:25672)" in text


def test_the_token_is_shown_to_a_person_and_not_to_a_log() -> None:
    command = "leveret node --join 192.0.2.2:25672 --peer-listen HOST:PORT --token"

    assert f"{command} {TOKEN.hex()}" in welcome(ENDPOINTS, shows_secrets=True)
    assert f"{command}-file FILE  (a copy of /data/tls/token)" in welcome(ENDPOINTS)
    assert TOKEN.hex() not in welcome(ENDPOINTS)
    assert TOKEN.hex() not in repr(ENDPOINTS)
    assert repr(TOKEN) not in repr(ENDPOINTS)


def test_a_node_that_nobody_can_join_says_nothing_of_it() -> None:
    alone = dataclasses.replace(ENDPOINTS, peers=None, token=None)

    assert "--join" not in welcome(alone, shows_secrets=True)
