"""Dead letters that would go round in a circle are dropped, counted and told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from leveret.cli.ask import ask_once
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import QueueSeen
from tests.cluster.conftest import Opener
from tests.support.nodes import LeveretProcess

WITHIN_S = 30.0


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "transient"])
def test_dead_letters_that_go_round_are_counted(
    single: LeveretProcess, connect: Opener, durable: bool
) -> None:
    data = Path(single.arguments[single.arguments.index("--data-dir") + 1])
    channel = connect(single.urls[0]).channel()
    arguments = {
        "x-message-ttl": 1,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q",
    }
    channel.queue_declare("q", durable=durable, arguments=arguments)
    for _ in range(3):
        channel.basic_publish("", "q", b"x")

    deadline_s = time.monotonic() + WITHIN_S
    while True:
        [row] = ask_once(data, "list_queues", Listed[QueueSeen], vhost="/").rows
        if row.dead_letter_cycles == 3:
            break
        assert time.monotonic() < deadline_s, row
        time.sleep(0.05)

    assert row.messages == 0
