"""Every setting of a node: name, unit, default, range, and what happens at a limit.

One frozen tree, validated whole and passed down; `leveret.node.sources` reads it from files,
environment and flags. The reference page is printed from this file (`leveret config reference`).
Values are plain: sizes are bytes, durations are seconds.
"""
# ruff: noqa: RUF009 - `setting` returns a dataclass field, typed as its default

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from leveret.node.settings import Setting, setting, settings_of
from leveret.node.units import (
    ADDRESS,
    ADDRESS_OR_NONE,
    ADDRESSES,
    BOOLEAN,
    FILE,
    FOLDER,
    INTEGER,
    MEMBERS,
    NAME,
    SECONDS,
    SIZE,
    TEXT,
    TOKEN,
    WATERMARK,
    WHOLE_SECONDS,
    Member,
    Watermark,
)
from leveret.transport.identity import Address

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

AMQP_PORT = 5672
PEER_PORT = 25672


@dataclass(frozen=True, kw_only=True)
class NodeSection:
    """Who this node is, where it keeps its data, and whom it forms a cluster with."""

    id: int = setting(
        1,
        INTEGER,
        "Number of this node in its cluster. It never changes and is not given to another node.",
        minimum=1,
        maximum=65535,
    )
    name: str = setting(
        "node-1",
        NAME,
        "Name of this node in logs.",
        default_text="node-ID",
    )
    data_dir: Path = setting(
        Path(".leveret/node-1"),
        FOLDER,
        "Folder of everything that must survive. One node at a time; back it up only stopped.",
        default_text=".leveret/NAME in the current folder",
    )
    cluster_name: str = setting(
        "leveret",
        NAME,
        "Name of the cluster, which clients see; the same on all its nodes, others are refused.",
    )
    cluster: tuple[Member, ...] = setting(
        (),
        MEMBERS,
        "All members of a static cluster, this node too, the same on all. Empty: a single node.",
    )
    join: Address | None = setting(
        None,
        ADDRESS_OR_NONE,
        "Peer address of any member of the cluster that this node joins at its first start, with"
        " that cluster's token. Its number comes from there. Later starts need neither.",
    )
    token: bytes = setting(
        b"",
        TOKEN,
        "Secret that the nodes of a cluster share, at least 32 hexadecimal digits.",
        secret=True,
    )
    token_file: Path | None = setting(
        None,
        FILE,
        "File with the token, readable by its owner only; safer than `token`, which goes before.",
    )
    definitions: Path | None = setting(
        None,
        FILE,
        "JSON file of definitions in RabbitMQ's format (users, virtual hosts, permissions,"
        " exchanges, queues, bindings),"
        " merged at each start; one node of a cluster needs it.",
    )
    memory_watermark: Watermark = setting(
        Watermark(fraction=0.6),
        WATERMARK,
        "Resident memory that this node may use: a fraction of the machine's (of the control"
        " group's, where that has a limit), or a size. Linux only.",
        at_limit="Publishers of all nodes are held back (connection.blocked) until it uses less;"
        " consumers go on.",
    )
    park_dead_letters: bool = setting(
        False,
        BOOLEAN,
        "Keep dead letters that no queue takes in the queue `$dead` of their virtual"
        " host, instead of dropping them as RabbitMQ does. The same on all nodes.",
        at_limit="Beyond 10,000 messages or 64 MiB of bodies the oldest are dropped.",
    )
    lost_after_s: float = setting(
        5.0,
        SECONDS,
        "How long another node may be without a link.",
        at_limit="Its queues that are not replicated are deleted: their consumers are cancelled.",
        minimum=0.1,
        maximum=86400,
    )
    stop_timeout_s: float = setting(
        8.0,
        SECONDS,
        "How long a node may take to stop after SIGTERM or Ctrl-C.",
        at_limit="The process ends at once with code 70; what was confirmed is on disk.",
        minimum=0.1,
        maximum=600,
    )


@dataclass(frozen=True, kw_only=True)
class AmqpSection:
    """The ports for clients and what is agreed with them."""

    listen: tuple[Address, ...] = setting(
        (Address("127.0.0.1", AMQP_PORT),),
        ADDRESSES,
        "Addresses for AMQP without TLS. `0.0.0.0:5672` is every IPv4 address of the machine.",
    )
    tls_listen: tuple[Address, ...] = setting(
        (), ADDRESSES, "Addresses for AMQP with TLS, usually port 5671."
    )
    tls_certificate: Path | None = setting(
        None, FILE, "PEM file of the certificate (and its chain) shown to clients."
    )
    tls_key: Path | None = setting(None, FILE, "PEM file of the certificate's key.")
    tls_ca: Path | None = setting(
        None, FILE, "PEM file of the authorities whose client certificates are accepted."
    )
    tls_verify: str = setting(
        "none",
        TEXT,
        "Whether clients must show a certificate of `tls_ca`.",
        choices=("none", "optional", "required"),
    )
    tls_login_from: str = setting(
        "distinguished_name",
        TEXT,
        "Part of the client's certificate that names its user, for the mechanism EXTERNAL; offered"
        " where `tls_verify` asks for certificates. RabbitMQ's `ssl_cert_login_from`.",
        choices=("distinguished_name", "common_name", "subject_alternative_name"),
    )
    tls_login_san_type: str = setting(
        "dns",
        TEXT,
        "Kind of alternative name, where `tls_login_from` is that.",
        choices=("dns", "email", "uri"),
    )
    tls_login_san_index: int = setting(
        0,
        INTEGER,
        "Which one of that kind, counted from 0.",
        at_limit="A certificate that has fewer names nobody: the login is refused.",
        minimum=0,
        maximum=1000,
    )
    advertise: tuple[Address, ...] = setting(
        (),
        ADDRESSES,
        "Where clients are told that they reach this node without TLS, from wherever they are: for"
        " a node behind a balancer, in a container, or on all addresses of its machine.",
        default_text="`listen`, with the host of `peers.listen` in place of `0.0.0.0`",
    )
    tls_advertise: tuple[Address, ...] = setting(
        (),
        ADDRESSES,
        "The same with TLS; the name is one in the certificate.",
        default_text="`tls_listen`, likewise",
    )
    heartbeat_s: int = setting(
        60,
        WHOLE_SECONDS,
        "Heartbeat proposed to clients; 0 proposes none.",
        at_limit="A connection silent for two heartbeats is closed, its messages return.",
        minimum=0,
        maximum=65535,
    )
    frame_max: int = setting(
        128 * KIB,
        SIZE,
        "Largest frame proposed to clients.",
        at_limit="A larger frame closes the connection with 501 FRAME_ERROR.",
        minimum=4096,
        maximum=16 * MIB,
    )
    channel_max: int = setting(
        2047,
        INTEGER,
        "Channels that one connection may have open.",
        at_limit="Opening one more closes the connection with 530 NOT_ALLOWED.",
        minimum=1,
        maximum=65535,
    )
    handshake_timeout_s: float = setting(
        10.0,
        SECONDS,
        "Time for a client from connecting to the end of its login.",
        at_limit="The connection is closed.",
        minimum=0.1,
        maximum=600,
    )
    tls_handshake_timeout_s: float = setting(
        5.0,
        SECONDS,
        "Time for the TLS handshake.",
        at_limit="The connection is closed.",
        minimum=0.1,
        maximum=600,
    )
    max_message_size_bytes: int = setting(
        128 * MIB,
        SIZE,
        "Largest body of a message.",
        at_limit="The channel is closed with 406 PRECONDITION_FAILED.",
        minimum=1,
        maximum=128 * MIB,
    )
    backlog: int = setting(
        128,
        INTEGER,
        "Connections that the operating system holds until they are accepted.",
        at_limit="Further connections wait or are refused, as the system is set up.",
        minimum=1,
        maximum=65535,
    )
    server_product: str = setting(
        "RabbitMQ",
        TEXT,
        "`product` of the server properties; libraries (Celery's prefetch) look at it. Our own"
        " name and version stand beside it.",
    )
    server_version: str = setting(
        "3.13.7", TEXT, "`version` of the server properties: the RabbitMQ that we behave like."
    )


@dataclass(frozen=True, kw_only=True)
class PeersSection:
    """The port for the other nodes of the cluster."""

    listen: Address = setting(
        Address("127.0.0.1", PEER_PORT),
        ADDRESS,
        "Address for other nodes. Off loopback it takes TLS: the three files, or, where other nodes"
        " join this one, those that it makes in its data folder at the first such start.",
        default_text="this node's address in node.cluster, else 127.0.0.1:25672, where a node alone"
        " takes no links",
    )
    tls_ca: Path | None = setting(None, FILE, "PEM file of the cluster's own authority.")
    tls_certificate: Path | None = setting(None, FILE, "PEM file of this node's certificate.")
    tls_key: Path | None = setting(None, FILE, "PEM file of this node's key.")


@dataclass(frozen=True, kw_only=True)
class StorageSection:
    """How data is kept on disk."""

    segment_bytes: int = setting(
        64 * MIB,
        SIZE,
        "Size of one file of the journal; room comes back a whole file at a time.",
        at_limit="The next file is begun.",
        minimum=64 * KIB,
        maximum=GIB,
    )
    cache_bytes: int = setting(
        64 * MIB,
        SIZE,
        "Memory for message bodies that were just written.",
        at_limit="Older bodies are read from disk when they are delivered.",
        minimum=MIB,
        maximum=64 * GIB,
    )
    disk_free_limit_bytes: int = setting(
        50_000_000,
        SIZE,
        "Room that must stay free on the disk.",
        at_limit="Publishers are held back (connection.blocked) until there is room; consumers"
        " go on.",
        minimum=0,
    )
    reserve_bytes: int = setting(
        64 * MIB,
        SIZE,
        "Room that is held for a disk without any, so that what is settled can still be stored and"
        " makes room again; 0 for none.",
        at_limit="What publishers have under way uses it first. Used up, nothing is stored until"
        " the disk has room.",
        minimum=0,
        maximum=GIB,
    )
    sync_method: str = setting(
        "auto",
        TEXT,
        "How fdatasync is waited for: by the kernel's AIO, by a thread, or what works best.",
        choices=("auto", "kernel", "thread"),
    )


@dataclass(frozen=True, kw_only=True)
class ConsensusSection:
    """Raft's times, and how the work is divided."""

    shards: int = setting(
        8,
        INTEGER,
        "Raft groups that durable queues are spread over, the same on all nodes.",
        minimum=1,
        maximum=64,
    )
    heartbeat_s: float = setting(
        0.1,
        SECONDS,
        "Longest silence of a leader; less than half of the shortest election timeout.",
        minimum=0.01,
        maximum=10,
    )
    election_timeout_min_s: float = setting(
        0.5,
        SECONDS,
        "Shortest time without a leader before a node asks to be elected.",
        at_limit="An election begins at a random time between this and the longest.",
        minimum=0.05,
        maximum=60,
    )
    election_timeout_max_s: float = setting(
        1.0,
        SECONDS,
        "Longest time without a leader before a node asks to be elected.",
        minimum=0.05,
        maximum=120,
    )
    quorum_timeout_s: float = setting(
        1.0,
        SECONDS,
        "How long a leader may hear no majority.",
        at_limit="It steps down; confirms wait until there is a majority again.",
        minimum=0.05,
        maximum=120,
    )
    snapshot_entries: int = setting(
        20_000,
        INTEGER,
        "Log entries of a group since its last snapshot.",
        at_limit="A snapshot is made and the log before it trimmed.",
        minimum=100,
    )
    snapshot_bytes: int = setting(
        128 * MIB,
        SIZE,
        "Log bytes of a group since its last snapshot.",
        at_limit="A snapshot is made and the log before it trimmed.",
        minimum=MIB,
    )


@dataclass(frozen=True, kw_only=True)
class LimitsSection:
    """What clients may take from a node before it says no."""

    connections: int = setting(
        10_000,
        INTEGER,
        "Client connections at once; fewer if the system has not the descriptors for them.",
        at_limit="A further one is closed at once, with a warning in the log.",
        minimum=1,
        maximum=1_000_000,
    )
    unauthenticated: int = setting(
        1_000,
        INTEGER,
        "Connections at once that have not logged in yet.",
        at_limit="A further one is closed at once; those logged in are not affected.",
        minimum=1,
        maximum=1_000_000,
    )
    refused_login_delay_s: float = setting(
        1.0,
        SECONDS,
        "Delay of the answer to a wrong password, which slows guessing.",
        minimum=0,
        maximum=60,
    )
    in_flight_bytes: int = setting(
        8 * MIB,
        SIZE,
        "Bytes of one connection's publishes that are not yet confirmed by the log.",
        at_limit="The connection is not read until some are done; nothing is lost. "
        "Transactions may hold as much besides; above that a publish closes its channel.",
        minimum=64 * KIB,
        maximum=GIB,
    )
    consumer_timeout_s: float = setting(
        0.0,
        SECONDS,
        "How long a consumer may hold a message without an acknowledgement, where neither it nor"
        " its queue nor a policy says so (`x-consumer-timeout`); 0 is for ever.",
        at_limit="The message is returned, and the consumer is cancelled.",
        minimum=0,
        maximum=1e6,
    )
    in_flight_bytes_total: int = setting(
        256 * MIB,
        SIZE,
        "The same of all connections of the node together, with messages that are not whole yet.",
        at_limit="No publisher is read until a quarter of it is free; one in the middle of a"
        " message ends it first. Consumers go on.",
        minimum=MIB,
        maximum=64 * GIB,
    )


@dataclass(frozen=True, kw_only=True)
class LoggingSection:
    """What a node says about itself, on standard error."""

    level: str = setting(
        "info", TEXT, "Least level that is logged.", choices=("debug", "info", "warning", "error")
    )
    format: str = setting(
        "text", TEXT, "One readable line or one JSON object an event.", choices=("text", "json")
    )
    color: bool = setting(
        True, BOOLEAN, "Colour on a terminal; never in a file, nor when NO_COLOR is set."
    )


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """The whole configuration of one node; the defaults alone are a valid one."""

    node: NodeSection = NodeSection()
    amqp: AmqpSection = AmqpSection()
    peers: PeersSection = PeersSection()
    storage: StorageSection = StorageSection()
    consensus: ConsensusSection = ConsensusSection()
    limits: LimitsSection = LimitsSection()
    logging: LoggingSection = LoggingSection()
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value that is not a default comes from, by its full name (`amqp.listen`)."""

    def origin(self, name: str) -> str:
        """Return where the value `name` comes from, in words."""
        return self.origins.get(name, "default")

    def value(self, name: str) -> object:
        """Return the value with a full name such as `amqp.listen`."""
        section, _, key = name.partition(".")
        found: object = getattr(getattr(self, section), key)
        return found


SECTIONS: dict[str, type] = {
    "node": NodeSection,
    "amqp": AmqpSection,
    "peers": PeersSection,
    "storage": StorageSection,
    "consensus": ConsensusSection,
    "limits": LimitsSection,
    "logging": LoggingSection,
}
"""Each section's class, in the order of the documentation."""

SETTINGS: dict[str, Setting] = {
    f"{section}.{key}": described
    for section, kind in SECTIONS.items()
    for key, described in settings_of(kind)
}
"""Each setting by its full name, in the order of the documentation."""


def is_any(host: str) -> bool:
    """Say whether `host` stands for all addresses of a machine; nobody can connect to that."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def environment_name(name: str) -> str:
    """Return the environment variable of a setting: `amqp.listen` is `LEVERET_AMQP_LISTEN`."""
    return "LEVERET_" + name.replace(".", "_").upper()
