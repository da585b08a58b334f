"""What every configuration value carries besides its value: kind, range, words for the docs.

`setting(...)` stands where a dataclass field's default stands; `settings_of` finds them again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

from leveret.node.units import Kind

T = TypeVar("T")
_KEY = "setting"


@dataclass(frozen=True)
class Setting:
    """The description of one configuration value.

    at_limit: what happens when a limit is reached; empty for what is no limit.
    default_text: the default in words, where it depends on other values.
    """

    kind: Kind[object]
    default: object
    about: str
    at_limit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    default_text: str

    def parse(self, raw: object) -> object:
        """Return the value that `raw` stands for.

        Raises:
            ValueError: wrong type or out of range; the text says what was expected.
        """
        value = self.kind.parse(raw)
        if self.choices and value not in self.choices:
            raise ValueError(f"expected one of: {', '.join(self.choices)}")
        if isinstance(value, (int, float)):
            if self.minimum is not None and value < self.minimum:
                raise ValueError(f"must be at least {self.kind.show(self._like(self.minimum))}")
            if self.maximum is not None and value > self.maximum:
                raise ValueError(f"must be at most {self.kind.show(self._like(self.maximum))}")
        return value

    def _like(self, bound: float) -> object:
        return int(bound) if isinstance(self.default, int) else bound

    @property
    def range_text(self) -> str:
        """The values allowed, in words; empty when all values of the kind are."""
        if self.choices:
            return ", ".join(f"`{choice}`" for choice in self.choices)
        low = None if self.minimum is None else self.kind.show(self._like(self.minimum))
        high = None if self.maximum is None else self.kind.show(self._like(self.maximum))
        if low is not None and high is not None:
            return f"{low} to {high}"
        return f"at least {low}" if low is not None else f"at most {high}" if high else ""

    @property
    def shown_default(self) -> str:
        return self.default_text or self.kind.show(self.default)


def setting(
    default: T,
    kind: Kind[T],
    about: str,
    *,
    at_limit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    default_text: str = "",
    secret: bool = False,
) -> T:
    """Describe a configuration value; returns a dataclass field, typed as its default."""
    described = Setting(
        cast("Kind[object]", kind),
        default,
        about,
        at_limit,
        minimum,
        maximum,
        choices,
        default_text,
    )
    field: T = dataclasses.field(default=default, repr=not secret, metadata={_KEY: described})
    return field


def settings_of(section: type) -> Iterator[tuple[str, Setting]]:
    """Yield key and description of each value of a section, in the order of its class."""
    for field in dataclasses.fields(section):
        described = field.metadata[_KEY]
        assert isinstance(described, Setting)
        yield field.name, described
