"""Policies and operator policies: what is set for queues and exchanges by their names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from leveret.broker.policies.checks import (
    PolicyRefused,
    check_policy,
    read_definition,
    write_definition,
)
from leveret.catalog.commands import ClearPolicy, SetPolicy

from .changes import Outcome, change, fresh_with
from .controls import Arguments, ControlError, Controls

if TYPE_CHECKING:
    from leveret.catalog.model import ApplyTo, Policy

    from .parts import NodeParts


class PolicyArguments(Arguments, frozen=True):
    """A policy; the definition is JSON text."""

    vhost: str
    name: str
    pattern: str
    definition: str
    apply_to: str = "all"
    priority: int = 0
    is_operator: bool = False


class PolicyName(Arguments, frozen=True):
    """The name of a policy."""

    vhost: str
    name: str
    is_operator: bool = False


class PoliciesArguments(Arguments, frozen=True):
    """Which policies to list."""

    vhost: str
    is_operator: bool = False


class PolicySeen(msgspec.Struct, frozen=True, kw_only=True, rename={"apply_to": "apply-to"}):
    """A policy; the names of the fields are rabbitmqctl's columns."""

    vhost: str
    name: str
    pattern: str
    apply_to: str
    definition: dict[str, Any]
    priority: int


def add_policy_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("set_policy", PolicyArguments, partial(_set_policy, parts))
    controls.add("clear_policy", PolicyName, partial(_clear_policy, parts))
    controls.add("list_policies", PoliciesArguments, partial(_list_policies, parts))


async def _set_policy(parts: NodeParts, arguments: PolicyArguments) -> Outcome:
    try:
        definition = read_definition(arguments.definition)
        check_policy(
            pattern=arguments.pattern,
            apply_to=arguments.apply_to,
            definition=definition,
            is_operator=arguments.is_operator,
        )
    except PolicyRefused as error:
        raise ControlError(
            "refused", str(error).rstrip("\n"), remedy="nothing was changed"
        ) from None
    done = await change(
        parts,
        SetPolicy(
            arguments.vhost,
            arguments.is_operator,
            arguments.name,
            arguments.pattern,
            cast("ApplyTo", arguments.apply_to),
            arguments.priority,
            write_definition(definition),
        ),
    )
    assert done.outcome in ("created", "exists", "changed")
    return Outcome(outcome=done.outcome)


async def _clear_policy(parts: NodeParts, arguments: PolicyName) -> Outcome:
    await fresh_with(parts, vhost=arguments.vhost)
    done = await change(parts, ClearPolicy(arguments.vhost, arguments.is_operator, arguments.name))
    if done.outcome == "absent":
        kind, verb = "policy", "list_policies"
        if arguments.is_operator:
            kind, verb = "operator policy", "list_operator_policies"
        raise ControlError(
            "not_found",
            f'{kind} "{arguments.name}" does not exist in virtual host "{arguments.vhost}"',
            remedy=f"see `leveret ctl {verb} -p {arguments.vhost}`",
        )
    return Outcome(outcome="deleted")


async def _list_policies(parts: NodeParts, arguments: PoliciesArguments) -> list[PolicySeen]:
    model = await fresh_with(parts, vhost=arguments.vhost)
    policies = [
        p for p in model.policies(arguments.vhost) if p.is_operator == arguments.is_operator
    ]
    policies.sort(key=lambda policy: (-policy.priority, policy.name))
    return [_seen(policy) for policy in policies]


def _seen(policy: Policy) -> PolicySeen:
    return PolicySeen(
        vhost=policy.vhost,
        name=policy.name,
        pattern=policy.pattern,
        apply_to=policy.apply_to,
        definition=msgspec.json.decode(policy.definition, type=dict[str, object]),
        priority=policy.priority,
    )
