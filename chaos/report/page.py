"""A run as a page for people: the verdict, the figures, the picture, all faults. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from chaos.history import Event, Fault
from chaos.judge import Verdict
from chaos.report.figures import table
from chaos.report.timeline import timeline

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1300px;
       color: #2c3e50; padding: 0 1rem; }
h1 { font-size: 1.4rem; } .pass { color: #1e8449; } .fail { color: #c0392b; }
pre { background: #f4f6f7; padding: 1rem; overflow-x: auto; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
svg { max-width: 100%; height: auto; border: 1px solid #eaeded; }
"""


def page(events: Sequence[Event], verdict: Verdict, *, title: str, seed: int, nodes: int) -> str:
    """Return the page as HTML, in one file."""
    kind = "pass" if verdict.is_pass else "fail"
    complaints = "".join(f"<li>{escape(complaint)}</li>" for complaint in verdict.complaints)
    faults = sorted((e for e in events if isinstance(e, Fault)), key=lambda fault: fault.t)
    rows = "".join(
        f"<tr><td>{fault.t:.1f} s</td><td>{escape(fault.kind)}</td>"
        f"<td>{' '.join(map(str, fault.nodes))}</td><td>{fault.until - fault.t:.2f} s</td></tr>"
        for fault in faults
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<h1>{escape(title)}</h1><p class="{kind}"><strong>'
        f"{escape(verdict.line(seed))}</strong></p>"
        + (f"<h2>Broken promises</h2><ul>{complaints}</ul>" if complaints else "")
        + f"<pre>{escape(chr(10).join(table(verdict)))}</pre>"
        + timeline(events, title="nodes, and queues second by second", nodes=nodes)
        + "<h2>Faults</h2><table><tr><th>at</th><th>kind</th><th>nodes</th><th>for</th></tr>"
        + f"{rows}</table></html>\n"
    )
