"""The golden transcript: what RabbitMQ 3.10.8 answered when it was asked all that clients ask.

Each line is a case: the scope of the refusal, what was asked, reply code and exact text. Names of
queue, exchange, virtual host and user stand in braces. Where we mean to differ, `ours` says why,
and the case is that we accept. Lines whose answer is more than a refusal are shown by tests of
their own, which `ELSEWHERE` names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import amqp
import pytest

from tests.conformance.bench import LOCKED, Bench

REPLY_QUEUE = "amq.rabbitmq.reply-to"
TESTS = Path(__file__).parents[1]


class Line(NamedTuple):
    """One line of the transcript, and what is done to get it. ours: why we accept it."""

    scope: str
    asked: str
    code: int
    text: str
    act: Callable[[Bench], object]
    ours: str = ""


TRANSCRIPT: list[Line] = []


def line(text: str, *, ours: str = "") -> Callable[[Callable[[Bench], object]], None]:
    """Add the line `Channel WHAT -> CODE TEXT`, or `Connection …`, with what is done for it."""
    scope, asked, code, answer = re.fullmatch(
        r"(Channel|Connection) (.+?) -> (\d{3}) (.+)", text
    ).groups()  # type: ignore[union-attr]

    def add(act: Callable[[Bench], object]) -> None:
        TRANSCRIPT.append(Line(scope.lower(), asked, int(code), answer, act, ours))

    return add


# ---- what is missing ----------------------------------------------------------------------


@line("Channel declare passive missing -> 404 NOT_FOUND - no queue '{queue}' in vhost '{vhost}'")
def _(b: Bench) -> None:
    b.channel.queue_declare(b.queue, passive=True)


@line("Channel bind missing ex -> 404 NOT_FOUND - no exchange '{exchange}' in vhost '{vhost}'")
def _(b: Bench) -> None:
    b.declare()
    b.channel.queue_bind(b.queue, b.exchange, "k")


@line("Channel publish missing ex -> 404 NOT_FOUND - no exchange '{exchange}' in vhost '{vhost}'")
def _(b: Bench) -> None:
    b.publish(b.exchange, "k")
    b.wait()


# ---- declared again, and reserved names ---------------------------------------------------


@line(
    "Channel redeclare differ durable -> 406 PRECONDITION_FAILED - inequivalent arg 'durable' for "
    "queue '{queue}' in vhost '{vhost}': received 'true' but current is 'false'"
)
def _(b: Bench) -> None:
    b.declare()
    b.declare(durable=True)


@line(
    "Channel redeclare differ args -> 406 PRECONDITION_FAILED - inequivalent arg 'x-max-length' "
    "for queue '{queue}' in vhost '{vhost}': received the value '4' of type 'signedint' but "
    "current is none"
)
def _(b: Bench) -> None:
    b.declare()
    b.declare(arguments={"x-max-length": 4})


@line(
    "Channel declare amq.* -> 403 ACCESS_REFUSED - queue name 'amq.foo' contains reserved prefix "
    "'amq.*'"
)
def _(b: Bench) -> None:
    b.channel.queue_declare("amq.foo", auto_delete=False)


@line(
    "Channel declare ex amq.* -> 403 ACCESS_REFUSED - exchange name 'amq.foo' contains reserved "
    "prefix 'amq.*'"
)
def _(b: Bench) -> None:
    b.channel.exchange_declare("amq.foo", "direct", auto_delete=False)


@line(
    "Channel delete amq.direct -> 403 ACCESS_REFUSED - deletion of system exchange 'amq.direct' "
    "in vhost '{vhost}' not allowed"
)
def _(b: Bench) -> None:
    b.channel.exchange_delete("amq.direct")


@line(
    "Channel delete default ex -> 403 ACCESS_REFUSED - operation not permitted on the default "
    "exchange"
)
def _(b: Bench) -> None:
    b.channel.exchange_delete("")


@line(
    "Channel bind to default ex -> 403 ACCESS_REFUSED - operation not permitted on the default "
    "exchange"
)
def _(b: Bench) -> None:
    b.declare()
    b.channel.queue_bind(b.queue, "", "k")


@line("Connection unknown ex type -> 503 COMMAND_INVALID - unknown exchange type 'weird'")
def _(b: Bench) -> None:
    b.declare_exchange("weird")


# ---- arguments of queues ------------------------------------------------------------------

INVALID = "406 PRECONDITION_FAILED - invalid arg '{}' for queue '{{queue}}' in vhost '{{vhost}}'{}"


def invalid(asked: str, problem: str, *, ours: str = "", **arguments: object) -> None:
    """Add the line about a queue whose last argument is refused because of `problem`."""
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    text = INVALID.format(list(named)[-1], problem)
    line(f"Channel {asked} -> {text}", ours=ours)(
        lambda b: b.declare(durable=True, arguments=named)
    )


invalid("bad ttl", ": {value_negative,-1}", message_ttl=-1)
invalid("bad ttl type", ': "expected integer, got longstr"', message_ttl="5")
invalid("x-expires 0", ": {value_zero,0}", expires=0)
invalid("max-priority 256", ": {max_value_exceeded,256}", max_priority=256)
invalid("bad overflow", ": invalid_overflow", overflow="sometimes")
invalid("bad type", ": \"unsupported queue type 'nope'\"", queue_type="nope")
invalid("dlrk w/o dlx", ": routing_key_but_no_dlx_defined", dead_letter_routing_key="k")
invalid(
    "quorum w/ max-priority",
    " of queue type rabbit_quorum_queue",
    ours="priorities work in queues of every type",
    queue_type="quorum",
    max_priority=3,
)


@line(
    "Channel quorum non durable -> 406 PRECONDITION_FAILED - invalid property 'non-durable' for "
    "queue '{queue}' in vhost '{vhost}'"
)
def _(b: Bench) -> None:
    b.declare(arguments={"x-queue-type": "quorum"})


@line(
    "Channel quorum exclusive -> 406 PRECONDITION_FAILED - invalid property 'exclusive-owner' for "
    "queue '{queue}' in vhost '{vhost}'"
)
def _(b: Bench) -> None:
    b.declare(durable=True, exclusive=True, arguments={"x-queue-type": "quorum"})


@line(
    "Channel quorum server named -> 406 PRECONDITION_FAILED - Cannot declare a server-named queue "
    "for type rabbit_quorum_queue"
)
def _(b: Bench) -> None:
    arguments = {"x-queue-type": "quorum"}
    b.channel.queue_declare("", durable=True, auto_delete=False, arguments=arguments)


# ---- what is not implemented, and what is out of turn -------------------------------------


@line("Connection immediate -> 540 NOT_IMPLEMENTED - immediate=true")
def _(b: Bench) -> None:
    b.channel.basic_publish(amqp.Message(b"x"), "amq.direct", "k", immediate=True)
    b.wait()


@line("Connection prefetch size -> 540 NOT_IMPLEMENTED - prefetch_size!=0 (10)")
def _(b: Bench) -> None:
    b.channel.basic_qos(10, 0, False)


@line("Channel unknown tag ack -> 406 PRECONDITION_FAILED - unknown delivery tag 99")
def _(b: Bench) -> None:
    b.channel.basic_ack(99)
    b.wait()


@line("Connection recover requeue=false -> 540 NOT_IMPLEMENTED - requeue=false")
def _(b: Bench) -> None:
    b.channel.basic_recover(requeue=False)
    b.wait()


@line("Channel tx then confirm -> 406 PRECONDITION_FAILED - cannot switch from tx to confirm mode")
def _(b: Bench) -> None:
    b.channel.tx_select()
    b.channel.confirm_select()


@line("Channel commit w/o tx -> 406 PRECONDITION_FAILED - channel is not transactional")
def _(b: Bench) -> None:
    b.channel.tx_commit()


@line("Connection flow active=false -> 540 NOT_IMPLEMENTED - active=false")
def _(b: Bench) -> None:
    b.channel.flow(False)


# ---- what is in use -----------------------------------------------------------------------


@line(
    "Channel delete if-empty nonempty -> 406 PRECONDITION_FAILED - queue '{queue}' in vhost "
    "'{vhost}' not empty"
)
def _(b: Bench) -> None:
    b.declare()
    b.publish("", b.queue)
    b.channel.queue_delete(b.queue, if_empty=True)


@line(
    "Channel delete if-unused used -> 406 PRECONDITION_FAILED - queue '{queue}' in vhost "
    "'{vhost}' in use"
)
def _(b: Bench) -> None:
    b.declare()
    b.consume()
    b.channel.queue_delete(b.queue, if_unused=True)


@line("Connection dup consumer tag -> 530 NOT_ALLOWED - attempt to reuse consumer tag 't'")
def _(b: Bench) -> None:
    b.declare()
    b.consume(consumer_tag="t")
    b.consume(consumer_tag="t")


@line(
    "Channel exclusive consume twice -> 403 ACCESS_REFUSED - queue '{queue}' in vhost '{vhost}' "
    "in exclusive use"
)
def _(b: Bench) -> None:
    b.declare()
    b.consume()
    b.consume(exclusive=True)


@line(f"Channel exclusive other conn -> 405 {LOCKED}")
def _(b: Bench) -> None:
    b.elsewhere().queue_declare(b.queue, exclusive=True)
    b.declare()


@line(
    "Channel SAC exclusive consume -> 403 ACCESS_REFUSED - queue '{queue}' in vhost '{vhost}' in "
    "exclusive use"
)
def _(b: Bench) -> None:
    b.declare(arguments={"x-single-active-consumer": True})
    b.consume(exclusive=True)


# ---- messages -----------------------------------------------------------------------------


@line("Channel bad expiration -> 406 PRECONDITION_FAILED - invalid expiration 'abc': no_integer")
def _(b: Bench) -> None:
    b.publish("amq.direct", "k", expiration="abc")
    b.wait()


@line(
    "Channel user_id mismatch -> 406 PRECONDITION_FAILED - user_id property set to 'bob' but "
    "authenticated user was '{user}'"
)
def _(b: Bench) -> None:
    b.publish("amq.direct", "k", user_id="bob")
    b.wait()


@line(
    "Channel CC not array -> 406 PRECONDITION_FAILED - invalid message: "
    '{unacceptable_type_in_header,"CC",longstr}'
)
def _(b: Bench) -> None:
    b.publish("amq.direct", "k", application_headers={"CC": "text"})
    b.wait()


@line(
    "Channel internal publish -> 403 ACCESS_REFUSED - cannot publish to internal exchange "
    "'{exchange}' in vhost '{vhost}'"
)
def _(b: Bench) -> None:
    b.declare_exchange(internal=True)
    b.publish(b.exchange, "k")
    b.wait()


@line(
    "Channel direct reply-to manual ack -> 406 PRECONDITION_FAILED - reply consumer cannot "
    "acknowledge"
)
def _(b: Bench) -> None:
    b.channel.basic_consume(REPLY_QUEUE)


@line(
    "Channel direct reply-to no consumer -> 406 PRECONDITION_FAILED - fast reply consumer does "
    "not exist"
)
def _(b: Bench) -> None:
    b.publish("amq.direct", "k", reply_to=REPLY_QUEUE)
    b.wait()


# ---- the rest -----------------------------------------------------------------------------


@line(
    "Connection quorum global qos -> 540 NOT_IMPLEMENTED - queue '{queue}' in vhost '{vhost}' "
    "does not support global qos",
    ours="a channel's prefetch works in queues of every type",
)
def _(b: Bench) -> None:
    b.declare(durable=True, arguments={"x-queue-type": "quorum"})
    b.channel.basic_qos(0, 1, True)
    b.consume()


@line(
    "Channel headers bad x-match -> 406 PRECONDITION_FAILED - Invalid x-match field value "
    '<<"maybe">>; expected all, any, all-with-x, or any-with-x'
)
def _(b: Bench) -> None:
    b.declare()
    b.channel.queue_bind(b.queue, "amq.headers", "", arguments={"x-match": "maybe"})


@pytest.mark.parametrize("case", TRANSCRIPT, ids=[case.asked for case in TRANSCRIPT])
def test_a_line_of_the_transcript_is_answered_with_its_code_text_and_scope(
    bench: Bench, case: Line
) -> None:
    """Rows of the feature table: all that name a code."""
    if case.ours and bench.is_leveret:
        case.act(bench)
        assert bench.connection.connected
    else:
        bench.assert_refused(case.act, case.scope, case.code, case.text)


ELSEWHERE = {
    "server_properties": "handshake.py::test_server_properties_are_those_that_clients_look_at",
    "tune": "handshake.py::test_client_may_lower_the_limits",
    "redeclare amq.direct same": "refusals.py::test_equal_redeclares_are_accepted",
    "unknown arg ok": "refusals.py::test_equal_redeclares_are_accepted",
    "server named": "queues.py::test_server_named_queues_have_their_form_and_differ",
    "delete missing queue": (
        "refusals.py::test_what_is_missing_is_deleted_and_unbound_without_an_error"
    ),
    "delete missing ex": (
        "refusals.py::test_what_is_missing_is_deleted_and_unbound_without_an_error"
    ),
    "unbind missing": "refusals.py::test_what_is_missing_is_deleted_and_unbound_without_an_error",
    "purge": "queues.py::test_purge_takes_the_ready_messages_only",
    "CC/BCC": "message_life.py::test_cc_and_bcc_are_routed_too",
    "DLX": "message_life.py::test_a_rejected_message_goes_to_the_dead_letter_exchange",
    "DL cycle (ttl self)": "message_life.py::test_what_expires_in_a_circle_is_dropped",
    "retry loop x-death after 2 rounds": (
        "message_life.py::test_a_retry_loop_with_a_rejection_goes_on_and_counts"
    ),
    "overflow drop-head": "message_life.py::test_the_oldest_go_when_there_are_too_many",
    "overflow reject-publish": "message_life.py::test_a_full_queue_refuses",
    "overflow reject-publish-dlx": "message_life.py::test_a_full_queue_refuses",
    "priority order (max 3)": "message_life.py::test_higher_priorities_come_first",
    "mandatory": "confirms.py::test_return_comes_before_its_confirm",
    "confirm unroutable not mandatory": "confirms.py::test_unroutable_messages_are_confirmed",
    "e2e with cycle and double path": (
        "exchanges.py::test_exchange_to_exchange_gives_one_copy_through_paths_and_cycles"
    ),
    "direct reply-to": "replies.py::test_pika_asks_and_is_answered",
    "SAC": "message_life.py::test_one_consumer_at_a_time_gets_messages",
    "consumer cancel notify": (
        "consuming.py::test_deleted_queue_cancels_consumers_that_understand_it"
    ),
    "x-expires": "message_life.py::test_an_unused_queue_is_deleted_after_x_expires",
    "ttl 0 no consumer": "message_life.py::test_with_a_ttl_of_0_only_a_waiting_consumer_gets_it",
    "requeue order classic": "consuming.py::test_requeued_message_returns_to_its_place",
    "quorum delivery-limit 2": (
        "message_life.py::test_a_quorum_queue_counts_deliveries_and_gives_up_at_the_limit"
    ),
    "headers ex x-match": "exchanges.py::test_headers_case",
    "topic edge": "exchanges.py::test_topic_edge",
    "msg too big frame": "framing.py::test_body_comes_back_in_frames_of_the_negotiated_size",
    "tx": "transactions.py::test_pika_publishes_count_from_commit_on",
    "auto-delete": (
        "queues.py::test_auto_delete_waits_for_its_first_consumer_and_goes_with_the_last"
    ),
    "auto-delete exchange": "exchanges.py::test_auto_delete_exchange_goes_with_its_last_binding",
    "stream offset 2": "streams.py::test_a_reader_begins_where_it_likes",
    "stream w/o prefetch": "streams.py::test_a_reader_must_have_a_prefetch",
    "stream basic.get": "streams.py::test_what_streams_do_not_do_ends_the_connection",
    "stream autoack": "streams.py::test_what_streams_do_not_do_ends_the_connection",
    "consistent hash bad weight": "spreading.py::test_a_binding_without_a_weight_is_refused",
    "perm declare": "broker/test_access.py::test_a_refused_resource_has_rabbitmqs_text",
    "perm publish default": "broker/test_access.py::test_a_refused_resource_has_rabbitmqs_text",
    "perm consume": "broker/test_access.py::test_a_refused_resource_has_rabbitmqs_text",
    "topic perm write": (
        "topic_permissions.py::test_a_publish_with_a_key_that_is_not_allowed_is_refused"
    ),
    "topic perm bind": (
        "topic_permissions.py::test_a_binding_with_a_key_that_is_not_allowed_is_refused"
    ),
    "AUTH guest bad /": "handshake.py::test_wrong_password_is_told_to_clients_that_understand",
    "AUTH guest guest novhost": "handshake.py::test_missing_vhost_is_refused_with_its_name",
}
"""Where a line is shown that needs more than one channel: file here, after `test_`, and test."""


@pytest.mark.parametrize("asked", ELSEWHERE)
def test_a_line_that_is_shown_elsewhere_is_shown_there(asked: str) -> None:
    file, _, test = ELSEWHERE[asked].partition("::")
    path = TESTS / file if "/" in file else TESTS / "conformance" / f"test_{file}"

    assert f"def {test}(" in path.read_text()
