"""`leveret config`: shows every value with its origin, and prints the reference page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from leveret.cli.options import configuration_options, read_configuration
from leveret.node.config import SECTIONS, SETTINGS, environment_name
from leveret.node.settings import Setting, settings_of


@click.group()
def config() -> None:
    """Show the configuration, or all there is to set."""


@config.command()
@configuration_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def show(config_file: Path | None, assignments: tuple[str, ...], *, as_json: bool) -> None:
    """Print every value, where it comes from, and what it is.

    The sources are those of `leveret node`: defaults, the TOML file, the environment
    (LEVERET_AMQP_LISTEN for amqp.listen), flags; the later wins. Nothing is started.

    \b
    Examples:
      leveret config show
      leveret config show --config /etc/leveret.toml --json
      LEVERET_AMQP_HEARTBEAT_S=30s leveret config show
    """  # noqa: D301 - click's mark for lines that are kept as they are
    loaded = read_configuration(config_file, assignments)
    rows = [
        {
            "name": name,
            "value": described.kind.show(loaded.value(name)),
            "origin": loaded.origin(name),
            "description": described.about,
        }
        for name, described in SETTINGS.items()
    ]
    if as_json:
        click.echo(json.dumps({"values": rows}, indent=2, ensure_ascii=False))
        return
    for row in rows:
        click.secho(f"{row['name']} = {row['value'] or '(none)'}", nl=False, bold=True)
        click.echo(f"  ({row['origin']})")
        click.echo(f"    {row['description']}")


@config.command()
def reference() -> None:
    """Print the documentation of every setting, as Markdown."""
    click.echo(reference_page(), nl=False)


def reference_page() -> str:
    """Return the reference page of the configuration, in Markdown with one table a section."""
    parts = [_HEADER]
    for section, kind in SECTIONS.items():
        parts.append(f"\n## {section}\n\n{(kind.__doc__ or '').strip()}\n\n")
        parts.append("| Setting | Type | Default | Range | What it is |\n|---|---|---|---|---|\n")
        parts.extend(_row(key, described) for key, described in settings_of(kind))
    return "".join(parts)


_HEADER = f"""\
# Configuration

This page is printed by `leveret config reference`.

A value comes from, the later wins: its default, a TOML file, the environment, a flag.
The file is that of `--config`, or of `LEVERET_CONFIG`, or `leveret.toml` in the current folder.
In the environment `amqp.listen` is `{environment_name("amqp.listen")}`; lists have commas.
`--set amqp.heartbeat_s=30s` sets any value by flag.
Sizes are bytes, or text such as `"64MiB"` (times 1024) or `"50MB"` (times 1000).
Durations are seconds, or text such as `"10s"`, `"500ms"` or `"5min"`.
Relative paths in a file begin beside that file, others in the current folder.
`leveret config show` prints each value with its origin.
"""


def _row(key: str, described: Setting) -> str:
    about = described.about
    if described.at_limit:
        about += f" **At the limit:** {described.at_limit}"
    default = f"`{described.shown_default}`" if described.shown_default else "none"
    if described.default_text:
        default = described.default_text
    return f"| `{key}` | {described.kind.name} | {default} | {described.range_text} | {about} |\n"
