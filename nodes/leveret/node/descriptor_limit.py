"""Descriptors: for how many clients there are enough, besides the node's own files and links.

A client that is taken with the last descriptor costs more than itself: the log could not go on in
its next file. So files and links keep a hundred and a tenth of the rest, as they do in RabbitMQ.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

OTHERS: Final = 100
_SHARE_OF_TEN: Final = 9


def descriptors_for(connections: int) -> int:
    """Return how many descriptors a node with so many client connections needs."""
    return OTHERS - (-connections * 10 // _SHARE_OF_TEN)


def connections_within(descriptors: int) -> int:
    """Return how many client connections so many descriptors allow; at least one."""
    return max((descriptors - OTHERS) * _SHARE_OF_TEN // 10, 1)


def make_room(connections: int) -> int:
    """Let this process have the descriptors for `connections` clients, as far as it may.

    Systems begin with a low limit that a process can raise itself, up to a hard one. Returns for
    how many clients there is room, `connections` at most.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors_for(connections)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        higher = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        # The system may have a bound below the hard limit.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
            soft = higher
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, connections_within(soft))
