"""How far is searched: the same few examples in every run, others with the profile `long`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

EXAMPLES, EXAMPLES_LONG = 40, 20_000

_is_long = settings.get_current_profile_name() == "long"
LASTING = settings(
    deadline=None,
    derandomize=not _is_long,
    max_examples=EXAMPLES_LONG if _is_long else EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow],
)
