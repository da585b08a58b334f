"""Users, virtual hosts and permissions from a file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from leveret.broker.access import (
    export_password_hash,
    hash_password,
    import_password_hash,
    verify_password,
)
from leveret.catalog.commands import (
    AddVirtualHost,
    Bind,
    Bootstrap,
    DeclareExchange,
    DeclareQueue,
    PutUser,
    RegisterNode,
    SetPermission,
    SetPolicy,
    SetTopicPermission,
    UpdateVirtualHost,
    encode,
)
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import PasswordHash
from leveret.node.definitions import (
    DefinitionCommand,
    Definitions,
    DefinitionsError,
    Start,
    decode_definitions,
    read_definitions,
)
from leveret.node.exporting import exported
from leveret.node.plain_tables import plain_arguments

# What RabbitMQ 3.10 exports for a user with the password "test".
HASH = "gYKUTi2FQLqnAxuMAHoWl1vBuKJMXj9ncUQc9YOA+tZk/6VB"


START = Start(node=1, boot=2)


def commands(path: Path) -> Sequence[DefinitionCommand]:
    return read_definitions(path)[0].commands(START)


def written(folder: Path, content: object) -> Path:
    path = folder / "definitions.json"
    path.write_text(json.dumps(content))
    return path


def test_definitions_become_commands_in_the_order_in_which_they_need_each_other(
    tmp_path: Path,
) -> None:
    path = written(
        tmp_path,
        {
            "permissions": [
                {"user": "ada", "vhost": "v", "configure": "", "write": "^a", "read": ".*"}
            ],
            "users": [{"name": "ada", "password": "secret", "tags": "monitoring, management"}],
            "vhosts": [{"name": "v", "metadata": {"tags": []}}],
            "policies": [
                {"name": "p", "vhost": "v", "pattern": "^a", "definition": {"max-length": 1}}
            ],
            "runtime": [{"name": "passed over"}],
        },
    )

    vhost, properties, user, permission, policy = commands(path)

    assert vhost == AddVirtualHost("v")
    assert properties == UpdateVirtualHost(
        "v", "", (), "", False, connections_max=-1, queues_max=-1
    )
    assert isinstance(user, PutUser)
    assert user.tags == ("monitoring", "management")
    assert user.password is not None
    assert verify_password(user.password, b"secret")
    assert permission == SetPermission("ada", "v", "", "^a", ".*")
    assert policy == SetPolicy("v", False, "p", "^a", "all", 0, b'{"max-length":1}')


def test_a_user_without_a_password_can_not_log_in(tmp_path: Path) -> None:
    path = written(tmp_path, {"users": [{"name": "ada", "password_hash": "", "tags": []}]})

    (user,) = commands(path)

    assert user == PutUser("ada", None, (), "all", -1, -1)


def test_a_password_hash_of_rabbitmq_is_taken_over(tmp_path: Path) -> None:
    path = written(tmp_path, {"users": [{"name": "ada", "password_hash": HASH}]})

    (user,) = commands(path)

    assert isinstance(user, PutUser)
    assert user.password is not None
    assert user.password.algorithm == "sha256"


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"users": [{"password": "nameless"}]},
        {"vhosts": "v"},
    ],
)
def test_another_format_is_refused_with_its_place(tmp_path: Path, content: object) -> None:
    with pytest.raises(DefinitionsError, match=r"definitions\.json"):
        read_definitions(written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        {"users": [{"name": "a", "password_hash": "AAAA"}]},
        {"users": [{"name": "a", "password_hash": HASH, "hashing_algorithm": "rot13"}]},
        {"permissions": [{"user": "a", "vhost": "v", "configure": "(", "write": "", "read": ""}]},
    ],
)
def test_what_the_catalog_could_not_use_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DefinitionsError):
        commands(written(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsError, match="cannot be read"):
        read_definitions(tmp_path / "none.json")


def test_no_definitions_are_no_commands() -> None:
    assert Definitions().commands(START) == []


# The whole of an export


EXPORT = Path(__file__).parent / "rabbitmq_3_10_definitions.json"
"""What a RabbitMQ 3.10.8 exported; the password of `ada` is "secret"."""


def decoded(**parts: object) -> tuple[Definitions, list[str]]:
    return decode_definitions(json.dumps(parts).encode(), "export")


def test_an_export_of_rabbitmq_is_taken_over_but_for_what_is_named() -> None:
    definitions, left_out = read_definitions(EXPORT)
    made = definitions.commands(START)

    assert [] == left_out
    ttl = SetPolicy("/", False, "ttl", "^x", "queues", 0, b'{"message-ttl":1000}')
    assert [ttl] == [one for one in made if isinstance(one, SetPolicy)]
    (ada,) = [one for one in made if isinstance(one, PutUser) and one.name == "ada"]
    assert ada.password is not None
    assert verify_password(ada.password, b"secret")
    assert {"tmp": False, "quo": True, "orders": True} == {
        one.name: one.durable for one in made if isinstance(one, DeclareQueue)
    }
    (orders,) = [one for one in made if isinstance(one, DeclareQueue) and one.name == "orders"]
    assert {"x-dead-letter-exchange": "dead", "x-message-ttl": 60000} == plain_arguments(
        orders.arguments
    )
    assert {("events", "topic"), ("inner", "headers")} == {
        (one.name, one.type) for one in made if isinstance(one, DeclareExchange)
    }
    assert {("events", "queue", "orders"), ("events", "exchange", "inner")} < {
        (one.source, one.kind, one.destination) for one in made if isinstance(one, Bind)
    }


def test_what_the_catalog_exports_makes_an_equal_catalog() -> None:
    machine, again = CatalogMachine(), CatalogMachine()
    guest = PasswordHash("sha256", bytes(4), bytes(32))
    for one in (machine, again):
        one.apply(1, 0, encode(Bootstrap("lab", 3, "guest", guest)), 0)
        one.apply(1, 0, encode(RegisterNode(1, "n1", (), 2)), 0)
    for command in [
        *read_definitions(EXPORT)[0].commands(START),
        PutUser("nobody", None, ()),
        SetTopicPermission("nobody", "/", "amq.topic", "^a", ""),
        PutUser("nobody", None, (), "limits", 3),
        UpdateVirtualHost("shop", "orders", ("eu",), "quorum", True, queues_max=5),
        SetPolicy("/", True, "ttl", "^o", "queues", -1, b'{"max-length":3}'),
    ]:
        machine.apply(1, 0, encode(command), 0)
    mine = DeclareQueue("/", "mine", False, True, False, b"", 1, 2, 7)
    machine.apply(1, 0, encode(mine), 0)

    export = exported(machine.model, rabbitmq_version="3.10.8", version="1")
    definitions, left_out = decode_definitions(json.dumps(export).encode(), "export")
    for command in definitions.commands(START):
        again.apply(1, 0, encode(command), 0)

    assert [] == left_out
    assert export == exported(again.model, rabbitmq_version="3.10.8", version="1")
    assert again.model.queue("/", "mine") is None


def test_our_own_hashes_survive_an_export() -> None:
    record = hash_password(b"secret", bytes(16))
    algorithm, encoded = export_password_hash(record)

    assert record == import_password_hash(algorithm, encoded)


def test_what_there_is_no_type_for_is_left_out_with_its_bindings() -> None:
    definitions, left_out = decoded(
        exchanges=[{"name": "ring", "vhost": "/", "type": "x-weird"}],
        queues=[
            {"name": "log", "vhost": "/", "arguments": {"x-queue-type": "heap"}},
            {"name": "log2", "vhost": "/", "type": "heap"},
            {"name": "q", "vhost": "/"},
        ],
        bindings=[
            {"source": "ring", "vhost": "/", "destination": "q", "destination_type": "queue"},
            {"source": "x", "vhost": "/", "destination": "log", "destination_type": "queue"},
            {"source": "x", "vhost": "/", "destination": "q", "destination_type": "queue"},
        ],
    )

    assert [
        "exchange 'ring' in '/', of type 'x-weird'",
        "queue 'log' in '/', of type 'heap'",
        "queue 'log2' in '/', of type 'heap'",
        "2 bindings of these",
    ] == left_out
    assert ["queue 'q' in '/'", "binding of 'q' to 'x' in '/'"] == [
        one.title for one in definitions
    ]


def test_parts_that_are_not_taken_over_are_named_if_there_is_anything_in_them() -> None:
    _, left_out = decoded(
        parameters=[
            {"component": "vhost-limits", "vhost": "/", "name": "limits", "value": {}},
            {"component": "shovel", "name": "s", "vhost": "/", "value": {}},
            {
                "component": "operator_policy",
                "name": "o",
                "vhost": "/",
                "value": {"pattern": "", "definition": {"max-length": 1}},
            },
        ],
        runtime=[{}, {}],
        global_parameters=[{}],
        rabbit_version="3.10.8",
    )

    assert [
        "parameter 's' of 'shovel' in '/'",
        "global_parameters (1)",
        "runtime (2)",
    ] == left_out


def test_limits_are_taken_over_in_both_forms() -> None:
    definitions, _ = decoded(
        users=[{"name": "ada", "limits": {"max-connections": 3}}],
        vhosts=[{"name": "shop", "limits": [["max-queues", 5], ["max-connections", -1]]}],
    )
    _, properties, ada = definitions.commands(START)

    assert isinstance(properties, UpdateVirtualHost)
    assert (-1, 5) == (properties.connections_max, properties.queues_max)
    assert isinstance(ada, PutUser)
    assert (3, -1) == (ada.connections_max, ada.channels_max)


@pytest.mark.parametrize("definition", [{"max-length": 3}, [["max-length", 3]]])
def test_an_operator_policy_is_a_parameter_in_each_form_that_rabbitmq_writes(
    definition: object,
) -> None:
    value = {"apply-to": "queues", "definition": definition, "pattern": "^o", "priority": 7}
    definitions, left_out = decoded(
        parameters=[{"component": "operator_policy", "name": "o", "vhost": "/", "value": value}]
    )

    assert [] == left_out
    assert [SetPolicy("/", True, "o", "^o", "queues", 7, b'{"max-length":3}')] == (
        definitions.commands(START)
    )


def test_the_type_of_a_queue_may_stand_beside_its_arguments() -> None:
    definitions, _ = decoded(queues=[{"name": "q", "vhost": "/", "type": "quorum"}])
    (queue,) = definitions.commands(START)

    assert isinstance(queue, DeclareQueue)
    assert {"x-queue-type": "quorum"} == plain_arguments(queue.arguments)


@pytest.mark.parametrize(
    ("part", "definition", "text"),
    [
        (
            "queues",
            {"name": "q", "vhost": "/", "arguments": {"x-message-ttl": -1}},
            "queue 'q' in '/': invalid arg 'x-message-ttl'",
        ),
        (
            "queues",
            {"name": "q", "vhost": "/", "arguments": {"n": 2**70}},
            "queue 'q' in '/': ",
        ),
        (
            "exchanges",
            {"name": "x", "vhost": "/", "type": "x-delayed-message"},
            "exchange 'x' in '/': Invalid argument",
        ),
        (
            "bindings",
            {
                "source": "x",
                "vhost": "/",
                "destination": "q",
                "destination_type": "queue",
                "arguments": {"x-match": "some"},
            },
            "binding of 'q' to 'x' in '/': Invalid x-match",
        ),
        (
            "permissions",
            {"user": "ada", "vhost": "/", "configure": "a[", "write": "", "read": ""},
            "permission of 'ada' in '/': not a regular expression",
        ),
        ("users", {"name": "ada", "password_hash": "AAAA"}, "user 'ada': a sha256 password hash"),
        (
            "policies",
            {"name": "p", "vhost": "/", "pattern": "", "definition": {"nope": 1}},
            "policy 'p' in '/': Validation failed [{<<\"nope\">>,1}] are not recognised",
        ),
        (
            "parameters",
            {"component": "operator_policy", "name": "o", "vhost": "/", "value": {}},
            "operator policy 'o' in '/': Object missing required field",
        ),
        (
            "parameters",
            {"component": "operator_policy", "name": "o", "vhost": "/", "value": 1},
            "operator policy 'o' in '/': ",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_by_its_name(
    part: str, definition: dict[str, object], text: str
) -> None:
    definitions, _ = decoded(**{part: [definition]})

    with pytest.raises(DefinitionsError, match=re.escape(text)):
        definitions.commands(START)
