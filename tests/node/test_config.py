"""Configuration: sources in order, origins, and all problems at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from leveret.node.config import SETTINGS, NodeConfig, environment_name
from leveret.node.sources import ConfigError, Flag, load_config
from leveret.transport.identity import Address

TOKEN = "ab" * 32
CLUSTER = "1@127.0.0.1:25672,2@127.0.0.1:25673,3@127.0.0.1:25674"


def load(folder: Path, *flags: Flag, **environment: str) -> NodeConfig:
    return load_config(folder=folder, environment=environment, flags=flags)


def problems(folder: Path, *flags: Flag, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, *flags, **environment)
    return [str(problem) for problem in caught.value.problems]


def test_without_any_source_every_value_is_its_default(tmp_path: Path) -> None:
    config = load(tmp_path)

    assert (Address("127.0.0.1", 5672),) == config.amqp.listen
    assert config.node.data_dir == tmp_path / ".leveret" / "node-1"
    assert all(config.origin(name) == "default" for name in SETTINGS)


def test_every_default_satisfies_its_own_range_and_reads_back_what_it_shows() -> None:
    for described in SETTINGS.values():
        shown = described.kind.show(described.default)
        if shown:
            assert described.default == described.parse(shown)


def test_a_later_source_wins_and_the_value_tells_which_it_was(tmp_path: Path) -> None:
    file = tmp_path / "leveret.toml"
    file.write_text('[amqp]\nheartbeat_s = 10\nchannel_max = 11\nframe_max = "16KiB"\n')
    flag = Flag("--set", "amqp.frame_max", "32KiB")

    config = load(tmp_path, flag, LEVERET_AMQP_CHANNEL_MAX="12", LEVERET_AMQP_FRAME_MAX="64KiB")

    assert config.amqp.heartbeat_s == 10
    assert config.origin("amqp.heartbeat_s") == f"file {file}"
    assert config.amqp.channel_max == 12
    assert config.origin("amqp.channel_max") == "environment LEVERET_AMQP_CHANNEL_MAX"
    assert config.amqp.frame_max == 32 * 1024
    assert config.origin("amqp.frame_max") == "flag --set"


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 * 1024**2), ("50MB", 50_000_000), ("65536", 65536), ("1.5 KiB", 1536)],
)
def test_a_size_may_have_a_unit(tmp_path: Path, text: str, size: int) -> None:
    config = load(tmp_path, LEVERET_STORAGE_DISK_FREE_LIMIT_BYTES=text)

    assert config.storage.disk_free_limit_bytes == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("500ms", 0.5), ("2min", 120), ("3", 3)]
)
def test_a_duration_may_have_a_unit(tmp_path: Path, text: str, seconds: float) -> None:
    config = load(tmp_path, LEVERET_AMQP_HANDSHAKE_TIMEOUT_S=text)

    assert config.amqp.handshake_timeout_s == seconds


def test_addresses_are_a_list_in_a_file_and_have_commas_in_the_environment(tmp_path: Path) -> None:
    both = (Address("127.0.0.1", 5672), Address("::1", 5672))
    (tmp_path / "leveret.toml").write_text('amqp.listen = ["127.0.0.1:5672", "[::1]:5672"]')

    assert load(tmp_path).amqp.listen == both
    assert load(tmp_path, LEVERET_AMQP_LISTEN="127.0.0.1:5672, [::1]:5672").amqp.listen == both


def test_all_problems_of_all_sources_come_at_once_with_origin_and_advice(tmp_path: Path) -> None:
    file = tmp_path / "leveret.toml"
    file.write_text('[amqp]\nhearbeat_s = 10\nchannel_max = "many"\n[qeues]\nx = 1\n')

    found = problems(
        tmp_path,
        Flag("--listen", "amqp.listen", "5672"),
        LEVERET_STORAGE_CACHE_BYTES="1",
        LEVERET_AMPQ_BACKLOG="3",
    )

    assert found == [
        f"amqp.hearbeat_s (file {file}): there is no such setting; did you mean amqp.heartbeat_s?",
        f"amqp.channel_max = 'many' (file {file}): expected a whole number, such as 8",
        f"[qeues] (file {file}): there is no such section; see: leveret config reference",
        (
            "LEVERET_AMPQ_BACKLOG (environment): there is no such setting; did you mean"
            " LEVERET_AMQP_BACKLOG?"
        ),
        (
            "storage.cache_bytes = '1' (environment LEVERET_STORAGE_CACHE_BYTES): must be at least"
            " 1MiB"
        ),
        (
            "amqp.listen = '5672' (flag --listen): expected an address and a port, such as"
            ' "127.0.0.1:5672"'
        ),
    ]


def test_variables_of_programs_around_a_node_are_not_ours(tmp_path: Path) -> None:
    load(tmp_path, LEVERET_TEST_URL="amqp://somewhere/", PATH="/bin")


@pytest.mark.parametrize("content", ["[amqp", 'a = "\xff"'])
def test_a_file_that_is_not_toml_is_a_problem(tmp_path: Path, content: str) -> None:
    (tmp_path / "leveret.toml").write_bytes(content.encode("latin-1"))

    assert "is not valid TOML" in problems(tmp_path)[0]


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    found = problems(tmp_path, LEVERET_CONFIG="nowhere.toml")

    assert f"{tmp_path}/nowhere.toml (environment LEVERET_CONFIG): cannot be read" in found[0]


def test_a_path_in_a_file_begins_beside_that_file(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "node.toml").write_text('node.data_dir = "data"')

    config = load(tmp_path, LEVERET_CONFIG="etc/node.toml")

    assert config.node.data_dir == folder / "data"


def test_every_file_that_a_setting_names_must_be_readable(tmp_path: Path) -> None:
    found = problems(tmp_path, LEVERET_AMQP_TLS_KEY="key.pem", LEVERET_NODE_TOKEN_FILE="token")

    assert len(found) == 2
    assert all("No such file" in problem for problem in found)


def test_a_member_listens_for_nodes_where_the_cluster_expects_it(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        LEVERET_NODE_CLUSTER=CLUSTER,
        LEVERET_NODE_ID="2",
        LEVERET_NODE_TOKEN=TOKEN,
    )

    assert config.peers.listen == Address("127.0.0.1", 25673)
    assert config.node.name == "node-2"
    assert [member.id for member in config.node.cluster] == [1, 2, 3]


def test_a_cluster_needs_a_token_and_this_node_as_a_member(tmp_path: Path) -> None:
    found = problems(tmp_path, LEVERET_NODE_CLUSTER=CLUSTER, LEVERET_NODE_ID="4")

    assert "node.id = 4 (environment LEVERET_NODE_ID): is not a member" in found[0]
    assert "a cluster needs a token" in found[1]


def test_the_token_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)

    config = load(tmp_path, LEVERET_NODE_TOKEN_FILE="token")

    assert bytes.fromhex(TOKEN) == config.node.token
    assert config.origin("node.token") == f"file {file}"


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)

    assert f"run: chmod 600 {file}" in problems(tmp_path, LEVERET_NODE_TOKEN_FILE="token")[0]


def test_no_text_of_a_configuration_shows_its_token(tmp_path: Path) -> None:
    config = load(tmp_path, LEVERET_NODE_TOKEN=TOKEN)

    assert TOKEN not in repr(config)
    assert repr(config.node.token) not in repr(config)
    assert SETTINGS["node.token"].kind.show(config.node.token) == "(secret)"
    assert "secret-text" not in "".join(problems(tmp_path, LEVERET_NODE_TOKEN="secret-text"))


def test_other_nodes_are_let_in_off_loopback_only_with_tls(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        LEVERET_NODE_CLUSTER=CLUSTER,
        LEVERET_NODE_TOKEN=TOKEN,
        LEVERET_PEERS_LISTEN="0.0.0.0:25672",
    )

    assert len(found) == 1
    assert "only with TLS" in found[0]


@pytest.mark.parametrize("address", ["0.0.0.0:5672", "[::]:5672", "mq.example.org:0"])
def test_what_clients_are_told_is_an_address_to_connect_to(tmp_path: Path, address: str) -> None:
    (found,) = problems(tmp_path, LEVERET_AMQP_ADVERTISE=f"mq.example.org:5672,{address}")

    assert "give an address that they can connect to" in found


def test_a_heartbeat_must_fit_twice_into_the_election_timeout(tmp_path: Path) -> None:
    found = problems(tmp_path, LEVERET_CONSENSUS_HEARTBEAT_S="250ms")

    assert found == [
        (
            "consensus.heartbeat_s = 250ms (environment LEVERET_CONSENSUS_HEARTBEAT_S): must be"
            " below half of consensus.election_timeout_min_s"
        )
    ]


def test_two_members_may_not_have_one_address(tmp_path: Path) -> None:
    found = problems(tmp_path, LEVERET_NODE_CLUSTER="1@127.0.0.1:1,2@127.0.0.1:1")

    assert "two members have the same address" in found[0]


def test_every_limit_says_what_happens_at_it() -> None:
    limits = [name for name in SETTINGS if name.startswith("limits.")]

    silent = [name for name in limits if not SETTINGS[name].at_limit]

    assert silent == ["limits.refused_login_delay_s"]  # a delay, not a limit


def test_environment_names_are_unique() -> None:
    assert len(SETTINGS) == len({environment_name(name) for name in SETTINGS})


def test_a_node_joins_or_is_a_fixed_member_and_not_both(tmp_path: Path) -> None:
    join = Flag("--join", "node.join", "192.0.2.1:25672")

    assert Address("192.0.2.1", 25672) == load(tmp_path, join).node.join
    assert None is load(tmp_path).node.join
    assert None is load(tmp_path, LEVERET_NODE_JOIN="").node.join
    (problem,) = problems(tmp_path, join, LEVERET_NODE_CLUSTER=CLUSTER, LEVERET_NODE_TOKEN=TOKEN)
    assert (
        "node.join = 192.0.2.1:25672 (flag --join): a node joins a cluster, or is one of the fixed"
        " members in node.cluster; give one"
    ) == problem


@pytest.mark.parametrize("raw", ["192.0.2.1", "::1:5", ":5"])
def test_a_member_to_join_by_is_an_address_and_a_port(tmp_path: Path, raw: str) -> None:
    (problem,) = problems(tmp_path, Flag("--join", "node.join", raw))

    assert "node.join" in problem
