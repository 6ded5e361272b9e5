"""A solo on the tones of its chords: all of them are, and the line goes where the solo goes."""

from __future__ import annotations

import numpy as np

from musictool.symbolic.chord_line import on_chord_tones
from musictool.symbolic.comping import Beat
from musictool.symbolic.notes import Notes


def line(*pitches: int) -> Notes:
    onset = 0.25 * np.arange(len(pitches))
    return Notes.of(onset, onset + 0.2, np.array(pitches), 60 + np.arange(len(pitches)) % 40)


def beats(*chords: str) -> list[Beat]:
    return [Beat(0.5 * number, number // 4, chord, None) for number, chord in enumerate(chords)]


def test_each_note_goes_to_the_nearest_tone_of_its_chord():
    moved = on_chord_tones(line(60, 63, 66, 70), beats("Cj7", "Cj7"))
    assert moved.pitch.tolist() == [60, 64, 67, 71]
    assert on_chord_tones(line(61, 65, 68, 72), beats("Dm7b5", "G79b")).pitch.tolist() == [60, 65, 67, 71]


def test_a_line_goes_on_where_the_nearest_tone_would_have_it_stay():
    moved = on_chord_tones(line(60, 61, 62, 62, 61, 60), beats("C", "C", "C"))
    assert moved.pitch.tolist() == [60, 64, 67, 67, 60, 60]


def test_all_tones_are_the_chords_and_nearly_all_steps_go_the_solos_way():
    generator = np.random.default_rng(0)
    solo = line(*np.clip(65 + generator.integers(-4, 5, 400).cumsum(), 44, 90).tolist())
    symbols = ["C-7", "F7", "Bbj7", "Am7b5", "D79b", "G-6"]
    track = beats(*(symbols[number // 2 % 6] for number in range(200)))
    moved = on_chord_tones(solo, track)
    tones = {
        "C-7": {0, 3, 7, 10},
        "F7": {5, 9, 0, 3},
        "Bbj7": {10, 2, 5, 9},
        "Am7b5": {9, 0, 3, 7},
        "D79b": {2, 6, 9, 0},
        "G-6": {7, 10, 2, 4},
    }
    for onset, pitch in zip(moved.onset_seconds, moved.pitch.tolist(), strict=True):
        assert pitch % 12 in tones[track[int(onset // 0.5)].chord]
    assert np.abs(moved.pitch - solo.pitch).max() <= 8
    assert np.mean(np.sign(np.diff(moved.pitch)) == np.sign(np.diff(solo.pitch))) > 0.85
    for column in ("onset_seconds", "offset_seconds", "velocity"):
        np.testing.assert_array_equal(getattr(moved, column), getattr(solo, column))


def test_a_note_just_before_a_beat_is_that_beats():
    solo = line(61).with_columns(onset_seconds=np.array([0.45]), offset_seconds=np.array([0.6]))
    assert on_chord_tones(solo, beats("C", "F#")).pitch.tolist() == [61]
    assert on_chord_tones(line(61), beats("C", "F#")).pitch.tolist() == [60]


def test_where_no_chord_is_known_notes_stay():
    assert on_chord_tones(line(61, 66, 63), beats("NC", "")).pitch.tolist() == [61, 66, 63]
    assert on_chord_tones(line(61), []).pitch.tolist() == [61]
    assert len(on_chord_tones(Notes.empty(), beats("C", "C"))) == 0
