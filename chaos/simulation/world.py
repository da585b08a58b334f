"""A world of whole nodes in one process: one seed decides scheduling, network, disks and faults.

The nodes are the product: `serve_until`, with its listener for clients, on trio. The world gives
them another machine (`Outside`), other sockets, another clock, and takes it all away when they are
to crash. Deterministic: nothing here or there looks at the real clock, at chance, at a thread or at
a hash of a string; `tests/chaos` compares runs by the hash of all events.

A crash marks the process dead and takes its sockets and its disk away, and only then cancels its
tasks: cancellation runs `finally` blocks, which SIGKILL does not, so they must find both gone.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

import trio
import trio._core._run as trio_run
from trio._core._run import GLOBAL_RUN_CONTEXT
from trio.testing import MockClock

from chaos.simulation.disk import DiskFaults, SimulatedDisk
from chaos.simulation.network import Network, Weather
from chaos.simulation.process import HERE, Process, hold_tasks_of_stopped_processes
from chaos.simulation.replicas import Ledger, NodeProcess, WatchedReplicas, watched
from leveret.broker import access
from leveret.broker.queues import dispatch, stream_lead
from leveret.node import boot
from leveret.node.config import (
    AmqpSection,
    ConsensusSection,
    NodeConfig,
    NodeSection,
    PeersSection,
    StorageSection,
)
from leveret.node.membership import MEMBER_FILE
from leveret.node.outside import Outside
from leveret.node.units import Member
from leveret.storage import CorruptJournal, CorruptSnapshot, SyncFailed
from leveret.transport import Address, NodeId, TransportConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leveret.node.endpoints import Endpoints

T = TypeVar("T")

AMQP_PORT = 5672
PEER_PORT = 25672
SHARDS = 2
EPOCH_MS = 1_700_000_000_000
"""What the wall clocks show at first."""
HASHING_S = 0.03
"""How long it takes to hash a password."""
RESTART_S = (0.1, 0.6)
"""How long the init system takes to start a node that has ended."""
LINKS = TransportConfig(whole_bytes_max=600, part_bytes=200, queue_congested_bytes=8 * 1024)
"""Links as with messages of megabytes: much goes in parts, and now and then one is congested."""
CALM_SYNC_S = (0.0005, 0.004)

DISK_FAILED = (OSError, SyncFailed, CorruptJournal, CorruptSnapshot)
"""What a node may end with when its disk fails."""


class Tracer:
    """Folds all events into one hash, and shows them if wanted.

    show: given each event as a line.
    """

    def __init__(self, show: Callable[[str], None] | None = None) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._show = show
        self.events = 0

    def __call__(self, event: str) -> None:
        """Take an event."""
        self.events += 1
        line = f"{trio.current_time():.6f} {event}"
        self._hash.update(line.encode())
        if self._show is not None:
            self._show(line)

    @property
    def digest(self) -> str:
        """The hash of all events so far."""
        return self._hash.hexdigest()


class Host:
    """A machine with a disk, a wall clock and a node that is started whenever it has ended.

    join: the member that its node joins by; None for a fixed member.
    """

    def __init__(self, number: int, disk: SimulatedDisk, *, join: Address | None = None) -> None:
        self.join = join
        self.is_retired = False
        """Its node was removed from the cluster."""
        self.number = NodeId(number)
        self.name = f"n{number}"
        self.address = f"127.0.0.{number}"
        self.disk = disk
        self.process: NodeProcess | None = None
        self.clock_offset_ms = 0
        self.highest_offset_ms = 0
        """At which a data folder on it may have been made."""
        self.lives = 0
        self.held_down = 0
        """How many faults keep it from starting now."""
        self.let_up = trio.Event()
        self.has_bad_disk = False
        """A fault lets its disk fail, fill up or rot, so that it may end by that."""
        self.disks = 1
        self.power_cuts = 0
        """How many faults keep it without power now."""


class World:
    """Hosts, network, faults. Made by `run`."""

    def __init__(
        self,
        seed: int,
        *,
        nursery: trio.Nursery,
        trace: Tracer,
        nodes: int,
        weather: Weather,
        snapshot_entries: int,
        links: TransportConfig,
        folder: Path,
    ) -> None:
        self._folder = folder
        self.seed = seed
        self.nursery = nursery
        self.trace = trace
        self.network = Network(self.rng("network"), weather=weather, trace=trace)
        self.ledger = Ledger()
        self.failures: list[str] = []
        """What no fault excuses: a node that ended with an error of its own."""
        self.exits = 0
        """Ends of nodes by errors that a fault excuses."""
        self._snapshot_entries = snapshot_entries
        self._links = links
        self._init = self.rng("init")
        self.hosts = {
            NodeId(number): Host(
                number, SimulatedDisk(self.rng(f"disk {number}"), faults=DiskFaults())
            )
            for number in range(1, nodes + 1)
        }

    def rng(self, purpose: str) -> Random:
        """Return a source of chance that no other purpose disturbs."""
        return Random(f"{self.seed}/{purpose}")

    # Life.

    def start(self) -> None:
        """Switch all hosts on."""
        self.nursery.start_soon(self.network.run)
        for host in self.hosts.values():
            self.nursery.start_soon(self._init_system, host)

    async def _init_system(self, host: Host) -> None:
        while not host.is_retired:
            while host.held_down:
                host.let_up = trio.Event()
                await host.let_up.wait()
            await self._live(host)
            await trio.sleep(self._init.uniform(*RESTART_S))

    async def _live(self, host: Host) -> None:
        host.lives += 1
        process = host.process = NodeProcess(host.name, host.address, self.ledger)
        self.trace(f"{host.name} starts, life {host.lives}")

        def ready(_: Endpoints) -> None:
            process.is_serving = True
            self.trace(f"{host.name} serves clients")

        token = HERE.set(process)
        try:
            with process.scope:
                await boot.serve_until(
                    process.end_in_order,
                    self._config(host),
                    on_ready=ready,
                    outside=self._outside(host),
                )
        except BaseException as error:
            if not isinstance(error, (Exception, BaseExceptionGroup)):
                raise
            self._judge_end(host, process, error)
        finally:
            HERE.reset(token)
        process.is_serving = False
        process.replicas = None
        if not process.is_dead:
            # It ended by itself: what it wrote stays, and its system closes its sockets.
            process.die(tell_peers=True)
            host.disk = host.disk.crash()

    def _judge_end(self, host: Host, process: NodeProcess, error: BaseException) -> None:
        if process.is_dead or host.is_retired:
            return  # a crashed process has no last words
        causes = list(_leaves(error))
        if any(isinstance(cause, (trio.Cancelled, KeyboardInterrupt)) for cause in causes):
            raise error
        text = "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
        self.trace(f"{host.name} ended: {text}")
        if host.has_bad_disk and all(isinstance(cause, DISK_FAILED) for cause in causes):
            self.exits += 1
            return
        self.failures.append(f"{trio.current_time():.3f} {host.name} ended: {text}")
        logging.getLogger(__name__).error("a node ended", exc_info=error)

    # What is done to nodes.

    def kill(self, node: NodeId) -> None:
        """Kill a node's process; what it wrote stays in the system's cache."""
        host = self.hosts[node]
        process = host.process
        if process is not None and not process.is_dead:
            host.disk = host.disk.crash()
            process.die(tell_peers=True)
            self.trace(f"{host.name} killed")

    def cut_power(self, node: NodeId) -> None:
        """Switch a host off; `power_on` must follow."""
        host = self.hosts[node]
        process = host.process
        host.power_cuts += 1
        if host.power_cuts == 1:
            host.disk = host.disk.power_loss()
        self.network.dark[host.address] = None
        self.hold_down(node)
        if process is not None and not process.is_dead:
            process.die(tell_peers=False)
        self.trace(f"{host.name} has no power")

    def power_on(self, node: NodeId) -> None:
        """Switch a host on again."""
        host = self.hosts[node]
        host.power_cuts -= 1
        if not host.power_cuts:
            del self.network.dark[host.address]
            self.network.let_flow()
        self.let_up(node)

    def replace_disk(self, node: NodeId) -> None:
        """Kill a node and give its host an empty disk; the operator sets its clock, too."""
        self.kill(node)
        host = self.hosts[node]
        host.disks += 1
        host.disk = SimulatedDisk(self.rng(f"disk {node} {host.disks}"), faults=host.disk.faults)
        self.shift_clock(node, 0)
        self.trace(f"{host.name} has an empty disk")

    def shift_clock(self, node: NodeId, by_ms: int) -> None:
        """Put a host's wall clock forward, or back unless its data folder is yet to be made.

        A folder's life is told by the wall clock at its begin, and must be later than that of any
        before it.
        """
        host = self.hosts[node]
        host.clock_offset_ms += by_ms
        if not host.disk.holds(MEMBER_FILE):
            host.clock_offset_ms = max(host.clock_offset_ms, host.highest_offset_ms)
        host.highest_offset_ms = max(host.clock_offset_ms, host.highest_offset_ms)

    def add_host(self, by: NodeId) -> NodeId:
        """Switch on a new machine whose node joins by the member `by`; return its number to be."""
        number = max(self.hosts) + 1
        host = Host(
            number,
            SimulatedDisk(self.rng(f"disk {number}"), faults=DiskFaults()),
            join=Address(self.hosts[by].address, PEER_PORT),
        )
        self.hosts[NodeId(number)] = host
        self.nursery.start_soon(self._init_system, host)
        return NodeId(number)

    def retire(self, node: NodeId) -> None:
        """Switch a machine off for ever: its node was removed."""
        host = self.hosts[node]
        host.is_retired = True
        self.kill(node)
        self.trace(f"{host.name} is retired")

    def end_in_order(self, node: NodeId) -> None:
        """Let a node stop as for SIGTERM."""
        process = self.hosts[node].process
        if process is not None:
            process.end_in_order.set()
            self.trace(f"{process.name} is told to stop")

    def hold_down(self, node: NodeId) -> None:
        """Do not start a node that has ended until `let_up`."""
        self.hosts[node].held_down += 1

    def let_up(self, node: NodeId) -> None:
        """Let a node start again."""
        host = self.hosts[node]
        host.held_down -= 1
        if not host.held_down:
            host.let_up.set()

    def freeze(self, node: NodeId) -> Process | None:
        """Stop a node's process where it is; resume what is returned."""
        process = self.hosts[node].process
        if process is None or process.is_dead or process.is_stopped:
            return None
        process.stop()
        self.trace(f"{process.name} frozen")
        return process

    # What is seen of nodes.

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """The numbers of all nodes that are or are to be members."""
        return tuple(node for node, host in self.hosts.items() if not host.is_retired)

    @property
    def are_serving(self) -> bool:
        """Whether all nodes serve clients."""
        processes = [self.hosts[node].process for node in self.nodes]
        return all(process is not None and process.is_serving for process in processes)

    def replicas(self, node: NodeId) -> WatchedReplicas | None:
        """Return a living node's replicas."""
        process = self.hosts[node].process
        return None if process is None or process.is_dead else process.replicas

    def leader(self, group: int) -> NodeId | None:
        """Return the node that leads a group by its own account, in the highest term if several."""
        leaders = [
            (replicas.groups[group].term, node)
            for node in self.nodes
            if (replicas := self.replicas(node)) and replicas.groups[group].leader == node
        ]
        return max(leaders)[1] if leaders else None

    def wall_clock_ms(self, host: Host) -> int:
        """Return what a host's wall clock shows."""
        return EPOCH_MS + host.clock_offset_ms + int(trio.current_time() * 1000)

    # A node's machine.

    def _outside(self, host: Host) -> Outside:
        secrets = self.rng(f"secrets {host.number} {host.lives}")
        return Outside(
            open_disk=lambda _: host.disk,
            wall_clock_ms=lambda: self.wall_clock_ms(host),
            secret_bytes=secrets.randbytes,
            in_thread=_in_no_thread,
            tune_memory=lambda: None,
            links=self._links,
        )

    def _config(self, host: Host) -> NodeConfig:
        return NodeConfig(
            node=NodeSection(
                id=host.number,
                name=host.name,
                data_dir=self._folder / host.name,
                cluster=tuple(
                    Member(other.number, Address(other.address, PEER_PORT))
                    for other in self.hosts.values()
                    if other.join is None
                )
                if host.join is None
                else (),
                join=host.join,
                token=b"simulated token of 32 characters",
            ),
            amqp=AmqpSection(listen=(Address(host.address, AMQP_PORT),), heartbeat_s=2),
            peers=PeersSection(listen=Address(host.address, PEER_PORT)),
            storage=StorageSection(
                segment_bytes=128 * 1024,
                cache_bytes=256 * 1024,
                disk_free_limit_bytes=256 * 1024,
                reserve_bytes=96 * 1024,
            ),
            consensus=ConsensusSection(
                shards=SHARDS,
                heartbeat_s=0.2,
                snapshot_entries=self._snapshot_entries,
                snapshot_bytes=64 * 1024,
            ),
        )


def _virtual_clock() -> MockClock:
    """Return a clock that jumps to the next deadline whenever nothing else can happen.

    Trio's, but for two methods that would take a tenth of a run's time: it asks the real clock how
    often zero has passed, and makes a whole statistic to find the next deadline.
    """
    clock = MockClock(autojump_threshold=0)
    now_s = 0.0

    def jump() -> None:
        nonlocal now_s
        next_s = GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if now_s < next_s < float("inf"):
            now_s = next_s

    clock.current_time = lambda: now_s  # type: ignore[method-assign]
    clock._autojump = jump  # type: ignore[method-assign]  # noqa: SLF001
    return clock


async def _in_no_thread(
    work: Callable[[], T],
    /,
    *,
    limiter: trio.CapacityLimiter | None = None,  # noqa: ARG001 - the real one takes it
) -> T:
    await trio.sleep(HASHING_S)
    return work()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


class _ShowTime(logging.Filter):
    """Puts the virtual time and the node before a log line."""

    def filter(self, record: logging.LogRecord) -> bool:
        process = HERE.get(None)
        record.now_s = trio.current_time()
        record.process_name = process.name if process is not None else "-"
        known = logging.makeLogRecord({}).__dict__
        extra = {
            name: value
            for name, value in record.__dict__.items()
            if name not in known and name not in {"now_s", "process_name"}
        }
        record.extra_text = " ".join(f"{name}={value}" for name, value in extra.items())
        return True


async def until(is_so: Callable[[], bool], *, within_s: float) -> bool:
    """Look again and again whether something is so; False if it is not in time."""
    until_s = trio.current_time() + within_s
    while trio.current_time() < until_s:
        await trio.sleep(0.1)
        if is_so():
            return True
    return False


def run(
    seed: int,
    main: Callable[[World], Awaitable[T]],
    *,
    nodes: int = 3,
    weather: Weather | None = None,
    snapshot_entries: int = 100,
    links: TransportConfig = LINKS,
    show: Callable[[str], None] | None = None,
) -> tuple[T, Tracer]:
    """Run `main` in a new world, and return what it returns and the trace of all that happened."""
    trace = Tracer(show)

    async def start(folder: Path) -> T:
        hold_tasks_of_stopped_processes()
        async with trio.open_nursery() as nursery:
            world = World(
                seed,
                nursery=nursery,
                trace=trace,
                nodes=nodes,
                weather=weather or Weather(),
                snapshot_entries=snapshot_entries,
                links=links,
                folder=folder,
            )
            HERE.set(Process("world", "127.0.9.9"))
            result = await main(world)
            for host in world.hosts.values():
                if host.process is not None:
                    host.process.die(tell_peers=False)
            nursery.cancel_scope.cancel()
        return result

    # Who joins keeps the cluster's token in a real folder.
    with (
        tempfile.TemporaryDirectory(prefix="leveret-sim-") as folder,
        _deterministic(seed),
        _small(),
        _logging(show),
        watched(),
    ):
        result = trio.run(start, Path(folder), clock=_virtual_clock())
    return result, trace


@contextmanager
def _logging(show: Callable[[str], None] | None) -> Iterator[None]:
    """Show the nodes' logs, or spare the work of making them."""
    root = logging.getLogger()
    level, disabled = root.level, root.manager.disable
    handler: logging.Handler | None = None
    if show is None:
        logging.disable(logging.CRITICAL)
    else:
        handler = _Shown(show)
        handler.addFilter(_ShowTime())
        handler.setFormatter(
            logging.Formatter(
                "{now_s:.6f} {process_name} {levelname} {message} {extra_text}", style="{"
            )
        )
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.manager.disable = disabled
        if handler is not None:
            root.removeHandler(handler)


class _Shown(logging.Handler):
    """Gives log lines to a function."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(self.format(record))


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Let trio schedule by the seed, and nothing happen that memory use decides."""
    is_deterministic, is_collecting = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, gc.isenabled()  # noqa: SLF001
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
    trio_run._r.seed(seed)  # noqa: SLF001
    gc.disable()
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = is_deterministic  # type: ignore[misc]  # noqa: SLF001
        if is_collecting:
            gc.enable()


SMALL: Final[tuple[tuple[object, str, int], ...]] = (
    # A password's price is real time, which the virtual clock does not count.
    (access, "_SCRYPT_N", 2),
    # A run has hundreds of messages, and several of these steps should happen in it.
    (dispatch, "MARK_STEP", 12),
    (dispatch, "MARK_AHEAD", 6),
    (stream_lead, "RETENTION_STEP", 8),
)
"""Constants of the product that are smaller here, so that little work reaches what is rare."""


@contextmanager
def _small() -> Iterator[None]:
    before = [getattr(module, name) for module, name, _ in SMALL]
    for module, name, value in SMALL:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(SMALL, before, strict=True):
            setattr(module, name, value)
