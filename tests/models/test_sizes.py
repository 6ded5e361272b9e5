"""The table of sizes in README is what its presets count."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

import musictool
from musictool.models.registry import PRESETS, build_model, load_preset

README = Path(musictool.__file__).parents[1] / "README.md"
_ROW = re.compile(r"^\| (.*`.*) \| ([\d,; ]+) \| .*\|$", re.MULTILINE)
_ADAPTER = "an adapter of rank 8 "


def sizes() -> dict[str, int]:
    """What the table says of each preset, and of the adapter."""
    section = README.read_text(encoding="utf-8").partition("\n## Models\n")[2].partition("\n## ")[0]
    said: dict[str, int] = {}
    for cell, counts in _ROW.findall(section):
        names = [cell] if cell.startswith(_ADAPTER) else _full(re.findall(r"`([^`]+)`", cell))
        for name, count in zip(names, counts.split("; "), strict=True):
            assert name not in said
            said[name] = int(count.replace(",", ""))
    return said


def _full(names: list[str]) -> list[str]:
    """Names of a row, of which later ones may leave out what they share with the first."""
    stem = names[0] if f"{names[0]}{names[-1]}" in PRESETS else names[0].rpartition("-")[0]
    return [f"{stem}{name}" if name.startswith("-") else name for name in names]


def count(preset: str) -> int:
    return sum(tensor.numel() for tensor in build_model(load_preset(preset), "meta").state_dict().values())


def test_every_preset_has_its_place_in_the_table():
    assert {name for name in sizes() if not name.startswith(_ADAPTER)} == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_table_says_what_a_preset_counts(preset):
    assert sizes()[preset] == count(preset)


def test_the_table_says_what_adapters_of_personaljazz_count():
    model = build_model(load_preset("personaljazz"), "meta")
    projections = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in {"query", "key", "value", "output"}
    ]
    assert len(projections) == 96
    counted = sum(8 * (layer.in_features + layer.out_features) for layer in projections)
    assert [value for name, value in sizes().items() if name.startswith(_ADAPTER)] == [counted] == [1_572_864]
