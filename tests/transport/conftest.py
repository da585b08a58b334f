from __future__ import annotations

import pytest

from .virtual import Net


@pytest.fixture
async def net() -> Net:
    """The network of one test, in memory."""
    return Net()
