"""`leveret cluster` with the nodes of `fake_node.py`; BASE_PORT and FOLDER are its arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from leveret.cli.cluster import Plan, run_cluster

NODE = str(Path(__file__).with_name("fake_node.py"))


@click.command()
@click.argument("base_port", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--nodes", default=2)
@click.option("--restart", is_flag=True)
@click.option("--fresh", is_flag=True)
def main(*, base_port: int, folder: Path, nodes: int, restart: bool, fresh: bool) -> None:
    plan = Plan(folder=folder, nodes=nodes, base_port=base_port, restarts=restart, is_fresh=fresh)
    run_cluster(plan, program=[sys.executable, NODE, "node"])


if __name__ == "__main__":
    main()
