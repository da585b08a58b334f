"""`leveret perf`: its options, its tables, and how it ends when there is nothing to measure."""

from __future__ import annotations

import io
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from leveret.cli.main import cli
from leveret.cli.perf_screen import PerfScreen, curve_of
from leveret.cli.perf_tables import (
    HEADER,
    cells_of,
    line_of,
    ms_text,
    remarks_of,
    table_of,
    verdict_text,
)
from leveret.perf.plan import Plan
from leveret.perf.receipts import Verdict
from leveret.perf.reports import Interval
from leveret.perf.result import Frame, Latency, Phase, Summary, frame_of
from tests.support.nodes import free_port
from tests.support.programs import Program


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["perf", *arguments], prog_name="leveret")


# Options


def test_the_help_has_groups_examples_and_exit_codes() -> None:
    text = run("--help").output

    for title in ("Clients", "Load", "Queues", "Output"):
        assert f"\n{title}:\n" in text
    assert "\n    leveret perf --verify -C 100000 " in text
    assert "Exit codes: 0 done" in text
    assert "\\b" not in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("-x 0 -y 0", "neither a producer nor a consumer"),
        ("-s 31", "32 octets say who sent a message"),
        ("-s much", "expected a size in bytes"),
        ("-z 1parsec", "expected a duration"),
        ("-x many", "'many' is no whole number from 0 to 10000"),
        ("-q 65536", "'65536' is no whole number from 0 to 65535"),
        ("-x 0", "name the queue to consume from: --queue NAME"),
        ("--predeclared", "name the queue that is declared already"),
        ("--verify -y 0", "it needs both, -x 1 -y 1"),
        ("--verify --queues 3", "--verify needs a consumer for each queue: -y 3"),
        ("--mandatory -c 0", "without confirms nobody hears of what comes back"),
        ("-k news", "--routing-key matters to an exchange"),
        ("--binding-key news", "--binding-key matters to an exchange"),
        ("--queue-arg x-max-length", "write for example x-max-length=1000"),
        ("--rate -1", "--rate is a number of messages a second"),
        ("--interval 0", "--interval must be longer than nothing"),
        ("--compare amqp://b", "say how long to compare: --duration 60s"),
        ("http://a", "the URL begins with 'http', not with 'amqp' or 'amqps'"),
        ("amqp://a:0", "0 is not a port"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_said_with_a_remedy(arguments: str, text: str) -> None:
    result = run(*arguments.split())

    assert 2 == result.exit_code
    assert text in re.sub(r"\s+", " ", result.output)


def test_a_broker_that_is_not_there_is_code_5_with_a_reason_for_each_host() -> None:
    first, second = free_port(), free_port()
    result = run(f"amqp://127.0.0.1:{first},127.0.0.1:{second}", "-z", "1s")

    assert 5 == result.exit_code
    assert f"  127.0.0.1:{first}: Connection refused\n" in result.output
    assert f"  127.0.0.1:{second}: Connection refused\n" in result.output
    assert "leveret node" in result.output


def test_a_file_that_cannot_be_written_is_said_before_the_load(tmp_path: Path) -> None:
    missing = tmp_path / "missing/out.json"
    result = run(f"amqp://127.0.0.1:{free_port()}", "--json", str(missing))

    assert 2 == result.exit_code
    assert f"{missing} cannot be written: No such file or directory" in result.output


def test_no_process_is_left_by_a_run_that_cannot_connect() -> None:
    command = [sys.executable, "-m", "leveret.cli.main", "perf", "-z", "1s"]
    with Program([*command, f"amqp://127.0.0.1:{free_port()}"]) as program:
        assert 5 == program.end()
    assert not [line for line in program.lines if "Traceback" in line]


def test_ctrl_c_ends_the_wait_for_a_broker_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"amqp://127.0.0.1:{listener.getsockname()[1]}"
        with Program([sys.executable, "-m", "leveret.cli.main", "perf", url]) as program:
            client, _ = listener.accept()
            with client:
                assert 0 == program.interrupt(signal.SIGINT)

    assert "stopped before the load began" in program.lines


# Figures as text


def frame(*, phase: Phase = "load", at_s: float = 1, **fields: object) -> Frame:
    interval = Interval(1, published=12_345, confirmed=12_000, consumed=11_000, unconfirmed=100)
    for name, value in fields.items():
        setattr(interval, name, value)
    interval.confirm.record(1234)
    return frame_of(
        interval, at_s=at_s, span_s=1.0, phase=phase, broker_cpu_s=0.5, broker_memory_bytes=10**8
    )


def test_a_line_has_rates_and_percentiles_below_the_header() -> None:
    assert (
        "   1.0 s 12,345 12,000 11,000    1.23  1.23  1.23       -     -     -     100"
        == line_of(frame())
    )
    assert len(HEADER.splitlines()[1]) == len(line_of(frame())) <= 80


def test_a_line_ends_with_what_is_unusual() -> None:
    text = line_of(frame(phase="warm-up", disconnected=2, blocked=1, refused=1500))

    assert text.endswith("  warm-up  2 without a broker  1 blocked by the broker  1,500 refused")


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0"), (0.1234, "0.123"), (9.876, "9.88"), (12.34, "12.3"), (123.4, "123"),
     (1234.5, "1,234"), (123_456, "123k")],
)  # fmt: skip
def test_milliseconds_take_at_most_five_characters(ms: float, text: str) -> None:
    assert text == ms_text(ms)


def latency(p50: float) -> Latency:
    return Latency(count=1, mean=p50, p50=p50, p95=p50, p99=p50, p999=p50, max=p50)


def summary(broker: str = "A", **fields: object) -> Summary:
    whole: dict[str, object] = {
        "broker": broker, "published": 1000, "confirmed": 1000, "consumed": 1000, "refused": 0,
        "returned": 0, "published_per_s": 100.0, "confirmed_per_s": 100.0,
        "consumed_per_s": 100.0, "published_slices_per_s": [100.0],
        "confirmed_slices_per_s": [100.0], "consumed_slices_per_s": [100.0],
        "confirm_ms": latency(4.0), "delivery_ms": latency(8.0), "reconnects": 0, "cancelled": 0,
        "broker_cpu_us": 50.0, "broker_memory_bytes": 10**7, "client_cpu_us": 40.0,
        "client_busiest": 0.1, "verdict": None,
    }  # fmt: skip
    return Summary(**{**whole, **fields})  # type: ignore[arg-type]


def test_the_table_shows_what_there_is_and_nothing_else() -> None:
    labels = [cells[0] for cells in cells_of([summary()])]

    assert "published/s" in labels
    assert not {"reconnects", "refused (basic.nack)", "lost"} & set(labels)


def test_two_brokers_stand_side_by_side_with_the_first_ones_part_of_the_second() -> None:
    rows = {
        cells[0]: cells[1:]
        for cells in cells_of(
            [
                summary(published_slices_per_s=[90.0, 110.0]),
                summary("B", published_per_s=200.0, confirm_ms=latency(2.0), reconnects=3),
            ]
        )
    }

    assert ["100 (90-110)", "200", "0.50"] == rows["published/s"]
    assert ["4.00", "2.00", "2.00"] == rows["confirm p50, ms"]
    assert ["-", "3", ""] == rows["reconnects"]


def test_the_side_by_side_table_fits_into_eighty_columns() -> None:
    spread = {"published_slices_per_s": [10_000.0, 20_000.0], "published_per_s": 15_000.0}
    console = Console(file=io.StringIO(), width=80)
    console.print(
        table_of([summary("Leveret 0.1.0", **spread), summary("RabbitMQ 3.10.8", **spread)])
    )

    assert isinstance(console.file, io.StringIO)
    assert "15,000 (10,000-20,000)  15,000 (10,000-20,000)   1.00" in console.file.getvalue()


def test_a_busy_client_and_an_unknown_broker_are_remarked_on() -> None:
    assert [] == remarks_of(summary())
    (unknown, busy) = remarks_of(summary(broker_cpu_us=None, client_busiest=0.97))
    assert "not known" in unknown
    assert "97% of a core" in busy
    assert "--processes" in busy


def test_a_verdict_names_what_is_wrong_alone() -> None:
    clean = Verdict(1000, 1000, 0, 0, 0, 0, 0, 5, 0)
    broken = Verdict(1000, 990, 10, 0, 3, 0, 0, 5, 0)

    assert "each of 1,000 messages came once, whole and in order" == verdict_text(clean)
    assert "of 1,000 messages to come: 10 lost, 3 out of order" == verdict_text(broken)
    rows = {cells[0]: cells[1] for cells in cells_of([summary(verdict=broken)])}
    assert ("10", "0", "5") == (rows["lost"], rows["duplicated"], rows["marked as redelivered"])


# The screen


PLAN = Plan(urls=("amqp://a",), run=1, queues=("q",), duration_s=20, warm_up_s=5)


def shown(width: int, *frames: Frame) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    screen = PerfScreen(is_plain=False, console=console)
    screen.begin("Leveret 0.1.0", PLAN, "slice 1 of 2")
    for one in frames:
        screen.add(one)
    console.print(screen)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 140])
def test_the_live_table_fits_its_terminal_and_shows_the_last_interval(width: int) -> None:
    frames = [frame(at_s=n, published=1000 * (n % 7)) for n in range(200)]
    lines = shown(width, *frames)

    assert max(map(len, lines)) <= width
    assert "Leveret 0.1.0  slice 1 of 2, 3 min 19 s of 25 s" == lines[0].rstrip()
    assert re.search(r"published/s +3,000 +\d,\d{3} +[▁▂▃▄▅▆▇█ ]{40}", "\n".join(lines))
    assert "confirm ms        1.23     1.23     1.23     1.23" in lines
    assert "unconfirmed 100   broker 50% CPU, 100.0 MB   clients 0% CPU" in lines


def test_the_live_table_says_what_is_unusual() -> None:
    assert "2 without a broker" in shown(80, frame(disconnected=2))[-1]


def test_without_a_terminal_there_are_lines() -> None:
    console = Console(file=io.StringIO(), width=80)
    with PerfScreen(is_plain=False, console=console) as screen:
        screen.begin("Leveret 0.1.0", PLAN, "")
        screen.add(frame())
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()

    assert [
        "1 producer, 1 consumer, 1 durable queue, 1,024 B, window 100, prefetch 200",
        "Leveret 0.1.0",
        *HEADER.splitlines(),
        line_of(frame()),
    ] == [line.rstrip("\n") for line in lines]


def test_a_curve_goes_from_nothing_to_the_largest() -> None:
    assert " ▁▄█" == curve_of([0, 1, 4, 8])
    assert "" == curve_of([0, 0])
