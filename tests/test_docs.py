"""The pages hold together: links lead somewhere, examples run, what they name exists.

How an example is told from a picture: a block of `python` is a program, and the block of `output`
behind it is what it prints; in `console` the lines with `$` are commands; `bash` is a script;
`toml` is a node's configuration; `text` is shown only.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from leveret.amqp.definitions import REPLY_CODES
from leveret.cli.config import reference_page
from leveret.cli.main import cli
from leveret.node.sources import load_config
from tests.support import nodes

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "node_modules" not in path.parts
)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CITED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
CONVERSATIONS = (
    "README.md",
    "docs/tutorial/first-message.md",
    "docs/tutorial/first-program.md",
    "docs/guides/client.md",
    "docs/guides/run-a-cluster.md",
    "docs/guides/streams.md",
)
"""Pages whose programs run one behind the other against a broker that the test starts."""


class Block(NamedTuple):
    page: Path
    line: int
    kind: str
    text: str


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in FENCE.finditer(text)
    ]


def blocks(kind: str) -> list[object]:
    return [
        pytest.param(block, id=f"{name(page)}:{block.line}")
        for page in PAGES
        for block in blocks_of(page)
        if block.kind == kind
    ]


def commands(kind: str) -> Iterator[str]:
    """Yield the commands of all pages, without prompt and comment."""
    for page in PAGES:
        for block in blocks_of(page):
            if block.kind == kind:
                for line in block.text.splitlines():
                    if line.startswith("$ "):
                        yield line.removeprefix("$ ")


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, made as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Links and names


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_pages_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    dead = []
    for target, anchor in LINK.findall(text):
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(f"{target}#{anchor}")

    assert [] == dead


def test_every_page_is_reached_from_the_front() -> None:
    reached: set[Path] = set()
    to_read = [ROOT / "README.md"]
    while to_read:
        page = to_read.pop().resolve()
        if page.suffix != ".md" or page in reached:
            continue
        reached.add(page)
        targets = [match[0] for match in LINK.findall(page.read_text(encoding="utf-8"))]
        to_read += [page.parent / target for target in targets if target]

    assert [] == [name(page) for page in PAGES if page.resolve() not in reached]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_only_make_targets_that_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = page.read_text(encoding="utf-8")

    assert set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_only_tests_that_exist(page: Path) -> None:
    missing = []
    for file, test in CITED_TEST.findall(page.read_text(encoding="utf-8")):
        path = ROOT / file
        source = path.read_text(encoding="utf-8") if path.exists() else ""
        if not source or (test and f"def {test}(" not in source):
            missing.append(f"{file}::{test}")

    assert [] == missing


def test_decision_records_are_numbered_without_gaps_and_listed() -> None:
    folder = ROOT / "docs/decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    index = (folder / "README.md").read_text(encoding="utf-8")

    assert [int(record[:4]) for record in records] == list(range(1, len(records) + 1))
    assert [] == [record for record in records if f"({record})" not in index]


# What is printed or listed from the code


def test_the_reference_of_the_configuration_is_what_the_command_prints() -> None:
    page = ROOT / "docs/reference/configuration.md"

    assert reference_page() == page.read_text(encoding="utf-8"), "run: make docs"


def test_the_reply_codes_are_those_of_the_protocol() -> None:
    text = (ROOT / "docs/reference/reply-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \|", text, re.MULTILINE)

    assert REPLY_CODES == {int(code): (word, scope) for code, word, scope in rows}


# Examples that are read


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_example_is_valid(block: Block) -> None:
    if block.page.name != "interfaces.md":  # its blocks are signatures, several in one line
        ast.parse(block.text)


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_configuration_example_is_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(block.text, encoding="utf-8")
    tree = tomllib.loads(block.text)
    for section in tree.values():
        for key, value in section.items():
            if key.startswith("tls_") and key != "tls_listen":
                (tmp_path / value).touch()
            if key == "token_file":
                (tmp_path / value).write_text("ab" * 32, encoding="ascii")
                (tmp_path / value).chmod(0o600)

    load_config(folder=tmp_path, environment={}, file=tmp_path / "node.toml")


@pytest.mark.parametrize("command", sorted(set(commands("console"))))
def test_a_command_is_valid(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)
    words = [word for word in shlex.split(command, comments=True) if not word.startswith("LEVERET")]
    if words[0] == "leveret":
        parse(cli, words)
    elif words[0] == "make":
        target = ROOT / words[1]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(VENV)", ".venv")
        assert re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE), target


def parse(command: click.Command, words: list[str]) -> None:
    """Have click read a command line, down to the last command, without running it."""
    context = command.make_context(words[0], words[1:])
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name_, found, arguments = command.resolve_command(context, rest)
        assert found is not None
        parse(found, [name_ or "", *arguments])


# Examples that are run


@pytest.mark.parametrize("page", CONVERSATIONS)
def test_the_programs_of_a_page_print_what_it_says(page: str, tmp_path: Path) -> None:
    arguments = ("hares", "1", "2", "3") if page.endswith("run-a-cluster.md") else ()
    broker = nodes.node(tmp_path)
    broker.start()
    try:
        run_programs(ROOT / page, tmp_path, broker, arguments)
    finally:
        assert broker.stop() == 0


def run_programs(
    page: Path, folder: Path, broker: nodes.LeveretProcess, arguments: tuple[str, ...]
) -> None:
    """Run the programs of a page in `folder`, and compare what they print.

    The broker is on another port than the pages say. Where the page kills it, it is killed.
    """
    shown = [block for block in blocks_of(page) if block.kind in {"python", "output", "console"}]
    programs = 0
    for position, block in enumerate(shown):
        if block.kind == "console" and "kill -9" in block.text:
            broker.restart()
        if block.kind != "python":
            continue
        programs += 1
        printed = run_program(block, folder, {r"\b567[234]\b": broker.ports[0]}, arguments)
        behind = [other for other in shown[position + 1 :] if other.kind != "console"][:1]
        if behind and behind[0].kind == "output":
            assert behind[0].text == printed
    assert programs


def run_program(
    block: Block, folder: Path, ports: dict[str, int], arguments: tuple[str, ...] = ()
) -> str:
    """Run a program of a page with other ports, and return what it printed."""
    source = block.text
    for pattern, port in ports.items():
        source = re.sub(pattern, str(port), source)
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_guide_to_testing_has_tests_that_pass_and_programs_that_print_what_it_says(
    tmp_path: Path,
) -> None:
    shown = [
        block
        for block in blocks_of(ROOT / "docs/guides/testing.md")
        if block.kind in {"python", "output"}
    ]
    files = 0
    for block, behind in zip(shown, [*shown[1:], None], strict=True):
        if file := re.match(r"# (\w+\.py)\n", block.text):
            files += 1
            (tmp_path / file[1]).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            assert behind is not None
            assert behind.text == run_program(block, tmp_path, {})
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    # By its module: the entry points of an older environment do not have it.
    plugin = ["-p", "no:leveret", "-p", "leveret.pytest_plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert f"{files - 1} passed" in done.stdout  # one of the files has the settings


def test_a_tls_listener_made_as_the_guide_says_serves_a_client(tmp_path: Path) -> None:
    shown = blocks_of(ROOT / "docs/guides/run-a-node.md")
    (script,) = [block for block in shown if block.kind == "bash"]
    (settings,) = [block for block in shown if block.kind == "toml" and "tls_listen" in block.text]
    (program,) = [block for block in shown if block.kind == "python"]
    (output,) = [block for block in shown if block.kind == "output"]
    subprocess.run(["bash", "-ec", script.text], cwd=tmp_path, check=True, capture_output=True)
    plain = nodes.free_ports(2)
    text = settings.text.replace("5672", str(plain)).replace("5671", str(plain + 1))
    (tmp_path / "tls.toml").write_text(text, encoding="utf-8")
    arguments = ["node", "--config", str(tmp_path / "tls.toml")]
    arguments += ["--data-dir", str(tmp_path / "data")]
    broker = nodes.LeveretProcess(arguments, [plain], tmp_path / "node.log")
    broker.start()
    try:
        printed = run_program(program, tmp_path, {r"\b5671\b": plain + 1})
    finally:
        broker.stop()

    assert output.text == printed


def test_a_single_node_goes_on_from_a_copy_of_its_folder(tmp_path: Path) -> None:
    (script,) = [
        block for block in blocks_of(ROOT / "docs/guides/operate.md") if block.kind == "bash"
    ]
    send, receive = [
        block
        for block in blocks_of(ROOT / "docs/tutorial/first-message.md")
        if block.kind == "python"
    ]
    port = nodes.free_port()
    data = tmp_path / ".leveret/node-1"
    arguments = ["node", "--data-dir", str(data), "--listen", f"127.0.0.1:{port}"]
    broker = nodes.LeveretProcess(arguments, [port], tmp_path / "node.log")
    broker.start()
    try:
        run_program(send, tmp_path, {r"\b5672\b": port})
        broker.stop()
        subprocess.run(["bash", "-ec", script.text], cwd=tmp_path, check=True)
        broker.start()

        assert run_program(receive, tmp_path, {r"\b5672\b": port}) == "Hello, hare!\n"
    finally:
        broker.stop()
