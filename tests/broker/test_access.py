"""Log-ins and permissions."""

from __future__ import annotations

import base64

import pytest
import trio

from leveret.broker import access as access_module
from leveret.broker.access import (
    Access,
    LoginRefused,
    ResourceKind,
    ResourceRefused,
    Right,
    VirtualHostRefused,
    check_pattern,
    hash_password,
    import_password_hash,
    verify_password,
)
from leveret.catalog import commands as c
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import PasswordHash
from leveret.node.outside import REAL

GUEST = hash_password(b"guest", b"0123456789abcdef")

# What RabbitMQ 3.10.8 made of the password "pw" and the salt 1, 2, 3, 4.
DIGESTS = {
    "rabbit_password_hashing_sha256": "mw8ZACY04HBwTOuqgMFrgd589cRPclOZ1kqbdOPgLNk=",
    "rabbit_password_hashing_sha512": "UQqCD3VBSNc6gS4iKOtiMMmqaHUbeBAkSkRlLYWIMQ5Lbckag3Z6G3lx"
    "HqoALgoATuSqmHzAYD/2t46frL5tzA==",
    "rabbit_password_hashing_md5": "lH3WC3VIBZOa8P5XMDswVQ==",
}


def rabbitmq_hash(algorithm: str) -> PasswordHash:
    salted = b"\1\2\3\4" + base64.b64decode(DIGESTS[algorithm])
    return import_password_hash(algorithm, base64.b64encode(salted).decode())


class World:
    """A catalog and the access that reads it."""

    def __init__(self, *, loopback_only_users: bool = True) -> None:
        self.machine = CatalogMachine()
        self.access = Access(
            self.machine.model,
            cache_key=b"k" * 32,
            in_thread=REAL.in_thread,
            loopback_only_users=loopback_only_users,
        )
        self.do(c.Bootstrap("lab", 1, "guest", GUEST))
        self.do(c.PutUser("bob", GUEST, ()))

    def do(self, command: c.AnyCommand) -> None:
        assert isinstance(self.machine.apply(1, 0, c.encode(command), 0), c.Done)

    def permit(self, configure: str, write: str, read: str) -> None:
        self.do(c.SetPermission("bob", "/", configure, write, read))

    def allows(self, right: Right, name: str, kind: ResourceKind = "queue") -> bool:
        try:
            self.access.check("bob", "/", kind, name, right)
        except ResourceRefused:
            return False
        return True


@pytest.fixture
def world() -> World:
    return World()


def test_a_password_verifies_against_its_own_record_only() -> None:
    assert verify_password(GUEST, b"guest")
    assert not verify_password(GUEST, b"Guest")
    assert not verify_password(PasswordHash("scrypt", b"other salt", GUEST.hash), b"guest")


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_the_hashes_of_rabbitmq_verify(algorithm: str) -> None:
    assert verify_password(rabbitmq_hash(algorithm), b"pw")
    assert not verify_password(rabbitmq_hash(algorithm), b"wp")


def test_a_hash_that_rabbitmq_does_not_write_is_not_imported() -> None:
    with pytest.raises(ValueError, match="unknown hashing algorithm"):
        import_password_hash("scrypt", "")
    with pytest.raises(ValueError, match="password hash has"):
        import_password_hash("rabbit_password_hashing_md5", base64.b64encode(b"short").decode())
    with pytest.raises(ValueError, match="base64"):
        import_password_hash("rabbit_password_hashing_md5", "*" * 28)


def test_a_hash_of_an_unknown_algorithm_opens_nothing() -> None:
    assert not verify_password(PasswordHash("later", b"", b""), b"")


async def test_the_right_password_logs_in(world: World) -> None:
    user = await world.access.authenticate("bob", b"guest", is_loopback=False)

    assert user == world.machine.model.user("bob")


@pytest.mark.parametrize(("name", "password"), [("bob", b"x"), ("bob", b""), ("nobody", b"guest")])
async def test_wrong_credentials_are_refused(world: World, name: str, password: bytes) -> None:
    with pytest.raises(LoginRefused) as caught:
        await world.access.authenticate(name, password, is_loopback=True)

    assert str(caught.value) == f"user '{name}' - invalid credentials"


async def test_a_user_without_password_cannot_log_in_with_one(world: World) -> None:
    world.do(c.PutUser("bob", None, ()))

    with pytest.raises(LoginRefused):
        await world.access.authenticate("bob", b"guest", is_loopback=True)


async def test_guest_logs_in_from_loopback_only(world: World) -> None:
    await world.access.authenticate("guest", b"guest", is_loopback=True)

    with pytest.raises(LoginRefused) as caught:
        await world.access.authenticate("guest", b"guest", is_loopback=False)

    assert str(caught.value) == "user 'guest' can only connect via localhost"


async def test_the_node_may_let_loopback_only_users_in_from_anywhere() -> None:
    world = World(loopback_only_users=False)

    user = await world.access.authenticate("guest", b"guest", is_loopback=False)

    assert user.name == "guest"


class CountedHashing:
    """The real verification, counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, record: PasswordHash, password: bytes) -> bool:
        self.count += 1
        return verify_password(record, password)


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> CountedHashing:
    counted = CountedHashing()
    monkeypatch.setattr(access_module, "verify_password", counted)
    return counted


async def test_a_verified_password_is_not_hashed_again(
    world: World, hashing: CountedHashing
) -> None:
    await world.access.authenticate("bob", b"guest", is_loopback=True)
    await world.access.authenticate("bob", b"guest", is_loopback=True)

    assert hashing.count == 1


async def test_a_wrong_password_is_refused_after_the_right_one(world: World) -> None:
    await world.access.authenticate("bob", b"guest", is_loopback=True)

    with pytest.raises(LoginRefused):
        await world.access.authenticate("bob", b"guess", is_loopback=True)


async def test_a_verified_password_is_hashed_again_after_ten_minutes(
    world: World, hashing: CountedHashing, mock_clock: trio.testing.MockClock
) -> None:
    await world.access.authenticate("bob", b"guest", is_loopback=True)
    mock_clock.jump(access_module.CREDENTIAL_AGE_MAX_S)
    await world.access.authenticate("bob", b"guest", is_loopback=True)

    assert hashing.count == 2


async def test_a_changed_password_ends_the_old_one_at_once(world: World) -> None:
    await world.access.authenticate("bob", b"guest", is_loopback=True)
    world.do(c.PutUser("bob", rabbitmq_hash("rabbit_password_hashing_sha256"), ()))

    with pytest.raises(LoginRefused):
        await world.access.authenticate("bob", b"guest", is_loopback=True)

    assert (await world.access.authenticate("bob", b"pw", is_loopback=True)).name == "bob"


async def test_a_user_deleted_while_hashing_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_meanwhile(record: PasswordHash, password: bytes) -> bool:
        trio.from_thread.run_sync(world.do, c.DeleteUser("bob"))
        return True

    monkeypatch.setattr(access_module, "verify_password", delete_meanwhile)

    with pytest.raises(LoginRefused):
        await world.access.authenticate("bob", b"guest", is_loopback=True)


async def test_a_password_changed_while_the_old_one_is_hashed_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = rabbitmq_hash("rabbit_password_hashing_sha256")

    def change_meanwhile(record: PasswordHash, password: bytes) -> bool:
        trio.from_thread.run_sync(world.do, c.PutUser("bob", new, ()))
        return verify_password(record, password)

    monkeypatch.setattr(access_module, "verify_password", change_meanwhile)

    with pytest.raises(LoginRefused):
        await world.access.authenticate("bob", b"guest", is_loopback=True)


async def test_remembered_credentials_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "CREDENTIALS_MAX", 2)
    for name in ("u1", "u2", "u3"):
        world.do(c.PutUser(name, rabbitmq_hash("rabbit_password_hashing_md5"), ()))
        await world.access.authenticate(name, b"pw", is_loopback=True)

    assert len(world.access._verified) == 2


def test_a_missing_virtual_host_and_a_forbidden_one_have_rabbitmqs_texts(world: World) -> None:
    world.access.check_vhost("guest", "/")

    with pytest.raises(VirtualHostRefused) as missing:
        world.access.check_vhost("guest", "novhost")
    with pytest.raises(VirtualHostRefused) as forbidden:
        world.access.check_vhost("bob", "/")

    assert str(missing.value) == "vhost novhost not found"
    assert str(forbidden.value) == "access to vhost '/' refused for user 'bob'"
    assert (missing.value.reply_code, forbidden.value.reply_code) == (530, 530)


def test_a_refused_resource_has_rabbitmqs_text(world: World) -> None:
    world.permit("^$", "^$", "^$")

    with pytest.raises(ResourceRefused) as queue:
        world.access.check("bob", "/", "queue", "x", "read")
    with pytest.raises(ResourceRefused) as exchange:
        world.access.check("bob", "/", "exchange", "", "write")

    assert str(queue.value) == "access to queue 'x' in vhost '/' refused for user 'bob'"
    assert str(exchange.value) == (
        "access to exchange 'amq.default' in vhost '/' refused for user 'bob'"
    )
    assert queue.value.reply_code == 403


def test_permissions_match_anywhere_in_the_name(world: World) -> None:
    world.permit("mine", "^mine", "mine$")

    assert world.allows("configure", "not-mine-either")
    assert not world.allows("write", "not-mine")
    assert world.allows("read", "not-mine")
    assert not world.allows("read", "mine-not")


def test_the_empty_permission_matches_the_empty_name_only(world: World) -> None:
    world.permit("", "", "")

    assert not world.allows("configure", "q")
    assert world.allows("configure", "")
    assert not world.allows("write", "", "exchange")


def test_the_default_exchange_is_matched_as_amq_default(world: World) -> None:
    world.permit("", r"^amq\.default$", "")

    assert world.allows("write", "", "exchange")


def test_without_a_permission_nothing_is_allowed(world: World) -> None:
    assert not world.allows("read", "q")


def test_a_changed_permission_counts_at_once(world: World) -> None:
    world.permit(".*", ".*", ".*")
    assert world.allows("read", "q")

    world.permit(".*", ".*", "other")
    assert not world.allows("read", "q")
    world.do(c.ClearPermission("bob", "/"))
    assert not world.allows("configure", "q")


@pytest.mark.parametrize("pattern", ["[", "(", "[[:alpha:]]", "a(?i)b"])
def test_what_is_no_expression_is_refused_and_allows_nothing(world: World, pattern: str) -> None:
    with pytest.raises(ValueError, match=r"expression|POSIX"):
        check_pattern(pattern)
    world.permit(pattern, pattern, pattern)

    assert not world.allows("read", "a")
    assert not world.allows("read", "b")


def test_remembered_answers_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "NAMES_MAX", 3)
    world.permit("q", "q", "q")

    assert all(world.allows("read", f"q{n}") for n in range(10))
    assert not world.allows("read", "x")


def test_a_name_in_a_topic_permission_is_no_expression(world: World) -> None:
    world.do(c.PutUser(".*", GUEST, ()))
    world.do(c.SetTopicPermission(".*", "/", "amq.topic", "^{username}$", ""))

    world.access.check_topic(".*", "/", "amq.topic", ".*", "write")
    with pytest.raises(ResourceRefused, match="access to topic 'bob' in exchange"):
        world.access.check_topic(".*", "/", "amq.topic", "bob", "write")
