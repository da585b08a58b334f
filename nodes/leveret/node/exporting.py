"""The catalog as definitions in RabbitMQ's format: what it has, but for exclusive queues. Pure.

What every virtual host has by its nature is not in it: the predeclared exchanges, and the bindings
of the default one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leveret.broker.access import export_password_hash
from leveret.broker.news import EVENT_EXCHANGE
from leveret.catalog.model import PREDECLARED_NAMES

from .definitions import OF_ONE_VHOST
from .limits import limits_of_user, limits_of_vhost
from .plain_tables import plain_arguments
from .policy_definitions import exported_policies

if TYPE_CHECKING:
    from leveret.catalog.model import Model, User, VirtualHost


def exported(model: Model, *, rabbitmq_version: str, version: str) -> dict[str, Any]:
    """Return the definitions, each list by name.

    rabbitmq_version: the one whose format it is. version: ours.
    """
    vhosts = sorted(vhost.name for vhost in model.vhosts())
    exclusive = {
        (vhost, queue.name) for vhost in vhosts for queue in model.queues(vhost) if queue.exclusive
    }
    return {
        "rabbit_version": rabbitmq_version,
        "rabbitmq_version": rabbitmq_version,
        "product_name": "Leveret",
        "product_version": version,
        "vhosts": [_vhost(vhost) for vhost in sorted(model.vhosts(), key=lambda vhost: vhost.name)],
        "users": [_user(user) for user in sorted(model.users(), key=lambda user: user.name)],
        "permissions": [
            {
                "user": p.user,
                "vhost": p.vhost,
                "configure": p.configure,
                "write": p.write,
                "read": p.read,
            }
            for p in sorted(model.permissions(), key=lambda p: (p.vhost, p.user))
        ],
        "topic_permissions": [
            {
                "user": p.user,
                "vhost": p.vhost,
                "exchange": p.exchange,
                "write": p.write,
                "read": p.read,
            }
            for p in sorted(model.topic_permissions(), key=lambda p: (p.vhost, p.user, p.exchange))
        ],
        **exported_policies(model),
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": vhost,
                "type": exchange.type,
                "durable": exchange.durable,
                "auto_delete": exchange.auto_delete,
                "internal": exchange.internal,
                "arguments": plain_arguments(exchange.arguments),
            }
            for vhost in vhosts
            for exchange in sorted(model.exchanges(vhost), key=lambda exchange: exchange.name)
            if exchange.name not in PREDECLARED_NAMES and exchange.name != EVENT_EXCHANGE
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": vhost,
                "durable": queue.durable,
                "auto_delete": queue.auto_delete,
                "arguments": (arguments := plain_arguments(queue.arguments)),
                "type": arguments.get("x-queue-type", "classic"),
            }
            for vhost in vhosts
            for queue in sorted(model.queues(vhost), key=lambda queue: queue.name)
            if not queue.exclusive
        ],
        "bindings": [
            {
                "source": b.source,
                "vhost": b.vhost,
                "destination": b.destination,
                "destination_type": b.kind,
                "routing_key": b.routing_key,
                "arguments": plain_arguments(b.arguments),
            }
            for b in sorted(
                model.bindings(), key=lambda b: (b.vhost, b.source, b.destination, b.routing_key)
            )
            if b.kind == "exchange" or (b.vhost, b.destination) not in exclusive
        ],
    }


def exported_of(
    model: Model, vhost: str, *, rabbitmq_version: str, version: str
) -> dict[str, object]:
    """Return what is declared in one virtual host, without its name: it may go into another."""
    whole = exported(model, rabbitmq_version=rabbitmq_version, version=version)
    return {
        **{about: text for about, text in whole.items() if not isinstance(text, list)},
        **{
            part: [
                {key: value for key, value in one.items() if key != "vhost"}
                for one in whole[part]
                if one["vhost"] == vhost
            ]
            for part in OF_ONE_VHOST
        },
    }


def _vhost(vhost: VirtualHost) -> dict[str, object]:
    metadata: dict[str, object] = {"description": vhost.description, "tags": list(vhost.tags)}
    if vhost.default_queue_type:
        metadata["default_queue_type"] = vhost.default_queue_type
    if vhost.is_protected:
        metadata["protected_from_deletion"] = True
    return {
        "name": vhost.name,
        "metadata": metadata,
        "limits": [list(pair) for pair in limits_of_vhost(vhost).items()],
    }


def _user(user: User) -> dict[str, object]:
    algorithm, encoded = ("rabbit_password_hashing_sha256", "")
    if user.password is not None:
        algorithm, encoded = export_password_hash(user.password)
    return {
        "name": user.name,
        "password_hash": encoded,
        "hashing_algorithm": algorithm,
        "tags": list(user.tags),
        "limits": limits_of_user(user),
    }
