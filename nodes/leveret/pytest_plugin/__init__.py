"""The pytest plug-in: fixtures for brokers under test. pytest loads it by itself.

It stands outside of `leveret.testing`, and imports that only where a fixture is used: each pytest
run of an environment that has Leveret loads this module, also those that have nothing to do with
it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import pytest

try:
    import pytest_trio
except ImportError:
    pytest_trio = None

if TYPE_CHECKING:
    from leveret.testing import Broker, Cluster, blocking

T = TypeVar("T")


def _trio_fixture(make: Callable[[Mapping[str, object]], AsyncIterator[T]]) -> object:
    """Return a fixture for tests on trio; without pytest-trio, one that says what is missing."""
    if pytest_trio is not None:
        return pytest_trio.trio_fixture(make)

    def missing() -> None:
        pytest.fail("this fixture needs pytest-trio: pip install pytest-trio", pytrace=False)

    return pytest.fixture(missing)


@pytest.fixture(scope="session")
def leveret_settings() -> Mapping[str, object]:
    """Settings for the brokers of the other fixtures; override it where others are wanted."""
    return {}


@_trio_fixture
async def leveret_broker(leveret_settings: Mapping[str, object]) -> AsyncIterator[Broker]:
    """A broker in memory, for a test on trio; works with `autojump_clock`."""
    from leveret.testing import broker  # noqa: PLC0415 - see above

    async with broker(settings=leveret_settings) as found:
        yield found


@_trio_fixture
async def leveret_cluster(leveret_settings: Mapping[str, object]) -> AsyncIterator[Cluster]:
    """Three nodes in memory, for a test on trio; works with `autojump_clock`."""
    from leveret.testing import cluster  # noqa: PLC0415 - see above

    async with cluster(3, settings=leveret_settings) as found:
        yield found


@pytest.fixture
def leveret_blocking_broker(
    leveret_settings: Mapping[str, object],
) -> Iterator[blocking.Broker]:
    """A broker in a thread, on a free port: for pika, Celery, `leveret.client.blocking`."""
    from leveret.testing import blocking  # noqa: PLC0415 - see above

    with blocking.broker(settings=leveret_settings) as found:
        yield found


@pytest.fixture
def leveret_blocking_cluster(
    leveret_settings: Mapping[str, object],
) -> Iterator[blocking.Cluster]:
    """Three nodes in a thread, on free ports."""
    from leveret.testing import blocking  # noqa: PLC0415 - see above

    with blocking.cluster(3, settings=leveret_settings) as found:
        yield found
