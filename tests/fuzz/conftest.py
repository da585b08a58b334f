"""What the broker complains of while it is fuzzed, and how long that is.

Every run of the tests tries the same few examples. To search for others, for as long as one likes:
`pytest tests/fuzz --hypothesis-profile=long -o faulthandler_timeout=0`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("long", print_blob=True)


class Complaints(logging.Handler):
    """What is logged as an error, or with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.lines.append(logging.Formatter().format(record))


@pytest.fixture(scope="module")
def complaints() -> Iterator[list[str]]:
    """What the broker's log has that someone must act on, over all examples of a module."""
    handler = Complaints()
    logger = logging.getLogger("leveret")
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagates
