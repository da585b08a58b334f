"""The control socket: what comes in is answered with one line, or hung up on, whatever it is."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from leveret.cli.ask import NodeSocket
from leveret.node.control.controls import Arguments, ControlError, Controls, NoArguments
from leveret.node.control.place import PATH_BYTES_MAX, SOCKET_FILE
from leveret.node.control.server import CONNECTIONS_MAX, LINE_BYTES_MAX, ControlServer


class Move(Arguments, frozen=True):
    group: int
    node: str = "node-1"


async def move(arguments: Move) -> object:
    return {"moved": arguments.group, "to": arguments.node}


async def refuse(_: NoArguments) -> object:
    raise ControlError("refused", "not that one", remedy="take another")


async def fail(_: NoArguments) -> object:
    raise ZeroDivisionError


async def hang(_: NoArguments) -> object:
    await trio.sleep_forever()


def table() -> Controls:
    controls = Controls(within_s=5)
    controls.add("move", Move, move)
    controls.add("refuse", NoArguments, refuse)
    controls.add("fail", NoArguments, fail)
    controls.add("hang", NoArguments, hang)
    return controls


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(folder, table()).run)
        yield
        nursery.cancel_scope.cancel()


async def connect(folder: Path) -> trio.SocketStream:
    return await trio.open_unix_socket(folder / SOCKET_FILE)


async def ask(stream: trio.SocketStream, line: bytes) -> dict[str, dict[str, object]]:
    await stream.send_all(line + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        chunk = await stream.receive_some()
        assert chunk, f"hung up after {answer!r}"
        answer += chunk
    decoded = json.loads(answer)
    assert isinstance(decoded, dict)
    return decoded


async def test_a_request_is_answered_and_further_ones_on_the_same_connection(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path), await connect(tmp_path) as stream:
        assert {"ok": {"moved": 3, "to": "node-2"}} == await ask(
            stream, b'{"do": "move", "group": 3, "node": "node-2"}'
        )
        assert {"ok": {"moved": 4, "to": "node-1"}} == await ask(
            stream, b'{"do": "move", "group": 4}'
        )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"rubbish", "a request is a JSON object"),
        (b"\xff\xfe", "a request is a JSON object"),
        (b"[" * 5000, "a request is a JSON object"),
        (b"[]", "a request is an object"),
        (b'{"group": 3}', "a request is an object"),
        (b'{"do": 3}', "a request is an object"),
        (b'{"do": "fly"}', "nothing is called 'fly'"),
        (b'{"do": "move"}', "move: Object missing required field `group`"),
        (b'{"do": "move", "group": "x"}', "move: Expected `int`, got `str`"),
        (b'{"do": "move", "group": 1, "height": 2}', "unknown field `height`"),
    ],
)
async def test_a_bad_request_is_answered_with_what_is_wrong(
    line: bytes, text: str, tmp_path: Path
) -> None:
    async with serving(tmp_path), await connect(tmp_path) as stream:
        error = (await ask(stream, line))["error"]

        assert "malformed" == error["kind"]
        assert text in str(error["text"])
        assert "ok" in await ask(stream, b'{"do": "move", "group": 3}')


@given(
    st.binary(max_size=200)
    | st.dictionaries(
        st.sampled_from(["do", "group", "node", "x"]),
        st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.just([{}]),
    ).map(lambda fields: json.dumps(fields).encode())
)
def test_any_line_has_an_answer_and_it_is_one_line(line: bytes) -> None:
    answer = trio.run(table().answer, line)

    assert b"\n" not in answer
    assert {"ok"} == json.loads(answer).keys() or json.loads(answer)["error"]["text"]


async def test_an_unknown_request_is_told_what_there_is(tmp_path: Path) -> None:
    async with serving(tmp_path), await connect(tmp_path) as stream:
        error = (await ask(stream, b'{"do": "fly"}'))["error"]

    assert "fail, hang, move, refuse" in str(error["remedy"])


async def test_a_refusal_carries_its_remedy(tmp_path: Path) -> None:
    async with serving(tmp_path), await connect(tmp_path) as stream:
        assert {
            "error": {"kind": "refused", "text": "not that one", "remedy": "take another"}
        } == await ask(stream, b'{"do": "refuse"}')


async def test_a_bug_is_logged_and_answered_and_the_next_request_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path), await connect(tmp_path) as stream:
        error = (await ask(stream, b'{"do": "fail"}'))["error"]

        assert "internal" == error["kind"]
        assert "ZeroDivisionError" in caplog.text
        assert "ok" in await ask(stream, b'{"do": "move", "group": 3}')


async def test_a_bugs_log_line_has_no_arguments_which_may_be_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def forget(_: Move) -> object:
        raise ZeroDivisionError

    controls = Controls()
    controls.add("forget", Move, forget)
    await controls.answer(b'{"do": "forget", "group": 1, "node": "secret"}')

    logged = [str(vars(record)) for record in caplog.records]
    assert any("forget" in line for line in logged)
    assert not any('"secret"' in line for line in logged)


async def test_a_request_that_takes_too_long_is_given_up(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(tmp_path), await connect(tmp_path) as stream:
        error = (await ask(stream, b'{"do": "hang"}'))["error"]

    assert ("timeout", "not done within 5 s") == (error["kind"], error["text"])


@pytest.mark.parametrize("begun", [b"", b'{"do": '])
async def test_who_completes_no_request_is_hung_up_on(
    begun: bytes, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(tmp_path), await connect(tmp_path) as stream:
        await stream.send_all(begun)

        assert b"" == await stream.receive_some()


async def test_a_line_without_end_is_refused_and_its_sender_hung_up_on(tmp_path: Path) -> None:
    async with serving(tmp_path), await connect(tmp_path) as stream:
        await stream.send_all(b"x" * (LINE_BYTES_MAX + 1))
        answer = b""
        while chunk := await stream.receive_some():
            answer += chunk

    assert "at most 65536 bytes" in json.loads(answer)["error"]["text"]


async def test_one_connection_too_many_is_told_so_and_the_others_are_served(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path):
        held = [await connect(tmp_path) for _ in range(CONNECTIONS_MAX)]
        for stream in held:
            assert "ok" in await ask(stream, b'{"do": "move", "group": 3}')
        late = await connect(tmp_path)

        assert "unavailable" == json.loads(await late.receive_some())["error"]["kind"]
        assert "ok" in await ask(held[0], b'{"do": "move", "group": 3}')
        for stream in [*held, late]:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with await connect(tmp_path) as again:
            assert "ok" in await ask(again, b'{"do": "move", "group": 3}')


async def test_a_client_that_leaves_in_the_middle_harms_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path):
        for begun in (b"", b'{"do"', b'{"do": "move", "group": 3}\n'):
            stream = await connect(tmp_path)
            await stream.send_all(begun)
            await stream.aclose()
        async with await connect(tmp_path) as stream:
            assert "ok" in await ask(stream, b'{"do": "move", "group": 3}')


async def test_the_socket_is_its_owners_replaces_an_old_one_and_goes_at_the_end(
    tmp_path: Path,
) -> None:
    (tmp_path / SOCKET_FILE).write_text("left by a killed process")
    before = os.umask(0)
    try:
        async with serving(tmp_path):
            mode = (tmp_path / SOCKET_FILE).stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert 0o600 == stat.S_IMODE(mode)
    finally:
        os.umask(before)

    assert not (tmp_path / SOCKET_FILE).exists()


async def test_a_folder_with_a_long_path_has_a_socket_too(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * PATH_BYTES_MAX) / ("e" * PATH_BYTES_MAX)
    deep.mkdir(parents=True)

    async with serving(deep), NodeSocket(deep) as node:
        assert {"moved": 3, "to": "node-1"} == await node.ask("move", dict, group=3)


async def test_a_node_whose_socket_cannot_be_made_goes_on_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / SOCKET_FILE).mkdir()

    async with serving(tmp_path):
        assert "no control socket" in caplog.text
