"""Every public function of the client says what it does, with an example that is run here."""

from __future__ import annotations

import doctest
import importlib
import inspect
import logging
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trio

import leveret.client
import leveret.client.blocking
from leveret.client.generate import RESULT, generate
from tests.support import nodes

FACES = (leveret.client, leveret.client.blocking)


def modules() -> Iterator[ModuleType]:
    """Yield the modules of the client that people use; `core` has none for them."""
    for found in pkgutil.walk_packages(leveret.client.__path__, "leveret.client."):
        if ".core" not in found.name:
            yield importlib.import_module(found.name)


def examples() -> Iterator[object]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        for found in finder.find(module, module.__name__):
            if found.examples:
                yield pytest.param(found, id=found.name.removeprefix("leveret."))


def public_functions() -> Iterator[tuple[str, object]]:
    """Yield what the two faces offer: functions, classes, and the methods of these."""
    for face in FACES:
        for name in face.__all__:
            value = getattr(face, name)
            if inspect.isclass(value):
                if issubclass(value, Exception) or getattr(value, "_is_protocol", False):
                    continue
                yield f"{face.__name__}.{name}", value
                for method, function in inspect.getmembers(value, inspect.isfunction):
                    if not method.startswith("_") and function.__module__.startswith(
                        "leveret.client"
                    ):
                        yield f"{face.__name__}.{name}.{method}", function
            elif inspect.isfunction(value):
                yield f"{face.__name__}.{name}", value


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    node = nodes.node(tmp_path_factory.mktemp("docstrings"))
    node.start()
    yield node.urls[0]
    node.stop()


@pytest.fixture
def empty_hello(url: str) -> None:
    """The queue that most examples use, without what an earlier one left in it."""
    with leveret.client.blocking.connect(url) as connection, connection.channel() as channel:
        channel.declare_queue("hello")
        channel.purge_queue("hello")


def test_every_public_function_has_an_example() -> None:
    without = [
        name for name, value in public_functions() if ">>> " not in (inspect.getdoc(value) or "")
    ]

    assert without == []


def test_what_a_face_lists_is_there() -> None:
    for face in FACES:
        assert [] == [name for name in face.__all__ if not hasattr(face, name)]


@pytest.mark.usefixtures("empty_hello")
@pytest.mark.parametrize("example", list(examples()))
def test_the_example_does_what_it_says(
    example: doctest.DocTest, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "leveret.client")
    face = leveret.client.blocking if ".blocking" in example.name else leveret.client
    names = {name: getattr(leveret.client, name) for name in leveret.client.__all__}
    names |= {name: getattr(face, name) for name in face.__all__}
    example.globs = {**example.globs, **names, "url": url, "trio": trio}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(example, out=report.append, clear_globs=False)

    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def test_the_committed_blocking_declarations_are_generated_from_the_others() -> None:
    assert generate() == RESULT.read_text()


def test_the_package_says_that_it_is_typed() -> None:
    [folder] = leveret.client.__path__
    assert (Path(folder) / "py.typed").is_file()
