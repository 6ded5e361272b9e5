"""Pitch classes, transitions and profiles, against pretty_midi and plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musictool.metrics.pitch_content import (
    centroids,
    frame_count,
    pitch_class_counts,
    profiles,
    transition_counts,
)
from musictool.symbolic.notes import Notes
from musictool.symbolic.pretty import to_pretty_midi
from tests.metrics.pieces import DRUMS, NOTHING, random_piece

# ------------------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize("seed", range(4))
def test_counts_and_transitions_equal_pretty_midis(seed):
    score = random_piece(seed, programs=(0, 33), drums=0.2)
    midi = to_pretty_midi(score)
    assert len(midi.instruments) == 4
    assert pitch_class_counts(score.notes).tolist() == midi.get_pitch_class_histogram(normalize=False).tolist()
    transitions = transition_counts(score.notes)
    assert transitions.tolist() == midi.get_pitch_class_transition_matrix().tolist()
    assert transitions.sum() > 20


def test_a_short_note_does_not_lead_to_itself_but_to_its_twin():
    short = Notes.of([1.0], [1.03], [64])
    assert transition_counts(short).sum() == 0
    assert transition_counts(Notes.concatenate([short, short]))[4, 4] == 2
    assert transition_counts(Notes.of([1, 1.03], [1.03, 2], [64, 67]))[4, 7] == 1


def test_notes_of_other_programs_and_drums_lead_nowhere():
    onset, offset, pitch = [0, 1], [1, 2], [60, 62]
    assert transition_counts(Notes.of(onset, offset, pitch))[0, 2] == 1
    assert not transition_counts(Notes.of(onset, offset, pitch, program=[0, 33])).any()
    assert not transition_counts(Notes.of(onset, offset, pitch, is_drum=[False, True])).any()


def test_ten_thousand_notes_at_once_are_counted_in_no_time():
    notes = Notes.of(np.zeros(10_000), np.full(10_000, 0.01), np.full(10_000, 60))
    assert transition_counts(notes)[0, 0] == 10_000 * 9_999


# ----------------------------------------------------------------------------------------------------------- profiles


@pytest.mark.parametrize("seed", range(3))
def test_profiles_add_up_overlap_by_overlap(seed):
    notes = random_piece(seed, 60, drums=0.2).notes
    count = frame_count(notes)
    expected = np.zeros((count, 12))
    for on, off, pitch, is_drum in zip(notes.onset_seconds, notes.offset_seconds, notes.pitch, notes.is_drum):
        for frame in range(count):
            if not is_drum:
                expected[frame, pitch % 12] += max(0.0, min(off, frame + 1) - max(on, frame))
    assert profiles(notes, count) == pytest.approx(expected, abs=1e-9)
    assert (profiles(notes, count)[-1] > 0).any(), "no frame too many"


def test_profiles_of_all_frames_equal_pretty_midis_by_duration():
    score = random_piece(9, drums=0.2)
    expected = to_pretty_midi(score).get_pitch_class_histogram(use_duration=True, normalize=False)
    assert profiles(score.notes, frame_count(score.notes)).sum(axis=0) == pytest.approx(expected)


def test_silence_is_exactly_silent_hours_into_a_piece():
    notes = Notes.of(
        40_000 + np.arange(1000) * 0.0371, 40_000 + np.arange(1000) * 0.0371 + 0.0123, 60 + np.arange(1000) % 12
    )
    profile = profiles(notes, 40_040)
    assert not profile[:40_000].any()
    assert (profile >= 0).all()
    assert not profile[40_038:].any()


@pytest.mark.parametrize("score", [NOTHING, DRUMS])
def test_without_pitches_there_are_no_frames(score):
    assert frame_count(score.notes) == 0
    assert profiles(score.notes, 3).tolist() == [[0] * 12] * 3


def test_centroids_lie_on_hartes_circles():
    generator = np.random.default_rng(0)
    rows = generator.random((4, 12))
    rows[3] = 0
    for row, centroid in zip(rows, centroids(rows)):
        total = sum(row) or 1.0
        expected = [0.0] * 6
        for pitch_class, weight in enumerate(row):
            circles = ((1.0, 7 / 6), (1.0, 3 / 2), (0.5, 2 / 3))
            for circle, (radius, turns) in enumerate(circles):
                expected[circle] += weight / total * radius * math.sin(pitch_class * turns * math.pi)
                expected[circle + 3] += weight / total * radius * math.cos(pitch_class * turns * math.pi)
        assert centroid.tolist() == pytest.approx(expected)
