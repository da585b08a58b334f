"""Users, virtual hosts and permissions from a file, in RabbitMQ's format of definitions.

The file is read at each start, before clients are served, and merged into the catalog: what is
there stays, what the file names is created or replaced.  The catalog is replicated, so the file
needs to be given to one node of a cluster only.

    {"vhosts": [{"name": "orders"}],
     "users": [{"name": "ada", "password": "…", "tags": "administrator"}],
     "permissions": [{"user": "ada", "vhost": "orders",
                      "configure": ".*", "write": ".*", "read": ".*"}]}

Instead of `password`, a user may have `password_hash` and `hashing_algorithm` as RabbitMQ exports
them.  Other parts of an export are passed over.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from leveret.broker.access import check_pattern, hash_password, import_password_hash
from leveret.catalog.commands import AddVirtualHost, PutUser, SetPermission
from leveret.catalog.model import PasswordHash


class DefinitionsError(Exception):
    """The file of definitions cannot be used; the text says why."""


class VirtualHostDefinition(msgspec.Struct):
    """A virtual host to be there."""

    name: str


class UserDefinition(msgspec.Struct):
    """A user to be there; without a password nobody can log in as it."""

    name: str
    password: str | None = None
    password_hash: str | None = None
    hashing_algorithm: str = "rabbit_password_hashing_sha256"
    tags: str | list[str] = ""

    def record(self) -> PasswordHash | None:
        """Return the password as the catalog keeps it; hashing takes some 50 ms.

        Raises:
            ValueError: the hash is not one of RabbitMQ's.
        """
        if self.password:
            return hash_password(self.password.encode(), secrets.token_bytes(16))
        if self.password_hash:
            return import_password_hash(self.hashing_algorithm, self.password_hash)
        return None

    def tag_names(self) -> tuple[str, ...]:
        """Return the tags; RabbitMQ writes them with commas, or as a list."""
        if isinstance(self.tags, str):
            return tuple(tag.strip() for tag in self.tags.split(",") if tag.strip())
        return tuple(self.tags)


class PermissionDefinition(msgspec.Struct):
    """A user's permission in a virtual host: three regular expressions over names."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str


class Definitions(msgspec.Struct):
    """The parts of a file of definitions that are taken over."""

    vhosts: list[VirtualHostDefinition] = []
    users: list[UserDefinition] = []
    permissions: list[PermissionDefinition] = []

    def commands(self) -> Sequence[AddVirtualHost | PutUser | SetPermission]:
        """Return what makes the catalog so, in order; hashes passwords.

        Raises:
            DefinitionsError: a password hash or a pattern cannot be used.
        """
        try:
            for permission in self.permissions:
                for pattern in (permission.configure, permission.write, permission.read):
                    check_pattern(pattern)
            return [
                *(AddVirtualHost(vhost.name) for vhost in self.vhosts),
                *(PutUser(user.name, user.record(), user.tag_names()) for user in self.users),
                *(
                    SetPermission(p.user, p.vhost, p.configure, p.write, p.read)
                    for p in self.permissions
                ),
            ]
        except ValueError as error:
            raise DefinitionsError(str(error)) from error


def read_definitions(path: Path) -> Definitions:
    """Return what a file of definitions says.

    Raises:
        DefinitionsError: it cannot be read, or is not in the format.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Definitions)
    except OSError as error:
        raise DefinitionsError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise DefinitionsError(f"{path} is not a file of definitions: {error}") from error
