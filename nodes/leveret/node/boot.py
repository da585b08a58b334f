"""The composition root: the one place that knows concrete classes on both sides of a seam.

The tree of a running node, from the ground up; what is above may use what is below:

    listener          accepts clients; an actor a connection
    directory         an actor an exchange and queue
    catalog, shards   the machines of the Raft groups
    replicas          an actor a group; the clock of elections
    peers             the links to the other nodes
    journal           the one writer to disk
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from leveret.actors import Timers, supervise
from leveret.broker.access import Access
from leveret.broker.arguments import decode_arguments
from leveret.broker.connections.certificates import LoginFrom
from leveret.broker.connections.handshake import Greeting
from leveret.broker.connections.listener import Listener, ListenerConfig
from leveret.broker.connections.session import Services
from leveret.broker.directory import Directory
from leveret.broker.policies.in_force import Policies
from leveret.broker.queues.machine import ShardMachine
from leveret.broker.routing.router import Routers
from leveret.catalog import Catalog, CatalogMachine
from leveret.consensus import (
    BadSnapshot,
    EngineConfig,
    GroupConfig,
    Machine,
    Replicas,
    ReplicasConfig,
)
from leveret.storage import (
    CorruptJournal,
    CorruptSnapshot,
    Journal,
    JournalConfig,
    Snapshots,
    SyncFailed,
)
from leveret.transport import Address, Identity, Peers

from .admission import Admissions
from .alarms import Alarms
from .control.admin import Admin
from .control.application import add_application_verbs
from .control.controls import Controls
from .control.parts import NodeParts
from .control.rates import RateMeter
from .control.server import ControlServer
from .control.verbs import add_verbs
from .damage import put_aside
from .descriptor_limit import descriptors_for
from .endpoints import Endpoints
from .founding import found_if_new
from .introductions import Introductions
from .lost_nodes import LostNodes
from .majority import Majority
from .membership import become_member, provide_credentials, renew_incarnation, settled
from .memory import MemoryWatch
from .outside import REAL
from .roster import Desired, Roster
from .space import give_space_back
from .start import register, unless_stopped, until_voters
from .tls import ClientCertificates
from .version import version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leveret.catalog.model import Model
    from leveret.storage import Disk

    from .config import NodeConfig
    from .membership import Membership
    from .outside import Outside

log = logging.getLogger(__name__)

SOFTWARE: Final = f"leveret {version()}"
BOOT_FILE: Final = "boot"
SHUTDOWN_REASON: Final = "broker forced connection closure with reason 'shutdown'"
HAND_OVER_S: Final = 2.0
"""How long a stopping node waits for others to lead what it leads."""
LAST_WRITES_S: Final = 1.0
"""How long a stopping node waits for the log to take its last submissions."""


async def serve_until(
    stop: trio.Event,
    config: NodeConfig,
    *,
    on_ready: Callable[[Endpoints], None],
    outside: Outside = REAL,
    stop_app: Callable[[], None] | None = None,
) -> None:
    """Run a node until `stop`, then end it in order; cancelled, it ends at once, as if killed.

    on_ready: called once, when clients are served. stop_app: sets `stop` for an operator, if one
    may; see `application`.

    Raises:
        StorageError, TransportError, OSError: it cannot start, or not go on.
    """
    disk = outside.open_disk(config)
    try:
        become = partial(
            become_member,
            config,
            disk,
            software=SOFTWARE,
            now_ms=outside.wall_clock_ms(),
            random_bytes=outside.secret_bytes,
        )
        member = await unless_stopped(stop, become)
        if member is None:
            return
        config = settled(config, member)
        try:
            await _open_and_run(stop, config, member, disk, on_ready, outside, stop_app)
        except _DamagedFolder as damage:
            if len(member.members) < 2:
                raise damage.reason from None
            # First the new incarnation, which nobody counts on; then the old promises may go.
            member = await renew_incarnation(disk, member, now_ms=outside.wall_clock_ms())
            put_aside(disk, damage.reason)
            await _open_and_run(stop, config, member, disk, on_ready, outside, stop_app)
    finally:
        disk.close()


class _DamagedFolder(Exception):
    """The data folder lost or changed something that was durable."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def _open_and_run(
    stop: trio.Event,
    config: NodeConfig,
    member: Membership,
    disk: Disk,
    on_ready: Callable[[Endpoints], None],
    outside: Outside,
    stop_app: Callable[[], None] | None,
) -> None:
    """Read what the disk holds, and run a node on it.

    Raises:
        _DamagedFolder: before anything of the node runs.
    """
    last_boot = _last_boot(disk)
    boot = await _next_boot(disk, last_boot, outside.wall_clock_ms())
    try:
        journal = await Journal.open(
            disk,
            JournalConfig(
                segment_bytes=config.storage.segment_bytes,
                cache_bytes=config.storage.cache_bytes,
                reserve_bytes=config.storage.reserve_bytes * 3 // 4,
            ),
        )
    except CorruptJournal as error:
        raise _DamagedFolder(error) from error
    with ExitStack() as held:
        held.callback(journal.close)
        if last_boot and journal.is_empty and not member.is_founding:
            # It keeps no promise that an earlier journal may have given.
            member = await renew_incarnation(disk, member, now_ms=outside.wall_clock_ms())
        await _run(stop, config, disk, journal, boot, member, held, on_ready, outside, stop_app)


async def _run(
    stop: trio.Event,
    config: NodeConfig,
    disk: Disk,
    journal: Journal,
    boot: int,
    member: Membership,
    held: ExitStack,
    on_ready: Callable[[Endpoints], None],
    outside: Outside,
    stop_app: Callable[[], None] | None,
) -> None:
    """Build the tree and run it until `stop`.

    held: takes what is to be closed at the end.

    Raises:
        _DamagedFolder: before anything of the node runs.
    """
    node = member.node
    credentials = provide_credentials(
        config, member, now_ms=outside.wall_clock_ms(), random_bytes=outside.secret_bytes
    )
    rng = Random(int.from_bytes(outside.secret_bytes(8)))  # noqa: S311 - back-off and elections
    identity = Identity(
        cluster=member.cluster,
        node=node,
        name=member.name,
        incarnation=member.incarnation,
        boot=boot,
        software=SOFTWARE,
        instance=outside.secret_bytes(16),
    )
    peers = Peers(
        identity,
        credentials,
        listen=config.peers.listen,
        members=member.members,
        rng=rng,
        config=outside.links,
        make_nonce=outside.secret_bytes,
        sockets=outside.peer_sockets,
    )
    controls = Controls()
    admin = Admin(node, peers, controls)
    snapshots = Snapshots(disk, reserve_bytes=config.storage.reserve_bytes // 4)
    held.callback(snapshots.close)
    catalog_machine = CatalogMachine()
    desired = Desired(catalog_machine)
    shard_machines = [ShardMachine() for _ in range(config.consensus.shards)]
    machines: list[Machine] = [catalog_machine, *shard_machines]
    try:
        replicas = Replicas(
            node=node,
            incarnation=member.incarnation,
            desired=desired,
            boot=boot,
            journal=journal,
            snapshots=snapshots,
            machines=machines,
            peers=peers,
            wall_clock_ms=outside.wall_clock_ms,
            rng=rng,
            config=_replicas_config(config),
        )
    except (CorruptSnapshot, BadSnapshot) as error:
        raise _DamagedFolder(error) from error
    catalog = Catalog(replicas.groups[0], catalog_machine, peers)
    peers.take_unknown(lambda: not _is_admitted(catalog_machine, member))
    introductions = Introductions(
        peers,
        name=member.name,
        peer=str(member.members[node]),
        is_fresh=lambda: replicas.is_fresh,
    )
    roster = Roster(
        member,
        disk=disk,
        catalog=catalog,
        links=peers,
        introductions=introductions,
        removed=partial(_removed, stop),
    )
    timers = Timers()
    async with trio.open_nursery() as ground:
        ground.start_soon(journal.run)
        peers_at = None
        if member.listen is not None:
            peers.on_join(Admissions(catalog).admit, now=partial(_now, outside))
            peers_at = await ground.start(peers.run)
        async with supervise() as supervisor:
            policies = Policies(catalog.model)
            directory = Directory(
                node=node,
                boot=boot,
                catalog=catalog,
                routers=Routers(
                    catalog.model, decode=decode_arguments, alternate=policies.alternate
                ),
                policies=policies,
                links=peers,
                supervisor=supervisor,
                timers=timers,
                wall_clock_ms=outside.wall_clock_ms,
                parks_dead_letters=config.node.park_dead_letters,
            )
            for number, machine in enumerate(shard_machines, 1):
                directory.add_shard(number, replicas.groups[number], machine)
            services = Services(
                catalog=catalog,
                directory=directory,
                access=Access(
                    catalog.model,
                    cache_key=outside.secret_bytes(32),
                    in_thread=outside.in_thread,
                ),
                timers=timers,
                random_bytes=outside.secret_bytes,
                consumer_timeout_ms=int(config.limits.consumer_timeout_s * 1000),
            )
            listener = Listener(
                services,
                _greeting(config, catalog.model),
                _listener_config(config, connections_max=_connections_max(config, outside)),
                sockets=outside.client_sockets,
            )
            catalog.on_change(listener.catalog_changed)
            plain = [
                held.enter_context(closing(await listener.bind(*address)))
                for address in config.amqp.listen
            ]
            secured = [
                held.enter_context(closing(await listener.bind(*address)))
                for address in config.amqp.tls_listen
            ]
            config = _with_ports(config, plain, secured)
            certificates = ClientCertificates(config.amqp) if secured else None
            alarms = Alarms(
                disk,
                journal,
                peers,
                node=node,
                free_limit_bytes=config.storage.disk_free_limit_bytes,
                memory=MemoryWatch(outside.memory, config.node.memory_watermark),
                majority=Majority(
                    node=node,
                    links=peers,
                    group=replicas.groups[0],
                    voters=lambda: replicas.groups[0].configuration.voters,
                    timeout_s=_majority_timeout_s(config),
                ),
                in_thread=outside.in_thread,
                changed=listener.block,
                told=directory.news.tell_of_node,
            )
            parts = NodeParts(
                config=config,
                identity=identity,
                started_s=trio.current_time(),
                disk=disk,
                alarms=alarms,
                peers=peers,
                replicas=replicas,
                machines=machines,
                catalog=catalog,
                access=services.access,
                random_bytes=outside.secret_bytes,
                in_thread=outside.in_thread,
                directory=directory,
                listener=listener,
                certificates=certificates,
                rates=RateMeter(services.counters),
                endpoints=Endpoints(
                    amqp=tuple(_address(bound) for bound in plain),
                    amqp_tls=tuple(_address(bound) for bound in secured),
                    peers=peers_at,
                    member=member,
                    token=credentials.token,
                ),
            )
            add_verbs(controls, parts, admin)
            if stop_app is not None:
                add_application_verbs(controls, parts, stop_app)
            ground.start_soon(timers.run)
            ground.start_soon(alarms.run)
            if certificates is not None:
                ground.start_soon(certificates.follow)
            ground.start_soon(parts.rates.run)
            ground.start_soon(admin.run)
            await ground.start(replicas.run)
            if member.listen is not None:  # alone, there is nobody to come or go
                ground.start_soon(introductions.run)
                ground.start_soon(roster.run)
                ground.start_soon(
                    LostNodes(
                        node=node,
                        links=peers,
                        catalog=catalog,
                        is_leader=lambda: replicas.groups[0].is_leader,
                        lost_after_s=config.node.lost_after_s,
                    ).run
                )
            if outside.has_control_socket:
                await ground.start(ControlServer(config.node.data_dir, controls).run)
            ground.start_soon(
                partial(give_space_back, journal, replicas, is_low=lambda: alarms.is_disk_low)
            )

            async def begin() -> bool:
                is_founder = await found_if_new(
                    member,
                    disk=disk,
                    journal=journal,
                    replicas=replicas,
                    introductions=introductions,
                )
                await register(config, member, catalog, boot, outside)
                desired.is_known = True
                # What is confirmed from now on is on a majority of the cluster as it is meant. A
                # folder that was new a moment ago, and is no longer, may not vote yet either.
                await until_voters(replicas, member.members if is_founder else [node])
                return True

            if await unless_stopped(stop, begin):
                outside.tune_memory()
                directory.news.open(lambda: replicas.groups[0].is_leader)
                for bound in plain:
                    await ground.start(listener.serve, bound)
                for bound in secured:
                    assert certificates is not None, "made where it listens with TLS"
                    await ground.start(partial(listener.serve, bound, tls=certificates.context))
                parts.phase = "serving"
                on_ready(parts.endpoints)
                log.info("ready", extra={"node": node, "boot": boot})
                await stop.wait()
            parts.phase = "stopping"
            # While clients are still served: those of the other nodes do not notice then.
            await replicas.hand_over(HAND_OVER_S)
            for bound in (*plain, *secured):
                bound.close()
            await listener.close_all(SHUTDOWN_REASON)
        await _write_last(replicas)
        ground.cancel_scope.cancel()


def _is_admitted(catalog: CatalogMachine, member: Membership) -> bool:
    """Say whether the catalog, as it is known here, has this node with the folder that it has."""
    known = catalog.model.node(member.node)
    return known is not None and known.incarnation == member.incarnation


def _removed(stop: trio.Event) -> None:
    """End a node that the cluster has removed."""
    log.warning("this node was removed from the cluster: it stops, its data folder may be deleted")
    stop.set()


async def _write_last(replicas: Replicas) -> None:
    """Let what was submitted last, and waits for company, reach the log before the end."""
    with trio.move_on_after(LAST_WRITES_S):
        for group in replicas.groups:
            written = trio.Event()
            group.submitted(written.set)
            await written.wait()


def _last_boot(disk: Disk) -> int:
    """Return the number of the last start from this folder; 0 at the first."""
    try:
        file = disk.read_file(BOOT_FILE)
    except FileNotFoundError:
        return 0
    try:
        return int(file.read(0, 20) or b"0")
    finally:
        file.close()


async def _next_boot(disk: Disk, last: int, wall_clock_ms: int) -> int:
    """Return a number greater than at every earlier start from this folder, and keep it."""
    # The clock makes it greater than those of an earlier life whose folder was lost, too.
    boot = max(last + 1, wall_clock_ms)
    try:
        await disk.write_aside(BOOT_FILE, [b"%d" % boot])
    except OSError as error:  # full, most likely: to be said in words, it is nobody's bug
        raise SyncFailed(f"{BOOT_FILE}: {error.strerror}") from error
    return boot


def _replicas_config(config: NodeConfig) -> ReplicasConfig:
    consensus = config.consensus
    return ReplicasConfig(
        group=GroupConfig(
            engine=EngineConfig(
                election_timeout_s=(
                    consensus.election_timeout_min_s,
                    consensus.election_timeout_max_s,
                ),
                heartbeat_s=consensus.heartbeat_s,
                quorum_timeout_s=consensus.quorum_timeout_s,
            ),
            snapshot_entries=consensus.snapshot_entries,
            snapshot_bytes=consensus.snapshot_bytes,
        )
    )


def _majority_timeout_s(config: NodeConfig) -> float:
    """Return what a change of leader takes: the old one steps down, another is elected."""
    return config.consensus.quorum_timeout_s + config.consensus.election_timeout_max_s


def _connections_max(config: NodeConfig, outside: Outside) -> int:
    """Return how many clients the node takes: what is configured, or what there is room for."""
    wanted = config.limits.connections
    room = outside.make_room(wanted)
    if room < wanted:
        log.warning(
            "the system's limit of descriptors allows fewer clients than limits.connections",
            extra={
                "connections": room,
                "configured": wanted,
                "descriptors_needed": descriptors_for(wanted),
            },
        )
    return room


def _listener_config(config: NodeConfig, *, connections_max: int) -> ListenerConfig:
    return ListenerConfig(
        handshake_timeout_s=config.amqp.handshake_timeout_s,
        tls_handshake_timeout_s=config.amqp.tls_handshake_timeout_s,
        connections_max=connections_max,
        unauthenticated_max=config.limits.unauthenticated,
        message_size_max=config.amqp.max_message_size_bytes,
        in_flight_bytes_max=config.limits.in_flight_bytes,
        in_flight_bytes_total=config.limits.in_flight_bytes_total,
        backlog=config.amqp.backlog,
        login_from=LoginFrom(
            config.amqp.tls_login_from,
            config.amqp.tls_login_san_type,
            config.amqp.tls_login_san_index,
        ),
    )


def _greeting(config: NodeConfig, model: Model) -> Greeting:
    return Greeting(
        product=config.amqp.server_product,
        version=config.amqp.server_version,
        own_version=version(),
        cluster_name=config.node.cluster_name,
        addresses=lambda: (address for node in model.nodes() for address in node.addresses),
        channel_max=config.amqp.channel_max,
        frame_max=config.amqp.frame_max,
        heartbeat_s=config.amqp.heartbeat_s,
        refused_login_delay_s=config.limits.refused_login_delay_s,
    )


def _now(outside: Outside) -> datetime:
    return datetime.fromtimestamp(outside.wall_clock_ms() / 1000, UTC)


def _with_ports(
    config: NodeConfig,
    plain: Sequence[trio.socket.SocketType],
    secured: Sequence[trio.socket.SocketType],
) -> NodeConfig:
    """Return the configuration with the ports that the system chose for port 0."""
    amqp = config.amqp
    listen, tls_listen = (
        tuple(a._replace(port=_address(b).port) for a, b in zip(addresses, bound, strict=True))
        for addresses, bound in ((amqp.listen, plain), (amqp.tls_listen, secured))
    )
    return replace(config, amqp=replace(amqp, listen=listen, tls_listen=tls_listen))


def _address(bound: trio.socket.SocketType) -> Address:
    host, port, *_ = bound.getsockname()
    return Address(host, port)
