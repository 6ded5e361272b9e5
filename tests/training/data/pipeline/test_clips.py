"""Where clips begin and end, and what is left of the notes in one."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Pedals, Score, Track
from musictool.training.data.pipeline.clips import cut, cuts
from musictool.training.data.pipeline.settings import ClipsSettings


@pytest.mark.parametrize(
    ("seconds", "settings", "wanted"),
    [
        (12.0, ClipsSettings(), [(0, 12)]),
        (2.0, ClipsSettings(), [(0, 2)]),
        (12.0, ClipsSettings(4.0), [(0, 4), (4, 8), (8, 12)]),
        (12.0, ClipsSettings(5.0, least_seconds=2.0), [(0, 5), (5, 10), (10, 12)]),
        (12.0, ClipsSettings(5.0, least_seconds=2.1), [(0, 5), (5, 10)]),
        (12.0, ClipsSettings(6.0, 3.0, 6.0), [(0, 6), (3, 9), (6, 12)]),
        (12.0, ClipsSettings(2.0, 5.0), [(0, 2), (5, 7), (10, 12)]),
        (3.0, ClipsSettings(5.0, least_seconds=2.0), [(0, 3)]),
        (1.0, ClipsSettings(5.0, least_seconds=2.0), []),
        (3.0, ClipsSettings(2.0, least_seconds=5.0), [(0, 2)]),  # a whole clip is never too short
    ],
)
def test_clips_follow_one_another_to_the_end(seconds, settings, wanted):
    assert cuts(seconds, settings) == wanted


def test_notes_and_pedals_are_cut_with_the_sound():
    notes = Notes.of([0.5, 1.5, 2.5, 4.0], [1.8, 2.2, 9.0, 4.5], [60, 61, 62, 63], 80, 66)
    score = Score(notes, (Track("sax", 66),), pedals=Pedals.of([0.0, 3.5, 5.0], [1.2, 3.8, 6.0], [0, 0, 0]))
    inside = read_midi(write_midi(cut(score, 1.0, 4.0)))
    assert inside.notes.pitch.tolist() == [61, 62]  # one that began before cannot be heard from its beginning
    np.testing.assert_allclose(inside.notes.onset_seconds, [0.5, 1.5], atol=1e-4)
    np.testing.assert_allclose(inside.notes.offset_seconds, [1.2, 3.0], atol=1e-4)
    np.testing.assert_allclose(inside.pedals.onset_seconds, [0.0, 2.5], atol=1e-4)
    np.testing.assert_allclose(inside.pedals.offset_seconds, [0.2, 2.8], atol=1e-4)
    assert set(inside.notes.program.tolist()) == {66}
