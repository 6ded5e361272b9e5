"""What an evaluation finds out about a model stays with it: in every model that a run writes, and when it goes on."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.models.note_tagger import NoteThresholds
from musictool.models.registry import FAMILIES, build_model, config_from_dict
from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.synthesis import render
from musictool.training.runs import RunFolder, read_metrics
from musictool.training.tasks import note_tagging

RATE = 16_000
RECIPE = """
task = "note-tagging"
[model]
channels = 8
time_dilations = [1]
pitch_dilations = [12]
harmonics = [1.0, 2.0]
front_end = { windows_samples = [2048] }
[data]
train = ["pairs"]
valid = ["pairs"]
excerpt_seconds = 1.0
valid_excerpts = 2
valid_seconds = 2.0
[optimiser]
learning_rate = 0.03
[run]
steps = 6
batch_size = 1
ema_decay = 0.0
workers = 0
threads = 1
log_every = 0
evaluate_every = 3
save_every = 1
keep = 99
best = "loss"
"""

PLANNED = asdict(NoteThresholds())

Mtk = Callable[..., int]
pytestmark = pytest.mark.usefixtures("own_threads")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A folder of a sound of two seconds and its notes."""
    folder = tmp_path_factory.mktemp("pairs")
    onset = np.arange(0.1, 1.8, 0.2)
    notes = Notes.of(onset, onset + 0.15, 60 + np.arange(len(onset)) % 5)
    sound = np.concatenate(list(render(notes, Pedals.of(), rate_hz=RATE, synthesizer="builtin"))).mean(1)
    soundfile.write(folder / "a.wav", sound[: 2 * RATE], RATE, subtype="FLOAT")
    (folder / "a.mid").write_bytes(write_midi(Score(notes)))
    return folder


@pytest.fixture
def recipe(tmp_path, pair) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.replace('"pairs"', json.dumps(str(pair))))
    return path


@pytest.fixture
def mtk() -> Mtk:
    """Run `mtk ARGUMENT…`; its exit status."""

    def run(*arguments: object) -> int:
        return main([str(argument) for argument in arguments], Environment(io.BytesIO(), io.BytesIO(), io.StringIO()))

    return run


def thresholds(model: Path) -> dict[str, float]:
    """Those of a model on the disk."""
    return json.loads((model / "config.json").read_text())["config"]["thresholds"]


def found(run: Path) -> dict[int, dict[str, float]]:
    """The thresholds that evaluations found, by step, as the metrics file tells them."""
    evaluations = [record for record in read_metrics(run / "metrics.jsonl") if "valid/loss" in record]
    names = ("onset", "offset", "frame")
    return {record["step"]: {name: record[f"valid/{name}_threshold"] for name in names} for record in evaluations}


def test_the_best_model_has_the_thresholds_that_the_metrics_file_tells(mtk, recipe, tmp_path):
    run = tmp_path / "run"
    assert mtk("train", recipe, "-q", "-o", run) == 0
    source = json.loads((run / "best" / "config.json").read_text())["source"]
    assert thresholds(run / "best") == found(run)[int(source["step"])] != PLANNED


def test_every_model_has_the_thresholds_of_the_last_evaluation_before_it(mtk, recipe, tmp_path, monkeypatch):
    """The first evaluation is the best; the run that goes on does so between both, and without them."""
    both = [NoteThresholds(0.6, 0.2, 0.25), NoteThresholds(0.5, 0.35, 0.45)]
    settings = ("run.best=onset_threshold", "run.best_is=max", "-q")
    whole, broken_off = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken-off")

    def evaluations_find(*each: NoteThresholds) -> None:
        left = iter(each)
        monkeypatch.setattr(note_tagging, "_best_thresholds", lambda heard, hop_seconds: next(left))

    evaluations_find(*both)
    assert mtk("train", recipe, *settings, "-o", whole.path) == 0
    shutil.copytree(whole.path, broken_off.path)
    for step in (5, 6):
        shutil.rmtree(broken_off.checkpoint(step))
    evaluations_find(both[1])
    assert mtk("train", "--resume", "-q", "-o", broken_off.path) == 0
    first, second = map(asdict, both)
    for run in (whole, broken_off):
        assert found(run.path) == {3: first, 6: second}
        assert thresholds(run.best) == first
        of_each = [thresholds(run.checkpoint(step)) for step in run.checkpoint_steps()]
        assert of_each == [PLANNED, PLANNED, first, first, first, second]


def test_a_run_does_not_go_on_from_a_model_that_cannot_be_read(recipe, tmp_path, mtk):
    run = tmp_path / "run"
    assert mtk("train", recipe, "run.steps=3", "-q", "-o", run) == 0
    facts = run / "checkpoints/000000003/config.json"
    for damage in ("{", '{"format": 1, "family": "note-tagger", "preset": "", "config": {"channels": "x"}}', None):
        facts.unlink() if damage is None else facts.write_text(damage)
        errors = io.StringIO()
        arguments = ["train", "--resume", "run.steps=4", "-q", "-o", str(run)]
        assert main(arguments, Environment(io.BytesIO(), io.BytesIO(), errors)) == 3
        first, hint = errors.getvalue().splitlines()
        assert first.startswith("mtk: error: the checkpoint is damaged: ")
        assert "remove the folder" in hint
    shutil.rmtree(facts.parent)
    assert mtk("train", "--resume", "run.steps=4", "-q", "-o", run) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_any_family_bears_the_configuration_that_it_is_saved_with(family):
    config = config_from_dict({"family": family})
    assert build_model(config, "meta").config is config
