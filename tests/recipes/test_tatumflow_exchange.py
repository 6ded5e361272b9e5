"""The exchange of factors between pieces: what is told of it, on a small random model."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from musictool.inference.style_transfer import Transfer
from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.theory import FACTORS
from tests.small_models import install_small_tatumflow

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "tatumflow"


@pytest.fixture
def exchange(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPE))
    return importlib.import_module("exchange")


def test_movement_is_a_share_of_the_way(exchange):
    generator = np.random.default_rng(0)
    source, donor, aside = generator.normal(size=(3, 5, 7))
    aside -= (aside * (donor - source)).sum() / ((donor - source) ** 2).sum() * (donor - source)
    assert exchange.movement(source, source, donor) == (0, 0)
    assert exchange.movement(source, donor, donor) == pytest.approx((1, 1))
    assert exchange.movement(source, source + 0.3 * (donor - source), donor) == pytest.approx((0.3, 0.3))
    towards, away = exchange.movement(source, source + aside, donor)
    assert towards == pytest.approx(0)
    assert away == pytest.approx(np.linalg.norm(aside) / np.linalg.norm(donor - source))
    assert np.isnan(exchange.movement(source, donor, source)).all()


def test_pairs_are_exchanged_both_ways_of_measuring_and_told_in_a_table(exchange, tmp_path):
    install_small_tatumflow(tmp_path)
    for number in range(4):
        generator = np.random.default_rng(number)
        onset = np.arange(1.0, 10.0, 0.25)
        notes = Notes.of(onset, onset + 0.2, *generator.integers(40, 80, (2, len(onset))))
        folder = tmp_path / "styles" / "test" / "pop"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.mid").write_bytes(write_midi(Score(notes)))
    model, options = str(tmp_path / "models" / "tatumflow"), Transfer(0.9, frozenset(FACTORS), steps=3)
    found = exchange.run(model, tmp_path / "styles", "test", 3, 4.0, options, 1)
    assert len(found) == 3
    for (source, donor), moves in found.items():
        assert source != donor
        assert [moved.exchanged for moved in moves] == ["nothing", *FACTORS]
        assert len({tuple(moved.towards.values()) for moved in moves}) == 5
        assert all(set(moved.away) == set(FACTORS) for moved in moves)
    lines = exchange.table([moved for moves in found.values() for moved in moves]).splitlines()
    assert [line.split()[0] for line in lines] == ["exchanged", *(w for f in ("nothing", *FACTORS) for w in (f, "3"))]
