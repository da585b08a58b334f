"""`python -m chaos run | replay | check`: faults against real processes."""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import trio

from chaos import rabbitmq
from chaos.capabilities import faketime, own_world, possible, run_in_own_world, settle_in
from chaos.cluster import Cluster
from chaos.history import Event
from chaos.hosts import CommandFailed, Loopback, Namespaces
from chaos.members import Members
from chaos.nemesis.kinds import KINDS
from chaos.nemesis.resources import clock_file, clock_tools
from chaos.profiles import PROFILES, PROMISED
from chaos.recorder import read
from chaos.report import folder as kept
from chaos.report.screen import Screen
from chaos.runner import HISTORY, Plan, Run, verdict_of
from chaos.simulation.mutations import MUTATIONS
from chaos.workspace import workspace


def _kinds(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    kinds = tuple(kind.strip() for kind in value.split(",") if kind.strip())
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'}: there are {', '.join(KINDS)}")
    return kinds


@click.command()
@click.option("--seconds", type=click.FloatRange(1), help="How long things break.")
@click.option("--seed", type=int, help="Draws the faults and the clients [default: by chance].")
@click.option("--nodes", type=click.Choice(["1", "3", "5"]), default="3", show_default=True)
@click.option("--faults", "kinds", callback=_kinds, metavar="KIND,…", help="Only these kinds.")
@click.option("--rate", type=click.FloatRange(1), help="Messages/s of each of 2 publishers.")
@click.option("--profile", type=click.Choice(list(PROFILES)), default="default", show_default=True)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder below which the run is kept [default: chaos/failures or chaos/runs].",
)
@click.option(
    "--mistake",
    type=click.Choice(list(MUTATIONS)),
    default=None,
    metavar="NAME",
    help="Plant a known mistake into the nodes; PASS means that the run is too weak for it.",
)
@click.option("--strict", is_flag=True, help="Judge silence (3 s) and recovery (10 s), too.")
@click.option(
    "--broker",
    type=click.Choice(["leveret", "rabbitmq"]),
    default="leveret",
    show_default=True,
    help="Whom to break; of RabbitMQ, that is installed, with quorum queues, the processes.",
)
def run(
    *,
    seconds: float | None,
    seed: int | None,
    nodes: str,
    kinds: tuple[str, ...] | None,
    rate: float | None,
    profile: str,
    keep: Path | None,
    mistake: str | None,
    strict: bool,
    broker: str,
) -> None:
    """Break a real cluster while clients work, and judge whether it kept its promises.

    The last line is PASS or FAIL. The folder that the line before it names has everything.

    \b
    Examples:
      python -m chaos run
      python -m chaos run --seconds 300 --seed 7 --nodes 5
      python -m chaos run --faults kill,stop,partition
      python -m chaos run --profile nightly
      python -m chaos run --broker rabbitmq --faults kill,stop
    """  # noqa: D301 - click's mark for lines that are kept as they are
    chosen = PROFILES[profile]
    drawn = chosen.kinds if kinds is None else kinds
    if broker == "rabbitmq":
        drawn = tuple(kind for kind in drawn if kind in rabbitmq.KINDS)
        if not drawn:
            raise click.BadParameter(f"of RabbitMQ there are {', '.join(rabbitmq.KINDS)}")
    _play(
        Plan(
            secrets.randbelow(10_000) if seed is None else seed,
            int(nodes),
            chosen.seconds if seconds is None else seconds,
            drawn,
            chosen.rate if rate is None else rate,
            PROMISED if strict else chosen.limits,
            mistake=mistake or "",
            broker=broker,
        ),
        keep,
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def replay(*, folder: Path) -> None:
    """Do again what a run did: the same faults on the same nodes, not at the same microsecond."""
    _play(_load(folder)[0], None)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def check(*, folder: Path) -> None:
    """Judge the history of a run again, and write its verdict and pictures anew."""
    plan, failures, events = _load(folder)
    verdict = verdict_of(plan, events, failures)
    kept.write_verdict(folder, plan, verdict, events)
    for complaint in verdict.complaints:
        print(f"✗ {complaint}")
    print(verdict.line(plan.seed))
    if not verdict.is_pass:
        sys.exit(1)


def _load(folder: Path) -> tuple[Plan, list[str], list[Event]]:
    try:
        return kept.load(folder)
    except kept.NoRun as error:
        raise click.ClickException(str(error)) from None


def _play(plan: Plan, keep: Path | None) -> None:
    """Play a plan on this machine as far as that lets us, show and keep it; exit 1 on a FAIL."""
    work = own_world()
    if work is not None:
        _play_in(work, plan, keep, why_no_hosts=_settled_in())
        return
    with workspace() as work:
        why_no_hosts = "no fault that was asked for needs it"
        if any({"hosts", "tmpfs", "fuse"} & set(KINDS[kind].needs) for kind in plan.kinds):
            # Without arguments this is the last of the round that `python -m chaos` does.
            why_no_hosts = run_in_own_world(sys.argv[1:] or ["run"], work)
        _play_in(work, plan, keep, why_no_hosts=why_no_hosts)


def _settled_in() -> str:
    """Make the own world a place for hosts; return why it cannot be one, if so."""
    try:
        settle_in()
    except CommandFailed as failure:
        return str(failure)
    return ""


def _play_in(work: Path, plan: Plan, keep: Path | None, *, why_no_hosts: str) -> None:
    can, cannot = possible(plan.kinds, why_no_hosts=why_no_hosts)
    for kind, reason in cannot.items():
        print(f"not injected here: {kind:13} {reason}")
    if not can:
        raise click.ClickException("nothing that was asked for can be broken on this machine")
    if plan.steps is None:
        plan = replace(plan, kinds=tuple(can))
    else:
        plan = replace(plan, steps=tuple(
            step for step in plan.steps if all(fault.kind in can for fault in step.faults)
        ))  # fmt: skip
    print(f"seed {plan.seed}, {plan.nodes} nodes, {plan.seconds:g} s: {', '.join(can)}", flush=True)
    # What the clients' libraries say of lost connections is no news here.
    logging.basicConfig(filename=work / "clients.log", level=logging.WARNING)
    screen = Screen()
    played = Run(plan, work, screen.tell)
    try:
        trio.run(_watched, played, _cluster(work, plan, can, why_no_hosts=why_no_hosts), screen)
    except CommandFailed as failure:
        raise click.ClickException(str(failure)) from None
    events = kept.ordered(read(work / HISTORY))
    verdict = verdict_of(plan, events, played.failures)
    screen.finish(played, verdict)
    print(f"kept: {kept.save(played, verdict, events, below=keep)}")
    print(verdict.line(plan.seed))
    if not verdict.is_pass:
        sys.exit(1)


def _cluster(work: Path, plan: Plan, can: Sequence[str], *, why_no_hosts: str) -> Members:
    """Return the cluster that is to be broken, not started.

    Raises:
        CommandFailed: the system does not let us.
    """
    if plan.broker == "rabbitmq":
        return rabbitmq.RabbitCluster(work, count=plan.nodes)
    return Cluster(
        work,
        Loopback(plan.nodes) if why_no_hosts else Namespaces(),
        count=plan.nodes,
        tools=partial(_tools, work, has_clocks="clock" in can),
        has_small_disks="full-disk" in can,
        has_lossy_disks=any("fuse" in KINDS[kind].needs for kind in can),
        mistake=plan.mistake,
    )


def _tools(work: Path, number: int, *, has_clocks: bool) -> list[str]:
    """Return the programs before the command line of a node."""
    library = faketime() if has_clocks else None
    return [] if library is None else clock_tools(library, clock_file(work, number))


async def _watched(played: Run, cluster: Members, screen: Screen) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(screen.watch, played)
        await played.play(cluster)
        nursery.cancel_scope.cancel()
