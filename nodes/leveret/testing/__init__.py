"""Brokers for the tests of programs: in memory, in milliseconds, under a virtual clock.

    async def test_an_order_is_shipped(autojump_clock):
        async with broker() as b, connect(b.url) as connection:
            ...

`leveret.testing.blocking` is the same for tests without trio; `leveret.pytest_plugin` has the
fixtures. See docs/guides/testing.md.
"""

from .brokers import Broker, Cluster, broker, cluster

__all__ = ["Broker", "Cluster", "broker", "cluster"]
