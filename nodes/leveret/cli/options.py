"""The options that all commands with a configuration share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from leveret.cli.exits import BadConfiguration
from leveret.node.config import NodeConfig
from leveret.node.sources import ConfigError, Flag, load_config

F = TypeVar("F", bound=Callable[..., object])


def configuration_options(command: F) -> F:
    """Add `--config` and `--set` to a command."""
    command = click.option(
        "--set",
        "assignments",
        metavar="NAME=VALUE",
        multiple=True,
        help="Set any value, such as amqp.heartbeat_s=30s; may be repeated.",
    )(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="TOML file [default: $LEVERET_CONFIG, or ./leveret.toml if there].",
    )(command)


def read_configuration(
    config_file: Path | None, assignments: Sequence[str], flags: Sequence[Flag] = ()
) -> NodeConfig:
    """Return the configuration of this command line.

    Raises:
        BadConfiguration: with everything that is wrong.
    """
    try:
        return load_config(
            folder=Path.cwd(),
            environment=os.environ,
            file=config_file,
            flags=[*(_assignment(text) for text in assignments), *flags],
        )
    except ConfigError as error:
        raise BadConfiguration(str(error)) from error


def _assignment(text: str) -> Flag:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(
            f"{text!r} is no assignment; write for example amqp.heartbeat_s=30s",
            param_hint="--set",
        )
    return Flag("--set", name.strip(), value.strip())
