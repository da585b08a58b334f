"""The tutorials of docs/examples, run as their README says, with each of the libraries."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.conftest import Broker
from tests.support import nodes
from tests.support.programs import Program

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
QUEUES = ("hello", "tasks", "rpc", "confirmed")
EXCHANGES = ("logs", "logs.direct", "logs.topic")
READY = "waiting for messages"

Run = Callable[..., Program]


@pytest.fixture(scope="module", params=["one-node", "three-nodes"])
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """The tutorials' broker: the one that runs already, else a node, and then a cluster."""
    running = os.environ.get("LEVERET_TEST_URL")
    if running:
        if request.param != "one-node":
            pytest.skip("LEVERET_TEST_URL names the broker")
        yield Broker([url.strip() for url in running.split(",")])
        return
    folder = tmp_path_factory.mktemp("tutorials")
    process = nodes.node(folder) if request.param == "one-node" else nodes.local_cluster(folder)
    process.start()
    try:
        # The last node: most queues are led by another one.
        yield Broker(process.urls[::-1])
    finally:
        process.stop()


def forget_examples(broker: Broker) -> None:
    connection = broker.connect()
    channel = connection.channel()
    for queue in QUEUES:
        channel.queue_delete(queue)
    for exchange in EXCHANGES:
        channel.exchange_delete(exchange)
    connection.close()


@pytest.fixture(params=["leveret", "pika", "amqplib"])
def run(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Run]:
    """Runs an example by its name without suffix: `run("send", "text")`."""
    folder = EXAMPLES / str(request.param)
    if request.param in {"leveret", "pika"}:
        command, suffix = [sys.executable], ".py"
    else:
        node = shutil.which("node")
        if node is None:
            pytest.skip("node is not installed")
        if not (folder / "node_modules" / "amqplib").is_dir():
            pytest.skip("amqplib is not installed: run npm install in docs/examples/amqplib")
        command, suffix = [node], ".js"
    environment = dict(os.environ, AMQP_URL=broker.url)
    forget_examples(broker)
    with ExitStack() as running:

        def start(example: str, *arguments: str) -> Program:
            script = folder / f"{example}{suffix}"
            program = Program([*command, script, *arguments], environment=environment)
            return running.enter_context(program)

        yield start
    forget_examples(broker)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_hello_is_received_and_the_receiver_ends_cleanly(run: Run, end: signal.Signals) -> None:
    receiver = run("receive")
    receiver.wait_for(READY)

    assert run("send", "a b c").end() == 0

    receiver.wait_for("received a b c")
    assert receiver.interrupt(end) == 0
    assert receiver.lines[-1] == "stopped"


def test_hello_waits_for_a_receiver_that_comes_later(run: Run) -> None:
    assert run("send", "early").end() == 0

    run("receive").wait_for("received early")


def test_a_url_on_the_command_line_wins_over_the_environment(run: Run) -> None:
    program = run("send", "--url", "amqp://guest:guest@127.0.0.1:1/", "lost")

    assert program.end() != 0
    assert not any("sent" in line for line in program.lines)


def test_tasks_are_shared_and_none_is_lost_with_its_worker(run: Run) -> None:
    first = run("worker")
    first.wait_for(READY)
    assert run("new_task", "long" + "." * 600).end() == 0
    first.wait_for("started long")
    second = run("worker")
    second.wait_for(READY)

    # The first worker is busy for a minute: the short task goes to the second.
    assert run("new_task", "short").end() == 0
    second.wait_for("finished short")
    first.interrupt(signal.SIGKILL)

    second.wait_for("started long")


def test_a_worker_ends_after_the_task_under_way(run: Run) -> None:
    worker = run("worker")
    worker.wait_for(READY)
    assert run("new_task", "task.....").end() == 0
    worker.wait_for("started task")

    assert worker.interrupt(signal.SIGTERM) == 0

    assert worker.lines[-2:] == ["finished task.....", "stopped"]


def test_every_listener_gets_a_log_line(run: Run) -> None:
    listeners = [run("receive_logs"), run("receive_logs")]
    for listener in listeners:
        listener.wait_for(READY)

    assert run("emit_log", "to", "all").end() == 0

    for listener in listeners:
        listener.wait_for("log to all")
        assert listener.interrupt(signal.SIGTERM) == 0


def test_a_log_line_without_listeners_is_no_error(run: Run) -> None:
    assert run("emit_log", "to", "none").end() == 0


def test_direct_logs_come_by_severity(run: Run) -> None:
    errors = run("receive_logs_direct", "error")
    both = run("receive_logs_direct", "error", "info")
    errors.wait_for(READY)
    both.wait_for(READY)

    for severity in ("info", "debug", "error"):
        assert run("emit_log_direct", severity, "x").end() == 0

    errors.wait_for("log error: x")
    both.wait_for("log error: x")
    assert [line for line in errors.lines if line.startswith("log")] == ["log error: x"]
    assert [line for line in both.lines if line.startswith("log")] == [
        "log info: x",
        "log error: x",
    ]


def test_topic_logs_come_by_pattern_and_once(run: Run) -> None:
    listener = run("receive_logs_topic", "kernel.*", "*.critical")
    listener.wait_for(READY)

    for key in ("kernel.critical", "kernel", "cron.info", "kernel.a.b", "cron.critical"):
        assert run("emit_log_topic", key, "x").end() == 0

    listener.wait_for("log cron.critical: x")
    assert [line for line in listener.lines if line.startswith("log")] == [
        "log kernel.critical: x",
        "log cron.critical: x",
    ]


def test_a_request_is_answered(run: Run) -> None:
    server = run("rpc_server")
    server.wait_for(READY)
    client = run("rpc_client", "30")

    client.wait_for("answer 832040")

    assert client.end() == 0
    assert server.interrupt(signal.SIGTERM) == 0


def test_a_request_without_a_server_gives_up(run: Run) -> None:
    client = run("rpc_client", "30", "--timeout", "0.2")

    client.wait_for("no answer in time")

    assert client.end() == 1


def test_published_messages_are_confirmed(run: Run) -> None:
    publisher = run("publish_confirmed", "50")

    publisher.wait_for("confirmed 50")

    assert publisher.end() == 0


def test_a_message_that_fits_no_queue_comes_back(run: Run) -> None:
    publisher = run("publish_confirmed", "1", "--queue", "t-nobody")

    publisher.wait_for("returned: there is no queue t-nobody")

    assert publisher.end() == 1
