"""Requests between nodes: answered by the other node, or an error that says why not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from leveret.node.control.admin import CHANNEL, Admin
from leveret.node.control.controls import Arguments, ControlError, Controls, NoArguments
from leveret.transport import NodeId
from tests.consensus.mail import Net

ONE, TWO = NodeId(1), NodeId(2)


class Text(Arguments, frozen=True):
    text: str


class Pair:
    """Two nodes with a link; each says its number in what it answers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.net = Net(nursery)
        self.one, self.two = self._node(ONE), self._node(TWO)
        self.net.connect(ONE, TWO)

    def _node(self, node: NodeId) -> Admin:
        async def echo(arguments: Text) -> object:
            return f"{node}: {arguments.text}"

        async def refuse(_: NoArguments) -> object:
            raise ControlError("refused", "no", remedy="ask another")

        async def hang(_: NoArguments) -> object:
            await trio.sleep_forever()

        controls = Controls()
        controls.add("echo", Text, echo)
        controls.add("refuse", NoArguments, refuse)
        controls.add("hang", NoArguments, hang)
        return Admin(node, self.net.mail(node), controls)


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with trio.open_nursery() as nursery:
        nodes = Pair(nursery)
        nursery.start_soon(nodes.one.run)
        nursery.start_soon(nodes.two.run)
        yield nodes
        nursery.cancel_scope.cancel()


async def test_another_node_and_this_one_are_asked_alike(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as nodes:
        assert "2: hare" == await nodes.one.ask(TWO, "echo", str, within_s=1, text="hare")
        assert "1: hare" == await nodes.one.ask(ONE, "echo", str, within_s=1, text="hare")


async def test_the_other_nodes_refusal_comes_as_it_was_said(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as nodes:
        with pytest.raises(ControlError) as refused:
            await nodes.one.ask(TWO, "refuse", str, within_s=1)

    error = refused.value
    assert ("refused", "no", "ask another") == (error.kind, error.text, error.remedy)


async def test_a_node_without_a_link_is_unavailable_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as nodes:
        nodes.net.isolate(TWO)

        with pytest.raises(ControlError, match="node 2 cannot be reached"):
            await nodes.one.ask(TWO, "echo", str, within_s=1e9, text="hare")


async def test_a_link_that_breaks_ends_what_was_asked_over_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as nodes, trio.open_nursery() as nursery:

        async def break_link() -> None:
            await trio.sleep(5)
            nodes.net.isolate(TWO)

        nursery.start_soon(break_link)
        with pytest.raises(ControlError, match="node 2 cannot be reached"):
            await nodes.one.ask(TWO, "hang", str, within_s=1e9)


async def test_a_node_that_is_silent_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with pair() as nodes:
        with pytest.raises(ControlError, match="node 2 did not answer within 3 s"):
            await nodes.one.ask(TWO, "hang", str, within_s=3)


async def test_what_is_no_message_of_ours_is_dropped(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as nodes:
        for payload in (None, 7, (), ("ask",), ("ask", "x", b""), ("answer", 99, b"{}")):
            nodes.net.transmit(ONE, TWO, CHANNEL, payload)

        assert "2: hare" == await nodes.one.ask(TWO, "echo", str, within_s=1, text="hare")
        assert 5 == caplog.text.count("malformed message dropped")
