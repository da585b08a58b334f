"""Definitions of a real RabbitMQ, taken in by one node and in force at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pika
import pytest

from leveret.cli.ask import ask_once
from leveret.cli.exits import NotDone
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.definitions import Imported
from leveret.node.control.entities import QueueSeen
from leveret.node.definitions import read_definitions
from tests.cluster.conftest import Cluster, NodeMaker
from tests.cluster.test_operating import ctl, data_of
from tests.support.nodes import LeveretProcess

EXPORT = Path(__file__).parents[1] / "node/rabbitmq_3_10_definitions.json"
SAME = ("vhosts", "users", "permissions", "policies", "exchanges", "queues", "bindings")


def export(member: LeveretProcess) -> dict[str, Any]:
    return ask_once(data_of(member), "export_definitions", dict[str, Any])


def test_a_team_moves_from_rabbitmq_with_its_definitions_and_passwords(
    make_node: NodeMaker,
) -> None:
    node = make_node()
    node.start()
    done = ctl("import_definitions", str(EXPORT), "--data-dir", str(data_of(node)))
    assert 0 == done.returncode, done.stderr
    assert "" == done.stderr

    parameters = pika.ConnectionParameters(
        "127.0.0.1", node.ports[0], "shop", credentials=pika.PlainCredentials("ada", "secret")
    )
    channel = pika.BlockingConnection(parameters).channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="access to queue 'b'"):
        channel.queue_declare("b")  # ada may configure what begins with an a
    channel.connection.close()

    channel = pika.BlockingConnection(pika.URLParameters(node.urls[0])).channel()
    channel.confirm_delivery()
    channel.basic_publish("events", "a.b", b"routed as it was", mandatory=True)
    # A client's own declaration, as it was before the move, is the same.
    declared = channel.queue_declare(
        "orders",
        durable=True,
        arguments={"x-message-ttl": 60000, "x-dead-letter-exchange": "dead"},
    )
    assert 1 == declared.method.message_count
    channel.connection.close()

    again = ctl("import_definitions", str(EXPORT), "--json", "--data-dir", str(data_of(node)))
    assert (0, []) == (
        json.loads(again.stdout)["created"],
        json.loads(again.stdout)["refused"],
    )


def test_what_one_node_takes_in_all_nodes_give_out(cluster: Cluster) -> None:
    definitions = {
        "vhosts": [{"name": "moved"}],
        "users": [{"name": "mover", "password": "pw", "tags": "management"}],
        "permissions": [
            {"user": "mover", "vhost": "moved", "configure": "", "write": ".*", "read": "^q$"}
        ],
        "policies": [
            {
                "name": "ttl",
                "vhost": "moved",
                "pattern": "^q$",
                "apply-to": "queues",
                "definition": {"message-ttl": 60_000},
                "priority": 3,
            }
        ],
        "parameters": [
            {
                "component": "operator_policy",
                "name": "cap",
                "vhost": "moved",
                "value": {
                    "pattern": ".*",
                    "apply-to": "queues",
                    "definition": {"max-length": 3},
                    "priority": 0,
                },
            }
        ],
        "exchanges": [{"name": "x", "vhost": "moved", "type": "headers"}],
        "queues": [{"name": "q", "vhost": "moved", "arguments": {"x-max-length": 5}}],
        "bindings": [
            {
                "source": "x",
                "vhost": "moved",
                "destination": "q",
                "destination_type": "queue",
                "arguments": {"x-match": "any", "n": 1},
            }
        ],
    }
    told = ask_once(data_of(cluster[0]), "import_definitions", Imported, definitions=definitions)
    assert (8, []) == (told.created, told.refused)

    exports = [export(member) for member in cluster.members]

    assert exports[0] == exports[1] == exports[2]
    (queue,) = [one for one in exports[1]["queues"] if one["vhost"] == "moved"]
    assert ("q", True, {"x-max-length": 5}) == (
        queue["name"],
        queue["durable"],
        queue["arguments"],
    )
    (binding,) = [one for one in exports[1]["bindings"] if one["vhost"] == "moved"]
    assert {"x-match": "any", "n": 1} == binding["arguments"]
    (mover,) = [one for one in exports[1]["users"] if one["name"] == "mover"]
    assert ["management"] == mover["tags"]
    ask_once(data_of(cluster[2]), "authenticate_user", object, user="mover", password="pw")
    for part in ("policies", "parameters"):
        assert definitions[part] == [one for one in exports[1][part] if one["vhost"] == "moved"]
    listed = ask_once(
        data_of(cluster[2]), "list_queues", Listed[QueueSeen], vhost="moved", counts=False
    )
    assert [{"max-length": 3, "message-ttl": 60_000}] == [
        seen.effective_policy_definition for seen in listed.rows
    ]


def test_a_binding_that_a_client_made_is_not_made_again_by_its_export(make_node: NodeMaker) -> None:
    node = make_node()
    node.start()
    channel = pika.BlockingConnection(pika.URLParameters(node.urls[0])).channel()
    channel.queue_declare("q", durable=True)
    # A long integer, which JSON cannot tell from a short one.
    channel.queue_bind("q", "amq.headers", "", {"n": pika.compat.long(1)})
    channel.connection.close()
    before = export(node)
    parts = {part: before[part] for part in SAME}

    told = ask_once(data_of(node), "import_definitions", Imported, definitions=parts)

    assert (0, []) == (told.created, told.refused)
    assert before == export(node)


def test_what_has_no_place_is_refused_alone(cluster: Cluster) -> None:
    told = ask_once(
        data_of(cluster[0]),
        "import_definitions",
        Imported,
        definitions={
            "queues": [{"name": "q", "vhost": "nowhere"}, {"name": "q-alone", "vhost": "/"}],
            "bindings": [
                {
                    "source": "nothing",
                    "vhost": "/",
                    "destination": "q-alone",
                    "destination_type": "queue",
                }
            ],
        },
    )

    assert 1 == told.created
    assert [
        "queue 'q' in 'nowhere': virtual host \"nowhere\" does not exist",
        "binding of 'q-alone' to 'nothing' in '/': no exchange \"nothing\" in virtual host \"/\"",
    ] == told.refused


def test_what_cannot_be_made_changes_nothing(cluster: Cluster) -> None:
    users = [{"name": "fine"}, {"name": "broken", "password_hash": "AAAA"}]
    with pytest.raises(NotDone, match="user 'broken': a sha256 password hash has 3 bytes"):
        ask_once(data_of(cluster[0]), "import_definitions", Imported, definitions={"users": users})

    assert "fine" not in [user["name"] for user in export(cluster[0])["users"]]


def test_a_file_of_definitions_fills_a_node_at_its_start(make_node: NodeMaker) -> None:
    node = make_node(f"node.definitions={EXPORT}")
    node.start()

    names = {queue["name"] for queue in export(node)["queues"]}
    assert {queue.name for queue in read_definitions(EXPORT)[0].queues} == names
    assert ["ttl"] == [policy["name"] for policy in export(node)["policies"]]

    node.kill()
    node.start()
    assert names == {queue["name"] for queue in export(node)["queues"]}


def test_what_one_virtual_host_has_goes_into_another_one(
    make_node: NodeMaker, tmp_path: Path
) -> None:
    node = make_node()
    node.start()
    data, file = str(data_of(node)), tmp_path / "shop.json"
    assert 0 == ctl("import_definitions", str(EXPORT), "--data-dir", data).returncode
    before = export(node)

    assert 0 == ctl("export_definitions", "-p", "/", str(file), "--data-dir", data).returncode
    assert 0 == ctl("add_vhost", "second", "--data-dir", data).returncode
    done = ctl("import_definitions", "--vhost", "second", str(file), "--data-dir", data)

    assert (0, "") == (done.returncode, done.stderr)
    after = export(node)
    for part in ("policies", "parameters", "exchanges", "queues", "bindings"):
        first = [{**one, "vhost": "second"} for one in before[part] if one["vhost"] == "/"]
        assert first == [one for one in after[part] if one["vhost"] == "second"], part
    assert any(one["vhost"] == "second" for one in after["queues"])

    whole = ctl("import_definitions", "-p", "second", str(EXPORT), "--data-dir", data)
    assert 2 == whole.returncode
    assert "is not of one virtual host: it has" in whole.stderr
    missing = ctl("export_definitions", "-p", "nope", "-", "--data-dir", data)
    assert 6 == missing.returncode
    assert 'virtual host "nope" does not exist' in missing.stderr
