"""Which node of which cluster a data folder is: its file `member`, and how it comes to be.

A folder becomes a member once: as a node alone, as one of fixed members, or by joining. After that
the file decides and the configuration may only agree; what it says of addresses is followed, as
machines move. The incarnation is the folder's life (see `transport.Identity`).

The composition root calls `become_member`, `settled` and `provide_credentials`, in this order and
before anything else is written, and `keep_members` whenever the catalog's nodes change.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import trio

from leveret.storage import CorruptJournal, SyncFailed
from leveret.transport import (
    Address,
    CertificateAuthority,
    ClusterCredentials,
    NodeId,
    NotReached,
    TlsFiles,
    found_cluster,
    join,
)
from leveret.transport.listener import is_loopback, is_wildcard
from leveret.transport.security import is_cluster_id

from .units import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from leveret.storage import Disk

    from .config import NodeConfig

log = logging.getLogger(__name__)

MEMBER_FILE: Final = "member"
CREDENTIALS_FOLDER: Final = "tls"
"""Below the data folder; holds the token too."""
JOIN_PATIENCE_S: Final = 60.0
"""How long a newcomer dials a member that does not answer; then the start fails."""
JOIN_RETRY_S: Final = 1.0
RENEW_BEFORE: Final = timedelta(days=275)
"""A node's own certificate (of 825 days) is made anew at a start in its last third."""


class MembershipError(Exception):
    """The data folder and the configuration do not agree; the text says what to change."""


@dataclass(frozen=True, kw_only=True)
class Membership:
    """What a data folder is."""

    cluster: str
    node: NodeId
    name: str
    incarnation: int
    is_founder: bool
    """It may begin a cluster that does not exist yet: it was started alone, or is the lowest of
    the fixed members. A node that joined never does."""
    listen: Address | None
    """Where it takes links of other nodes; None for a node alone that takes none."""
    members: Mapping[NodeId, Address]
    """All members as last known, this node too, and where the others reach them."""
    is_founding: bool = False
    """It has begun the cluster, and may have ended before all of that was on disk."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """The file as it is on disk. While a join is under way `node` is 0 and `members` empty."""

    cluster: str
    node: Annotated[int, msgspec.Meta(ge=0, lt=65536)]
    name: str
    incarnation: Annotated[int, msgspec.Meta(ge=1)]
    is_founder: bool
    listen: str | None
    members: dict[int, str]
    is_founding: bool = False


async def become_member(
    config: NodeConfig,
    disk: Disk,
    *,
    software: str,
    now_ms: int,
    random_bytes: Callable[[int], bytes],
) -> Membership:
    """Return what the data folder is, and make it that if it is new; joins if that is asked.

    software: name and version of the program, for the cluster that is joined.
    now_ms: milliseconds since 1970; a new folder's incarnation.

    Raises:
        MembershipError: configuration and folder do not agree, or what joining needs is missing.
        NotReached: the member to join by did not answer for a minute.
        Refused: the cluster does not take this node.
        StorageError, OSError: the folder cannot be used.
    """
    found = _read(disk)
    if found is not None and found.node:
        kept = _membership(found)
        if config.node.join is not None:
            log.info(
                "a member already, not joining again", extra={"node": kept.node, "of": kept.cluster}
            )
        member = _followed(config, kept)
        if member != kept:
            await _write(disk, _file(member))
        return member
    incarnation = found.incarnation if found is not None else max(now_ms, 1)
    if config.node.join is None:
        member = _first(config, incarnation)
        await _write(disk, _file(member))
        return member
    if disk.list("segments"):
        raise MembershipError(
            f"the data folder {config.node.data_dir} holds the data of a node that was not joined;"
            " choose an empty one with --data-dir"
        )
    if found is None:
        # Kept before it is said: whoever asks again with the same incarnation gets the same number.
        await _write(disk, _File("", 0, "", incarnation, is_founder=False, listen=None, members={}))
    member = await _join(config, config.node.join, incarnation, software, random_bytes)
    await _write(disk, _file(member))
    return member


def read_membership(disk: Disk) -> Membership | None:
    """Return what the folder is; None if it is not a member yet.

    Raises:
        CorruptJournal: the file is damaged.
    """
    found = _read(disk)
    return _membership(found) if found is not None and found.node else None


async def keep_members(
    disk: Disk, member: Membership, members: Mapping[NodeId, Address]
) -> Membership:
    """Remember `members` for the next start, which needs them to find the others.

    Returns the membership as it is now; nothing is written if it is the same. Without this node
    among them nothing changes: a node that was removed keeps what it knew.

    Raises:
        SyncFailed: fatal.
    """
    if member.node not in members or members == member.members:
        return member
    changed = dataclasses.replace(member, members=dict(members))
    await _write(disk, _file(changed))
    return changed


async def renew_incarnation(disk: Disk, member: Membership, *, now_ms: int) -> Membership:
    """Begin a new life of the folder, whose data are gone or damaged; return the membership.

    Raises:
        SyncFailed: fatal.
    """
    renewed = dataclasses.replace(
        member, incarnation=max(member.incarnation + 1, now_ms), is_founding=False
    )
    await _write(disk, _file(renewed))
    return renewed


async def set_founding(disk: Disk, member: Membership, *, is_founding: bool) -> Membership:
    """Note that the cluster is being begun, or has been; return the membership.

    Raises:
        SyncFailed: fatal.
    """
    changed = dataclasses.replace(member, is_founding=is_founding)
    await _write(disk, _file(changed))
    return changed


def settled(config: NodeConfig, member: Membership) -> NodeConfig:
    """Return the configuration with number, names and address as the data folder has them."""
    node = dataclasses.replace(
        config.node, id=int(member.node), name=member.name, cluster_name=member.cluster
    )
    peers = config.peers
    if member.listen is not None:
        peers = dataclasses.replace(peers, listen=member.listen)
    origins = dict(config.origins)
    for name in ("node.id", "node.name", "node.cluster_name"):
        origins.setdefault(name, "data folder")
    return dataclasses.replace(config, node=node, peers=peers, origins=origins)


def provide_credentials(
    config: NodeConfig, member: Membership, *, now_ms: int, random_bytes: Callable[[int], bytes]
) -> ClusterCredentials:
    """Return this node's secrets: those of the configuration, else those of the data folder.

    A node that others may join and that has none makes them here: a token and, off loopback,
    authority and certificate. A certificate made so is made anew before it ends.

    Raises:
        TransportError: what is there cannot be used.
        OSError: what is made cannot be written.
    """
    folder = config.node.data_dir / CREDENTIALS_FOLDER
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    kept = ClusterCredentials.load(folder) if (folder / "cluster").exists() else None
    token = config.node.token or (kept.token if kept else b"")
    tls = _configured_tls(config) or (kept.tls if kept else None)
    is_alone = set(member.members) == {member.node}
    if member.listen is not None and is_alone and member.is_founder:
        needs_tls = tls is None and not _is_local(member.listen.host)
        if needs_tls or not token:
            token = token or random_bytes(32)
            made = found_cluster(
                member.cluster, member.node, folder, needs_tls=needs_tls, token=token, now=now
            )
            tls = tls or made.tls
            log.info("secrets of a cluster made", extra={"folder": str(folder), "tls": needs_tls})
    if kept is not None and tls is not None and tls == kept.tls:
        _renew(member, tls, folder, now)
    # A node alone takes no links, so its secret is nobody's.
    return ClusterCredentials(member.cluster, token or random_bytes(32), tls)


def _configured_tls(config: NodeConfig) -> TlsFiles | None:
    peers = config.peers
    if peers.tls_ca and peers.tls_certificate and peers.tls_key:
        return TlsFiles(peers.tls_ca, peers.tls_certificate, peers.tls_key)
    return None


def _renew(member: Membership, tls: TlsFiles, folder: Path, now: datetime) -> None:
    """Make the node's certificate anew if it ends before long and this node can sign."""
    ends = tls.ends()
    if now < ends - RENEW_BEFORE:
        return
    if not tls.authority_key.exists():
        log.warning(
            "the node's certificate ends and its authority's key is not here",
            extra={"ends": ends.isoformat(), "file": str(tls.certificate)},
        )
        return
    authority = CertificateAuthority.of_files(member.cluster, tls.authority, tls.authority_key)
    authority.issue(member.node, folder, now=now)
    log.info("the node's certificate was made anew", extra={"ended": ends.isoformat()})


def _first(config: NodeConfig, incarnation: int) -> Membership:
    """Return what a new folder is that does not join.

    Raises:
        MembershipError: others could not reach it.
    """
    node, fixed = NodeId(config.node.id), {m.id: m.address for m in config.node.cluster}
    takes_links = bool(fixed) or _is_given(config, "peers.listen")
    listen = config.peers.listen if takes_links else None
    if listen is not None and not fixed and is_wildcard(listen.host):
        raise MembershipError(_no_address(listen))
    return Membership(
        cluster=config.node.cluster_name,
        node=node,
        name=config.node.name,
        incarnation=incarnation,
        is_founder=node == min(fixed, default=node),
        listen=listen,
        members=fixed or {node: config.peers.listen},
    )


def _followed(config: NodeConfig, kept: Membership) -> Membership:
    """Return what an old folder is with what the configuration says of names and addresses now.

    Raises:
        MembershipError: the configuration means another node or cluster.
    """
    for setting, given, ours in (
        ("node.id", config.node.id, kept.node),
        ("node.cluster_name", config.node.cluster_name, kept.cluster),
    ):
        if _is_given(config, setting) and given != ours:
            raise MembershipError(
                f"{setting} = {given} ({config.origin(setting)}), but the data folder"
                f" {config.node.data_dir} is that of node {kept.node} of the cluster"
                f" {kept.cluster!r}; correct that, or choose another folder with --data-dir"
            )
    own = kept.members[kept.node]
    listen = kept.listen
    if _is_given(config, "peers.listen"):
        given_listen = config.peers.listen
        listen = given_listen if given_listen.port else given_listen._replace(port=own.port)
        if kept.is_founder and kept.listen is None and is_wildcard(listen.host):
            raise MembershipError(_no_address(listen))
        # All interfaces are nothing to tell others: there the former address stands.
        own = own._replace(port=listen.port) if is_wildcard(listen.host) else listen
    members = {**kept.members, kept.node: own}
    # The catalog knows who is a member; of where fixed members are, an operator may know better.
    members |= {m.id: m.address for m in config.node.cluster if m.id in kept.members}
    name = config.node.name if _is_given(config, "node.name") else kept.name
    return dataclasses.replace(kept, name=name, listen=listen, members=members)


async def _join(
    config: NodeConfig,
    at: Address,
    incarnation: int,
    software: str,
    random_bytes: Callable[[int], bytes],
) -> Membership:
    """Join by the member at `at`; raises as `become_member`."""
    if not config.node.token:
        raise MembershipError(
            "joining takes the cluster's token: give --token-file or --token; a member has it in"
            f" {CREDENTIALS_FOLDER}/token of its data folder"
        )
    log.info("joining", extra={"by": str(at)})
    told = ""
    give_up_at = trio.current_time() + JOIN_PATIENCE_S
    while True:
        try:
            joined = await join(
                at,
                token=config.node.token,
                listen_on=config.peers.listen,
                incarnation=incarnation,
                software=software,
                folder=config.node.data_dir / CREDENTIALS_FOLDER,
                name=config.node.name if _is_given(config, "node.name") else "",
                cluster=config.node.cluster_name if _is_given(config, "node.cluster_name") else "",
                make_nonce=random_bytes,
            )
        except NotReached as error:
            if trio.current_time() > give_up_at:
                raise
            if str(error) != told:
                told = str(error)
                log.warning("not joined yet, trying on", extra={"reason": told})
            await trio.sleep(JOIN_RETRY_S)
        else:
            break
    log.info("joined", extra={"cluster": joined.cluster, "node": joined.node})
    return Membership(
        cluster=joined.cluster,
        node=joined.node,
        name=joined.name,
        incarnation=incarnation,
        is_founder=False,
        listen=config.peers.listen._replace(port=joined.address.port),
        members=joined.members,
    )


def _is_given(config: NodeConfig, name: str) -> bool:
    return config.origin(name) != "default"


def _is_local(host: str) -> bool:
    try:
        return is_loopback(host)
    except ValueError:  # a name
        return host == "localhost"


def _no_address(listen: Address) -> str:
    return (
        f"peers.listen = {listen} is no address that other nodes can be told; give one of this"
        " machine's, such as 192.0.2.1:25672"
    )


def _read(disk: Disk) -> _File | None:
    try:
        file = disk.read_file(MEMBER_FILE)
    except FileNotFoundError:
        return None
    try:
        data = file.read(0, 1 << 20)
    finally:
        file.close()
    try:
        found = msgspec.json.decode(data, type=_File)
        if found.node:
            _membership(found)
    except (msgspec.DecodeError, ValueError) as error:
        raise CorruptJournal(MEMBER_FILE, 0, str(error)) from error
    return found


async def _write(disk: Disk, file: _File) -> None:
    try:
        await disk.write_aside(MEMBER_FILE, [msgspec.json.encode(file) + b"\n"])
    except OSError as error:  # full, most likely
        raise SyncFailed(f"{MEMBER_FILE}: {error.strerror}") from error


def _file(member: Membership) -> _File:
    return _File(
        cluster=member.cluster,
        node=int(member.node),
        name=member.name,
        incarnation=member.incarnation,
        is_founder=member.is_founder,
        listen=None if member.listen is None else str(member.listen),
        members={int(node): str(at) for node, at in sorted(member.members.items())},
        is_founding=member.is_founding,
    )


def _membership(file: _File) -> Membership:
    """Return what a file of a member says.

    Raises:
        ValueError: an address or a name is malformed, or its node is not among the members.
    """
    if file.node not in file.members:
        raise ValueError("the node is not among its members")
    if not (is_cluster_id(file.cluster) and file.name):
        raise ValueError("a name is malformed")
    return Membership(
        cluster=file.cluster,
        node=NodeId(file.node),
        name=file.name,
        incarnation=file.incarnation,
        is_founder=file.is_founder,
        listen=None if file.listen is None else parse_address(file.listen),
        members={NodeId(node): parse_address(at) for node, at in file.members.items()},
        is_founding=file.is_founding,
    )
