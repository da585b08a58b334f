"""What a run does to its cluster, as data: drawn from a seed, saved, and done again. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final, Literal


@dataclass(frozen=True)
class Shape:
    """How faults of a kind are drawn.

    hits: how many nodes; "minority", "majority" and "any" draw a number.
    is_down: whether these nodes are lost to the cluster meanwhile, as far as silence is judged.
    hold_s: least and longest time between its injection and its healing.
    has_company: whether another fault may fall together with it.
    weight: how often it is drawn, compared with others.
    """

    hits: Literal["one", "minority", "majority", "any", "all"] = "minority"
    is_down: bool = True
    stalls: bool = False
    """Whether the whole cluster holds publishers back meanwhile, as it should."""
    hold_s: tuple[float, float] = (0.3, 5.0)
    has_company: bool = True
    weight: int = 4


SHAPES: Final[dict[str, Shape]] = {
    # Processes.
    "kill": Shape(weight=6),
    "kill-majority": Shape("majority", weight=1),
    "outage": Shape("all", hold_s=(0.1, 2.0), has_company=False, weight=2),
    "stop": Shape(weight=6),
    "starve": Shape(),
    "restart": Shape("one", hold_s=(0.0, 1.0)),
    "wipe": Shape("one", hold_s=(0.1, 1.0), has_company=False, weight=2),
    "transfer": Shape("one", is_down=False, hold_s=(0.0, 0.1)),
    # The network between hosts of their own.
    "cut-off": Shape(),
    "partition": Shape(),
    "one-way": Shape("one"),
    "bridge": Shape("all"),
    "loss": Shape("all"),
    "slow-link": Shape("one"),
    "delay": Shape("any"),
    "reorder": Shape("any", is_down=False),
    "reset": Shape("all", is_down=False, hold_s=(0.0, 0.1)),
    # What a process needs.
    "clock": Shape("one", is_down=False),
    "full-disk": Shape("one", stalls=True, hold_s=(3.0, 6.0), has_company=False, weight=2),
    "descriptors": Shape("one", is_down=False),
    "storm": Shape("one", is_down=False),
    # Disks that forget what was not synced.
    "power": Shape(hold_s=(0.1, 2.0), weight=6),
    "blackout": Shape("all", hold_s=(0.1, 2.0), has_company=False),
    "sync-fails": Shape("one", hold_s=(0.5, 3.0)),
    "slow-disk": Shape("minority", hold_s=(0.5, 5.0)),
    # Several in a row.
    "lone-copy": Shape("all", hold_s=(1.0, 3.0), has_company=False, weight=2),
    "lost-settler": Shape("all", hold_s=(0.5, 2.0), has_company=False, weight=2),
    # Who belongs to the cluster.
    "replace": Shape("one", is_down=False, hold_s=(0.5, 2.0), has_company=False, weight=1),
}
CALM_S: Final = (0.5, 3.0)
"""Least and longest time without a fault before each step."""
LONG_CALM_S: Final = (24.0, 30.0)
"""Now and then: what is for one alone can be judged only so long after a fault."""
LONG: Final = 0.04
"""How often a calm is a long one."""
COMPANY: Final = 0.25
"""How often a second fault falls together with the first."""


@dataclass(frozen=True)
class Planned:
    """A fault to come.

    nodes: places in the cluster, from 0.
    delay_s: after the begin of its step; it is healed `hold_s` later.
    chance: seeds what the fault draws itself.
    """

    kind: str
    nodes: tuple[int, ...]
    delay_s: float
    hold_s: float
    chance: int


@dataclass(frozen=True)
class Step:
    """Faults that fall together, after `calm_s` without any; then all of them are healed."""

    calm_s: float
    faults: tuple[Planned, ...]


def draw(seed: int, *, nodes: int, kinds: Sequence[str]) -> Iterator[Step]:
    """Return what a seed means, without end."""
    rng = Random(f"chaos/{seed}/{nodes}/{','.join(kinds)}")
    weights = [SHAPES[kind].weight for kind in kinds]
    together = [kind for kind in kinds if SHAPES[kind].has_company]
    while True:
        first = _planned(rng, rng.choices(kinds, weights)[0], nodes=nodes, delay_s=0.0)
        faults = [first]
        if SHAPES[first.kind].has_company and rng.random() < COMPANY:
            delay_s = round(rng.uniform(0.0, first.hold_s), 3)
            kind = rng.choice(together)
            left = [place for place in range(nodes) if place not in first.nodes]
            faults.append(_planned(rng, kind, nodes=nodes, delay_s=delay_s, places=left))
        calm_s = LONG_CALM_S if rng.random() < LONG else CALM_S
        yield Step(round(rng.uniform(*calm_s), 3), tuple(faults))


def _planned(
    rng: Random, kind: str, *, nodes: int, delay_s: float, places: Sequence[int] = ()
) -> Planned:
    """Draw a fault of a kind; places: those that it may hit, unless it hits all."""
    shape = SHAPES[kind]
    minority = (nodes - 1) // 2
    count = {
        "one": 1,
        "minority": rng.randint(1, max(minority, 1)),
        "majority": rng.randint(minority + 1, nodes),
        "any": rng.randint(1, len(places) or nodes),
        "all": nodes,
    }[shape.hits]
    chosen = range(nodes) if count == nodes or not places else places
    return Planned(
        kind,
        tuple(rng.sample(chosen, min(count, len(chosen)))),
        delay_s,
        round(rng.uniform(*shape.hold_s), 3),
        rng.randrange(1 << 32),
    )


def steps_to_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Return steps as what JSON can hold."""
    return [asdict(step) for step in steps]


def steps_of_json(saved: Sequence[dict[str, Any]]) -> list[Step]:
    """Return the steps that `steps_to_json` made JSON of."""
    return [
        Step(
            step["calm_s"],
            tuple(
                Planned(
                    fault["kind"],
                    tuple(fault["nodes"]),
                    fault["delay_s"],
                    fault["hold_s"],
                    fault["chance"],
                )
                for fault in step["faults"]
            ),
        )
        for step in saved
    ]
