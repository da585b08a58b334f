"""A body says who sent it as what and when, is the same for the same seed, and proves itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.perf.body import SIZE_MIN, Bodies, Stamp, is_intact, stamp_of


def bodies(*, producer: int = 3, size: int = 100, seed: int = 1, checked: bool = True) -> Bodies:
    return Bodies(run=7, producer=producer, size_bytes=size, seed=seed, has_checksum=checked)


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(SIZE_MIN, 5000), st.booleans())
def test_what_is_stamped_is_read(sequence: int, at_ns: int, size: int, checked: bool) -> None:
    body = bodies(size=size, checked=checked).make(sequence, at_ns)

    assert size == len(body)
    assert Stamp(7, 3, sequence, at_ns) == stamp_of(body)


@pytest.mark.parametrize("place", [0, 8, 20, SIZE_MIN - 1, SIZE_MIN, 99])
def test_a_body_with_a_changed_octet_is_not_intact(place: int) -> None:
    body = bytearray(bodies().make(5, 10))
    assert is_intact(bytes(body))

    body[place] ^= 1

    assert not is_intact(bytes(body))


def test_a_body_that_was_cut_short_is_not_intact() -> None:
    assert not is_intact(bodies().make(5, 10)[:-1])


def test_octets_depend_on_seed_producer_and_number_alone() -> None:
    def filler(made: Bodies, sequence: int = 0) -> bytes:
        return made.make(sequence, 10)[SIZE_MIN:]

    assert filler(bodies()) == filler(bodies())
    assert filler(bodies()) != filler(bodies(seed=2))
    assert filler(bodies()) != filler(bodies(producer=4))
    assert filler(bodies()) != filler(bodies(), 1)


@pytest.mark.parametrize("body", [b"", b"x" * 20, b"x" * 200])
def test_a_body_of_others_has_no_stamp(body: bytes) -> None:
    assert stamp_of(body) is None
