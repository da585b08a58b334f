"""`leveret perf` against real nodes: its counts are true, and its judgement too."""

from __future__ import annotations

import signal
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from leveret.perf.result import Frame, Summary
from tests.cluster.conftest import Opener
from tests.support.nodes import LeveretProcess
from tests.support.programs import Program

END_WITHIN_S = 60.0
"""How long a command may take on a loaded machine: it starts processes of its own."""


def perf(url: str, *arguments: str | Path) -> Program:
    return Program([sys.executable, "-m", "leveret.cli.main", "perf", url, *arguments])


class Slice(msgspec.Struct):
    intervals: list[Frame]


class Broker(msgspec.Struct):
    """What a test looks at of a broker in the file of `--json`."""

    processes: list[int]
    summary: Summary
    slices: list[Slice]


class Document(msgspec.Struct):
    brokers: list[Broker]


def written(path: Path) -> Broker:
    (broker,) = msgspec.json.decode(path.read_bytes(), type=Document).brokers
    return broker


def test_every_message_of_several_processes_is_counted_and_judged(
    single: LeveretProcess, tmp_path: Path
) -> None:
    files = ("--json", tmp_path / "out.json", "--plot", tmp_path / "out.svg")
    load = "--verify -C 300 -x 3 -y 2 --queues 2 --processes 2 -s 200"
    with perf(single.urls[0], *load.split(), *files) as program:
        program.wait_for("each of 900 messages came once, whole and in order")
        assert 0 == program.end(within_s=END_WITHIN_S)

    broker = written(tmp_path / "out.json")
    summary = broker.summary
    assert (900, 900, 900) == (summary.published, summary.confirmed, summary.consumed)
    assert (900, 900) == (summary.confirm_ms.count, summary.delivery_ms.count)
    assert [single.pid] == broker.processes
    assert 900 == sum(interval.consumed for interval in broker.slices[0].intervals)
    assert "guest:guest" not in (tmp_path / "out.json").read_text()
    assert "svg" in ET.parse(tmp_path / "out.svg").getroot().tag


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ("-t fanout --queues 2 -y 2", 200),
        ("-t topic --queues 2 -y 2 -k news.hares --binding-key news.#", 200),
        ("-t headers --queues 2 -y 2", 100),
        ("-e perf-direct --transient -a", 100),
        ("-c 0", 100),
        ("-x 20 -y 20 --queues 20", 2000),
    ],
)
def test_messages_come_by_every_kind_of_exchange(
    single: LeveretProcess, load: str, expected: int
) -> None:
    with perf(single.urls[0], "--verify", "-C", "100", *load.split()) as program:
        program.wait_for(f"each of {expected:,} messages came once, whole and in order")
        assert 0 == program.end(within_s=END_WITHIN_S)


def test_messages_that_somebody_else_takes_are_lost_and_end_it_with_code_1(
    single: LeveretProcess, connect: Opener
) -> None:
    connection = connect(single.urls[0])
    channel = connection.channel()
    channel.queue_declare("watched", durable=True)
    channel.basic_qos(prefetch_count=10)
    channel.basic_consume("watched", lambda *_: None)

    load = ["--verify", "-C", "100", "-u", "watched", "--drain", "1s"]
    with perf(single.urls[0], *load) as program:
        line = program.wait_for("of 100 messages")
        assert 1 == program.end(within_s=END_WITHIN_S)

    assert "of 100 messages to come: 10 lost" in line


def test_nothing_is_lost_when_the_node_is_killed_meanwhile(
    single: LeveretProcess, tmp_path: Path
) -> None:
    load = ["--verify", "-C", "1500", "-r", "500", "--drain", "3s"]
    with perf(single.urls[0], *load, "--json", tmp_path / "out.json") as program:
        program.wait_for("firmed")
        program.wait_for("1.0 s")
        single.restart()
        # 1 where the client had to send again what the node could not know to be the same.
        assert program.end(within_s=END_WITHIN_S) in {0, 1}

    summary = written(tmp_path / "out.json").summary
    assert summary.verdict is not None
    assert 0 == summary.verdict.lost == summary.verdict.corrupt
    assert 1500 == summary.verdict.received
    assert 2 == summary.reconnects


def test_messages_that_fit_no_queue_are_counted_and_not_waited_for(
    single: LeveretProcess, tmp_path: Path
) -> None:
    load = "-C 50 --mandatory -t topic -k a.b --binding-key c.# --drain 1h"
    with perf(single.urls[0], *load.split(), "--json", tmp_path / "out.json") as program:
        assert 0 == program.end(within_s=END_WITHIN_S)

    summary = written(tmp_path / "out.json").summary
    assert (50, 0, 0) == (summary.returned, summary.confirmed, summary.consumed)


def test_ctrl_c_ends_the_load_and_leaves_neither_queue_nor_process(
    single: LeveretProcess, connect: Opener
) -> None:
    with perf(single.urls[0], "-u", "not-for-long") as program:
        program.wait_for("1.0 s")
        assert 0 == program.interrupt(signal.SIGINT)
        assert any("published/s" in line for line in program.lines)

    with pytest.raises(Exception, match="NOT_FOUND"):
        connect(single.urls[0]).channel().queue_declare("not-for-long", passive=True)


def test_what_one_command_publishes_another_consumes(
    single: LeveretProcess, connect: Opener
) -> None:
    with perf(single.urls[0], "-u", "handed-on", "-y", "0", "-C", "50") as program:
        assert 0 == program.end(within_s=END_WITHIN_S)
    with perf(single.urls[0], "-u", "handed-on", "-x", "0", "-C", "50") as program:
        program.wait_for("consumed      ")
        assert 0 == program.end(within_s=END_WITHIN_S)

    channel = connect(single.urls[0]).channel()
    assert 0 == channel.queue_declare("handed-on", passive=True).method.message_count
    channel.queue_delete("handed-on")


def test_a_queue_that_is_there_with_other_arguments_is_code_6(
    single: LeveretProcess, connect: Opener
) -> None:
    channel = connect(single.urls[0]).channel()
    channel.queue_declare("different", durable=False)

    with perf(single.urls[0], "-u", "different", "-C", "1") as program:
        program.wait_for("exists with another 'durable'")
        assert 6 == program.end(within_s=END_WITHIN_S)


def test_a_password_that_is_refused_is_code_6(single: LeveretProcess) -> None:
    with perf(single.urls[0].replace("guest:guest", "guest:wrong"), "-C", "1") as program:
        program.wait_for("Give user and password in the URL")
        assert 6 == program.end(within_s=END_WITHIN_S)


def test_two_brokers_are_compared_in_turn(single: LeveretProcess) -> None:
    load = ["-z", "1s", "--slices", "2", "--interval", "250ms", "--compare", single.urls[0]]
    with perf(single.urls[0], *load) as program:
        for turn in ("1 of 2", "1 of 2", "2 of 2", "2 of 2"):
            program.wait_for(f"slice {turn}")
        assert "ratio" in program.wait_for("Leveret")
        assert 0 == program.end(within_s=END_WITHIN_S)
