"""Users, virtual hosts and permissions from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leveret.broker.access import verify_password
from leveret.catalog.commands import AddVirtualHost, PutUser, SetPermission
from leveret.node.definitions import Definitions, DefinitionsError, read_definitions

# What RabbitMQ 3.10 exports for a user with the password "test".
HASH = "gYKUTi2FQLqnAxuMAHoWl1vBuKJMXj9ncUQc9YOA+tZk/6VB"


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
            "policies": [{"name": "passed over"}],
        },
    )

    vhost, user, permission = read_definitions(path).commands()

    assert vhost == AddVirtualHost("v")
    assert isinstance(user, PutUser)
    assert user.tags == ("monitoring", "management")
    assert user.password is not None
    assert verify_password(user.password, b"secret")
    assert permission == SetPermission("ada", "v", "", "^a", ".*")


def test_a_user_without_a_password_can_not_log_in(tmp_path: Path) -> None:
    path = written(tmp_path, {"users": [{"name": "ada", "password_hash": "", "tags": []}]})

    (user,) = read_definitions(path).commands()

    assert user == PutUser("ada", None, ())


def test_a_password_hash_of_rabbitmq_is_taken_over(tmp_path: Path) -> None:
    path = written(tmp_path, {"users": [{"name": "ada", "password_hash": HASH}]})

    (user,) = read_definitions(path).commands()

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
        read_definitions(written(tmp_path, content)).commands()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsError, match="cannot be read"):
        read_definitions(tmp_path / "none.json")


def test_no_definitions_are_no_commands() -> None:
    assert Definitions().commands() == []
