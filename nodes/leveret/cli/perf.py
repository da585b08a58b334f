"""`leveret perf`: puts load on brokers, shows what they make of it, and says it in figures."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec
import trio

from leveret.cli.exits import (
    BadConfiguration,
    Failure,
    InternalFailure,
    NodeUnreachable,
    NotDone,
    PromiseBroken,
)
from leveret.cli.lifetime import stopped_by_signals
from leveret.cli.perf_options import (
    DEFAULT_URL,
    Asked,
    SectionedCommand,
    hosts_of,
    perf_options,
    plan_of,
)
from leveret.cli.perf_screen import PerfScreen
from leveret.cli.perf_tables import load_text, remarks_of, table_of, verdict_text
from leveret.node.version import version
from leveret.perf.chart import svg_of
from leveret.perf.errors import Kind, PerfError
from leveret.perf.hosts import without_password
from leveret.perf.plan import Plan
from leveret.perf.result import Result, Summary, summary_of
from leveret.perf.run import Run

_ENDS_WITHIN_S: Final = 30.0
"""How long a run may take to end after Ctrl-C, besides what it drains."""
_FAILURES: Final[dict[Kind, type[Failure]]] = {
    Kind.WRONG: BadConfiguration,
    Kind.UNREACHABLE: NodeUnreachable,
    Kind.REFUSED: NotDone,
    Kind.BROKEN: InternalFailure,
}


class Output(NamedTuple):
    """What is shown and written."""

    is_plain: bool
    json_file: Path | None
    plot_file: Path | None


@click.command(cls=SectionedCommand)
@click.argument("urls", metavar="[URL]...", nargs=-1)
@perf_options
def perf(
    *,
    urls: tuple[str, ...],
    compare: str | None,
    slices: int,
    json_file: str | None,
    plot_file: str | None,
    plain: bool,
    **options: object,
) -> None:
    """Put load on a broker, and measure rates and latencies.

    URL is amqp://user:password@host:port/vhost, by default amqp://guest:guest@127.0.0.1:5672/.
    Several URLs, or hosts in one, are those of a cluster: the clients are spread over them.
    Any broker that speaks AMQP 0-9-1 will do.

    \b
    Examples:
      leveret perf                          one producer, one consumer, until Ctrl-C
      leveret perf -z 30s --warm-up 5s      half a minute, without its beginning
      leveret perf -x 4 -y 4 --queues 4 --processes 4 -s 100 -c 1000
      leveret perf -r 500 -z 1min           latencies at 500 messages a second
      leveret perf --verify -C 100000       does each message come, once and in order?
      leveret perf -y 0 -c 0 --transient    publish only, without confirms
      leveret perf -z 60s --compare amqp://127.0.0.1:5673 --plot both.svg

    \b
    Exit codes: 0 done, 1 --verify found a fault, 2 the command line is wrong, 5 no broker was
    reached, 6 the broker refused, 70 internal failure.
    """  # noqa: D301 - click's mark for lines that are kept as they are
    asked = msgspec.convert(options, Asked)
    groups = [hosts_of(urls or (DEFAULT_URL,))]
    if compare is not None:
        if asked.duration is None:
            raise click.UsageError("say how long to compare: --duration 60s --compare URL")
        groups.append(hosts_of((compare,)))
    output = Output(
        is_plain=plain,
        json_file=Path(json_file) if json_file else None,
        plot_file=Path(plot_file) if plot_file else None,
    )
    # Losses are counted and shown; lines of the client's log would go through the table.
    logging.getLogger("leveret.client").setLevel(logging.CRITICAL)
    session = _Session(asked, groups, slices if compare is not None else 1, output)
    trio.run(session.run)
    session.report()


class _Session:
    """The runs of one command: one, or some in turn on two brokers."""

    def __init__(
        self, asked: Asked, groups: Sequence[tuple[str, ...]], slices: int, output: Output
    ) -> None:
        self._groups = groups
        self._slices = slices
        self._output = output
        self._asked = asked
        self._screen = PerfScreen(is_plain=output.is_plain)
        self._results: list[list[Result]] = [[] for _ in groups]
        self._run: Run | None = None
        self._is_stopped = False
        self._started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        # What is wrong with the options is said before anything is done.
        self._plan(0)
        for path in (output.json_file, output.plot_file):
            _write(path, "")

    async def run(self) -> None:
        """Make all runs, until Ctrl-C.

        Raises:
            Failure: one cannot be made.
        """
        token = trio.lowlevel.current_trio_token()
        stop = partial(token.run_sync_soon, self._stop, idempotent=True)
        within_s = _ENDS_WITHIN_S + 2 * self._asked.drain
        with stopped_by_signals(stop, within_s=within_s), self._screen:
            for turn in range(self._slices):
                for place in range(len(self._groups)):
                    if not self._is_stopped:
                        await self._take_turn(turn, place)

    def _stop(self) -> None:
        self._is_stopped = True
        if self._run is not None:
            self._run.stop()

    def _plan(self, place: int) -> Plan:
        plan = plan_of(self._asked, urls=self._groups[place], run=secrets.randbits(32))
        return msgspec.structs.replace(plan, duration_s=plan.duration_s / self._slices)

    async def _take_turn(self, turn: int, place: int) -> None:
        plan = self._plan(place)
        slice_text = f"slice {turn + 1} of {self._slices}" if self._slices > 1 else ""
        self._run = Run(
            plan,
            # Bodies say when they were sent, and are read in other processes.
            wall_ns=time.time_ns,
            on_frame=self._screen.add,
            on_begin=lambda broker: self._screen.begin(broker, plan, slice_text),
        )
        try:
            self._results[place].append(await self._run.run())
        except PerfError as error:
            if error.kind is Kind.STOPPED:
                self._is_stopped = True
                return
            raise _FAILURES[error.kind](str(error)) from None

    def report(self) -> None:
        """Print and write what the runs found.

        Raises:
            PromiseBroken: messages were lost, duplicated, out of order or corrupt.
            BadConfiguration: a file cannot be written.
        """
        done = [results for results in self._results if results]
        if not done:
            self._screen.say("stopped before the load began")
            return
        summaries = [summary_of(results) for results in done]
        self._screen.say("")
        self._screen.show(table_of(summaries))
        for summary in summaries:
            for remark in remarks_of(summary):
                self._screen.say(f"{summary.broker}: {remark}")
        _write(self._output.json_file, self._json(done, summaries))
        _write(self._output.plot_file, self._picture(done))
        self._judge(summaries)

    def _judge(self, summaries: Sequence[Summary]) -> None:
        broken: list[str] = []
        for summary in summaries:
            if summary.verdict is not None:
                text = f"{summary.broker}: {verdict_text(summary.verdict)}"
                if summary.verdict.is_clean:
                    self._screen.say(text)
                else:
                    broken.append(text)
        if broken:
            raise PromiseBroken("\n".join(broken))

    def _picture(self, done: Sequence[Sequence[Result]]) -> str:
        return svg_of(
            [
                (results[0].broker, [frame for one in results for frame in one.frames])
                for results in done
            ],
            title=load_text(done[0][0].plan),
        )

    def _json(self, done: Sequence[Sequence[Result]], summaries: Sequence[Summary]) -> str:
        brokers = [
            {
                "broker": summary.broker,
                "hosts": [without_password(url) for url in results[0].plan.urls],
                "guarantee": results[0].guarantee,
                "processes": results[0].broker_pids,
                "summary": summary,
                "slices": [
                    {
                        "published_s": one.published_s,
                        "confirmed_s": one.confirmed_s,
                        "consumed_s": one.consumed_s,
                        "verdict": one.verdict,
                        "intervals": one.frames,
                    }
                    for one in results
                ],
            }
            for results, summary in zip(done, summaries, strict=True)
        ]
        document = {
            "leveret": version(),
            "started_at": self._started_at,
            "load": msgspec.structs.replace(done[0][0].plan, urls=()),
            "brokers": brokers,
        }
        return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadConfiguration(f"{path} cannot be written: {error.strerror}") from error
