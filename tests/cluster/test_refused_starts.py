"""A node that cannot start says why and what to do, in its exit code and in words."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import NodeMaker, Opener
from tests.support.nodes import LeveretProcess
from tests.support.programs import Program

NODE = (sys.executable, "-m", "leveret.cli.main", "node", "--log-level", "warning")


def refused(*arguments: str) -> tuple[int, str]:
    """Return the exit code and the output of a node that does not start."""
    with Program([*NODE, *arguments]) as program:
        code = program.end()
    return code, "\n".join(program.lines)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        code, text = refused("--data-dir", str(tmp_path), "--listen", address)

    assert 3 == code, text
    assert f"address already in use: {address}" in text
    assert "Traceback" not in text


def test_a_data_folder_in_use_goes_on_for_who_has_it(
    single: LeveretProcess, connect: Opener
) -> None:
    folder = single.arguments[single.arguments.index("--data-dir") + 1]

    code, text = refused("--data-dir", folder, "--listen", "127.0.0.1:0")

    assert 4 == code, text
    assert f"in use by process {single.pid}" in text
    connect(single.urls[0]).channel().queue_declare("q", durable=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[amqp\n", "TOML"),
        ("[amqp]\nheartbeet_s = 3\n", "heartbeet_s"),
        ("[amqp]\nheartbeat_s = 'soon'\n", "soon"),
        (None, "directory"),
    ],
)
def test_an_unreadable_or_invalid_configuration(
    content: str | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "leveret.toml"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)

    code, text = refused("--config", str(file), "--data-dir", str(tmp_path / "data"))

    assert 2 == code, text
    assert str(file) in text
    assert words in text
    assert "Traceback" not in text
    assert not (tmp_path / "data").exists()


def test_a_damaged_journal_is_not_read_over(make_node: NodeMaker, connect: Opener) -> None:
    node = make_node()
    node.start()
    channel = connect(node.urls[0]).channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    for _ in range(50):
        channel.basic_publish("", "q", b"." * 1024)
    node.kill()
    folder = Path(node.arguments[node.arguments.index("--data-dir") + 1])
    (segment,) = sorted(folder.glob("segments/*.log"))
    with segment.open("r+b") as file:
        file.seek(segment.read_bytes().index(b"." * 1024))
        file.write(b"!")

    code, text = refused("--data-dir", str(folder), "--listen", "127.0.0.1:0")

    assert 4 == code, text
    assert "damaged" in text
    assert "Traceback" not in text
