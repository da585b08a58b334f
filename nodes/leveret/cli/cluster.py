"""`leveret cluster`: a whole cluster on this machine, to try out, to develop on, to see it fail."""
# ruff: noqa: ASYNC110 - what processes do is polled, nothing would set an event

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import trio
from rich.text import Text

from leveret.cli.exits import DataUnusable, Failure, PromiseBroken
from leveret.cli.keys import pressed_keys
from leveret.cli.lifetime import stopped_by_signals
from leveret.cli.local import NODE_PROGRAM, LocalCluster, LocalNode, pick, prepare_folder
from leveret.cli.screen import REFRESH_PER_S, Row, Screen
from leveret.cli.traffic import Traffic
from leveret.cli.watch import Watch
from leveret.cli.welcome import cluster_welcome
from leveret.node.config import AMQP_PORT
from leveret.node.folder import FolderUnusable, hold_folder

COUNTS_EVERY_S = 5.0
ENDS_WITHIN_S = 60.0
"""Longer than all the single deadlines of an orderly end."""
STEP_CONFIRMS = 200
"""A round goes on when so many more messages are confirmed."""
STEP_WITHIN_S = 60.0
NODES_MAX = 15
_KEYS_HELP = "keys: k kills a node by chance, r restarts the dead ones, q ends all"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `leveret cluster` was asked to do."""

    folder: Path
    nodes: int = 3
    base_port: int = AMQP_PORT
    is_fresh: bool = False
    has_demo: bool = False
    has_table: bool = True
    restarts: bool = False
    rounds: int = 0
    """Automatic rounds of the demonstration; 0 leaves the killing to the person."""


@click.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, NODES_MAX),
    default=3,
    show_default=True,
    help="How many nodes; of 3 one may die, of 5 two.",
)
@click.option(
    "--port",
    type=click.IntRange(1024, 65000),
    default=AMQP_PORT,
    show_default=True,
    help="Port of the first node; the others follow.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".leveret/cluster"),
    show_default=True,
    metavar="DIR",
    help="Folder of the data and logs.",
)
@click.option("--fresh", is_flag=True, help="Delete the data of the last time first.")
@click.option("--demo", is_flag=True, help="Send and receive messages, and count them.")
@click.option("--restart", is_flag=True, help="Start a dead node again by itself.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Kill and restart each node in turn, N times; implies --demo, then ends.",
)
@click.option("--no-table", is_flag=True, help="Print lines only.")
def cluster(
    *,
    nodes: int,
    port: int,
    data_dir: Path,
    fresh: bool,
    demo: bool,
    restart: bool,
    rounds: int | None,
    no_table: bool,
) -> None:
    """Run a whole cluster on this machine, until Ctrl-C.

    Each node is a process of its own with its own port and log, so that it can be killed
    (kill -9) to see that the others go on and nothing is lost. Data is kept for the next time.

    \b
    Examples:
      leveret cluster                     nodes on ports 5672, 5673 and 5674
      leveret cluster --nodes 5 --fresh   five nodes, without the data of the last time
      leveret cluster --demo              with traffic; kill a node and watch the counts
      leveret cluster --demo --rounds 2   does that by itself, and judges

    \b
    Exit codes: 0 clean, 1 a confirmed message was lost or invented (--rounds), and those of
    `leveret node` if a node cannot start.
    """  # noqa: D301 - click's mark for lines that are kept as they are
    run_cluster(
        Plan(
            folder=data_dir.absolute(),
            nodes=nodes,
            base_port=port,
            is_fresh=fresh,
            has_demo=demo or rounds is not None,
            has_table=not no_table,
            restarts=restart,
            rounds=rounds or 0,
        )
    )


def run_cluster(plan: Plan, *, program: Sequence[str] = NODE_PROGRAM) -> None:
    """Run a local cluster until a signal, `q`, or the end of its rounds.

    program: the command line of a node, before its flags.

    Raises:
        Failure: a node could not start, or the demonstration found a broken promise.
    """
    try:
        with hold_folder(plan.folder):
            prepare_folder(
                plan.folder, nodes=plan.nodes, base_port=plan.base_port, is_fresh=plan.is_fresh
            )
            trio.run(_Session(plan, program).run)
    except FolderUnusable as error:
        raise DataUnusable(str(error)) from error
    except BaseExceptionGroup as group:
        failures = group.subgroup(Failure)
        if failures is None:
            raise
        raise _first(failures) from None


def _first(group: BaseExceptionGroup[Failure]) -> Failure:
    one = group.exceptions[0]
    return one if isinstance(one, Failure) else _first(one)


class _Session:
    """One run of a local cluster: processes, screen, keys, and maybe traffic."""

    def __init__(self, plan: Plan, program: Sequence[str]) -> None:
        self._plan = plan
        self._scope = trio.CancelScope()
        self._screen = Screen(has_table=plan.has_table, rows=self._rows, footer=self._footer)
        self._cluster = LocalCluster(
            plan.folder,
            nodes=plan.nodes,
            base_port=plan.base_port,
            restarts=plan.restarts,
            note=self._screen.note,
            program=program,
        )
        self._watch = Watch(plan.folder, self._cluster.nodes)
        self._traffic = (
            Traffic(self._cluster.urls, plan.folder / "node-demo.log", note=self._screen.note)
            if plan.has_demo
            else None
        )

    async def run(self) -> None:
        token = trio.lowlevel.current_trio_token()
        stop = partial(token.run_sync_soon, self._scope.cancel, idempotent=True)
        with stopped_by_signals(stop, within_s=ENDS_WITHIN_S):
            with self._screen, self._scope:
                async with self._running_nodes() as nursery:
                    await self._serve(nursery)
                    nursery.cancel_scope.cancel()
            self._screen.note("all nodes stopped; their data is kept")

    @asynccontextmanager
    async def _running_nodes(self) -> AsyncIterator[trio.Nursery]:
        """Have all nodes answering; stop them in order at the end, whatever ended it."""
        try:
            async with trio.open_nursery() as nursery:
                for node in self._cluster.nodes:
                    self._cluster.start(node)
                nursery.start_soon(self._cluster.watch)
                nursery.start_soon(self._refresh)
                if self._screen.is_live:
                    nursery.start_soon(self._watch.run)
                await self._cluster.until_up(self._cluster.nodes)
                yield nursery
        finally:
            if self._traffic is not None:
                if not self._plan.rounds:
                    self._screen.note(self._traffic.counts())
                self._traffic.close()
            with trio.CancelScope(shield=True):
                await self._cluster.stop()

    async def _serve(self, nursery: trio.Nursery) -> None:
        self._screen.say(cluster_welcome(self._cluster.urls, self._plan.folder))
        first = self._cluster.nodes[0]
        self._screen.note(f"to see a node die: kill -9 {first.pid}; {_KEYS_HELP}")
        nursery.start_soon(self._keys)
        if self._traffic is None:
            await trio.sleep_forever()
            return
        nursery.start_soon(self._traffic.run)
        nursery.start_soon(self._count, self._traffic)
        if not self._plan.rounds:
            await trio.sleep_forever()
        await self._play(self._traffic)
        await self._traffic.finish()

    async def _play(self, traffic: Traffic) -> None:
        """Kill and restart each node in turn; the next step comes when confirms go on."""
        await self._until_confirms_go_on(traffic, "at the start")
        for round_number in range(1, self._plan.rounds + 1):
            self._screen.note(f"round {round_number} of {self._plan.rounds}")
            for node in self._cluster.nodes:
                self._cluster.kill(node)
                await self._until_down(node)
                if self._plan.nodes >= 3:
                    await self._until_confirms_go_on(traffic, f"without {node.name}")
                if node.process is None:  # with --restart it may be back already
                    self._cluster.start(node)
                await self._cluster.until_up([node])
                await self._until_confirms_go_on(traffic, f"with {node.name} back")
                self._screen.note(traffic.counts())

    async def _until_down(self, node: LocalNode) -> None:
        starts, pid = node.starts, node.pid
        while node.starts == starts and node.pid == pid and pid is not None:
            await trio.sleep(0.05)

    async def _until_confirms_go_on(self, traffic: Traffic, when: str) -> None:
        goal = traffic.ledger.confirmed + STEP_CONFIRMS
        with trio.move_on_after(STEP_WITHIN_S):
            while traffic.ledger.confirmed < goal:
                await trio.sleep(0.05)
            return
        raise PromiseBroken(
            f"{when}, the cluster did not confirm {STEP_CONFIRMS} messages within"
            f" {STEP_WITHIN_S:g} s; see the logs in {self._plan.folder}"
        )

    def _rows(self) -> list[Row]:
        watch = self._watch
        return [Row(node, watch.told(node), watch.lag(node)) for node in self._cluster.nodes]

    def _footer(self) -> list[str | Text]:
        lines: list[str | Text] = [_leaders(self._watch), _KEYS_HELP]
        up = next((node for node in self._cluster.nodes if node.pid is not None), None)
        if up is not None:
            lines.append(f"or from another terminal: kill -9 {up.pid}")
        if self._traffic is not None:
            waits = f"; waiting {self._traffic.pause_s:.1f} s for a confirm"
            pause = waits if self._traffic.pause_s > 0.5 else ""
            lines += ["", *(self._traffic.counts() + pause).split("; ")]
        return lines

    async def _refresh(self) -> None:
        while True:
            self._screen.refresh()
            await trio.sleep(1 / REFRESH_PER_S)

    async def _count(self, traffic: Traffic) -> None:
        """Print the counts now and then where there is no table that shows them."""
        while not self._screen.is_live:
            await trio.sleep(COUNTS_EVERY_S)
            self._screen.note(traffic.counts())

    async def _keys(self) -> None:
        """Obey what is typed; ends quietly where nobody types."""
        commands: dict[str, Callable[[], None]] = {
            "r": self._restart_dead,
            "k": self._kill_one,
            "q": self._scope.cancel,
        }
        async with aclosing(pressed_keys()) as keys:
            async for key in keys:
                command = commands.get(key.lower())
                if command is not None:
                    command()
                else:
                    self._screen.note(f"{key!r} does nothing; {_KEYS_HELP}")

    def _restart_dead(self) -> None:
        for node in self._cluster.down():
            self._cluster.start(node)

    def _kill_one(self) -> None:
        node = pick(self._cluster.nodes)
        if node is None:
            self._screen.note("no node is up")
        else:
            self._cluster.kill(node)


def _leaders(watch: Watch) -> str | Text:
    """Return the line about groups that nobody leads: nobody can use their queues meanwhile."""
    leaderless = watch.leaderless()
    if leaderless is None:
        return ""
    if not leaderless:
        return "every group has a leader"
    if watch.is_minority:
        text = "no group has a leader: more than half of the nodes must be up"
    else:
        text = f"groups without a leader: {' '.join(map(str, leaderless))}"
    return Text(text, style="red")
