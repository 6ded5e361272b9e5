"""The judge of style transfer: what it measures, what it takes for halfway, and what it does not look at."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Score

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "tatumflow"


@pytest.fixture
def recipe(monkeypatch):
    """Imports a module of the recipe by name."""
    monkeypatch.syspath_prepend(str(RECIPE))
    return importlib.import_module


def chords(generator: np.random.Generator, seconds: float = 40.0) -> Notes:
    """Slow triads."""
    onset = np.repeat(np.arange(0, seconds, 2.0), 3)
    root = np.repeat(generator.integers(40, 60, len(onset) // 3), 3)
    return Notes.of(
        onset, onset + 1.9, root + np.tile([0, 4, 7], len(onset) // 3), generator.integers(50, 90, len(onset))
    )


def runs(generator: np.random.Generator, seconds: float = 40.0) -> Notes:
    """A fast line."""
    onset = np.arange(0, seconds, 0.15)
    steps = generator.choice([-2, -1, 1, 2], len(onset))
    pitch = 72 + np.clip(np.cumsum(steps), -20, 20)
    return Notes.of(onset, onset + 0.14, pitch, generator.integers(50, 90, len(onset)))


def write_styles(root: Path) -> None:
    """Two styles that a child can tell apart, 6 pieces to learn and 4 to be judged on."""
    generator = np.random.default_rng(0)
    for style, piece in (("slow", chords), ("fast", runs)):
        for side, count in (("train", 6), ("test", 4)):
            folder = root / side / style / "-"
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{style}-{number}.mid").write_bytes(write_midi(Score(piece(generator))))


def test_the_judge_tells_styles_apart_and_what_a_transfer_keeps(tmp_path, recipe, capsys):
    judge = recipe("judge")
    write_styles(tmp_path / "styles")
    judge.run_train(tmp_path / "styles", tmp_path / "judge.pt", steps=60, batch=6, seed=0)
    report = capsys.readouterr().out
    assert report.count("accuracy 1.000") == 3
    results = tmp_path / "results" / "slow-to-fast"
    for strength, folder in (("0.1", "slow"), ("0.9", "fast")):  # one that does nothing and one that keeps nothing
        (results / strength).mkdir(parents=True)
        for number in range(3):
            data = (tmp_path / "styles/test" / folder / "-" / f"{folder}-{number}.mid").read_bytes()
            (results / strength / f"slow-{number}.mid").write_bytes(data)
    output = tmp_path / "out"
    judge.run_judge(tmp_path / "styles", tmp_path / "judge.pt", tmp_path / "results", np.inf, output)
    verdicts = {entry["name"]: entry for entry in json.loads((output / "verdicts.json").read_text())}
    assert list(verdicts) == ["copy", "random", "rule", "0.1", "0.9"]
    weak, strong, copy = verdicts["0.1"], verdicts["0.9"], verdicts["copy"]
    assert {**weak, "name": "copy"} == copy
    assert (copy["pieces"], copy["style_share"], copy["source_share"]) == (3, 0, 1)
    assert copy["profile_similarity"] == copy["chord_similarity"] == 1
    assert (verdicts["random"]["pieces"], verdicts["random"]["style_share"]) == (9, 1)
    assert (strong["style_share"], strong["source_share"]) == (1, 0)
    assert strong["profile_similarity"] < 0.5
    assert strong["chord_similarity"] < 0.4
    assert (output / "strength.png").read_bytes()[:4] == b"\x89PNG"
    picture = tmp_path / "rolls.png"
    judge.run_rolls(tmp_path / "styles/test/slow", results / "0.9", picture, count=2, start=0.0, seconds=8.0)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_similarity_is_one_for_a_copy_and_falls_for_other_keys_and_other_times(recipe):
    similarities = recipe("judge").similarities
    piece = chords(np.random.default_rng(1))
    assert similarities(piece, piece) == pytest.approx((1, 1))
    louder = piece.with_columns(velocity=piece.velocity + 20, pitch=piece.pitch + 12)
    assert similarities(piece, louder) == pytest.approx((1, 1))
    assert max(similarities(piece, piece.with_columns(pitch=piece.pitch + 1))) < 0.1
    later = piece.with_columns(onset_seconds=piece.onset_seconds + 2, offset_seconds=piece.offset_seconds + 2)
    assert max(similarities(piece, later)) < 0.6
    assert similarities(Notes.empty(), Notes.empty()) == (1, 1)


def test_what_must_be_kept_is_halfway_from_random_to_the_copy(recipe):
    module = recipe("judge")
    copy = module.Verdict("a-to-b", "copy", 1, 0, 0, 1, 1.0, 0.9)
    random = module.Verdict("a-to-b", "random", 1, 1, 1, 0, 0.3, 0.1)
    assert module.least_kept([copy, random]) == pytest.approx((0.65, 0.5))


def test_the_classifier_hears_no_loudness_and_no_finer_grid_than_the_tokens_have(recipe):
    classifier = recipe("style_classifier")
    piece = chords(np.random.default_rng(2))
    rolls = classifier.windows_of(classifier.judged_notes(Score(piece)))
    louder = classifier.windows_of(classifier.judged_notes(Score(piece.with_columns(velocity=piece.velocity + 12))))
    finer = piece.with_columns(onset_seconds=piece.onset_seconds + 0.004)
    for roll, other, third in zip(
        rolls, louder, classifier.windows_of(classifier.judged_notes(Score(finer))), strict=True
    ):
        np.testing.assert_allclose(roll, other, atol=1e-5)
        np.testing.assert_array_equal(roll, third)


def test_a_roll_holds_strokes_what_sounds_and_relative_loudness(recipe):
    classifier = recipe("style_classifier")
    roll = classifier.roll(Notes.of([0.0, 0.4], [0.4, 20.0], [60, 64], [48, 80]))
    strokes, sounding, loudness = roll[:, 60 - classifier.LOWEST_KEY]
    assert np.flatnonzero(strokes).tolist() == [0]
    assert np.flatnonzero(sounding).tolist() == list(range(10))
    assert loudness[0] == -0.5
    assert roll[1, 64 - classifier.LOWEST_KEY].sum() == classifier.FRAMES - 10


def test_the_rule_swings_moves_loudness_and_keeps_pitch_classes(recipe):
    rules = recipe("baselines")
    means = rules.StyleMeans(velocity=90.0, velocity_spread=5.0, left_pitch=48.0, right_pitch=74.0)
    onset = np.sort(np.append(np.arange(64) * 0.25, np.arange(32) * 0.5)) + 0.1  # eighths, and a second note on beats
    piece = Notes.of(onset, onset + 0.2, 60 + np.arange(96) % 5, 40 + np.arange(96) % 7)
    swung = rules.by_rule(piece, "pop", "jazz", means)
    share = (swung.onset_seconds - 0.1) / 0.5 % 1
    np.testing.assert_allclose(share[2::3], rules.SWUNG, atol=0.06)
    on_beats = np.delete(share, np.arange(2, 96, 3))
    np.testing.assert_allclose((on_beats + 0.5) % 1, 0.5, atol=0.06)
    assert swung.velocity.mean() == pytest.approx(90, abs=1)
    assert sorted(swung.pitch.tolist()) == sorted((piece.pitch + 12).tolist())
    straight = rules.by_rule(swung, "jazz", "pop", means._replace(velocity=50.0))
    np.testing.assert_allclose(straight.onset_seconds, piece.onset_seconds, atol=0.03)
    other = rules.by_rule(piece, "pop", "classical", means._replace(velocity=50.0))
    np.testing.assert_array_equal(other.onset_seconds, onset)
    assert not len(rules.by_rule(Notes.empty(), "pop", "jazz", means._replace(velocity=50.0)))
