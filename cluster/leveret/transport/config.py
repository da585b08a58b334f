"""The bounds of the links between nodes: unit, default, and what happens at each."""

from __future__ import annotations

from dataclasses import dataclass

from .envelope import FRAME_BYTES_MAX

__all__ = ["TransportConfig"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """Limits and times of every link of one node; the same values are advised on all nodes."""

    frame_max_bytes: int = 160 * MIB
    """A larger outgoing payload is an EnvelopeError; a larger incoming frame drops the link.

    The largest payload is one snapshot part or one batch of entries; RabbitMQ's largest message
    is 128 MiB, the rest is room for what stands around it.
    """

    whole_bytes_max: int = 2 * MIB
    """A larger frame goes in parts, and frames of other channels pass between these."""

    part_bytes: int = 256 * KIB
    """What others wait for at most, besides what the kernel has taken already."""

    hello_max_bytes: int = 4 * KIB
    """A stranger's frame above it is refused unread, so that nobody fills memory before login."""

    connect_timeout_s: float = 2.0
    """For a member to take a connection; after it another attempt begins.

    A packet that got lost is sent again after 1 s, then 2 and 4 s later: an attempt that began in
    a partition and was let go on would not notice its end for seconds.
    """

    handshake_timeout_s: float = 5.0
    """For TLS and the hellos, and for connecting where nobody tries again; after it the connection
    is closed."""

    handshakes_max: int = 64
    """Strangers at once; further connections are closed at accept. A real peer dials again."""

    join_timeout_s: float = 30.0
    """For the cluster to admit a newcomer that has proved to hold the token; after it the newcomer
    is refused, and may ask again."""

    joins_max: int = 4
    """Newcomers at once that have proved to hold the token; further ones are refused."""

    queue_limit_bytes: int = 512 * MIB
    """Unsent bytes of one link; above it the link is dropped and made anew (its bytes are lost).

    Entries and deliveries wait while a link is congested. The publishes of a node to queues that
    live on one other do not, but are bounded by what it takes from publishers at once (256 MiB).
    """

    queue_congested_bytes: int = 16 * MIB
    """Unsent bytes above which `Peers.congested` asks producers to hold back; nothing is lost."""

    ping_idle_s: float = 1.0
    """A link that sent nothing for this long sends an empty frame."""

    silence_s: float = 4.0
    """A link that received no byte for this long is down (noticed within half a ping later).

    Must be at least 2 * ping_idle_s; 4 * is advised.
    """

    retry_min_s: float = 0.05
    retry_max_s: float = 0.5
    """Dialling again waits between these, doubling, with jitter.

    Only one of two nodes dials. So a node that has just started waits for the others to do it, and
    serves no client before; while it is down an attempt costs two packets.
    """

    receive_bytes: int = 256 * KIB
    """The most that one `recv` takes: some hundred small messages or four bodies of 64 KiB."""

    def __post_init__(self) -> None:
        assert 64 <= self.hello_max_bytes <= self.frame_max_bytes <= FRAME_BYTES_MAX
        assert 0 < self.part_bytes <= self.whole_bytes_max
        # One frame of the largest size must fit a queue that is below its soft mark.
        assert self.frame_max_bytes + self.queue_congested_bytes <= self.queue_limit_bytes
        assert 0 < 2 * self.ping_idle_s <= self.silence_s
        assert 0 < self.retry_min_s <= self.retry_max_s
        assert self.connect_timeout_s > 0
        assert self.handshake_timeout_s > 0
        assert self.handshakes_max > 0
        assert self.join_timeout_s > 0
        assert self.joins_max > 0
        assert self.receive_bytes > 0
