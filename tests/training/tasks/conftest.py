"""What tests of several tasks learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.tasks.style_pieces import write_styles


@pytest.fixture(scope="module")
def styles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of `write_styles`."""
    return write_styles(tmp_path_factory.mktemp("styles"))
