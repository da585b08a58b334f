"""The options of `leveret perf`: in groups, for a help that can be read, and the plan they make."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import click

from leveret.cli.exits import BadConfiguration
from leveret.client import InvalidUrl, connect
from leveret.node.units import SECONDS, SIZE, Kind
from leveret.perf.body import SIZE_MIN
from leveret.perf.hosts import single_hosts
from leveret.perf.plan import Argument, Plan

T = TypeVar("T")

DEFAULT_URL: Final = "amqp://guest:guest@127.0.0.1:5672/"
WINDOW_MAX: Final = 1_000_000
CLIENTS_MAX: Final = 10_000
PROCESSES_MAX: Final = 256
MESSAGES_MAX: Final = 10**12
PREFETCH_MAX: Final = 65_535
"""What basic.qos can say."""
_NUMBER: Final = re.compile(r"-?[0-9]+")


class InSection(click.Option):
    """An option below a title of the help."""

    def __init__(self, *arguments: object, section: str, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]  # click's own
        self.section = section


class SectionedCommand(click.Command):
    """A command whose options stand below titles."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                title = parameter.section if isinstance(parameter, InSection) else "Other"
                sections.setdefault(title, []).append(record)
        for title, records in sorted(sections.items(), key=lambda item: item[0] == "Other"):
            with formatter.section(title):
                formatter.write_dl(records)


def count(low: int, high: int) -> Callable[[object], int]:
    """Return what reads a whole number; unlike click's own, the help does not show the bounds."""

    def read(value: object) -> int:
        text = str(value)
        if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
            raise click.BadParameter(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return read


def quantity(kind: Kind[T]) -> Callable[[object], T]:
    """Return what reads a value with a unit, written as in the configuration."""

    def read(value: object) -> T:
        try:
            return kind.parse(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: {error}") from None

    return read


def section(title: str) -> Callable[..., Callable[[Callable[..., None]], Callable[..., None]]]:
    """Return a decorator of options that stand below a title."""

    def option(
        *names: str, **options: object
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        return click.option(*names, cls=InSection, section=title, **options)

    return option


clients = section("Clients")
load = section("Load")
queues = section("Queues")
output = section("Output")

OPTIONS: Final = (
    clients("-x", "--producers", type=count(0, CLIENTS_MAX), default=1, metavar="N",
            help="Producers; 0 to consume only [default: 1]."),
    clients("-y", "--consumers", type=count(0, CLIENTS_MAX), default=1, metavar="N",
            help="Consumers; 0 to publish only [default: 1]."),
    clients("--processes", type=count(1, PROCESSES_MAX), default=1, metavar="N",
            help="Processes that the clients are spread over, to use more cores [default: 1]."),
    load("-s", "--size", type=quantity(SIZE), default=1024, metavar="SIZE",
         help=f"Octets of a message, {SIZE_MIN} at least: 100, 4KiB [default: 1024]."),
    load("-c", "--window", type=count(0, WINDOW_MAX), default=100, metavar="N",
            help="Messages of a producer without a confirm yet; 0: no confirms [default: 100]."),
    load("-q", "--prefetch", type=count(0, PREFETCH_MAX), default=200, metavar="N",
            help="Messages that a consumer holds unacknowledged; 0 for no limit [default: 200]."),
    load("-a", "--auto-ack", is_flag=True, help="Consume without acknowledgements."),
    load("-r", "--rate", type=float, default=0.0, metavar="N",
         help="Messages a second of each producer [default: as many as go]."),
    load("-z", "--duration", type=quantity(SECONDS), metavar="TIME",
         help="How long, after the warm-up: 30s, 5min [default: until Ctrl-C]."),
    load("-C", "--messages", type=count(1, MESSAGES_MAX), metavar="N",
         help="Messages of each producer, or without producers of each consumer."),
    load("--warm-up", type=quantity(SECONDS), default=0.0, metavar="TIME",
         help="What is done in this time at the beginning is not in the totals."),
    load("--mandatory", is_flag=True, help="Have messages that fit no queue come back."),
    load("--seed", type=count(0, 2**32 - 1), default=1, metavar="N",
            help="What the octets of the bodies are drawn from [default: 1]."),
    load("--verify", is_flag=True,
         help="Check that each message comes, once, whole and in order; if not, exit code 1."),
    load("--drain", type=quantity(SECONDS), default=10.0, metavar="TIME",
         help="Silence after which nothing more is waited for at the end [default: 10s]."),
    queues("-u", "--queue", metavar="NAME",
           help="Queue to use [default: a new one, deleted at the end]."),
    queues("--queues", "queue_count", type=count(1, CLIENTS_MAX), default=1,
           metavar="N",
           help="Queues NAME-1 to NAME-N, over which the clients are spread [default: 1]."),
    queues("--transient", is_flag=True,
           help="Queues are not durable and messages not persistent."),
    queues("--auto-delete", is_flag=True, help="Queues go with their last consumer."),
    queues("--quorum", is_flag=True, help="Short for --queue-arg x-queue-type=quorum."),
    queues("--queue-arg", "queue_arguments", multiple=True, metavar="KEY=VALUE",
           help="Argument of the queues, such as x-max-length=1000; may be repeated."),
    queues("-e", "--exchange", metavar="NAME",
           help="Exchange to publish to [default: the default exchange]."),
    queues("-t", "--exchange-type", metavar="TYPE",
           type=click.Choice(["direct", "fanout", "topic", "headers"]),
           help="Its type: direct, fanout, topic or headers [default: direct]."),
    queues("-k", "--routing-key", metavar="KEY",
           help="Routing key of all messages [default: the queue's name]."),
    queues("--binding-key", metavar="KEY",
           help="Key that binds all queues, such as news.# [default: the routing key]."),
    queues("--predeclared", is_flag=True, help="Declare nothing: all is there."),
    queues("--keep", is_flag=True, help="Delete nothing at the end."),
    output("--compare", metavar="URL",
           help="Put the same load on a second broker in turn, and print both side by side."),
    output("--slices", type=count(1, 1000), default=3, metavar="N",
            help="Turns of each broker in a comparison, which share the duration [default: 3]."),
    output("--interval", type=quantity(SECONDS), default=1.0, metavar="TIME",
           help="Time between two lines [default: 1s]."),
    output("--json", "json_file", type=click.Path(dir_okay=False, writable=True),
           metavar="FILE", help="Write all figures to FILE."),
    output("--plot", "plot_file", type=click.Path(dir_okay=False, writable=True),
           metavar="FILE", help="Draw rates and latencies over time, as SVG."),
    output("--plain", is_flag=True, help="Print lines on a terminal too."),
)  # fmt: skip


def perf_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add all options to the command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says of the load; named as the options are."""

    producers: int
    consumers: int
    processes: int
    size: int
    window: int
    prefetch: int
    auto_ack: bool
    rate: float
    duration: float | None
    messages: int | None
    warm_up: float
    mandatory: bool
    seed: int
    verify: bool
    drain: float
    queue: str | None
    queue_count: int
    transient: bool
    auto_delete: bool
    quorum: bool
    queue_arguments: tuple[str, ...]
    exchange: str | None
    exchange_type: str | None
    routing_key: str | None
    binding_key: str | None
    predeclared: bool
    keep: bool
    interval: float


def hosts_of(urls: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts that the URLs name, each as a URL.

    Raises:
        BadConfiguration: a URL is malformed.
    """
    try:
        connect(urls)  # looked at, not entered
    except InvalidUrl as error:
        raise BadConfiguration(f"{error}; write for example {DEFAULT_URL}") from None
    return single_hosts(urls)


def plan_of(asked: Asked, *, urls: tuple[str, ...], run: int) -> Plan:
    """The plan of one run.

    run: a number that no other run has.

    Raises:
        click.UsageError: options do not go together.
    """
    _check(asked)
    base = asked.queue or f"perf-{run:08x}"
    is_one = asked.queue_count == 1
    names = [base] if is_one else [f"{base}-{n + 1}" for n in range(asked.queue_count)]
    has_exchange = asked.exchange is not None or asked.exchange_type is not None
    is_one_sided = not (asked.producers and asked.consumers)
    arguments = dict(_argument(text) for text in asked.queue_arguments)
    if asked.quorum:
        arguments["x-queue-type"] = "quorum"
    return Plan(
        urls=urls,
        run=run,
        producers=asked.producers,
        consumers=asked.consumers,
        processes=min(asked.processes, asked.producers + asked.consumers),
        queues=tuple(names),
        arguments=arguments,
        is_durable=not asked.transient,
        is_auto_delete=asked.auto_delete,
        is_predeclared=asked.predeclared,
        # What somebody published is there for somebody else to consume.
        is_kept=asked.keep or (is_one_sided and asked.queue is not None),
        exchange=(asked.exchange or f"{base}-exchange") if has_exchange else "",
        exchange_type=(asked.exchange_type or "direct") if has_exchange else "",
        routing_key=asked.routing_key,
        binding_key=asked.binding_key,
        size_bytes=asked.size,
        window=asked.window,
        prefetch=asked.prefetch,
        is_auto_ack=asked.auto_ack,
        is_mandatory=asked.mandatory,
        rate_per_s=asked.rate,
        messages=asked.messages or 0,
        duration_s=asked.duration or 0.0,
        warm_up_s=asked.warm_up,
        interval_s=asked.interval,
        drain_s=asked.drain,
        seed=asked.seed,
        verifies=asked.verify,
    )


def _check(asked: Asked) -> None:
    wrong = ""
    if not asked.producers and not asked.consumers:
        wrong = "there is neither a producer nor a consumer: -x 1 or -y 1"
    elif asked.size < SIZE_MIN:
        wrong = (
            f"--size {asked.size} is too small: {SIZE_MIN} octets say who sent a message and when"
        )
    elif not asked.producers and asked.queue is None:
        wrong = "name the queue to consume from: --queue NAME"
    elif asked.predeclared and asked.queue is None:
        wrong = "name the queue that is declared already: --queue NAME"
    elif asked.verify and not (asked.producers and asked.consumers):
        wrong = "--verify compares what is published with what comes: it needs both, -x 1 -y 1"
    elif asked.verify and asked.consumers < asked.queue_count:
        wrong = f"--verify needs a consumer for each queue: -y {asked.queue_count}"
    elif asked.mandatory and not asked.window:
        wrong = "without confirms nobody hears of what comes back: --mandatory with --window 1"
    elif asked.rate < 0:
        wrong = "--rate is a number of messages a second: --rate 500"
    elif asked.interval <= 0:
        wrong = "--interval must be longer than nothing: --interval 1s"
    elif asked.exchange is None and asked.exchange_type is None:
        for name, key in (("routing", asked.routing_key), ("binding", asked.binding_key)):
            if key is not None:
                wrong = f"--{name}-key matters to an exchange: --exchange NAME or --exchange-type"
    if wrong:
        raise click.UsageError(wrong)


def _argument(text: str) -> tuple[str, Argument]:
    """An argument of a queue: numbers and truths by their looks, anything else is text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(
            f"--queue-arg {text!r} is no assignment: write for example x-max-length=1000"
        )
    if _NUMBER.fullmatch(value):
        return name, int(value)
    return name, {"true": True, "false": False}.get(value, value)
