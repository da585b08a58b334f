"""Which policies are in force for a queue or an exchange.

Of those whose pattern is found in its name and that apply to its kind, the one with the highest
priority; of several with the same, the first by name. Like RabbitMQ, a policy with a setting that
a type of queue does not have is passed over for queues of that type, so that the next one counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from leveret.broker.arguments import decode_arguments

from .checks import compile_pattern
from .merging import NOTHING, merge

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from leveret.catalog.model import Exchange, Model, Policy, Queue

ALTERNATES_MAX: Final = 16_384
"""Exchanges whose alternate exchange is remembered, then all are forgotten."""

EXCHANGE: Final = "exchange"
QUEUE_KINDS: Final = frozenset({"classic", "quorum", "stream"})

_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "all": QUEUE_KINDS | {EXCHANGE},
    "queues": QUEUE_KINDS,
    "classic_queues": frozenset({"classic"}),
    "quorum_queues": frozenset({"quorum"}),
    "streams": frozenset({"stream"}),
    "exchanges": frozenset({EXCHANGE}),
}

_NOT_OF_CLASSIC: Final = frozenset(
    {
        "dead-letter-strategy",
        "delivery-limit",
        "initial-cluster-size",
        "max-age",
        "queue-leader-locator",
        "stream-max-segment-size-bytes",
    }
)
_NOT_OF_QUORUM: Final = frozenset(
    {
        "ha-mode",
        "ha-params",
        "ha-promote-on-failure",
        "ha-promote-on-shutdown",
        "ha-sync-mode",
        "initial-cluster-size",
        "max-age",
        "queue-master-locator",
        "queue-mode",
        "stream-max-segment-size-bytes",
    }
)
_NOT_OF_STREAMS: Final = frozenset(
    {
        "dead-letter-exchange",
        "dead-letter-routing-key",
        "dead-letter-strategy",
        "delivery-limit",
        "expires",
        "ha-mode",
        "ha-params",
        "ha-promote-on-failure",
        "ha-promote-on-shutdown",
        "ha-sync-mode",
        "max-in-memory-bytes",
        "max-in-memory-length",
        "max-length",
        "message-ttl",
        "overflow",
        "queue-master-locator",
        "queue-mode",
    }
)
_NOT_OF: Final = {
    "classic": _NOT_OF_CLASSIC,
    "quorum": _NOT_OF_QUORUM,
    "stream": _NOT_OF_STREAMS,
}
"""Settings with which RabbitMQ 3.10.8 does not apply a policy to a type of queue (observed)."""


class InForce(NamedTuple):
    """The policies that a queue has."""

    policy: Policy | None
    operator_policy: Policy | None


NONE_IN_FORCE: Final = InForce(None, None)


class _Rule:
    """A policy with its pattern compiled and its definition read."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.definition: Mapping[str, object] = msgspec.json.decode(
            policy.definition, type=dict[str, object]
        )
        self.pattern: re.Pattern[str] | None
        try:
            self.pattern = compile_pattern(policy.pattern)
        except ValueError:
            # Written by a node whose Python knew more: here it matches nothing.
            self.pattern = None
        self.kinds = frozenset(
            kind
            for kind in _KINDS[policy.apply_to]
            if self.definition.keys().isdisjoint(_NOT_OF.get(kind, ()))
        )

    def matches(self, name: str) -> bool:
        return self.pattern is not None and self.pattern.search(name) is not None


class _Rules:
    """The policies of one virtual host, the first that matches being in force."""

    def __init__(self, rules: list[_Rule]) -> None:
        rules.sort(key=lambda rule: (-rule.policy.priority, rule.policy.name))
        self.ordinary = [rule for rule in rules if not rule.policy.is_operator]
        self.operator = [rule for rule in rules if rule.policy.is_operator]


class Policies:
    """Looks up what is in force, by the catalog as this node has it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._seen = model.policy_changes
        self._by_policy: dict[Policy, _Rule] = {}
        """So that a pattern is compiled once, however often other policies change."""
        self._by_vhost: dict[str, _Rules] = {}
        self._merged: dict[InForce, Mapping[str, object]] = {}
        self._alternates: dict[Exchange, str | None] = {}

    def of_queue(self, queue: Queue) -> InForce:
        """Return the policies that are in force for `queue`."""
        rules = self._rules(queue.vhost)
        if not rules.ordinary and not rules.operator:
            return NONE_IN_FORCE
        return InForce(_first(rules.ordinary, queue), _first(rules.operator, queue))

    def definition(self, queue: Queue) -> Mapping[str, object]:
        """Return what the policies that are in force for `queue` say together."""
        in_force = self.of_queue(queue)
        if in_force == NONE_IN_FORCE:
            return NOTHING
        merged = self._merged.get(in_force)
        if merged is None:
            merged = self._merged[in_force] = merge(
                self._definition(in_force.policy), self._definition(in_force.operator_policy)
            )
        return merged

    def of_exchange(self, exchange: Exchange) -> Policy | None:
        """Return the policy that is in force for `exchange`."""
        for rule in self._rules(exchange.vhost).ordinary:
            if EXCHANGE in rule.kinds and rule.matches(exchange.name):
                return rule.policy
        return None

    def alternate(self, exchange: Exchange) -> str | None:
        """Return the name of the alternate exchange that `exchange` has; an argument goes first."""
        self._look()
        if exchange in self._alternates:
            return self._alternates[exchange]
        name = decode_arguments(exchange.arguments).get("alternate-exchange")
        if name is None:
            name = self._definition(self.of_exchange(exchange)).get("alternate-exchange")
        if len(self._alternates) >= ALTERNATES_MAX:
            self._alternates.clear()
        self._alternates[exchange] = answer = name if isinstance(name, str) else None
        return answer

    def _definition(self, policy: Policy | None) -> Mapping[str, object]:
        return NOTHING if policy is None else self._rule(policy).definition

    def _rules(self, vhost: str) -> _Rules:
        self._look()
        rules = self._by_vhost.get(vhost)
        if rules is None:
            rules = _Rules([self._rule(policy) for policy in self._model.policies(vhost)])
            self._by_vhost[vhost] = rules
        return rules

    def _rule(self, policy: Policy) -> _Rule:
        rule = self._by_policy.get(policy)
        if rule is None:
            rule = self._by_policy[policy] = _Rule(policy)
        return rule

    def _look(self) -> None:
        """Forget what was concluded from policies that are others now."""
        if self._seen != self._model.policy_changes:
            self._seen = self._model.policy_changes
            self._alternates.clear()
            there = {p for v in self._model.vhosts() for p in self._model.policies(v.name)}
            self._by_policy = {p: rule for p, rule in self._by_policy.items() if p in there}
            self._by_vhost.clear()
            self._merged.clear()


def _first(rules: list[_Rule], queue: Queue) -> Policy | None:
    kind = ""
    for rule in rules:
        if rule.kinds.isdisjoint(QUEUE_KINDS) or not rule.matches(queue.name):
            continue
        if not rule.kinds >= QUEUE_KINDS:
            kind = kind or str(decode_arguments(queue.arguments).get("x-queue-type", "classic"))
            if kind not in rule.kinds:
                continue
        return rule.policy
    return None
