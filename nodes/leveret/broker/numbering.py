"""The numbers that a publisher gives its messages: how it says so, and how queues hear of it. Pure.

`channel.open` has a field `out_of_band`, which nobody uses and RabbitMQ ignores.  Leveret's client
writes `publisher=ID after=N` there: the messages that it publishes on this channel in confirm mode
are those with the numbers N + 1, N + 2, … of publisher ID.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from leveret.amqp import errors

from .queues.incoming import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .messages import PublishRun

ID_OCTETS_MAX: Final = 128
"""How long a publisher's id may be; a longer one is refused."""
NUMBER_MAX: Final = (1 << 63) - 1
"""The largest `after`."""

_PREFIX: Final = "publisher="
_FORM: Final = re.compile(r"publisher=(?P<id>\S+) after=(?P<after>[0-9]{1,19})")


class Numbering(NamedTuple):
    """Whose messages a channel publishes, and where their numbers begin."""

    publisher: str
    after: int
    """The number before that of the channel's first message in confirm mode."""


def parse_numbering(out_of_band: str) -> Numbering | None:
    """Return what the field says, or None if it is not about numbers.

    Raises:
        AmqpError: 502, it begins like ours but makes no sense.
    """
    if not out_of_band.startswith(_PREFIX):
        return None
    found = _FORM.fullmatch(out_of_band)
    if (
        found is None
        or len(found["id"].encode()) > ID_OCTETS_MAX
        or (after := int(found["after"])) > NUMBER_MAX
    ):
        raise errors.syntax_error(
            f"out_of_band must be 'publisher=ID after=N', ID without spaces and of up to "
            f"{ID_OCTETS_MAX} octets, N up to {NUMBER_MAX}; it is '{out_of_band}'"
        )
    return Numbering(found["id"], after)


def origins_of(runs: Iterable[PublishRun]) -> list[Origin]:
    """Return whose numbers the messages of all `runs` have, what follows on itself as one."""
    origins: list[Origin] = []
    for run in runs:
        before = origins[-1] if origins else Origin("", 0, 0)
        publisher, first = "", 0 if before.publisher else before.stop
        if run.numbering is not None:
            publisher, first = run.numbering.publisher, run.first_number
        stop = first + len(run.records)
        if origins and (before.publisher, before.stop) == (publisher, first):
            origins[-1] = before._replace(stop=stop)
        else:
            origins.append(Origin(publisher, first, stop))
    return origins
