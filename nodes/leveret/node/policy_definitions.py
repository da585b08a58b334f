"""Policies in a file of definitions: RabbitMQ keeps those of operators among the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from leveret.broker.policies.checks import PolicyRefused, check_policy, write_definition
from leveret.catalog.commands import SetPolicy

if TYPE_CHECKING:
    from leveret.catalog.model import ApplyTo, Model, Policy

    from .definitions import Start

OPERATOR_POLICY: Final = "operator_policy"
"""The component of the parameters that are operator policies."""


class PolicyDefinition(msgspec.Struct, rename={"apply_to": "apply-to"}):
    """A policy to be there."""

    name: str
    vhost: str
    pattern: str
    definition: dict[str, Any]
    apply_to: str = "all"
    priority: int = 0

    @property
    def title(self) -> str:
        return f"policy {self.name!r} in {self.vhost!r}"

    def command(self, _: Start) -> SetPolicy:
        return _set_policy(self, is_operator=False)


class ParameterDefinition(msgspec.Struct):
    """A parameter to be there; only operator policies are."""

    component: str
    name: str
    vhost: str
    value: Any

    @property
    def title(self) -> str:
        if self.is_supported:
            return f"operator policy {self.name!r} in {self.vhost!r}"
        return f"parameter {self.name!r} of {self.component!r} in {self.vhost!r}"

    @property
    def is_supported(self) -> bool:
        return self.component == OPERATOR_POLICY

    @property
    def is_said(self) -> bool:
        """Whether it stands elsewhere in the file too: the limits of virtual hosts do."""
        return self.component == "vhost-limits"

    def command(self, _: Start) -> SetPolicy:
        value = self.value
        if isinstance(value, dict) and isinstance(pairs := value.get("definition"), list):
            # So rabbitmqctl 3.10 exports it: an array of arrays of two.
            value = {**value, "definition": dict(pairs)}
        try:
            policy = msgspec.convert(
                {**value, "name": self.name, "vhost": self.vhost}, type=PolicyDefinition
            )
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        return _set_policy(policy, is_operator=True)


def exported_policy(policy: Policy) -> dict[str, object]:
    """Return what a policy says, but for its name and place."""
    return {
        "apply-to": policy.apply_to,
        "definition": msgspec.json.decode(policy.definition, type=dict[str, object]),
        "pattern": policy.pattern,
        "priority": policy.priority,
    }


def exported_policies(model: Model) -> dict[str, list[dict[str, object]]]:
    """Return the parts of a file that hold policies, each by name."""
    policies = sorted(
        (policy for vhost in model.vhosts() for policy in model.policies(vhost.name)),
        key=lambda policy: (policy.vhost, policy.name),
    )
    return {
        "policies": [
            {"vhost": policy.vhost, "name": policy.name, **exported_policy(policy)}
            for policy in policies
            if not policy.is_operator
        ],
        "parameters": [
            {
                "vhost": policy.vhost,
                "component": OPERATOR_POLICY,
                "name": policy.name,
                "value": exported_policy(policy),
            }
            for policy in policies
            if policy.is_operator
        ],
    }


def _set_policy(policy: PolicyDefinition, *, is_operator: bool) -> SetPolicy:
    try:
        check_policy(
            pattern=policy.pattern,
            apply_to=policy.apply_to,
            definition=policy.definition,
            is_operator=is_operator,
        )
    except PolicyRefused as error:
        raise ValueError(" ".join(str(error).split())) from None
    return SetPolicy(
        policy.vhost,
        is_operator,
        policy.name,
        policy.pattern,
        cast("ApplyTo", policy.apply_to),
        policy.priority,
        write_definition(policy.definition),
    )
