"""What a queue does by its arguments and policies, against a model that goes key by key."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leveret.broker.policies.merging import merge
from leveret.broker.queues.features import QueueFeatures, Retention, features_of

NUMBERS = ["message-ttl", "expires", "max-length", "max-length-bytes", "delivery-limit"]
TEXTS = ["dead-letter-exchange", "dead-letter-routing-key"]
OVERFLOWS = st.sampled_from(["drop-head", "reject-publish", "reject-publish-dlx"])
COUNTS = st.integers(1, 9)


def tables(numbers: list[str], texts: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(numbers, COUNTS),
            **dict.fromkeys(texts, st.sampled_from(["", "x", "y"])),
            "overflow": OVERFLOWS,
        },
    )


def naive(
    arguments: dict[str, Any], policy: dict[str, Any], operator: dict[str, Any]
) -> dict[str, Any]:
    """All that counts, by the name of a policy's setting."""
    found: dict[str, Any] = {}
    for key in NUMBERS:
        given_numbers = [table[key] for table in (arguments, policy, operator) if key in table]
        if given_numbers:
            found[key] = min(given_numbers)
    for key in TEXTS:
        for table in (policy, arguments):  # the later one stands
            if key in table:
                found[key] = table[key]
    for table in (policy, operator, arguments):
        if "overflow" in table:
            found["overflow"] = table["overflow"]
    return found


@given(tables(NUMBERS, TEXTS), tables(NUMBERS, TEXTS), tables(NUMBERS, []))
def test_the_smallest_number_counts_and_the_argument_goes_before_policies(
    arguments: dict[str, Any], policy: dict[str, Any], operator: dict[str, Any]
) -> None:
    wanted = naive(arguments, policy, operator)

    features = features_of(
        {f"x-{key}": value for key, value in arguments.items()},
        merge(policy, operator),
        vhost="/",
        name="q",
        auto_delete=False,
    )

    assert features == QueueFeatures(
        vhost="/",
        name="q",
        message_ttl_ms=wanted.get("message-ttl"),
        expires_ms=wanted.get("expires"),
        max_length=wanted.get("max-length"),
        max_length_bytes=wanted.get("max-length-bytes"),
        overflow=wanted.get("overflow", "drop-head"),
        dead_letter_exchange=wanted.get("dead-letter-exchange"),
        dead_letter_routing_key=wanted.get("dead-letter-routing-key"),
        counts_returns="delivery-limit" in wanted,
        delivery_limit=wanted.get("delivery-limit"),
    )


@given(tables(NUMBERS, TEXTS), tables(NUMBERS, []))
def test_merged_policies_have_each_key_once_and_an_operators_overflow_counts(
    policy: dict[str, Any], operator: dict[str, Any]
) -> None:
    merged = merge(policy, operator)

    assert merged == naive({}, policy, operator)
    assert list(merged) == sorted(policy.keys() | operator.keys())


def test_a_delivery_limit_below_zero_is_none() -> None:
    features = features_of(
        {"x-delivery-limit": -1}, {"delivery-limit": 4}, vhost="/", name="q", auto_delete=False
    )

    assert features.delivery_limit == 4


def test_a_number_beyond_all_bounds_is_cut_to_what_can_be_kept() -> None:
    features = features_of(
        {}, {"max-length": 10**24, "message-ttl": 10**24}, vhost="/", name="q", auto_delete=False
    )

    assert (features.max_length, features.message_ttl_ms) == (2**63 - 1, 2**63 - 1)


def test_of_two_ages_of_a_stream_the_smaller_counts() -> None:
    for argument, policy in (("1h", "2D"), ("2D", "1h")):
        features = features_of(
            {"x-queue-type": "stream", "x-max-age": argument},
            {"max-age": policy},
            vhost="/",
            name="q",
            auto_delete=False,
        )

        assert features.stream == Retention(max_age_ms=3_600_000)
