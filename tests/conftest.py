"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: nothing here judges by time, and machines are shared. In CI the draws are the same
# each time, so that a commit is judged and not its luck; at home each run looks elsewhere.
settings.register_profile("leveret", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("leveret")
