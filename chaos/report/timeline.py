"""A run as a picture: what each node went through, what each queue confirmed and delivered. Pure.

One SVG, made by hand: it opens in every browser, also from a folder of an old failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Final

from chaos.checkers.silence import without_majority
from chaos.history import Deliver, Event, Fault, MessageId, Outcome, Publish, Recovered

WIDTH: Final = 1280
LEFT: Final = 96
RIGHT: Final = 24
LANE: Final = 22
PLOT: Final = 84
BELOW: Final = 40
"""Height of the deliveries, under the axis of a plot of confirms."""
COLORS: Final = {
    "kill": "#c0392b",
    "kill-majority": "#922b21",
    "outage": "#641e16",
    "wipe": "#6c3483",
    "stop": "#e67e22",
    "starve": "#f0b27a",
    "restart": "#7f8c8d",
    "transfer": "#5d6d7e",
    "partition": "#2471a3",
    "cut-off": "#1a5276",
    "one-way": "#5499c7",
    "bridge": "#2e86c1",
    "loss": "#85c1e9",
    "slow-link": "#a9cce3",
    "delay": "#7fb3d5",
    "reorder": "#76d7c4",
    "reset": "#17a589",
    "clock": "#d4ac0d",
    "full-disk": "#7d6608",
    "descriptors": "#b7950b",
    "storm": "#884ea0",
    "replace": "#4a235a",
    "power": "#b03a2e",
    "blackout": "#17202a",
    "sync-fails": "#935116",
    "slow-disk": "#dc7633",
    "lone-copy": "#6e2c00",
    "lost-settler": "#ba4a00",
}
OTHER: Final = "#34495e"


def timeline(events: Sequence[Event], *, title: str, nodes: int) -> str:
    """Return the picture of a history as SVG."""
    return _Picture(events, nodes=nodes).draw(title)


class _Picture:
    def __init__(self, events: Sequence[Event], *, nodes: int) -> None:
        self._faults = [event for event in events if isinstance(event, Fault)]
        self._outages = without_majority(events, nodes=nodes)
        self._recovered: dict[float, float] = {}
        self._confirmed: dict[str, Counter[int]] = {}
        self._delivered: dict[str, Counter[int]] = {}
        self._lost: dict[str, list[float]] = {}
        self._read(events)
        times = [
            *(second for counts in self._confirmed.values() for second in counts),
            *(second for counts in self._delivered.values() for second in counts),
            *(int(fault.until) for fault in self._faults),
        ]
        self._end = max(times, default=0) + 1
        self._nodes = sorted(
            {node for fault in self._faults for node in fault.nodes} | set(range(1, nodes + 1))
        )
        self._out: list[str] = []

    def _read(self, events: Sequence[Event]) -> None:
        queues: dict[MessageId, tuple[str, ...]] = {}
        owed: dict[tuple[str, MessageId], float] = {}
        delivered: set[tuple[str, MessageId]] = set()
        for event in events:
            match event:
                case Publish():
                    queues[event.id] = event.queues
                    for queue in event.queues:
                        self._confirmed.setdefault(queue, Counter())
                        self._delivered.setdefault(queue, Counter())
                case Outcome(type="ok"):
                    for queue in queues.get(event.id, ()):
                        self._confirmed[queue][int(event.t)] += 1
                        owed[queue, event.id] = event.t
                case Deliver(id=MessageId() as id_):
                    self._delivered.setdefault(event.queue, Counter())[int(event.t)] += 1
                    delivered.add((event.queue, id_))
                case Recovered(after_s=float() as after_s):
                    began = round(event.t - after_s, 3)
                    self._recovered[began] = max(self._recovered.get(began, 0.0), event.t)
        for (queue, id_), t in owed.items():
            if (queue, id_) not in delivered:
                self._lost.setdefault(queue, []).append(t)

    def draw(self, title: str) -> str:
        self._text(escape(title), LEFT, 24, size=16, weight="600")
        y = 44
        y = self._draw_legend(y)
        top = y
        for node in self._nodes:
            self._draw_lane(node, y)
            y += LANE
        y += 8
        for queue in sorted(self._confirmed):
            self._draw_queue(queue, y)
            y += PLOT + BELOW + 16
        self._draw_axis(top, y)
        height = y + 26
        # Behind all: while a majority was hit, silence is no fault.
        shade = [
            f'<rect x="{self._x(begin):.1f}" y="{top - 2}" width="{self._wide(begin, end):.1f}"'
            f' height="{y - top}" fill="#fdedec"><title>a majority was hit:'
            f" {begin:.1f} to {end:.1f} s</title></rect>"
            for begin, end in self._outages
        ]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif">'
            '<rect width="100%" height="100%" fill="#ffffff"/>'
            + "".join(shade)
            + "".join(self._out)
            + "</svg>\n"
        )

    def _x(self, t: float) -> float:
        return LEFT + t / self._end * (WIDTH - LEFT - RIGHT)

    def _wide(self, begin: float, end: float) -> float:
        return max(self._x(end) - self._x(begin), 1.5)

    def _text(
        self,
        text: str,
        x: float,
        y: float,
        *,
        size: int = 12,
        fill: str = "#2c3e50",
        weight: str = "400",
        anchor: str = "start",
    ) -> None:
        self._out.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}"'
            f' font-weight="{weight}" text-anchor="{anchor}">{text}</text>'
        )

    def _bar(self, x: float, y: float, wide: float, high: float, fill: str, told: str = "") -> None:
        title = f"<title>{escape(told)}</title>" if told else ""
        self._out.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"'
            f' fill="{fill}">{title}</rect>'
        )

    def _draw_legend(self, y: int) -> int:
        """Draw what the colours mean; return where the next thing begins."""
        x = float(LEFT)
        legend = [(kind, COLORS.get(kind, OTHER)) for kind in sorted(
            {fault.kind for fault in self._faults})]  # fmt: skip
        legend += [("recovering", "#aed6f1"), ("majority hit", "#fdedec")]
        legend += [("confirmed", "#2e86c1"), ("delivered", "#28b463")]
        for name, color in legend:
            wide = 26 + 7.0 * len(name)
            if x + wide > WIDTH - RIGHT:
                x, y = float(LEFT), y + 18
            self._bar(x, y - 10, 12, 12, color)
            self._text(name, x + 17, y)
            x += wide
        return y + 14

    def _draw_lane(self, node: int, y: int) -> None:
        self._text(f"node {node}", LEFT - 10, y + 13, anchor="end")
        self._bar(LEFT, y + 2, WIDTH - LEFT - RIGHT, LANE - 6, "#e8f6ef")
        mine = [fault for fault in self._faults if node in fault.nodes]
        for fault in mine:
            served = [t for began, t in self._recovered.items() if began >= fault.until - 0.01]
            if served:
                until = min(served)
                self._bar(
                    self._x(fault.until),
                    y + 2,
                    self._wide(fault.until, until),
                    LANE - 6,
                    "#aed6f1",
                    f"all served again {until - fault.until:.1f} s after it",
                )
        for fault in mine:
            self._bar(
                self._x(fault.t),
                y + 2 if fault.is_down else y + LANE / 2 - 2,
                self._wide(fault.t, fault.until),
                LANE - 6 if fault.is_down else 6,
                COLORS.get(fault.kind, OTHER),
                f"{fault.kind}, {fault.t:.1f} to {fault.until:.1f} s",
            )

    def _draw_queue(self, queue: str, y: int) -> None:
        confirmed, delivered = self._confirmed[queue], self._delivered[queue]
        top = max([*confirmed.values(), 1])
        bottom = max([*delivered.values(), 1])
        axis = y + PLOT
        self._text(escape(queue), LEFT - 10, axis - 30, anchor="end", weight="600")
        self._text(f"≤ {top}/s", LEFT - 10, axis - 14, anchor="end", size=11, fill="#2e86c1")
        self._text(f"≤ {bottom}/s", LEFT - 10, axis + 14, anchor="end", size=11, fill="#28b463")
        for second in range(self._end):
            x, wide = self._x(second), self._x(second + 1) - self._x(second)
            bar = max(wide - 0.6, 0.6)
            if confirmed[second]:
                high = (PLOT - 8) * confirmed[second] / top
                told = f"{confirmed[second]} confirmed in second {second}"
                self._bar(x, axis - high, bar, high, "#2e86c1", told)
            if delivered[second]:
                low = (BELOW - 6) * delivered[second] / bottom
                told = f"{delivered[second]} delivered in second {second}"
                self._bar(x, axis + 1, bar, low, "#28b463", told)
        lost = self._lost.get(queue, [])
        for t in lost:
            self._bar(self._x(t), y, 1.5, PLOT + BELOW, "#ff0000")
        if lost:
            text = f"{len(lost)} LOST"
            self._text(text, WIDTH - RIGHT, y + 12, fill="#ff0000", weight="700", anchor="end")

    def _draw_axis(self, top: int, bottom: int) -> None:
        step = next(step for step in (1, 2, 5, 10, 30, 60, 300, 600, 3600)
                    if self._end / step <= 20 or step == 3600)  # fmt: skip
        for second in range(0, self._end + 1, step):
            x = self._x(second)
            self._out.append(
                f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#2c3e50"'
                ' stroke-opacity="0.12"/>'
            )
            self._text(f"{second} s", x, bottom + 14, size=11, fill="#7f8c8d", anchor="middle")
