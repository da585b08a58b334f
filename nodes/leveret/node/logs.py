"""Sets up standard logging for a node: one event a line, as text or as JSON, on standard error.

What `extra` carries is shown behind the message as key=value. The stack of an exception follows
its line indented (text) or stands in its object (JSON), once: only the root logger has a handler.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from leveret.node.config import LoggingSection

_STANDARD = frozenset(
    vars(logging.LogRecord("", logging.INFO, "", 0, "", (), None)).keys()
    | {"message", "asctime", "taskName"}
)
_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_COLORS = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


class TextFormatter(logging.Formatter):
    """Time, level, logger, message, key=value: for people."""

    def __init__(self, *, color: bool) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone()
        time = when.isoformat(" ", "milliseconds").partition("+")[0]
        level = f"{record.levelname.lower():<7}"
        name = record.name.removeprefix("leveret.")
        pairs = "".join(f" {key}={_shown(value)}" for key, value in _extra(record).items())
        if self._color:
            time, name = f"{_DIM}{time}{_RESET}", f"{_DIM}{name}{_RESET}"
            level = f"{_COLORS.get(record.levelno, '')}{level}{_RESET}"
            pairs = f"{_DIM}{pairs}{_RESET}" if pairs else ""
        line = f"{time} {level} {name}: {_one_line(record.getMessage())}{pairs}"
        stack = _stack(self, record)
        return line + "".join(f"\n    {part}" for part in stack.splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: for programs. `time` is UTC."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        event: dict[str, object] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _extra(record).items():
            # An event's own words go before those of its extra.
            event[f"{key}_" if key in event else key] = value
        stack = _stack(self, record)
        if stack:
            event["exception"] = stack
        return json.dumps(event, default=str, ensure_ascii=False)


def set_up_logging(config: LoggingSection, *, stream: TextIO | None = None) -> None:
    """Send all log events to `stream` (standard error if None); replaces an earlier set-up."""
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    if config.format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        color = config.color and target.isatty() and "NO_COLOR" not in os.environ
        handler.setFormatter(TextFormatter(color=color))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    # Warnings of Python itself become events too, not lines between them.
    logging.captureWarnings(True)


def _extra(record: logging.LogRecord) -> Mapping[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _stack(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _shown(value: object) -> str:
    """Return a value without spaces or line breaks, in quotes if it had some."""
    text = str(value)
    if not text or any(character in text for character in " \"'=\\") or not text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return text


def _one_line(text: str) -> str:
    """Return text that cannot begin a new line, whatever a client put into it."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
