"""Reads a node's configuration: defaults, TOML file, environment, flags; the later wins.

Nothing is reported one at a time: everything wrong in all sources is found, and raised together.
A wrong value is wrong even where a later source overrides it.
"""

from __future__ import annotations

import difflib
import ipaddress
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from leveret.node.config import (
    SECTIONS,
    SETTINGS,
    AmqpSection,
    ConsensusSection,
    LimitsSection,
    LoggingSection,
    NodeConfig,
    NodeSection,
    PeersSection,
    StorageSection,
    environment_name,
    is_any,
)
from leveret.node.settings import settings_of
from leveret.node.units import FILE, FOLDER

CONFIG_VARIABLE = "LEVERET_CONFIG"
CONFIG_FILE = "leveret.toml"
_SECRETS = frozenset({"node.token"})

S = TypeVar("S")


class Flag(NamedTuple):
    """One flag of a command line: `Flag("--listen", "amqp.listen", "127.0.0.1:5673")`."""

    flag: str
    name: str
    raw: object


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the configuration.

    what: the setting and its value, or the file.
    origin: where it comes from.
    advice: what was expected, and what to do.
    """

    what: str
    origin: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what} ({self.origin}): {self.advice}"


class ConfigError(Exception):
    """The configuration cannot be used; carries everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        lines = [f"{count} in the configuration:", *(f"  {problem}" for problem in problems)]
        super().__init__("\n".join(lines))
        self.problems = list(problems)


def load_config(
    *,
    folder: Path,
    environment: Mapping[str, str],
    file: Path | None = None,
    flags: Sequence[Flag] = (),
) -> NodeConfig:
    """Return the configuration from all sources.

    folder: the current folder, where leveret.toml is looked for; relative paths in the
        environment and in flags begin here, those in a file beside that file.
    file: the TOML file; None takes LEVERET_CONFIG, or else leveret.toml if it is there.

    Raises:
        ConfigError: with everything that is wrong.
    """
    found = _Found(folder)
    _read_file(found, _choose_file(folder, environment, file))
    _read_environment(found, environment)
    for flag in flags:
        found.put(flag.name, flag.raw, f"flag {flag.flag}", folder)
    _derive(found)
    _check_files(found)
    _read_token(found)
    config = found.build()
    found.problems.extend(_check_relations(config))
    if found.problems:
        raise ConfigError(found.problems)
    return config


class _Found:
    """The values found so far, each with its origin, and what was wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[str, object] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[Problem] = []

    def put(self, name: str, raw: object, origin: str, beside: Path) -> None:
        """Take a value from a source; it replaces that of an earlier source."""
        described = SETTINGS.get(name)
        if described is None:
            advice = f"there is no such setting{_nearest(name, SETTINGS)}"
            self.problems.append(Problem(name, origin, advice))
            return
        try:
            value = described.parse(raw)
        except ValueError as error:
            shown = "…" if name in _SECRETS else _shorten(raw)
            self.problems.append(Problem(f"{name} = {shown}", origin, str(error)))
            return
        if isinstance(value, Path):
            value = (beside / value).absolute()
        self.values[name] = value
        self.origins[name] = origin

    def get(self, name: str) -> object:
        return self.values.get(name, SETTINGS[name].default)

    def origin(self, name: str) -> str:
        return self.origins.get(name, "default")

    def build(self) -> NodeConfig:
        return NodeConfig(
            node=self._section(NodeSection, "node"),
            amqp=self._section(AmqpSection, "amqp"),
            peers=self._section(PeersSection, "peers"),
            storage=self._section(StorageSection, "storage"),
            consensus=self._section(ConsensusSection, "consensus"),
            limits=self._section(LimitsSection, "limits"),
            logging=self._section(LoggingSection, "logging"),
            origins=self.origins,
        )

    def _section(self, kind: type[S], section: str) -> S:
        keys = (key for key, _ in settings_of(kind))
        return kind(**{key: self.get(f"{section}.{key}") for key in keys})


def _choose_file(
    folder: Path, environment: Mapping[str, str], file: Path | None
) -> tuple[Path, str] | None:
    """Return the file to read and who asked for it, or None if there is none."""
    if file is not None:
        return folder / file, "flag --config"
    named = environment.get(CONFIG_VARIABLE)
    if named:
        return folder / named, f"environment {CONFIG_VARIABLE}"
    path = folder / CONFIG_FILE
    return (path, "in the current folder") if path.exists() else None


def _read_file(found: _Found, choice: tuple[Path, str] | None) -> None:
    if choice is None:
        return
    path, asked_by = choice
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        advice = f"cannot be read: {error.strerror}; correct the path or the file's permissions"
        found.problems.append(Problem(str(path), asked_by, advice))
        return
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ones
        advice = f"is not valid TOML: {error}; correct that line"
        found.problems.append(Problem(str(path), asked_by, advice))
        return
    origin = f"file {path}"
    for section, keys in tree.items():
        if section not in SECTIONS:
            advice = f"there is no such section{_nearest(section, SECTIONS)}"
            found.problems.append(Problem(f"[{section}]", origin, advice))
        elif not isinstance(keys, dict):
            advice = f"{section} is a section; write [{section}] and its keys below"
            found.problems.append(Problem(f"{section} = {_shorten(keys)}", origin, advice))
        else:
            for key, raw in keys.items():
                found.put(f"{section}.{key}", raw, origin, path.absolute().parent)


def _read_environment(found: _Found, environment: Mapping[str, str]) -> None:
    """Take LEVERET_SECTION_KEY; a name that only looks like one is a problem, not ignored."""
    names = {environment_name(name): name for name in SETTINGS}
    for variable in sorted(environment):
        if not variable.startswith("LEVERET_") or variable == CONFIG_VARIABLE:
            continue
        if variable in names:
            origin = f"environment {variable}"
            found.put(names[variable], environment[variable], origin, found.folder)
        elif _is_meant(variable, names):
            advice = f"there is no such setting{_nearest(variable, names)}"
            found.problems.append(Problem(variable, "environment", advice))


def _is_meant(variable: str, names: Mapping[str, str]) -> bool:
    """Say whether an unknown variable was probably meant for us.

    Others that begin with LEVERET_ belong to programs around a node.
    """
    section = variable.removeprefix("LEVERET_").partition("_")[0].lower()
    return section in SECTIONS or bool(difflib.get_close_matches(variable, names, 1, 0.85))


def _derive(found: _Found) -> None:
    """Give the defaults that depend on other values; `_derive` never overrides a source."""
    if "node.name" not in found.values:
        found.values["node.name"] = f"node-{found.get('node.id')}"
    if "node.data_dir" not in found.values:
        found.values["node.data_dir"] = found.folder / ".leveret" / str(found.get("node.name"))
    members = found.get("node.cluster")
    assert isinstance(members, tuple)
    if "peers.listen" not in found.values:
        for member in members:
            if member.id == found.get("node.id"):
                found.values["peers.listen"] = member.address
                found.origins["peers.listen"] = f"node.cluster, {found.origin('node.cluster')}"


def _check_files(found: _Found) -> None:
    """Try to open every file that a setting names; certificates are looked into by their users."""
    for name, described in SETTINGS.items():
        path = found.get(name)
        if described.kind is FILE and isinstance(path, Path):
            try:
                path.open("rb").close()
            except OSError as error:
                advice = f"cannot be read: {error.strerror}; correct the path or its permissions"
                found.problems.append(Problem(f"{name} = {path}", found.origin(name), advice))
        if described.kind is FOLDER and isinstance(path, Path) and path.is_file():
            advice = "is a file; give a folder, which need not exist yet"
            found.problems.append(Problem(f"{name} = {path}", found.origin(name), advice))


def _read_token(found: _Found) -> None:
    path = found.get("node.token_file")
    if not isinstance(path, Path) or found.get("node.token"):
        return
    try:
        text = path.read_text(encoding="ascii").strip()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # `_check_files` has told it
    except UnicodeDecodeError:
        text, mode = "not hexadecimal", 0o600
    what, origin = f"node.token_file = {path}", found.origin("node.token_file")
    if mode & 0o077:
        advice = f"others may read this secret; run: chmod 600 {path}"
        found.problems.append(Problem(what, origin, advice))
    try:
        token = SETTINGS["node.token"].parse(text or "empty")
    except ValueError as error:
        found.problems.append(Problem(what, origin, f"its content: {error}"))
        return
    found.values["node.token"] = token
    found.origins["node.token"] = f"file {path}"


def _check_relations(config: NodeConfig) -> list[Problem]:
    """Return what is wrong between values that are each fine by themselves."""
    problems: list[Problem] = []

    def wrong(name: str, advice: str) -> None:
        shown = SETTINGS[name].kind.show(config.value(name)) or "(none)"
        problems.append(Problem(f"{name} = {shown}", config.origin(name), advice))

    _check_identity(config, wrong)
    _check_tls(config, wrong)
    _check_times(config, wrong)
    return problems


def _check_identity(config: NodeConfig, wrong: Callable[[str, str], None]) -> None:
    node = config.node
    if node.join is not None and node.cluster:
        wrong(
            "node.join",
            "a node joins a cluster, or is one of the fixed members in node.cluster; give one",
        )
    if not node.cluster:
        return
    if node.id not in [member.id for member in node.cluster]:
        members = ", ".join(str(member.id) for member in node.cluster)
        wrong("node.id", f"is not a member of node.cluster ({members}); correct one of them")
    if len(node.cluster) > 1 and not node.token:
        wrong(
            "node.token_file",
            "a cluster needs a token; write one for all nodes: (umask 077; openssl rand -hex 32"
            " > token)",
        )


def _check_tls(config: NodeConfig, wrong: Callable[[str, str], None]) -> None:
    peers, amqp = config.peers, config.amqp
    files = {key: getattr(peers, key) for key in ("tls_ca", "tls_certificate", "tls_key")}
    missing = [key for key, path in files.items() if path is None]
    if 0 < len(missing) < 3:
        wrong(f"peers.{missing[0]}", "nodes need all three TLS files, or none of them")
    if missing and len(config.node.cluster) > 1 and _is_off_loopback(peers.listen.host):
        wrong(
            "peers.listen",
            "other nodes are let in off loopback only with TLS; give peers.tls_ca,"
            " peers.tls_certificate and peers.tls_key, or listen on 127.0.0.1",
        )
    for key in ("advertise", "tls_advertise"):
        if any(is_any(address.host) or not address.port for address in getattr(amqp, key)):
            wrong(f"amqp.{key}", "is told to clients; give an address that they can connect to")
    if not (amqp.listen or amqp.tls_listen):
        wrong("amqp.listen", "clients need a port; give an address here or in amqp.tls_listen")
    if amqp.tls_listen:
        for name in ("amqp.tls_certificate", "amqp.tls_key"):
            if config.value(name) is None:
                wrong(name, "amqp.tls_listen needs a certificate and its key")
        if amqp.tls_verify != "none" and amqp.tls_ca is None:
            wrong("amqp.tls_ca", f"is needed to verify clients (tls_verify = {amqp.tls_verify})")


def _check_times(config: NodeConfig, wrong: Callable[[str, str], None]) -> None:
    times = config.consensus
    if not 2 * times.heartbeat_s < times.election_timeout_min_s:
        wrong("consensus.heartbeat_s", "must be below half of consensus.election_timeout_min_s")
    if not times.election_timeout_min_s < times.election_timeout_max_s:
        wrong("consensus.election_timeout_min_s", "must be below election_timeout_max_s")
    if not 2 * times.heartbeat_s < times.quorum_timeout_s:
        wrong("consensus.quorum_timeout_s", "must be above twice consensus.heartbeat_s")


def _is_off_loopback(host: str) -> bool:
    """Say whether a numeric address leaves the machine; of names the listener finds out."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean …?' with the nearest known word, or where to look."""
    close = difflib.get_close_matches(word, list(known), 1, 0.7)
    return f"; did you mean {close[0]}?" if close else "; see: leveret config reference"


def _shorten(raw: object) -> str:
    shown = repr(raw)
    return shown if len(shown) <= 60 else shown[:57] + "…"
