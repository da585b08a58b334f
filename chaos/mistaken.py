"""A node with a known mistake in it: `python -m chaos.mistaken NAME node …` in place of `leveret`.

A suite that passes such nodes would pass real mistakes, too; `chaos run --mistake NAME` shows.
"""

from __future__ import annotations

import sys

from chaos.simulation.mutations import mutated
from leveret.cli.main import main

if __name__ == "__main__":
    with mutated(sys.argv.pop(1)):
        main()
