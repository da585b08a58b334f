"""How much memory a process has, and how much there is for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from leveret.node.memory import MemoryWatch, UnknownMemory, group_limits, real_memory
from leveret.node.units import WATERMARK, Watermark
from tests.support.descriptors import no_descriptor_left


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")
def test_a_process_sees_its_memory_grow() -> None:
    memory = real_memory()
    before, total = memory.used_bytes(), memory.total_bytes()
    assert before is not None
    assert total is not None
    assert 0 < before < total

    ballast = b"x" * (32 << 20)
    after = memory.used_bytes()
    assert after is not None
    assert after >= before + len(ballast) // 2
    del ballast
    memory.give_back()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")
def test_memory_is_told_with_no_descriptor_left() -> None:
    memory = real_memory()
    with no_descriptor_left():
        assert memory.used_bytes()
        assert memory.total_bytes()


def test_a_control_group_and_those_around_it_limit_the_memory(tmp_path: Path) -> None:
    write(tmp_path / "membership", "0::/outer/inner\n")
    write(tmp_path / "memory.max", "max\n")
    write(tmp_path / "outer/memory.max", "1000\n")
    write(tmp_path / "outer/inner/memory.max", "2000\n")

    assert sorted(group_limits(tmp_path, tmp_path / "membership")) == [1000, 2000]


def test_a_control_group_of_version_1_limits_the_memory(tmp_path: Path) -> None:
    write(tmp_path / "membership", "4:cpu,memory:/docker/abc\n1:name=systemd:/docker/abc\n")
    # In the container its own group is the root.
    write(tmp_path / "memory/memory.limit_in_bytes", "3000\n")

    assert group_limits(tmp_path, tmp_path / "membership") == [3000]


def test_without_control_groups_nothing_limits_the_memory(tmp_path: Path) -> None:
    assert group_limits(tmp_path, tmp_path / "membership") == []


def test_memory_that_nobody_can_tell_is_never_low() -> None:
    watch = MemoryWatch(UnknownMemory(), Watermark(size_bytes=0))

    assert watch.limit_bytes == 0
    assert not watch.is_low()


@pytest.mark.parametrize(
    ("raw", "watermark"),
    [
        (0.4, Watermark(fraction=0.4)),
        ("0.4", Watermark(fraction=0.4)),
        (1, Watermark(fraction=1.0)),
        ("2GiB", Watermark(size_bytes=2 << 30)),
        (5000, Watermark(size_bytes=5000)),
    ],
)
def test_a_watermark_is_a_fraction_or_a_size(raw: object, watermark: Watermark) -> None:
    assert WATERMARK.parse(raw) == watermark
    assert WATERMARK.parse(WATERMARK.show(watermark)) == watermark


@pytest.mark.parametrize("raw", ["much", "-1", "2 hares", True])
def test_what_is_no_watermark_is_told_with_examples(raw: object) -> None:
    with pytest.raises(ValueError, match=r"a fraction of the memory, such as 0\.6, or a size"):
        WATERMARK.parse(raw)
