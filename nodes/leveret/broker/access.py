"""Who may log in, and who may do what with which resource.

Owns: password records, the cache of verified credentials, the compiled permissions.
Everything is checked against the catalog's applied model, so a change counts as soon as this node
has applied it; the caches only save the work of hashing and compiling.
Error texts are RabbitMQ's, because client suites match on them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Protocol, TypeVar

import trio

from leveret.catalog.model import Model, PasswordHash, Permission, TopicPermission, User

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

K = TypeVar("K")
P = TypeVar("P")
T = TypeVar("T")

Right = Literal["configure", "write", "read"]
TopicRight = Literal["write", "read"]
ResourceKind = Literal["queue", "exchange"]

CREDENTIALS_MAX: Final = 1024
"""Verified credentials that are remembered; at the limit the oldest goes and is hashed again."""
CREDENTIAL_AGE_MAX_S: Final = 600.0
"""How long a verified credential is remembered. A changed password ends it at once."""
PERMISSIONS_MAX: Final = 1024
"""Compiled permissions of each kind; at the limit the oldest is compiled again."""
NAMES_MAX: Final = 4096
"""Answers remembered for each compiled permission; at the limit it forgets all of them."""
HASHING_THREADS_MAX: Final = 2
"""Passwords hashed at a time: each takes 16 MiB and some 50 ms. More log-ins wait in line."""

_SCRYPT_N: Final = 2**14
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1

_ALGORITHMS: Final = {
    "rabbit_password_hashing_md5": ("md5", 4, 16),
    "rabbit_password_hashing_sha256": ("sha256", 4, 32),
    "rabbit_password_hashing_sha512": ("sha512", 4, 64),
    "leveret_password_hashing_scrypt": ("scrypt", 16, 64),
}
"""Definitions' names of algorithms: ours, and the octets of salt and digest. The last is not
RabbitMQ's."""


class InThread(Protocol):
    """Runs work that takes long and needs no GIL away from the loop.

    Cancelled, it leaves the thread to end by itself, and the limiter's place with it.
    """

    async def __call__(
        self, work: Callable[[], T], /, *, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        """Return what `work` returns; a checkpoint."""
        ...


class AccessError(Exception):
    """Base of the refusals. The text goes to the client but for `LoginRefused`."""

    reply_code: ClassVar[int]


class LoginRefused(AccessError):
    """The credentials do not open the broker; the text is for the log, never for the client."""

    reply_code = 403


class VirtualHostRefused(AccessError):
    """The user may not open the virtual host, or it is missing: closes the connection."""

    reply_code = 530


class ResourceRefused(AccessError):
    """The user may not do that with the resource: closes the channel."""

    reply_code = 403


def hash_password(password: bytes, salt: bytes) -> PasswordHash:
    """Return the record of `password`; some 50 ms of work without the GIL.

    salt: 16 random bytes, fresh for each password.
    """
    return PasswordHash("scrypt", salt, _scrypt(password, salt))


def import_password_hash(algorithm: str, encoded: str) -> PasswordHash:
    """Return the record for a hash out of definitions, RabbitMQ's or ours.

    algorithm: the definitions' `hashing_algorithm`. encoded: base64 of salt and digest.

    Raises:
        ValueError: the algorithm is unknown, or the text is not such a hash.
    """
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"unknown hashing algorithm {algorithm!r}")
    name, salt_bytes, digest_bytes = _ALGORITHMS[algorithm]
    salted = base64.b64decode(encoded, validate=True)
    if len(salted) != salt_bytes + digest_bytes:
        raise ValueError(f"a {name} password hash has {len(salted)} bytes")
    return PasswordHash(name, salted[:salt_bytes], salted[salt_bytes:])


def export_password_hash(record: PasswordHash) -> tuple[str, str]:
    """Return `hashing_algorithm` and hash for definitions, as `import_password_hash` takes them.

    Raises:
        ValueError: the record is of a later release.
    """
    for algorithm, (name, _, _) in _ALGORITHMS.items():
        if name == record.algorithm:
            return algorithm, base64.b64encode(record.salt + record.hash).decode("ascii")
    raise ValueError(f"unknown hashing algorithm {record.algorithm!r}")


def verify_password(record: PasswordHash, password: bytes) -> bool:
    """Say whether `password` is the one of `record`; slow, and without the GIL, for scrypt."""
    match record.algorithm:
        case "scrypt":
            digest = _scrypt(password, record.salt)
        case "md5" | "sha256" | "sha512":
            digest = hashlib.new(record.algorithm, record.salt + password).digest()
        case _:
            return False  # of a later release: nobody logs in until this node is upgraded
    return hmac.compare_digest(digest, record.hash)


def check_pattern(pattern: str) -> None:
    """Accept or refuse the regular expression of a permission.

    Raises:
        ValueError: it does not compile, or holds a POSIX class (`[[:alpha:]]`), which RabbitMQ's
            expressions know and ours would read as something else.
    """
    _compile(pattern)


class Access:
    """Decides for one node; lives on the loop."""

    def __init__(
        self,
        model: Model,
        *,
        cache_key: bytes,
        in_thread: InThread,
        loopback_only_users: bool = True,
    ) -> None:
        """Decide by `model`.

        cache_key: 32 random bytes, made anew at each start, so that the cache holds no password
            and no hash that can be tried off-line.
        in_thread: where passwords are hashed.
        loopback_only_users: False lets users marked loopback-only in from anywhere.
        """
        self._model = model
        self._cache_key = cache_key
        self._in_thread = in_thread
        self._keeps_loopback = loopback_only_users
        self._limiter = trio.CapacityLimiter(HASHING_THREADS_MAX)
        self._verified: dict[bytes, _Credential] = {}
        self._rules: dict[tuple[str, str], _Rules] = {}
        self._topic_rules: dict[tuple[str, str, str], _Rules] = {}

    async def new_password(self, password: bytes, salt: bytes) -> PasswordHash:
        """Return the record of a password, hashed in a thread; a checkpoint.

        salt: 16 random bytes, fresh for each password.
        """
        return await self._in_thread(partial(hash_password, password, salt), limiter=self._limiter)

    async def authenticate(self, name: str, password: bytes, *, is_loopback: bool) -> User:
        """Return the user who has this name and password; a checkpoint if it must hash.

        is_loopback: whether the client's address is one of the node's own machine.
        Cancelled, it leaves the hashing thread to end by itself.

        Raises:
            LoginRefused: the text says why, for the log.
        """
        user = self._model.user(name)
        if user is None or user.password is None or not password:
            raise LoginRefused(f"user '{name}' - invalid credentials")
        if not await self._is_verified(user, user.password, password):
            raise LoginRefused(f"user '{name}' - invalid credentials")
        # It may have changed while its password was hashed.
        return self.identify(name, is_loopback=is_loopback)

    def identify(self, name: str, *, is_loopback: bool) -> User:
        """Return the user of a client that has proved by other means to have this name.

        Raises:
            LoginRefused: the text says why, for the log.
        """
        user = self._model.user(name)
        if user is None:
            raise LoginRefused(f"user '{name}' - invalid credentials")
        if user.loopback_only and self._keeps_loopback and not is_loopback:
            raise LoginRefused(f"user '{name}' can only connect via localhost")
        return user

    def check_vhost(self, user: str, vhost: str) -> None:
        """Let `user` open `vhost`.

        Raises:
            VirtualHostRefused: it is missing, or the user has no permission in it.
        """
        if self._model.vhost(vhost) is None:
            raise VirtualHostRefused(f"vhost {vhost} not found")
        if self._model.permission(user, vhost) is None:
            raise VirtualHostRefused(f"access to vhost '{vhost}' refused for user '{user}'")

    def check(self, user: str, vhost: str, kind: ResourceKind, name: str, right: Right) -> None:
        """Let `user` use the queue or exchange `name` in the way of `right`.

        Raises:
            ResourceRefused: the user's permission does not match the name.
        """
        if kind == "exchange" and name == "":
            name = "amq.default"
        permission = self._model.permission(user, vhost)
        if permission is None or not self._compiled(permission).allow(right, name):
            raise ResourceRefused(
                f"access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'"
            )

    def check_topic(
        self, user: str, vhost: str, exchange: str, routing_key: str, right: TopicRight
    ) -> None:
        """Let `user` use a routing key with a topic exchange; for others there is no such rule.

        Raises:
            ResourceRefused: the user's topic permission for the exchange does not match the key.
        """
        permission = self._model.topic_permission(user, vhost, exchange)
        if permission is None:
            return
        rules = _remembered(
            self._topic_rules, (user, vhost, exchange), permission, _rules_of_topics
        )
        if not rules.allow(right, routing_key):
            raise ResourceRefused(
                f"access to topic '{routing_key}' in exchange '{exchange}' in vhost '{vhost}' "
                f"refused for user '{user}'"
            )

    async def _is_verified(self, user: User, record: PasswordHash, password: bytes) -> bool:
        # The name is in the key by its length too, so no two pairs give the same bytes.
        pair = f"{len(user.name)}:{user.name}:".encode() + password
        key = hmac.digest(self._cache_key, pair, "sha256")
        now = trio.current_time()
        known = self._verified.get(key)
        if known is not None and known.record == record and now < known.expires_at:
            return True
        is_right = await self._in_thread(
            partial(verify_password, record, password), limiter=self._limiter
        )
        current = self._model.user(user.name)
        if not is_right or current is None or current.password != record:
            return False
        self._verified.pop(key, None)  # so that the new one stands last
        if len(self._verified) >= CREDENTIALS_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[key] = _Credential(record, now + CREDENTIAL_AGE_MAX_S)
        return True

    def _compiled(self, permission: Permission) -> _Rules:
        key = (permission.user, permission.vhost)
        return _remembered(self._rules, key, permission, _rules_of_names)


@dataclass(frozen=True, slots=True)
class _Credential:
    """A password that was right for `record` until `expires_at` (the loop's clock, seconds)."""

    record: PasswordHash
    expires_at: float


class _Rules:
    """A permission with its expressions compiled and its answers remembered."""

    def __init__(self, permission: object, patterns: Mapping[Right, str]) -> None:
        self.permission = permission
        self._patterns = {right: _compile_or_none(text) for right, text in patterns.items()}
        self._answers: dict[tuple[Right, str], bool] = {}

    def allow(self, right: Right, name: str) -> bool:
        answer = self._answers.get((right, name))
        if answer is None:
            if len(self._answers) >= NAMES_MAX:
                self._answers.clear()
            pattern = self._patterns[right]
            answer = pattern is not None and pattern.search(name) is not None
            self._answers[right, name] = answer
        return answer


def _rules_of_names(permission: Permission) -> _Rules:
    return _Rules(
        permission,
        {
            "configure": permission.configure,
            "write": permission.write,
            "read": permission.read,
        },
    )


def _rules_of_topics(permission: TopicPermission) -> _Rules:
    def expanded(pattern: str) -> str:
        # RabbitMQ puts the names in as they are; escaped, a user cannot choose a name that is an
        # expression for the keys of others.
        pattern = pattern.replace("{username}", re.escape(permission.user))
        return pattern.replace("{vhost}", re.escape(permission.vhost))

    return _Rules(
        permission, {"write": expanded(permission.write), "read": expanded(permission.read)}
    )


def _remembered(
    table: dict[K, _Rules], key: K, permission: P, compiled: Callable[[P], _Rules]
) -> _Rules:
    """Return the rules of `permission`, compiled anew if it is not the one of which they are."""
    rules = table.get(key)
    if rules is None or rules.permission is not permission:
        table.pop(key, None)
        if len(table) >= PERMISSIONS_MAX:
            del table[next(iter(table))]
        rules = table[key] = compiled(permission)
    return rules


def _compile(pattern: str) -> re.Pattern[str]:
    if pattern == "":
        # RabbitMQ: the empty expression matches the empty name only, not everything.
        return re.compile("^$")
    if "[:" in pattern:
        raise ValueError(f"POSIX classes are not supported: {pattern!r}")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression: {pattern!r}: {error}") from error


def _compile_or_none(pattern: str) -> re.Pattern[str] | None:
    """Return the expression, or None, which allows nothing, if it is none."""
    try:
        return _compile(pattern)
    except ValueError:
        return None


def _scrypt(password: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
