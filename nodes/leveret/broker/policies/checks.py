"""What a policy may say. Pure.

The texts are RabbitMQ's (observed on 3.10.8), down to the Erlang terms in them, because scripts
match on them. Keys that came with later versions are taken too, with texts in the same form.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, get_args

import msgspec

from leveret.broker.arguments import OVERFLOWS, QUEUE_MODES
from leveret.catalog.model import ApplyTo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NUMBER_MAX: Final = 2**63 - 1
"""What counts and times are kept in."""
SEGMENT_BYTES_MAX: Final = 3_000_000_000

_AGE = re.compile(r"[0-9]+[YMDhms]")


class PolicyRefused(Exception):
    """The policy says something that it may not; the text is RabbitMQ's."""


def read_definition(text: str) -> dict[str, object]:
    """Return the definition that is written in JSON.

    Raises:
        PolicyRefused: it is not JSON, or not an object.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.ValidationError:
        raise PolicyRefused(
            'the definition must be a JSON object, such as {"max-length":100}'
        ) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise PolicyRefused(f"JSON decoding error. Reason: {error}") from None


def write_definition(definition: Mapping[str, object]) -> bytes:
    """Return the definition as the catalog keeps it: equal ones give equal bytes."""
    return msgspec.json.encode(definition, order="sorted")


def check_policy(
    *, pattern: str, apply_to: str, definition: Mapping[str, object], is_operator: bool
) -> None:
    """Accept or refuse a policy.

    Raises:
        PolicyRefused: the first thing that is wrong with it.
    """
    problem = (
        _pattern_problem(pattern)
        or _apply_to_problem(apply_to)
        or _definition_problem(definition, is_operator=is_operator)
    )
    if problem is not None:
        raise PolicyRefused(f"Validation failed\n\n{problem}\n")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the expression, which matches anywhere in a name.

    Raises:
        ValueError: it does not compile, or holds a POSIX class (`[[:alpha:]]`), which RabbitMQ's
            expressions know and ours would read as something else.
    """
    if "[:" in pattern:
        raise ValueError("POSIX classes are not supported", pattern.index("[:"))
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(error.msg, error.pos or 0) from error
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error), 0) from error


def _pattern_problem(pattern: str) -> str | None:
    try:
        compile_pattern(pattern)
    except ValueError as error:
        text, place = error.args
        return (
            "pattern should be regular expression but is invalid:"
            f" {{{msgspec.json.encode(text).decode()},{place}}}"
        )
    return None


def _apply_to_problem(apply_to: str) -> str | None:
    kinds = get_args(ApplyTo)
    if apply_to in kinds:
        return None
    known = ", ".join(f"'{kind}'" for kind in kinds if kind != "all")
    return f"apply-to '{apply_to}' unrecognised; should be {known} or 'all'"


def _definition_problem(definition: Mapping[str, object], *, is_operator: bool) -> str | None:
    if not definition:
        return "no policy provided"
    checks = _OPERATOR_CHECKS if is_operator else _CHECKS
    known = {key: definition[key] for key in sorted(definition) if key in checks}
    for key, value in known.items():
        problem = checks[key](value)
        if problem is not None:
            return f"{_term(value)} {problem}"
    problem = _mirroring_problem(known)
    if problem is not None:
        return problem
    unknown = {key: definition[key] for key in sorted(definition) if key not in checks}
    if unknown:
        pairs = ",".join(f"{{{_term(key)},{_term(value)}}}" for key, value in unknown.items())
        return f"[{pairs}] are not recognised policy settings"
    return None


def _mirroring_problem(definition: Mapping[str, object]) -> str | None:
    """Check what is about mirrored queues, whose settings depend on each other."""
    about = {key: value for key, value in definition.items() if key.startswith("ha-")}
    if not about:
        return None
    if "ha-mode" not in about:
        return (
            "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown"
        )
    has_parameters, parameters = "ha-params" in about, about.get("ha-params")
    given = _term(parameters) if has_parameters else "none"
    problem = None
    match about["ha-mode"]:
        case "all" if has_parameters:
            problem = 'ha-mode="all" does not take parameters'
        case "exactly" if not _at_least(1)(parameters):
            problem = f'ha-mode="exactly" takes an integer, {given} given'
        case "nodes" if not isinstance(parameters, list):
            problem = f'ha-mode="nodes" takes a list, {given} given'
        case "nodes" if not parameters:
            problem = 'ha-mode="nodes" list must be non-empty'
        case "nodes" if isinstance(parameters, list) and (others := _no_texts(parameters)):
            problem = f'ha-mode="nodes" takes a list of strings, {_term(others)} was not a string'
    for key, one, other in (
        ("ha-sync-mode", "manual", "automatic"),
        ("ha-promote-on-shutdown", "always", "when-synced"),
        ("ha-promote-on-failure", "always", "when-synced"),
    ):
        if problem is None and key in about and about[key] not in (one, other):
            problem = f'{key} must be "{one}" or "{other}", got {_term(about[key])}'
    size = about.get("ha-sync-batch-size", 1)
    if problem is None and not _at_least(1)(size):
        problem = f"ha-sync-batch-size takes an integer greater than 0, {_term(size)} given"
    return problem


def _no_texts(values: list[object]) -> list[object]:
    return [value for value in values if not isinstance(value, str)]


def _at_least(least: int, *, most: int | None = None) -> Callable[[object], bool]:
    def is_right(value: object) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value >= least
            and (most is None or value <= most)
        )

    return is_right


def _one_of(*allowed: object) -> Callable[[object], bool]:
    def is_right(value: object) -> bool:
        return any(type(value) is type(one) and value == one for one in allowed)

    return is_right


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_age(value: object) -> bool:
    return isinstance(value, str) and _AGE.fullmatch(value) is not None


def _is_anything(_: object) -> bool:
    return True


def _check(is_right: Callable[[object], bool], problem: str) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        return None if is_right(value) else problem

    return check


_SHARED_CHECKS: Final = {
    "delivery-limit": _check(_at_least(0), "is not a valid delivery limit"),
    "expires": _check(_at_least(1), "is not a valid queue expiry"),
    "max-in-memory-bytes": _check(_at_least(0), "is not a valid maximum memory in bytes"),
    "max-in-memory-length": _check(_at_least(0), "is not a valid maximum memory in bytes"),
    "max-length": _check(_at_least(0), "is not a valid maximum length"),
    "max-length-bytes": _check(_at_least(0), "is not a valid maximum length in bytes"),
    "message-ttl": _check(_at_least(0), "is not a valid message TTL"),
    # What follows came after 3.10.
    "consumer-timeout": _check(_at_least(0), "is not a valid consumer timeout"),
    "overflow": _check(_one_of(*OVERFLOWS), "is not a valid overflow value"),
    "target-group-size": _check(_at_least(1), "is not a valid target group size"),
}
"""The keys of both kinds of policies; a check returns what is wrong, to stand behind the value."""

_OPERATOR_CHECKS: Final = _SHARED_CHECKS

_CHECKS: Final = {
    **_SHARED_CHECKS,
    "alternate-exchange": _check(_is_text, "is not a valid alternate exchange name"),
    "dead-letter-exchange": _check(_is_text, "is not a valid dead letter exchange name"),
    "dead-letter-routing-key": _check(_is_text, "is not a valid dead letter routing key"),
    "dead-letter-strategy": _check(
        _one_of("at-most-once", "at-least-once"), "is not a valid dead letter strategy"
    ),
    "ha-mode": _check(_one_of("all", "exactly", "nodes"), "is not a valid ha-mode value"),
    "ha-params": _check(_is_anything, ""),  # the rest of mirroring is checked together
    "ha-promote-on-failure": _check(_is_anything, ""),
    "ha-promote-on-shutdown": _check(_is_anything, ""),
    "ha-sync-batch-size": _check(_is_anything, ""),
    "ha-sync-mode": _check(_is_anything, ""),
    "initial-cluster-size": _check(_at_least(0), "is not a valid cluster size"),
    "max-age": _check(_is_age, "is not a valid max age"),
    "queue-leader-locator": _check(
        _one_of("client-local", "balanced", "random", "least-leaders"),
        "is not a valid queue leader locator value",
    ),
    "queue-master-locator": _check(
        _one_of("min-masters", "client-local", "random"), "invalid queue-master-locator value"
    ),
    "queue-mode": _check(_one_of(*QUEUE_MODES), "is not a valid queue-mode value"),
    "queue-version": _check(_one_of(1, 2), "is not a valid queue-version value"),
    "stream-max-segment-size-bytes": _check(
        _at_least(0, most=SEGMENT_BYTES_MAX), "is not a valid segment size"
    ),
    # What follows came after 3.10.
    "consumer-disconnected-timeout": _check(
        _at_least(0), "is not a valid consumer disconnected timeout"
    ),
    "delayed-retry-max": _check(_at_least(0), "is not a valid delayed retry maximum"),
    "delayed-retry-min": _check(_at_least(0), "is not a valid delayed retry minimum"),
    "delayed-retry-type": _check(
        _one_of("disabled", "all", "failed", "returned"), "is not a valid delayed retry type"
    ),
    "stream-filter-size-bytes": _check(
        _at_least(16, most=255), "is not a valid stream filter size"
    ),
}


def _term(value: object) -> str:
    """Return a value of JSON as Erlang prints it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"<<{msgspec.json.encode(value).decode()}>>"
        case list():
            return f"[{','.join(map(_term, value))}]"
        case dict():
            pairs = [f"{_term(key)} => {_term(value[key])}" for key in sorted(value)]
            return f"#{{{','.join(pairs)}}}"
    return str(value)
