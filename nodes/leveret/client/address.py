"""URLs of a broker: `amqp://user:password@host1,host2:5673/vhost?heartbeat=30`.

As RabbitMQ's URI specification has it, with several hosts, and the query parameters of its
appendix. A part that is absent has its usual default; `/` at the end alone names the virtual host
of the empty name, nothing names `/`.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from .core.login import Login
from .errors import InvalidUrl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PORT: Final = 5672
TLS_PORT: Final = 5671
CONNECT_TIMEOUT_S: Final = 10.0
_PARAMETERS: Final = (
    "heartbeat",
    "frame_max",
    "channel_max",
    "connection_timeout",
    "auth_mechanism",
    "cacertfile",
    "certfile",
    "keyfile",
    "verify",
    "server_name_indication",
    "name",
)


class Address(NamedTuple):
    """Host and port of one broker.

    Example:
        >>> str(Address("::1", 5672))
        '[::1]:5672'
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Target:
    """Where to connect to and as whom: what a URL says.

    Example:
        >>> target = parse_url("amqp://ann:pw@a,b:5673/hares")
        >>> [str(address) for address in target.addresses], target.login.vhost
        (['a:5672', 'b:5673'], 'hares')
    """

    addresses: tuple[Address, ...]
    login: Login = field(repr=False)
    tls: ssl.SSLContext | None
    server_hostname: str | None
    connect_timeout_s: float


def parse_url(url: str | Sequence[str], *, tls: ssl.SSLContext | None = None) -> Target:
    """What `url` says; of several URLs the first one counts, the others add their addresses.

    tls: the context for `amqps`, in place of one made from the URL's parameters.

    Raises:
        InvalidUrl: it is malformed.

    Example:
        >>> parse_url("http://localhost")
        Traceback (most recent call last):
        leveret.client.errors.InvalidUrl: the URL begins with 'http', not with 'amqp' or 'amqps'
    """
    if not isinstance(url, str):
        targets = [parse_url(one, tls=tls) for one in url]
        if not targets:
            raise InvalidUrl("no URL is given")
        return replace(targets[0], addresses=merged(target.addresses for target in targets))
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidUrl(f"the URL is malformed: {error}") from None
    if parts.scheme not in {"amqp", "amqps"}:
        raise InvalidUrl(f"the URL begins with {parts.scheme!r}, not with 'amqp' or 'amqps'")
    if parts.fragment:
        raise InvalidUrl("the URL has a fragment: write # in a password as %23")
    is_secure = parts.scheme == "amqps"
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    parameters = _parameters(parts.query)
    context = None
    if is_secure:
        context = tls or _context(parameters)
    external = parameters.get("auth_mechanism", "plain").lower() == "external"
    login = Login(
        user=unquote(name) or ("" if external else "guest"),
        password=unquote(password) if user else "guest",
        vhost=_vhost(parts.path),
        external=external,
        heartbeat_s=_number(parameters, "heartbeat", 60),
        frame_max=_number(parameters, "frame_max", 131_072),
        channel_max=_number(parameters, "channel_max", 0),
        name=parameters.get("name", ""),
    )
    port = TLS_PORT if is_secure else PORT
    return Target(
        addresses=merged([[_address(host, port) for host in hosts.split(",")]]),
        login=login,
        tls=context,
        server_hostname=parameters.get("server_name_indication"),
        connect_timeout_s=_number(parameters, "connection_timeout", 0) / 1000 or CONNECT_TIMEOUT_S,
    )


def announced(urls: object, *, is_secure: bool) -> tuple[Address, ...]:
    """The addresses in the broker's `cluster_addresses` that can be connected to from here.

    Example:
        >>> [str(a) for a in announced(["amqp://10.0.0.2:5672", "amqp://0.0.0.0:1"],
        ...     is_secure=False)]
        ['10.0.0.2:5672']
    """
    scheme = "amqps" if is_secure else "amqp"
    found: list[Address] = []
    for url in urls if isinstance(urls, list) else []:
        if not isinstance(url, str) or not url.startswith(f"{scheme}://"):
            continue
        try:
            addresses = parse_url(url).addresses if not is_secure else _only_hosts(url)
        except InvalidUrl:
            continue
        found += [address for address in addresses if not _is_unspecified(address.host)]
    return tuple(found)


def merged(groups: Iterable[Iterable[Address]]) -> tuple[Address, ...]:
    """All addresses in order, each once.

    Example:
        >>> len(merged([[Address("a", 1)], [Address("b", 1), Address("a", 1)]]))
        2
    """
    return tuple(dict.fromkeys(address for group in groups for address in group))


def _only_hosts(url: str) -> tuple[Address, ...]:
    hosts = urlsplit(url).netloc.rpartition("@")[2]
    return tuple(_address(host, TLS_PORT) for host in hosts.split(","))


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _address(text: str, port: int) -> Address:
    found = re.fullmatch(r"(?:\[(?P<six>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d*))?", text)
    if found is None:
        raise InvalidUrl(f"{text!r} is not a host and port: write host:5672 or [::1]:5672")
    host = unquote(found["six"] or found["name"] or "localhost")
    number = int(found["port"] or port)
    if not 0 < number < 65_536:
        raise InvalidUrl(f"{number} is not a port: they are 1 to 65535")
    return Address(host, number)


def _vhost(path: str) -> str:
    if not path:
        return "/"
    if "/" in path[1:]:
        raise InvalidUrl(
            f"the virtual host {path[1:]!r} has a '/': write it as %2F (the default one is "
            "%2F, or nothing at all)"
        )
    # One slash and nothing behind it: the empty name for the specification; everybody means "/".
    return unquote(path[1:]) or "/"


def _parameters(query: str) -> dict[str, str]:
    try:
        parameters = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError as error:
        raise InvalidUrl(f"the URL's parameters are malformed: {error}") from None
    unknown = sorted(set(parameters) - set(_PARAMETERS))
    if unknown:
        raise InvalidUrl(
            f"the URL's parameter {unknown[0]!r} is not known; those are: {', '.join(_PARAMETERS)}"
        )
    mechanism = parameters.get("auth_mechanism", "plain").lower()
    if mechanism not in {"plain", "external"}:
        raise InvalidUrl(f"auth_mechanism is plain or external, not {mechanism!r}")
    if parameters.get("verify", "verify_peer") not in {"verify_peer", "verify_none"}:
        raise InvalidUrl(f"verify is verify_peer or verify_none, not {parameters['verify']!r}")
    return parameters


def _number(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise InvalidUrl(f"{name} is a whole number, not {text!r}")
    return int(text)


def _context(parameters: dict[str, str]) -> ssl.SSLContext:
    """The TLS context that the URL's parameters ask for."""
    try:
        context = ssl.create_default_context(cafile=parameters.get("cacertfile"))
        if parameters.get("verify") == "verify_none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if "certfile" in parameters:
            context.load_cert_chain(parameters["certfile"], parameters.get("keyfile"))
    except (OSError, ssl.SSLError) as error:
        raise InvalidUrl(f"a certificate or key of the URL cannot be read: {error}") from None
    return context
