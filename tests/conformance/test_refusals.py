"""What the broker refuses besides the lines of `test_transcript.py`: code, text and scope.

Every entry was answered so by RabbitMQ 3.10.8. Clients match on the code and often on the text.
"""

from __future__ import annotations

from collections.abc import Callable

import amqp
import pytest

from tests.conformance.bench import CHANNEL, LOCKED, Bench

Act = Callable[[Bench], object]
GOLDEN: list[object] = []


def refused(row: str, code: int, text: str) -> Callable[[Act], Act]:
    """Add a case, which closes its channel; `row` is the row of the feature table."""

    def add(act: Act) -> Act:
        name = act.__name__.removeprefix("_")
        GOLDEN.append(pytest.param(act, code, text, id=f"{row}: {name}"))
        return act

    return add


# ---- queues -------------------------------------------------------------------------------


@refused("queues: server-named", 404, "NOT_FOUND - no previously declared queue")
def _empty_queue_name_without_an_earlier_declare(b: Bench) -> None:
    b.channel.queue_purge("")


@refused(
    "queues: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost "
    "'{vhost}': received 'false' but current is 'true'",
)
def _redeclare_as_transient(b: Bench) -> None:
    b.declare(durable=True)
    b.declare()


@refused(
    "queues: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '{queue}' in vhost "
    "'{vhost}': received 'true' but current is 'false'",
)
def _redeclare_as_auto_delete(b: Bench) -> None:
    b.declare()
    b.declare(auto_delete=True)


@refused(
    "queues: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost "
    "'{vhost}': received 'true' but current is 'false'",
)
def _durable_is_compared_first(b: Bench) -> None:
    b.declare()
    b.declare(durable=True, auto_delete=True, arguments={"x-max-length": 4})


@refused(
    "queues: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{queue}' in vhost "
    "'{vhost}': received none but current is the value '4' of type 'signedint'",
)
def _redeclare_with_an_argument_less(b: Bench) -> None:
    b.declare(arguments={"x-max-length": 4})
    b.declare()


@refused(
    "queues: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{queue}' in vhost "
    "'{vhost}': received '5' but current is '4'",
)
def _redeclare_with_another_value(b: Bench) -> None:
    b.declare(arguments={"x-max-length": 4})
    b.declare(arguments={"x-max-length": 5})


@refused("queues: exclusive", 405, LOCKED)
def _redeclare_an_exclusive_queue_as_shared(b: Bench) -> None:
    b.declare(exclusive=True)
    b.declare()


@refused("queues: exclusive", 405, LOCKED)
def _redeclare_a_shared_queue_as_exclusive(b: Bench) -> None:
    b.declare()
    b.declare(exclusive=True)


@refused("queues: purge", 404, "NOT_FOUND - no queue '{queue}' in vhost '{vhost}'")
def _purge_of_a_missing_queue(b: Bench) -> None:
    b.channel.queue_purge(b.queue)


# ---- exchanges and bindings ---------------------------------------------------------------


@refused(
    "exchanges: passive declare missing",
    404,
    "NOT_FOUND - no exchange '{exchange}' in vhost '{vhost}'",
)
def _passive_declare_of_a_missing_exchange(b: Bench) -> None:
    b.channel.exchange_declare(b.exchange, "direct", passive=True, auto_delete=False)


@refused(
    "exchanges: pre-declared",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '{vhost}': "
    "received 'topic' but current is 'direct'",
)
def _redeclare_amq_direct_as_topic(b: Bench) -> None:
    b.channel.exchange_declare("amq.direct", "topic", durable=True, auto_delete=False)


@refused(
    "exchanges: default exchange",
    403,
    "ACCESS_REFUSED - operation not permitted on the default exchange",
)
def _declare_of_the_default_exchange(b: Bench) -> None:
    b.channel.exchange_declare("", "direct", durable=True, auto_delete=False)


@refused(
    "exchanges: default exchange",
    403,
    "ACCESS_REFUSED - operation not permitted on the default exchange",
)
def _look_for_the_default_exchange(b: Bench) -> None:
    b.channel.exchange_declare("", "direct", passive=True)


@refused(
    "exchanges: default exchange",
    403,
    "ACCESS_REFUSED - operation not permitted on the default exchange",
)
def _unbind_from_the_default_exchange(b: Bench) -> None:
    b.declare()
    b.channel.queue_unbind(b.queue, "", b.queue)


@refused(
    "exchanges: default exchange",
    403,
    "ACCESS_REFUSED - operation not permitted on the default exchange",
)
def _bind_an_exchange_to_the_default_exchange(b: Bench) -> None:
    b.channel.exchange_bind("amq.fanout", "", "k")


@refused(
    "exchanges: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{exchange}' in vhost "
    "'{vhost}': received 'fanout' but current is 'direct'",
)
def _redeclare_with_another_type(b: Bench) -> None:
    b.declare_exchange("direct")
    b.declare_exchange("fanout")


@refused(
    "exchanges: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '{exchange}' in vhost "
    "'{vhost}': received 'true' but current is 'false'",
)
def _redeclare_exchange_as_durable(b: Bench) -> None:
    b.declare_exchange()
    b.declare_exchange(durable=True)


@refused(
    "exchanges: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for exchange '{exchange}' in vhost "
    "'{vhost}': received 'true' but current is 'false'",
)
def _redeclare_exchange_as_auto_delete(b: Bench) -> None:
    b.declare_exchange()
    b.declare_exchange(auto_delete=True)


@refused(
    "exchanges: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'internal' for exchange '{exchange}' in vhost "
    "'{vhost}': received 'true' but current is 'false'",
)
def _redeclare_exchange_as_internal(b: Bench) -> None:
    b.declare_exchange()
    b.declare_exchange(internal=True)


@refused(
    "exchanges: re-declare differing",
    406,
    "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{exchange}' in "
    "vhost '{vhost}': received the value 'amq.fanout' of type 'longstr' but current is none",
)
def _redeclare_exchange_with_an_alternate(b: Bench) -> None:
    b.declare_exchange()
    b.declare_exchange(arguments={"alternate-exchange": "amq.fanout"})


@refused(
    "exchanges: delete",
    406,
    "PRECONDITION_FAILED - exchange '{exchange}' in vhost '{vhost}' in use",
)
def _delete_if_unused_with_a_binding(b: Bench) -> None:
    b.declare()
    b.declare_exchange()
    b.channel.queue_bind(b.queue, b.exchange, "k")
    b.channel.exchange_delete(b.exchange, if_unused=True)


@refused("exchanges: bind", 404, "NOT_FOUND - no queue '{queue}' in vhost '{vhost}'")
def _bind_of_a_missing_queue(b: Bench) -> None:
    b.channel.queue_bind(b.queue, "amq.direct", "k")


@refused(
    "exchanges: exchange-to-exchange",
    404,
    "NOT_FOUND - no exchange '{exchange}' in vhost '{vhost}'",
)
def _bind_of_a_missing_destination_exchange(b: Bench) -> None:
    b.channel.exchange_bind(b.exchange, "amq.direct", "k")


@refused(
    "exchanges: exchange-to-exchange",
    404,
    "NOT_FOUND - no exchange '{exchange}' in vhost '{vhost}'",
)
def _bind_to_a_missing_source_exchange(b: Bench) -> None:
    b.channel.exchange_bind("amq.direct", b.exchange, "k")


# ---- publishing ---------------------------------------------------------------------------


# ---- consuming ----------------------------------------------------------------------------


@refused("consuming: basic.get", 404, "NOT_FOUND - no queue '{queue}' in vhost '{vhost}'")
def _get_from_a_missing_queue(b: Bench) -> None:
    b.channel.basic_get(b.queue)


@refused("consuming: basic.consume", 404, "NOT_FOUND - no queue '{queue}' in vhost '{vhost}'")
def _consume_from_a_missing_queue(b: Bench) -> None:
    b.consume()


@refused(
    "consuming: basic.consume",
    403,
    "ACCESS_REFUSED - queue '{queue}' in vhost '{vhost}' in exclusive use",
)
def _consume_beside_an_exclusive_consumer(b: Bench) -> None:
    b.declare()
    b.consume(exclusive=True)
    b.consume()


@refused("consuming: ack", 406, "PRECONDITION_FAILED - unknown delivery tag 99")
def _ack_multiple_up_to_an_unknown_tag(b: Bench) -> None:
    b.channel.basic_ack(99, multiple=True)
    b.wait()


@refused("consuming: reject", 406, "PRECONDITION_FAILED - unknown delivery tag 99")
def _reject_of_an_unknown_tag(b: Bench) -> None:
    b.channel.basic_reject(99, requeue=True)
    b.wait()


@refused("consuming: ack", 406, "PRECONDITION_FAILED - unknown delivery tag 1")
def _second_ack_of_one_delivery(b: Bench) -> None:
    b.declare()
    b.publish("", b.queue)
    assert b.channel.basic_get(b.queue).delivery_tag == 1
    b.channel.basic_ack(1)
    b.channel.basic_ack(1)
    b.wait()


@refused("consuming: ack", 406, "PRECONDITION_FAILED - unknown delivery tag 1")
def _ack_of_a_delivery_without_acknowledgement(b: Bench) -> None:
    b.declare()
    b.publish("", b.queue)
    assert b.channel.basic_get(b.queue, no_ack=True).delivery_tag == 1
    b.channel.basic_ack(1)
    b.wait()


ELSEWHERE: dict[str, Callable[[amqp.Channel, str], object]] = {
    "declare": lambda channel, queue: channel.queue_declare(queue, exclusive=True),
    "passive declare": lambda channel, queue: channel.queue_declare(queue, passive=True),
    "consume": lambda channel, queue: channel.basic_consume(queue),
    "get": lambda channel, queue: channel.basic_get(queue),
    "purge": lambda channel, queue: channel.queue_purge(queue),
    "delete": lambda channel, queue: channel.queue_delete(queue),
    "bind": lambda channel, queue: channel.queue_bind(queue, "amq.direct", "k"),
    "unbind": lambda channel, queue: channel.queue_unbind(queue, "amq.direct", "k"),
}


@pytest.mark.parametrize(("act", "code", "text"), GOLDEN)
def test_refusal_has_rabbitmqs_code_and_text_and_closes_the_channel(
    bench: Bench, act: Act, code: int, text: str
) -> None:
    """Row of the feature table: as the case's name begins; "0. rules: channel or connection"."""
    bench.assert_refused(act, CHANNEL, code, text)


@pytest.mark.parametrize("what", ELSEWHERE)
def test_exclusive_queue_is_locked_for_other_connections(bench: Bench, what: str) -> None:
    """queues: exclusive."""
    bench.declare(exclusive=True, auto_delete=True)
    bench.channel.queue_bind(bench.queue, "amq.direct", "k")

    with pytest.raises(amqp.exceptions.ResourceLocked) as refusal:
        ELSEWHERE[what](bench.elsewhere(), bench.queue)

    text = LOCKED.format(queue=bench.queue, vhost=bench.vhost)
    assert (refusal.value.reply_code, refusal.value.reply_text) == (405, text)


def test_what_is_missing_is_deleted_and_unbound_without_an_error(bench: Bench) -> None:
    """queues: delete; exchanges: delete, unbind."""
    assert bench.channel.queue_delete(bench.queue) == 0
    bench.channel.exchange_delete(bench.exchange)
    bench.declare()
    bench.channel.queue_unbind(bench.queue, "amq.direct", "k")
    bench.channel.queue_unbind(bench.queue, bench.exchange, "k")
    bench.channel.queue_unbind(bench.queue + "-missing", "amq.direct", "k")
    bench.channel.exchange_unbind("amq.direct", "amq.fanout", "k")
    bench.channel.exchange_unbind(bench.exchange, "amq.fanout", "k")


def test_equal_redeclares_are_accepted(bench: Bench) -> None:
    """queues: re-declare differing, unknown arguments; exchanges: pre-declared."""
    bench.declare(arguments={"x-max-length": 4, "x-foo": "bar"})
    bench.declare(arguments={"x-max-length": 4, "x-foo": "bar"})
    bench.declare_exchange("topic")
    bench.declare_exchange("topic")
    for kind in ("direct", "fanout", "topic", "headers"):
        bench.channel.exchange_declare(f"amq.{kind}", kind, durable=True, auto_delete=False)
    bench.channel.exchange_declare("amq.match", "headers", durable=True, auto_delete=False)


def test_unknown_arguments_are_ignored_when_redeclared(bench: Bench) -> None:
    """queues: re-declare differing, unknown arguments."""
    bench.declare(arguments={"x-foo": "bar"})
    bench.declare()
    bench.declare(arguments={"x-foo": "other", "x-more": 1})


def test_flow_on_and_recover_with_requeue_are_answered(bench: Bench) -> None:
    """connection: channel.flow; consuming: basic.recover."""
    bench.channel.flow(True)
    bench.channel.basic_recover(requeue=True)
    bench.wait()
