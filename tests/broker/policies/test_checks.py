"""What a policy may say, in RabbitMQ's words (3.10.8 was asked for each that it knows)."""

from __future__ import annotations

import pytest

from leveret.broker.policies.checks import (
    PolicyRefused,
    check_policy,
    read_definition,
    write_definition,
)


def problem_of(
    text: str, *, pattern: str = "^a", apply_to: str = "all", is_operator: bool = False
) -> str:
    """Return what is wrong, without the frame that all problems have; nothing if it is right."""
    try:
        check_policy(
            pattern=pattern,
            apply_to=apply_to,
            definition=read_definition(text),
            is_operator=is_operator,
        )
    except PolicyRefused as error:
        return str(error).removeprefix("Validation failed\n\n").removesuffix("\n")
    return ""


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ('{"nope":500}', '[{<<"nope">>,500}] are not recognised policy settings'),
        (
            '{"no":[1,{"a":2}],"nil":null}',
            '[{<<"nil">>,null},{<<"no">>,[1,#{<<"a">> => 2}]}] are not recognised policy settings',
        ),
        (
            '{"nope":1.5,"t":true}',
            '[{<<"nope">>,1.5},{<<"t">>,true}] are not recognised policy settings',
        ),
        ("{}", "no policy provided"),
        ('{"max-length":-1}', "-1 is not a valid maximum length"),
        ('{"max-length":"a"}', '<<"a">> is not a valid maximum length'),
        ('{"max-length":1.5}', "1.5 is not a valid maximum length"),
        ('{"max-length":{"a":1}}', '#{<<"a">> => 1} is not a valid maximum length'),
        ('{"max-length":null}', "null is not a valid maximum length"),
        ('{"max-length-bytes":true}', "true is not a valid maximum length in bytes"),
        ('{"message-ttl":"x"}', '<<"x">> is not a valid message TTL'),
        ('{"expires":0}', "0 is not a valid queue expiry"),
        ('{"dead-letter-exchange":1}', "1 is not a valid dead letter exchange name"),
        ('{"dead-letter-routing-key":1}', "1 is not a valid dead letter routing key"),
        ('{"dead-letter-strategy":"x"}', '<<"x">> is not a valid dead letter strategy'),
        ('{"alternate-exchange":1}', "1 is not a valid alternate exchange name"),
        ('{"overflow":"x"}', '<<"x">> is not a valid overflow value'),
        ('{"delivery-limit":-1}', "-1 is not a valid delivery limit"),
        ('{"queue-mode":1}', "1 is not a valid queue-mode value"),
        ('{"queue-version":"2"}', '<<"2">> is not a valid queue-version value'),
        ('{"queue-leader-locator":"x"}', '<<"x">> is not a valid queue leader locator value'),
        ('{"queue-master-locator":"x"}', '<<"x">> invalid queue-master-locator value'),
        ('{"max-age":"1x"}', '<<"1x">> is not a valid max age'),
        ('{"stream-max-segment-size-bytes":-1}', "-1 is not a valid segment size"),
        ('{"initial-cluster-size":-1}', "-1 is not a valid cluster size"),
        ('{"ha-mode":"x"}', '<<"x">> is not a valid ha-mode value'),
        ('{"ha-mode":"exactly"}', 'ha-mode="exactly" takes an integer, none given'),
        ('{"ha-mode":"nodes","ha-params":[]}', 'ha-mode="nodes" list must be non-empty'),
        (
            '{"ha-mode":"nodes","ha-params":[1]}',
            'ha-mode="nodes" takes a list of strings, [1] was not a string',
        ),
        ('{"ha-mode":"all","ha-params":2}', 'ha-mode="all" does not take parameters'),
        (
            '{"ha-params":2}',
            (
                "ha-mode must be specified to specify ha-params, ha-sync-mode or"
                " ha-promote-on-shutdown"
            ),
        ),
        (
            '{"ha-mode":"all","ha-sync-mode":"x"}',
            'ha-sync-mode must be "manual" or "automatic", got <<"x">>',
        ),
        (
            '{"ha-mode":"all","ha-sync-batch-size":0}',
            "ha-sync-batch-size takes an integer greater than 0, 0 given",
        ),
        # What is wrong with a known key is said first, and of several the first by name.
        (
            '{"max-length":1,"nope":"hi","max-length-bytes":-4}',
            "-4 is not a valid maximum length in bytes",
        ),
        ('{"max-length-bytes":-4,"max-length":-5}', "-5 is not a valid maximum length"),
    ],
)
def test_a_wrong_definition_is_refused_in_rabbitmqs_words(definition: str, problem: str) -> None:
    assert problem == problem_of(definition)


@pytest.mark.parametrize(
    "definition",
    [
        '{"max-length":0}',
        '{"message-ttl":99999999999999}',
        '{"max-length":1000000000000000000000000}',
        '{"dead-letter-exchange":"","dead-letter-routing-key":"k"}',
        '{"overflow":"reject-publish-dlx"}',
        '{"queue-mode":"lazy","queue-version":2}',
        '{"ha-mode":"exactly","ha-params":2,"ha-sync-mode":"automatic"}',
        '{"ha-mode":"nodes","ha-params":["a"],"ha-promote-on-failure":"always"}',
        '{"max-age":"1D","stream-max-segment-size-bytes":100,"initial-cluster-size":3}',
        '{"consumer-timeout":1000,"delayed-retry-type":"all","delayed-retry-min":1}',
    ],
)
def test_what_rabbitmq_knows_is_taken(definition: str) -> None:
    assert "" == problem_of(definition)


def test_an_operator_policy_knows_only_limits() -> None:
    limits = '{"delivery-limit":1,"expires":1,"max-length":1,"max-length-bytes":1,"message-ttl":1}'

    assert "" == problem_of(limits, is_operator=True)
    assert (
        '[{<<"dead-letter-exchange">>,<<"x">>}] are not recognised policy settings'
        == problem_of('{"dead-letter-exchange":"x"}', is_operator=True)
    )


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "a)", "[[:alpha:]]"])
def test_a_pattern_must_be_an_expression(pattern: str) -> None:
    assert problem_of('{"max-length":1}', pattern=pattern).startswith(
        "pattern should be regular expression but is invalid: {"
    )


def test_what_a_policy_is_for_must_be_known() -> None:
    assert "" == problem_of('{"max-length":1}', apply_to="quorum_queues")
    assert problem_of('{"max-length":1}', apply_to="x").startswith(
        "apply-to 'x' unrecognised; should be 'queues', "
    )


@pytest.mark.parametrize("text", ["x{", "", '{"max-length":1', "[]", "1", '"a"', "[" * 100_000])
def test_a_definition_is_a_json_object(text: str) -> None:
    with pytest.raises(PolicyRefused, match="JSON"):
        read_definition(text)


def test_equal_definitions_are_kept_as_equal_bytes() -> None:
    one, other = '{"b":1,"a":{"d":1,"c":2}}', '{ "a": {"c": 2, "d": 1}, "b": 1 }'

    assert write_definition(read_definition(one)) == write_definition(read_definition(other))
