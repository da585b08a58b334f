"""How a policy, the operator's policy beside it and a declaration's arguments come together. Pure.

Of numbers the smallest counts, so that an operator's limit holds whatever users say. Of the rest
the operator's policy counts before the policy, and an argument before both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .checks import NUMBER_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING: Final[Mapping[str, object]] = {}


def merge(
    policy: Mapping[str, object] = NOTHING, operator_policy: Mapping[str, object] = NOTHING
) -> dict[str, object]:
    """Return the definition that is in force where both policies are."""
    merged = {**policy, **operator_policy}
    for key in policy.keys() & operator_policy.keys():
        number = smaller(_number(policy[key]), _number(operator_policy[key]))
        if number is not None:
            merged[key] = number
    return {key: merged[key] for key in sorted(merged)}


def effective_number(
    arguments: Mapping[str, object], definition: Mapping[str, object], key: str
) -> int | None:
    """Return the number that counts for the argument `key` ("x-…"); None without one.

    definition: of the policies in force, merged.
    """
    number = smaller(_number(arguments.get(key)), _number(definition.get(key.removeprefix("x-"))))
    return None if number is None else min(number, NUMBER_MAX)


def effective_text(
    arguments: Mapping[str, object], definition: Mapping[str, object], key: str
) -> str | None:
    """Return the text that counts for the argument `key`, likewise."""
    value = arguments.get(key, definition.get(key.removeprefix("x-")))
    return None if value is None else str(value)


def smaller(one: int | None, other: int | None) -> int | None:
    """Return the number that limits more; a negative one limits nothing, and None is none."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other) if one < 0 or other < 0 else min(one, other)


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return int(value)
