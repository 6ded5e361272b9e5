"""Fonts to render with: the one that ships, and small ones of a sine, in tune or not."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from musictool.symbolic.fluidsynth_player import load_library
from musictool.symbolic.soundfont_regions import Generator
from musictool.symbolic.synthesis import SHIPPED_FONT
from tests.symbolic.test_soundfont import LOOPED, SAMPLE, write_font

SHIPPED = Path(str(resources.files("musictool"))) / "assets" / "soundfonts" / SHIPPED_FONT
needs_fluidsynth = pytest.mark.skipif(load_library() is None, reason="no libfluidsynth")


def sine_font(
    path: Path,
    *,
    cents: int = 0,
    programs: tuple[tuple[int, int], ...] = ((0, 0),),
    keys: tuple[int, int] = (0, 127),
) -> Path:
    """A sine of 441 Hz, called A4: so 4 cents sharp, and what is asked for besides."""
    zone = [(Generator.KEY_RANGE, keys[0] | keys[1] << 8), (Generator.FINE_TUNE, cents % 100), LOOPED, SAMPLE]
    zone.insert(1, (Generator.COARSE_TUNE, cents // 100))
    return write_font(path, [zone], programs=programs)
