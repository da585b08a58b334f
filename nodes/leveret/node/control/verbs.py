"""The table of all that an operator can ask of a node."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .alarms import add_alarm_verbs
from .certificates import add_certificate_verbs
from .clients import add_client_verbs
from .cluster_status import cluster_status
from .controls import Controls, NoArguments
from .definitions import add_definition_verbs
from .digests import digests
from .entities import add_entity_verbs
from .joining import add, token
from .leadership import (
    MoveArguments,
    PreferArguments,
    TransferArguments,
    prefer_here,
    rebalance,
    transfer,
    transfer_here,
)
from .limits import add_limit_verbs
from .membership import MemberArguments, remove
from .node_status import status
from .policies import add_policy_verbs
from .queue_actions import add_action_verbs
from .queue_messages import add_message_verbs
from .topic_permissions import add_topic_verbs
from .users import add_user_verbs
from .virtual_hosts import add_virtual_host_verbs

if TYPE_CHECKING:
    from .admin import Admin
    from .parts import NodeParts


def add_verbs(controls: Controls, parts: NodeParts, admin: Admin) -> None:
    """Put every verb into the table."""
    controls.add("status", NoArguments, partial(status, parts))
    controls.add("cluster status", NoArguments, partial(cluster_status, parts, admin))
    controls.add("cluster transfer", TransferArguments, partial(transfer, parts, admin))
    controls.add("cluster rebalance", NoArguments, partial(rebalance, admin))
    controls.add("cluster remove", MemberArguments, partial(remove, parts, admin))
    controls.add("cluster add", NoArguments, partial(add, parts))
    controls.add("cluster token", NoArguments, partial(token, parts))
    controls.add("digests", NoArguments, partial(digests, parts))
    add_user_verbs(controls, parts)
    add_topic_verbs(controls, parts)
    add_virtual_host_verbs(controls, parts)
    add_policy_verbs(controls, parts)
    add_limit_verbs(controls, parts)
    add_definition_verbs(controls, parts)
    add_certificate_verbs(controls, parts)
    add_entity_verbs(controls, parts, admin)
    add_client_verbs(controls, parts, admin)
    add_alarm_verbs(controls, parts)
    add_message_verbs(controls, parts, admin)
    add_action_verbs(controls, parts, admin)
    # What nodes ask each other, so that an operator may ask any.
    controls.add("node transfer", MoveArguments, partial(transfer_here, parts))
    controls.add("node prefer", PreferArguments, partial(prefer_here, parts))
