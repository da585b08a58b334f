"""Log lines, as text and as JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from leveret.node.config import LoggingSection
from leveret.node.logs import set_up_logging

log = logging.getLogger("leveret.consensus")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def set_up(form: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    set_up_logging(LoggingSection(format=form, level=level), stream=stream)
    return stream


def test_a_text_line_has_level_logger_message_and_pairs() -> None:
    stream = set_up("text")

    log.info("leader elected", extra={"group": 3, "reason": "no leader"})

    (line,) = stream.getvalue().splitlines()
    assert line.endswith(' info    consensus: leader elected group=3 reason="no leader"')


def test_what_a_client_sent_cannot_begin_a_new_line_or_colour_a_terminal() -> None:
    stream = set_up("text")

    log.warning("login refused for %s", "a\nb", extra={"user": "x\n\x1b[31my"})

    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert "a\\nb" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_stack_of_an_exception_is_logged_once(form: str) -> None:
    stream = set_up(form)
    set_up_logging(LoggingSection(format=form), stream=stream)

    try:
        raise OSError("the disk is on fire")  # noqa: TRY301 - to have a stack
    except OSError:
        log.exception("failed")

    assert stream.getvalue().count("OSError: the disk is on fire") == 1
    assert len([line for line in stream.getvalue().splitlines() if line[0] != " "]) == 1


def test_a_json_line_is_one_object_whose_own_words_go_before_the_extra() -> None:
    stream = set_up("json")

    log.info("ready", extra={"port": 5672, "level": "high"})

    event = json.loads(stream.getvalue())
    assert (event["message"], event["logger"], event["level"]) == ("ready", log.name, "info")
    assert (event["port"], event["level_"]) == (5672, "high")
    assert event["time"].endswith("Z")


def test_events_below_the_level_are_not_logged() -> None:
    stream = set_up("text", level="warning")

    log.info("quiet")

    assert stream.getvalue() == ""
