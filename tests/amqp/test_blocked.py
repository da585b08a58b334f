"""The reasons of connection.blocked."""

from __future__ import annotations

import pytest

from leveret.amqp.blocked import LOW_ON_DISK, LOW_ON_MEMORY, NO_MAJORITY, is_cut_off, text_of


@pytest.mark.parametrize("others", [[], [LOW_ON_DISK]])
def test_a_node_that_is_cut_off_says_so_beside_other_reasons(others: list[str]) -> None:
    assert is_cut_off(text_of([*others, NO_MAJORITY]))
    assert not is_cut_off(text_of(others))


def test_words_alone_do_not_mean_that_a_node_is_cut_off() -> None:
    assert not is_cut_off("low on memory & disk")
    assert not is_cut_off("a majority of the queues is full")
    assert not is_cut_off(None)


def test_memory_and_disk_together_have_rabbitmqs_text() -> None:
    assert text_of([LOW_ON_MEMORY, LOW_ON_DISK]) == "low on memory & disk"
    assert is_cut_off(text_of([LOW_ON_MEMORY, LOW_ON_DISK, NO_MAJORITY]))
