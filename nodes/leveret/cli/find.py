"""Finds the running node that a command is about."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from leveret.cli.exits import BadConfiguration, NodeUnreachable
from leveret.node.control.place import SOCKET_FILE, short_path

NODES = Path(".leveret")
CLUSTER = NODES / "cluster"
CONNECT_WITHIN_S = 1.0


def find_node(data_dir: Path | None, name: str | None, *, is_any_member: bool = False) -> Path:
    """Return the data folder of the node that is meant.

    data_dir, name: as the flags `--data-dir` and `--node` say.
    is_any_member: of a local cluster any node will do.

    Raises:
        BadConfiguration: both are given, or the name is none.
        NodeUnreachable: it is not clear which node is meant, or none runs.
    """
    if data_dir is not None and name is not None:
        raise BadConfiguration("use either --data-dir or --node")
    if data_dir is not None:
        return data_dir.absolute()
    if name is not None:
        return _named(name)
    running = list(_running())
    members = [folder for folder in running if folder.parent == CLUSTER.absolute()]
    if len(running) == 1 or (is_any_member and running and running == members):
        return running[0]
    if not running:
        raise NodeUnreachable(
            f"no running node below {NODES.absolute()}; give its data folder with --data-dir, or"
            " start one with `leveret node` or `leveret cluster`"
        )
    names = ", ".join(str(folder.relative_to(Path.cwd())) for folder in running)
    raise NodeUnreachable(
        f"{len(running)} nodes run here: {names}; choose one with --node NAME or --data-dir DIR"
    )


def _named(name: str) -> Path:
    if "/" in name or name in {"", ".", ".."}:
        raise BadConfiguration(f"--node {name!r} is no name; give a folder with --data-dir")
    places = [CLUSTER / name, CLUSTER / f"node-{name}", NODES / name, NODES / f"node-{name}"]
    found = [place.absolute() for place in places if place.is_dir()]
    running = [place for place in found if _runs(place)]
    if found:
        return (running or found)[0]
    raise NodeUnreachable(
        f"no node {name!r} below {NODES.absolute()}; give its data folder with --data-dir"
    )


def _running() -> Iterator[Path]:
    for folder in sorted({*NODES.glob(f"*/{SOCKET_FILE}"), *CLUSTER.glob(f"*/{SOCKET_FILE}")}):
        if _runs(folder.parent.absolute()):
            yield folder.parent.absolute()


def _runs(folder: Path) -> bool:
    """Say whether somebody listens on the control socket; a killed node leaves its file."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_WITHIN_S)
        with short_path(folder) as path:
            probe.connect(path)
        return True
    return False
