"""Properties of the repository itself, held by tests because no compiler does."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hatchling.builders.wheel import WheelBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = [ROOT / "cluster", ROOT / "nodes"]
PACKAGES = sorted(
    init.parent for root in SOURCE_ROOTS for init in (root / "leveret").glob("*/__init__.py")
)
PRODUCT = sorted(path for root in SOURCE_ROOTS for path in (root / "leveret").rglob("*.py"))
# Also the modules that are not shipped, for the rules about form.
ALL_CODE = PRODUCT + sorted(
    path for top in ("chaos", "tests") for path in (ROOT / top).rglob("*.py")
)

LINES_MAX = 700
IMPURE = {"asyncio", "os", "random", "secrets", "socket", "threading", "time", "trio", "uuid"}

# The core that decides votes and commits is pinned to the byte: the guard's proofs are about
# this text. Another text needs the proofs again, see docs/decisions/0002-libraries.md.
PYSYNCOBJ_SHA256 = "e8bdf06797085d73"

# "module:object" in a string: an entry of the distribution, or a command imported when called.
ENTRY = re.compile(r'"(leveret(?:\.\w+)+):\w+"')


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """Return the dotted name that `path` is imported by."""
    root = next(root for root in [*SOURCE_ROOTS, ROOT] if path.is_relative_to(root))
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, for_types: bool = False) -> Iterator[str]:
    """Yield each module that `path` imports, also inside functions; for types alone if wanted."""
    skipped: set[ast.AST] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        if (
            not for_types
            and isinstance(node, ast.If)
            and ast.unparse(node.test).endswith("TYPE_CHECKING")
        ):
            skipped.update(found for line in node.body for found in ast.walk(line))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = [*module(path).split("."), ""] if path.stem == "__init__" else []
                parents = parents or module(path).split(".")
                base = ".".join([*parents[: -node.level], base]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def top_level(path: Path) -> set[str]:
    return {imported.split(".")[0] for imported in imports(path)}


def entries() -> set[str]:
    """Return the modules that are named as "module:object" rather than imported."""
    texts = [path.read_text(encoding="utf-8") for path in [ROOT / "pyproject.toml", *PRODUCT]]
    return {found for text in texts for found in ENTRY.findall(text)}


def is_pure(path: Path) -> bool:
    """Whether the architecture calls this module pure."""
    parts = path.relative_to(ROOT).parts
    return (
        "amqp" in parts
        or path.name == "machine.py"
        or parts[2:4] in {("broker", "routing"), ("client", "core")}
        or parts[:2] == ("chaos", "checkers")
    ) and parts[0] != "tests"


def test_the_namespace_has_no_init_in_either_root() -> None:
    found = [name(root / "leveret/__init__.py") for root in SOURCE_ROOTS]
    assert [] == [path for path in found if (ROOT / path).exists()]


def test_each_folder_of_the_namespace_is_a_package_with_its_own_types_marker() -> None:
    folders = {path.relative_to(root / "leveret").parts[0] for root in SOURCE_ROOTS
               for path in (root / "leveret").rglob("*.py")}  # fmt: skip

    assert folders == {package.name for package in PACKAGES}
    assert [] == [name(package) for package in PACKAGES if not (package / "py.typed").is_file()]


def test_no_package_stands_in_both_roots() -> None:
    names = [package.name for package in PACKAGES]
    assert len(names) == len(set(names))


def test_the_wheel_holds_both_roots_packages_and_nothing_else(tmp_path: Path) -> None:
    [built] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        files = {path for path in wheel.namelist() if ".dist-info/" not in path}

    assert {module(path).replace(".", "/") for path in PRODUCT if path.stem == "__init__"} <= {
        path.removesuffix("/__init__.py") for path in files
    }
    assert {f"leveret/{package.name}" for package in PACKAGES} == {
        "/".join(path.split("/")[:2]) for path in files
    }


@pytest.mark.parametrize("path", ALL_CODE, ids=name)
def test_a_file_that_is_written_by_hand_is_at_most_700_lines(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    is_generated = any("Generated by" in line for line in lines[:3])

    assert is_generated or len(lines) <= LINES_MAX


@pytest.mark.parametrize("path", [path for path in ALL_CODE if is_pure(path)], ids=name)
def test_a_pure_module_imports_neither_clock_nor_chance_nor_system(path: Path) -> None:
    assert set() == top_level(path) & IMPURE


@pytest.mark.parametrize("path", [path for path in PRODUCT if "amqp" in path.parts], ids=name)
def test_amqp_imports_the_standard_library_and_itself_alone(path: Path) -> None:
    foreign = {
        imported
        for imported in imports(path)
        if imported.split(".")[0] not in sys.stdlib_module_names
        and not f"{imported}.".startswith("leveret.amqp.")
    }
    assert foreign == set()


def test_the_actor_kernel_imports_trio_and_outcome_alone() -> None:
    paths = [path for path in PRODUCT if "actors" in path.parts]
    foreign = set().union(*map(top_level, paths)) - set(sys.stdlib_module_names)

    assert foreign <= {"trio", "outcome", "leveret"}


def test_no_module_outside_consensus_imports_pickle_or_pysyncobj() -> None:
    guilty = [
        name(path)
        for path in PRODUCT
        if "consensus" not in path.parts
        and top_level(path) & {"pickle", "pysyncobj", "marshal", "shelve", "dill", "cloudpickle"}
    ]
    assert guilty == []


def test_the_product_runs_on_trio_alone() -> None:
    assert [] == [name(path) for path in PRODUCT if "asyncio" in top_level(path)]


def test_pysyncobj_is_the_text_that_the_guard_was_proved_on() -> None:
    spec = importlib.util.find_spec("pysyncobj.syncobj")
    assert spec is not None
    assert spec.origin is not None

    digest = hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    assert digest.startswith(PYSYNCOBJ_SHA256)


def test_every_module_is_imported_by_another_or_is_an_entry() -> None:
    imported = {found for path in ALL_CODE for found in imports(path, for_types=True)} | entries()

    dead = [
        name(path)
        for path in PRODUCT
        if path.stem not in {"__init__", "__main__"}
        and module(path) not in imported
        and 'if __name__ == "__main__"' not in path.read_text(encoding="utf-8")
    ]
    assert dead == []


def test_every_package_is_imported_by_something_outside_it() -> None:
    used = {
        found
        for path in ALL_CODE
        for found in imports(path, for_types=True)
        if not module(path).startswith(".".join(found.split(".")[:2]))
    } | entries()

    assert [] == [
        name(package)
        for package in PACKAGES
        if not any(f"{found}.".startswith(f"leveret.{package.name}.") for found in used)
    ]


def test_the_changelog_keeps_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    headings = [line for line in lines if line.startswith("## ")]

    assert headings[0] == "## [Unreleased]"
    assert [] == [
        line
        for line in headings[1:]
        if not re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", line)
    ]
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {line[4:] for line in lines if line.startswith("### ")} <= kinds
    # One sentence a change, written for users.
    assert [] == [line for line in lines if line.startswith("- ") and not line.endswith(".")]
