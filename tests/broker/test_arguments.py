"""What declarations may say, and when two of them are the same: RabbitMQ's texts."""

from __future__ import annotations

import pytest

from leveret.amqp import AmqpError
from leveret.amqp.fields import decode_table, encode_table
from leveret.broker.arguments import check_queue, check_same, check_same_arguments


def refusal(arguments: dict[str, object], **changes: object) -> str:
    kinds = {"name": "q", "durable": True, "exclusive": False} | changes
    with pytest.raises(AmqpError) as caught:
        check_queue(arguments, vhost="/", **kinds)  # type: ignore[arg-type]
    assert caught.value.reply_code == 406
    return caught.value.reply_text


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("x-message-ttl", "5", '"expected integer, got longstr"'),
        ("x-message-ttl", True, '"expected integer, got bool"'),
        ("x-message-ttl", -1, "{value_negative,-1}"),
        ("x-expires", 0, "{value_zero,0}"),
        ("x-max-priority", 256, "{max_value_exceeded,256}"),
        ("x-overflow", "sometimes", "invalid_overflow"),
        ("x-dead-letter-exchange", 1, '"expected string, got signedint"'),
        ("x-dead-letter-routing-key", "k", "routing_key_but_no_dlx_defined"),
        ("x-queue-type", "nope", "\"unsupported queue type 'nope'\""),
    ],
)
def test_a_known_argument_of_a_wrong_value_is_refused(
    key: str, value: object, problem: str
) -> None:
    expected = f"PRECONDITION_FAILED - invalid arg '{key}' for queue 'q' in vhost '/': {problem}"
    assert expected == refusal({key: value})


def test_unknown_arguments_are_kept_and_good_ones_accepted() -> None:
    check_queue(
        {"x-foo": object(), "x-message-ttl": 0, "x-max-length": 5, "x-queue-type": "classic"},
        name="q",
        vhost="/",
        durable=False,
        exclusive=True,
    )


def test_a_quorum_queue_is_durable_named_and_shared() -> None:
    quorum: dict[str, object] = {"x-queue-type": "quorum"}
    assert "'non-durable'" in refusal(quorum, durable=False)
    assert "'exclusive-owner'" in refusal(quorum, exclusive=True)
    assert "server-named" in refusal(quorum, name="")


def test_equal_integers_are_equal_on_every_wire_type() -> None:
    short, _ = decode_table(b"\x00\x00\x00\x10\x0cx-max-lengths\x00\x05", 0)
    wide, _ = decode_table(encode_table({"x-max-length": 5}), 0)

    check_same_arguments("queue", "q", "/", wanted=short, current=wide)
    check_same_arguments("queue", "q", "/", wanted=wide, current=short)


def test_a_differing_argument_is_named_with_both_values() -> None:
    for wanted, current, received, present in (
        ({"x-max-length": 4}, {}, "the value '4' of type 'signedint'", "none"),
        ({}, {"x-max-length": 4}, "none", "the value '4' of type 'signedint'"),
        ({"x-max-length": 4}, {"x-max-length": 5}, "'4'", "'5'"),
    ):
        with pytest.raises(AmqpError) as caught:
            check_same_arguments("queue", "q", "/", wanted=wanted, current=current)
        assert caught.value.reply_text == (
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': "
            f"received {received} but current is {present}"
        )


def test_a_differing_property_is_named_in_rabbitmqs_words() -> None:
    with pytest.raises(AmqpError) as caught:
        check_same("queue", "q", "/", wanted={"durable": True}, current={"durable": False})

    assert caught.value.reply_text == (
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': "
        "received 'true' but current is 'false'"
    )
