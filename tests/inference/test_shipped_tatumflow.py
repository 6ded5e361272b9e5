"""The style transfer model that ships: that it is small, reads and writes music, keeps chords and changes style."""

from __future__ import annotations

from pathlib import Path

import mir_eval
import numpy as np
import pytest

from musictool.checkpoints.store import Store
from musictool.inference.style_transfer import StyleTransfer, Transfer, TransferModel, load_transfer_model
from musictool.metrics.symbolic_similarity import chord_similarity
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Notes, Score

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> TransferModel:
    return load_transfer_model("tatumflow", "cpu", store=Store(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def waltz() -> Score:
    return read_midi(ROOT / "examples" / "waltz.mid")


def carried(shipped: TransferModel, score: Score, style: str = "jazz", **options) -> Notes:
    carrier = StyleTransfer(shipped.model, Transfer(**options))
    return carrier.run(score, carrier.style_named({style: 1.0})).notes


def test_the_model_takes_at_most_12_megabytes():
    folder = ROOT / "musictool" / "assets" / "models" / "tatumflow"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12e6


def test_music_is_read_and_written_back(shipped, waltz):
    made = carried(shipped, waltz, strength=0.02)
    intervals, hz = (
        [np.stack([notes.onset_seconds, notes.offset_seconds], 1) for notes in (waltz.notes, made)],
        [440 * 2 ** ((notes.pitch - 69.0) / 12) for notes in (waltz.notes, made)],
    )
    *_, f1, _ = mir_eval.transcription.precision_recall_f1_overlap(
        intervals[0], hz[0], intervals[1], hz[1], offset_ratio=None
    )
    assert f1 > 0.9
    assert np.abs(np.median(made.velocity) - np.median(waltz.notes.velocity)) < 12


@pytest.mark.parametrize("style", ["pop", "classical", "jazz", "game"])
def test_a_piece_in_another_style_keeps_its_chords_and_not_its_notes(shipped, waltz, style):
    made = carried(shipped, waltz, style)
    near, far = (chord_similarity(waltz.notes, notes) for notes in (made, transposed(made)))
    assert near > 0.5
    assert near > far + 0.3
    assert set(zip(made.onset_seconds, made.pitch, strict=True)) != set(
        zip(waltz.notes.onset_seconds, waltz.notes.pitch, strict=True)
    )


def test_what_is_kept_follows_what_was_asked_for(shipped, waltz):
    kept = chord_similarity(waltz.notes, carried(shipped, waltz, strength=1.0))
    free = chord_similarity(waltz.notes, carried(shipped, waltz, strength=1.0, keep=frozenset()))
    assert kept > free + 0.1


def transposed(notes: Notes) -> Notes:
    return notes.with_columns(pitch=notes.pitch + 1)
