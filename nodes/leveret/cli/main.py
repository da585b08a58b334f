"""The root of the `leveret` command. Commands are imported when they are used, for a quick help."""

from __future__ import annotations

import importlib
import sys

import click

from leveret.node.version import version

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Run a broker": {
        "node": ("leveret.cli.node:node", "Run one node, alone or as a member of a cluster."),
        "cluster": ("leveret.cli.cluster:cluster", "Run a whole cluster on this machine."),
    },
    "Look after it": {
        "ctl": ("leveret.cli.ctl:ctl", "Ask a running node, or have it do something."),
    },
    "Measure": {
        "perf": ("leveret.cli.perf:perf", "Put load on a broker, and measure it."),
    },
    "Configure": {
        "config": ("leveret.cli.config:config", "Show the configuration, or all there is to set."),
    },
}
"""By group: each command's place (module:object) and its line in the help."""

EXAMPLES = """\
  leveret node                      a broker on amqp://guest:guest@127.0.0.1:5672/
  leveret cluster                   three nodes on ports 5672, 5673 and 5674
  leveret cluster --demo            the same with traffic: kill a node and watch
  leveret ctl cluster status        its nodes, who leads, who is behind
  leveret perf --duration 30s       how many messages a second, how fast
  leveret config show               every setting and where its value comes from"""


class Commands(click.Group):
    """The commands in groups, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for group in COMMANDS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for group in COMMANDS.values():
            if cmd_name in group:
                module, _, name = group[cmd_name][0].partition(":")
                found = getattr(importlib.import_module(module), name)
                assert isinstance(found, click.Command)
                return found
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, about) for name, (_, about) in group.items()])
        formatter.write(f"\nExamples:\n{EXAMPLES}\n")


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version(), "--version", "-V", prog_name="leveret")
def cli() -> None:
    """Leveret: a message broker for Python that speaks RabbitMQ's protocol and loses nothing.

    `leveret COMMAND --help` tells more about a command.
    """


def main() -> None:
    """Run the command line; never returns."""
    # Lines are seen at once where output goes into a file or a pipe.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    cli(prog_name="leveret")


if __name__ == "__main__":
    main()
