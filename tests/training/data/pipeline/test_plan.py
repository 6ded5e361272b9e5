"""What a pipeline's TOML means, and what it cannot mean."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from musictool.config import load_toml
from musictool.errors import UsageError
from musictool.training.data.pipeline.plan import parse_pipeline
from musictool.training.data.pipeline.settings import SETTINGS, ClipsSettings, IngestSettings, WindowsSettings

RECIPES = Path(__file__).parents[4] / "examples" / "recipes" / "saxgpt"


def test_sections_are_stages_in_their_order_with_defaults():
    table = {"clips": {"seconds": 5}, "ingest": {"keep": False}, "inputs": "songs", "split": {"seed": 3}}
    plan = parse_pipeline(table, "p.toml")
    assert [stage.name for stage in plan.stages] == ["ingest", "clips"]
    assert [stage.settings for stage in plan.stages] == [IngestSettings(), ClipsSettings(5.0)]
    assert [stage.keeps for stage in plan.stages] == [False, True]
    assert plan.inputs == ("songs",)
    assert plan.split.seed == 3


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({}, "no stage"),
        ({"split": {}}, "no stage"),
        ({"loudnes": {}}, "loudnes"),
        ({"loudness": {"target": 3}}, "target"),
        ({"loudness": {"target_lufs": 3}}, "-60 to 0"),
        ({"loudness": {"keep": 1}, "clips": {}}, "keep"),
        ({"loudness": 3}, "section"),
        ({"ingest": {}, "pairs": {}}, "both"),
        ({"ingest": {}, "clips": {"keep": False}}, "last stage"),
        ({"ingest": {}, "inputs": 3}, "inputs"),
        ({"ingest": {}, "split": {"fraction": 1}}, "fraction"),
        ({"windows": {"frame_seconds": 1.05}}, "multiple"),
        ({"augment": {"semitones": [1, 1]}}, "twice"),
        ({"augment": {"tempo": [1.0]}}, "not 1"),
        ({"clips": {"every_seconds": 3.0}}, "needs seconds"),
    ],
)
def test_what_makes_no_sense_is_named(table, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        parse_pipeline(table, "p.toml")
    assert "p.toml" in caught.value.context


def test_the_defaults_are_those_of_the_saxgpt_pipeline():
    windows = WindowsSettings()
    assert (windows.threshold, windows.frame_seconds, windows.hop_seconds, windows.least_seconds) == (0.05, 10, 0.2, 30)
    augment = SETTINGS["augment"]()
    assert (augment.semitones, augment.tempo) == ((-2, 2), (0.9, 1.1))
    split = parse_pipeline({"ingest": {}, "split": {}}, "").split
    assert (split.fractions, split.seed) == ("train=.8,valid=.1,test=.1", 67)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_are_pipelines(path):
    plan = parse_pipeline(load_toml(path), path.name)
    assert plan.split is not None
    assert plan.stages[0].name in ("ingest", "pairs")


def test_settings_import_nothing_heavy():
    import subprocess

    code = "import sys; import musictool.training.data.pipeline.settings; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "orjson", "soundfile"} & set(loaded)
