"""Versions of a piece are found by their notes, and other pieces are not taken for versions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.symbolic.augment import Augmentation, augmented
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Notes, Score
from musictool.training.data.likeness import MIN_GRAMS, alike_pairs, fingerprint

DATA = os.environ.get("MTK_TEST_DATA", "")


def tune(seed: int, count: int = 200) -> Notes:
    """A tune that never says the same thing twice, with a bass under it, on two tracks."""
    generator = np.random.default_rng(seed)
    onset = np.arange(count) * 0.25
    melody = Notes.of(onset, onset + 0.2, 70 + generator.integers(-9, 10, count))
    bass = Notes.of(onset[::4], onset[::4] + 0.9, 40 + generator.integers(-9, 10, len(onset[::4])), track=1)
    return Notes.concatenate([melody, bass])


def moved(notes: Notes, *, semitones: int = 0, factor: float = 1.0, lag: float = 0.0) -> Notes:
    return notes.with_columns(
        pitch=notes.pitch + np.int16(semitones),
        onset_seconds=notes.onset_seconds * factor + lag,
        offset_seconds=notes.offset_seconds * factor + lag,
    )


def are_alike(first: Notes, second: Notes) -> bool:
    return alike_pairs([fingerprint(first), fingerprint(second)]) == [(0, 1)]


@given(st.integers(0, 99), st.integers(-20, 20), st.floats(0.5, 2), st.floats(0, 30))
@settings(max_examples=30, deadline=None)
def test_a_fingerprint_stays_through_transposition_tempo_and_silence_before(seed, semitones, factor, lag):
    notes = tune(seed, 60)
    np.testing.assert_array_equal(
        fingerprint(notes), fingerprint(moved(notes, semitones=semitones, factor=factor, lag=lag))
    )


@pytest.mark.parametrize("seed", range(5))
def test_versions_are_alike_and_other_pieces_are_not(seed):
    notes = tune(seed)
    generator = np.random.default_rng(seed)
    kept = generator.random(len(notes)) > 0.04
    jitter = generator.normal(0, 0.01, len(notes))
    versions = {
        "cut": notes.take((notes.onset_seconds > 15) & (notes.onset_seconds < 35)),
        "the tune alone": notes.take(notes.track == 0),
        "on one track": notes.with_columns(track=np.zeros(len(notes), np.int16)),
        "some notes missed": notes.take(kept),
        "played unevenly": notes.with_columns(onset_seconds=notes.onset_seconds + jitter),
        "by another instrument": notes.with_columns(program=np.full(len(notes), 40, np.int16)),
        "rows in another order": notes.take(generator.permutation(len(notes))),
    }
    assert {name for name, version in versions.items() if not are_alike(notes, version)} == set()
    assert not are_alike(notes, tune(seed + 100))


def test_pieces_over_the_same_accompaniment_are_not_alike():
    onset = np.arange(400) * 0.125
    figures = {
        "broken chords": np.tile([48, 55, 52, 55], 100),
        "one chord": np.full(400, 48),
        "one chord, sometimes another": 48 + (np.random.default_rng(0).random(400) < 0.1) * 2,
    }
    for figure, pitch in figures.items():
        accompaniment = Notes.of(onset, onset + 0.1, pitch, track=2)
        first, second = (Notes.concatenate([tune(seed, 40), accompaniment]) for seed in (1, 2))
        assert not are_alike(first, second), figure


@pytest.mark.parametrize("is_drum", [False, True])
def test_a_short_piece_is_like_its_copy_and_no_other(is_drum):
    notes = tune(3, MIN_GRAMS // 2).with_columns(is_drum=np.full(MIN_GRAMS // 2 + 4, is_drum))
    assert len(fingerprint(notes)) == 1
    assert are_alike(notes, moved(notes, lag=3.21))
    assert are_alike(notes, moved(notes, semitones=2)) == (not is_drum), "another drum is another piece"
    other = notes.pitch.copy()
    other[-1] += 1
    assert not are_alike(notes, notes.with_columns(pitch=other))
    assert not are_alike(notes, notes.take(slice(0, -1)))


def test_a_short_piece_is_transposed_without_its_drums():
    drums = Notes.of([0.1, 0.4], [0.2, 0.5], [36, 38], is_drum=True)
    low, high = (Notes.concatenate([moved(tune(3, 10), semitones=n), drums]) for n in (0, 4))
    assert len(fingerprint(low)) == 1
    assert are_alike(low, high)


def test_a_tune_is_found_under_another_one():
    above = moved(tune(7), semitones=25)
    both = Notes.concatenate([tune(1), above.with_columns(track=np.full(len(above), 2, np.int16))])
    assert are_alike(tune(1), both)


def test_a_quarter_in_common_is_enough_and_a_tenth_is_not():
    start, others = tune(1), [moved(tune(seed, 150), lag=50) for seed in (2, 3)]
    for count, expected in ((60, True), (20, False)):
        common = start.take(start.onset_seconds < count * 0.25)
        first, second = (Notes.concatenate([common, other]) for other in others)
        assert are_alike(first, second) == expected


def test_pieces_that_quote_a_little_do_not_hide_two_versions_from_each_other():
    melody = tune(1).take(tune(1).track == 0)
    quotes = [melody.take(slice(start, start + 30)) for start in range(0, 200, 20)]
    between = [Notes.concatenate([tune(50 + n), moved(quote, lag=200)]) for n, quote in enumerate(quotes)]
    found = alike_pairs([fingerprint(notes) for notes in [melody, *between, moved(melody, semitones=2)]])
    assert found == [(0, len(quotes) + 1)]


def test_drums_beside_a_tune_change_nothing():
    onset = np.arange(50) * 0.5 + 0.125
    drums = Notes.of(onset, onset, np.random.default_rng(0).integers(35, 81, 50), is_drum=True)
    np.testing.assert_array_equal(fingerprint(Notes.concatenate([tune(1), drums])), fingerprint(tune(1)))


def test_a_piece_without_notes_is_like_nothing():
    nothing = fingerprint(Notes.empty())
    assert len(nothing) == 0
    assert alike_pairs([nothing, fingerprint(tune(0)), nothing]) == []
    assert alike_pairs([nothing, nothing]) == []
    assert alike_pairs([]) == []


def test_many_versions_hang_together():
    """More than are compared with one another, shuffled among other pieces that quote them."""
    versions = [fingerprint(moved(tune(0), semitones=n % 12 - 6).take(slice(n, 230 + n))) for n in range(60)]
    others = [fingerprint(Notes.concatenate([tune(seed), moved(tune(0, 11), lag=90)])) for seed in range(1, 60)]
    order = np.random.default_rng(0).permutation(119)
    mixed = [[*versions, *others][index] for index in order]
    pairs = alike_pairs(mixed)
    is_version = order < 60
    assert all(is_version[first] and is_version[second] for first, second in pairs)
    reached = {int(np.flatnonzero(is_version)[0])}
    for first, second in pairs * 2:
        reached |= {first, second} if reached & {first, second} else set()
    assert reached == set(np.flatnonzero(is_version).tolist())


@pytest.mark.skipif(not DATA, reason="$MTK_TEST_DATA does not name the corpora")
def test_real_songs_are_like_their_variations_alone():
    paths = sorted((Path(DATA) / "pop909").glob("*.mid"))
    songs = [read_midi(path) for path in paths]
    pairs = alike_pairs([fingerprint(song.notes) for song in songs])
    assert [(paths[i].stem, paths[j].stem) for i, j in pairs] == [("017", "018")], "one song is there twice"
    generator = np.random.default_rng(0)
    settings = Augmentation(pitch=(-5, 6), time=(0.9, 1.1), velocity=8)

    def variation(song: Score) -> Notes:
        notes = augmented(song, settings, generator)[0].notes
        return notes.take(generator.random(len(notes)) > 0.03)

    chosen = generator.choice(len(songs), 60, replace=False).tolist()
    assert all(are_alike(songs[index].notes, variation(songs[index])) for index in chosen)
