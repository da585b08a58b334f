"""The fixtures, used by the tests of a small project as its own pytest runs them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from leveret import pytest_plugin

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
# By its module, as in an environment whose entry points were made before there was a plug-in.
PLUGIN = ("-p", "no:leveret", "-p", "leveret.pytest_plugin", "-p", "no:cacheprovider")

SHOP = '''
"""The program under test: it knows nothing of tests."""

from leveret.client import connect


async def order(url, what):
    async with connect(url) as connection, connection.channel() as channel:
        await channel.declare_queue("orders", durable=True)
        await channel.publish(what, "orders")


async def ship(url, count):
    shipped = []
    async with connect(url) as connection, connection.channel() as channel:
        await channel.declare_queue("orders", durable=True)
        async for message in channel.consume("orders"):
            shipped.append(message.body)
            await message.ack()
            if len(shipped) == count:
                return shipped
'''

TESTS = """
import pika
import pytest
import trio

from leveret.client import connect
from leveret.client.blocking import connect as connect_blocking
from shop import order, ship


async def test_an_order_is_shipped(leveret_broker):
    await order(leveret_broker.url, b"a carrot")
    assert [b"a carrot"] == await ship(leveret_broker.url, 1)


async def test_each_test_has_a_broker_of_its_own(leveret_broker):
    with trio.move_on_after(0.2) as waiting:
        await ship(leveret_broker.url, 1)
    assert waiting.cancelled_caught


async def test_an_order_is_shipped_an_hour_after_a_crash(leveret_broker, autojump_clock):
    await order(leveret_broker.url, b"a carrot")
    await leveret_broker.kill()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def repair():
            await trio.sleep(300)
            await leveret_broker.start()

        with trio.fail_after(600):
            await trio.sleep(310)
            assert [b"a carrot"] == await ship(leveret_broker.url, 1)


async def test_nobody_notices_that_a_node_dies(leveret_cluster, autojump_clock):
    async with connect(leveret_cluster.url) as connection, connection.channel() as channel:
        await channel.declare_queue("orders", durable=True)
        await channel.publish(b"one", "orders")
        await leveret_cluster.kill(1)
        await channel.publish(b"two", "orders")
    assert [b"one", b"two"] == await ship(leveret_cluster.urls[1], 2)


def test_pika_orders(leveret_blocking_broker):
    connection = pika.BlockingConnection(pika.URLParameters(leveret_blocking_broker.url))
    channel = connection.channel()
    channel.queue_declare("orders", durable=True)
    channel.basic_publish("", "orders", b"a carrot")
    assert channel.basic_get("orders")[2] == b"a carrot"
    connection.close()


def test_a_blocking_client_outlives_a_node(leveret_blocking_cluster):
    with connect_blocking(leveret_blocking_cluster.url) as connection:
        channel = connection.channel()
        channel.declare_queue("orders", durable=True)
        leveret_blocking_cluster.kill(1)
        channel.publish(b"one", "orders")
"""


def test_a_projects_tests_use_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(shop=SHOP, test_shop=TESTS)
    pytester.makeini("[pytest]\ntrio_mode = true\nfilterwarnings = error")

    result = pytester.runpytest_subprocess(*PLUGIN)

    result.assert_outcomes(passed=6)


def test_a_project_sets_its_brokers_up(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def leveret_settings():
            return {"amqp.server_product": "Hutch"}
        """
    )
    pytester.makepyfile(
        """
        from leveret.client.blocking import connect

        def test_settings(leveret_blocking_broker):
            with connect(leveret_blocking_broker.url) as connection:
                assert connection.server_properties["product"] == "Hutch"
        """
    )

    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


def test_without_pytest_trio_the_fixtures_say_what_they_need(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from leveret import pytest_plugin

        pytest_plugin.pytest_trio = None
        leveret_broker = pytest_plugin._trio_fixture(pytest_plugin.leveret_broker)
        """
    )
    pytester.makepyfile("def test_broker(leveret_broker): pass")

    result = pytester.runpytest_subprocess(*PLUGIN)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs pytest-trio: pip install pytest-trio*"])


def test_a_run_that_uses_no_fixture_does_not_load_the_broker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            assert [] == [name for name in sys.modules if name.startswith("leveret.node")]
            assert "leveret.testing" not in sys.modules
        """
    )

    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


def test_the_guide_lists_the_fixtures() -> None:
    guide = (ROOT / "docs/guides/testing.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(leveret_\w+)` \|", guide, re.MULTILINE)

    assert sorted(listed) == sorted(name for name in vars(pytest_plugin) if "leveret_" in name)


def test_pytest_finds_the_plug_in_by_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["entry-points"]["pytest11"] == {"leveret": "leveret.pytest_plugin"}
