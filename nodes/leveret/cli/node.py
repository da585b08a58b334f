"""`leveret node`: one node in this process, until a signal stops it."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import click
import trio

from leveret.cli.exits import DataUnusable
from leveret.cli.failures import failure_of
from leveret.cli.lifetime import end_with_parent, stopped_by_signals
from leveret.cli.options import configuration_options, read_configuration
from leveret.cli.welcome import node_welcome
from leveret.node.config import NodeConfig
from leveret.node.endpoints import Endpoints
from leveret.node.folder import FolderUnusable, hold_folder
from leveret.node.logs import set_up_logging
from leveret.node.sources import Flag
from leveret.node.version import version

GRACE_S = 1.0
"""The node itself keeps its stop timeout; so much later it is stuck, and ended."""
_FLAGS = {
    "id": "node.id",
    "name": "node.name",
    "data_dir": "node.data_dir",
    "listen": "amqp.listen",
    "cluster": "node.cluster",
    "join": "node.join",
    "token": "node.token",
    "peer_listen": "peers.listen",
    "token_file": "node.token_file",
    "log_level": "logging.level",
    "log_format": "logging.format",
}
"""The flags that stand for a setting, by their parameter's name."""


@click.command()
@configuration_options
@click.option("--data-dir", metavar="DIR", help="Folder of the data [default: .leveret/NAME].")
@click.option("--listen", metavar="HOST:PORT,…", help="For clients [default: 127.0.0.1:5672].")
@click.option("--id", metavar="N", help="Number of this node in its cluster [default: 1].")
@click.option("--name", metavar="NAME", help="Name of this node [default: node-ID].")
@click.option("--cluster", metavar="ID@HOST:PORT,…", help="All members, and where nodes meet.")
@click.option("--join", metavar="HOST:PORT", help="A member of the cluster to join, once.")
@click.option("--peer-listen", metavar="HOST:PORT", help="For nodes [default: as in --cluster].")
@click.option("--token-file", metavar="FILE", help="File with the secret of the cluster.")
@click.option("--token", metavar="HEX", help="The secret itself; other users may see it.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", metavar="FORMAT", help="text or json.")
@click.option("--parent", type=int, hidden=True)
def node(
    config_file: Path | None,
    assignments: tuple[str, ...],
    parent: int | None,
    **flags: str | None,
) -> None:
    """Run one node, alone or as a member of a cluster.

    A node alone keeps what it confirmed over any crash; members of a cluster keep it over the
    loss of any minority of them.

    \b
    Examples:
      leveret node
      leveret node --listen 0.0.0.0:5672 --data-dir /var/lib/leveret
      leveret node --id 1 --cluster 1@127.0.0.1:25672,2@127.0.0.1:25673,3@127.0.0.1:25674 \\
                   --token-file token
      leveret node --peer-listen 192.0.2.1:25672
      leveret node --join 192.0.2.1:25672 --token-file token --peer-listen 192.0.2.2:25672

    \b
    Exit codes:
      0   stopped by SIGTERM or Ctrl-C
      2   the configuration is wrong
      3   a port cannot be used
      4   the data folder is in use, not readable or damaged
      70  internal failure, or not stopped in time
    """  # noqa: D301 - click's mark for lines that are kept as they are
    given = [
        Flag("--" + parameter.replace("_", "-"), name, flags[parameter])
        for parameter, name in _FLAGS.items()
        if flags[parameter] is not None
    ]
    config = read_configuration(config_file, assignments, given)
    set_up_logging(config.logging)
    run(config, parent=parent)


def run(config: NodeConfig, *, parent: int | None = None) -> None:
    """Run a node until a signal stops it.

    parent: the process that this one must not outlive.

    Raises:
        Failure: it could not start, or failed later.
    """
    from leveret.node.application import run_node  # noqa: PLC0415 - the whole broker; only here

    def on_ready(endpoints: Endpoints) -> None:
        welcome = node_welcome(
            config,
            endpoints,
            version=version(),
            pid=os.getpid(),
            shows_secrets=sys.stderr.isatty(),
        )
        # Where logs are for programs, standard error has nothing but JSON lines.
        if config.logging.format == "text":
            click.echo(welcome, file=sys.stderr)

    async def serve() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            stop = partial(token.run_sync_soon, scope.cancel, idempotent=True)
            with stopped_by_signals(stop, within_s=config.node.stop_timeout_s + GRACE_S):
                if parent is not None:
                    end_with_parent(parent)
                await run_node(config, on_ready=on_ready)

    try:
        with hold_folder(config.node.data_dir):
            trio.run(serve)
    except FolderUnusable as error:
        raise DataUnusable(str(error)) from error
    except Exception as error:
        raise failure_of(error, config) from error
