"""What decides the result of a stage counts in its key, and nothing else does."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from musictool.training.data.pipeline.items import Item, Part
from musictool.training.data.pipeline.settings import APART, SETTINGS, LoudnessSettings, PairsSettings, SeparateSettings
from musictool.training.data.pipeline.stage import Stage
from tests.demucs_stub import install_demucs

ITEM = Item("x", {"mix": Part(Path("x.flac"), "0" * 64)})


def test_each_setting_counts(monkeypatch):
    first = Stage.of(LoudnessSettings())
    assert Stage.of(LoudnessSettings()).key(ITEM) == first.key(ITEM)
    assert Stage.of(LoudnessSettings(ceiling_dbtp=-2.0)).key(ITEM) != first.key(ITEM)
    assert first.key(replace(ITEM, name="y")) != first.key(ITEM)


def test_where_a_model_runs_does_not_count(monkeypatch):
    install_demucs(monkeypatch)
    here, there = (Stage.of(SeparateSettings(device=device)) for device in ("cpu", "cuda"))
    assert here.step == there.step
    assert "device" not in here.step


def test_what_plays_counts():
    step = Stage.of(PairsSettings(synthesizer="builtin")).step
    assert step["player"]["name"] == "builtin"
    assert len(step["player"]["font_sha256"]) == 64


@pytest.mark.parametrize("kind", SETTINGS.values())
def test_settings_have_defaults_and_say_what_is_apart(kind):
    kind()
    assert {field.name for field in fields(kind) if dict(field.metadata) == APART} <= {"device"}
