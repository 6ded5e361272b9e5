"""Grooving patterns, against muspy and against bars laid out one by one."""

from __future__ import annotations

from itertools import combinations

import muspy
import numpy as np
import pytest

from musictool.metrics.groove import PLACES, groove_consistency, groove_similarity, onset_places
from musictool.symbolic.notes import Notes, Score, TempoMap, TimeSignature
from tests.metrics.pieces import DRUMS, NOTHING, ONE_NOTE, in_metre, random_piece, steady_piece

BAR_SECONDS = 2.0


def patterns(score, bars):
    """Whether a note begins at each place of each bar of two seconds, [bars, 64]."""
    found = np.zeros((bars, PLACES), bool)
    for onset in score.notes.onset_seconds.tolist():
        bar, place = divmod(round(onset / BAR_SECONDS * PLACES), PLACES)
        found[bar, place] = True
    return found


def bars_with_onsets(found):
    rows = np.flatnonzero(found.any(axis=1))
    return found[rows[0] : rows[-1] + 1]


@pytest.mark.parametrize("seed", range(4))
def test_consistency_is_the_mean_of_all_pairs_of_bars(seed):
    score = random_piece(seed, 60, seconds=15, drums=0.3)
    bars = bars_with_onsets(patterns(score, 9))
    expected = np.mean([1 - np.mean(one ^ other) for one, other in combinations(bars, 2)])
    assert groove_consistency(score) == pytest.approx(expected)
    assert 0 < groove_consistency(score) < 1


@pytest.mark.parametrize("seed", range(6))
def test_consistency_of_two_bars_equals_muspys(seed):
    generator = np.random.default_rng(seed)
    resolution = PLACES // 4  # so that a place is a tick
    time = np.unique(np.append(generator.integers(0, 2 * PLACES, 40), [0, PLACES]))
    notes = [muspy.Note(int(at), 60, 1) for at in time]
    piano = muspy.Music(resolution=resolution, tracks=[muspy.Track(notes=notes[:-1])])
    onset = time[:-1] / PLACES * BAR_SECONDS
    score = Score(Notes.of(onset, onset + 0.01, 60))
    assert groove_consistency(score) == pytest.approx(muspy.groove_consistency(piano, PLACES))


@pytest.mark.parametrize("seed", range(4))
def test_similarity_is_the_mean_over_bars_at_the_same_time(seed):
    one, other = random_piece(seed, 25, seconds=30), random_piece(seed + 50, 25, seconds=20)
    pairs = [(a, b) for a, b in zip(patterns(one, 17), patterns(other, 17)) if a.any() or b.any()]
    assert len(pairs) < 17
    expected = np.mean([1 - np.mean(a ^ b) for a, b in pairs])
    assert groove_similarity(one, other) == pytest.approx(expected)
    assert groove_similarity(one, one) == 1


def test_similarity_is_taken_in_the_references_bars():
    reference = in_metre(random_piece(1, seconds=20), 3, 4, 97)
    assert groove_similarity(reference, Score(reference.notes)) == 1
    bars = len(np.unique(onset_places(reference.notes, reference) // PLACES))
    assert bars == pytest.approx(20 / (3 * 60 / 97), abs=2)


def test_bars_follow_tempo_and_metre():
    tempo = TempoMap.of([0, 4], [500_000, 1_000_000])  # 2 s for the first four quarters, then 1 s for each
    signatures = (TimeSignature(0, 4, 4), TimeSignature(4, 3, 4), TimeSignature(8, 6, 8))  # at 8, a bar is cut short
    onset = [0, 1, 2, 3, 5, 6, 7.5]
    score = Score(Notes.of(onset, np.add(onset, 0.1), 60), tempo_map=tempo, time_signatures=signatures)
    expected = [0, 32, 64, 64 + 64 / 3, 128, 192, 192 + 32]
    assert onset_places(score.notes, score).tolist() == [round(place) for place in expected]


def test_an_onset_just_before_the_bar_line_is_on_it():
    early = Score(Notes.of([0, 1.99999999, 3.99], [1, 2, 4], 60))
    assert onset_places(early.notes, early).tolist() == [0, 64, 128]


def test_the_same_bar_over_and_over_is_wholly_consistent():
    assert groove_consistency(steady_piece([60, 62, 64, 65] * 4)) == 1
    assert groove_consistency(steady_piece([60, 62, 64, 65] * 4, start=100)) == 1


def test_a_bar_too_few_has_no_consistency_and_nothing_no_similarity():
    assert [groove_consistency(score) for score in (NOTHING, ONE_NOTE)] == [None, None]
    assert groove_consistency(DRUMS) is not None
    assert groove_similarity(NOTHING, NOTHING) is None
    assert [groove_similarity(ONE_NOTE, NOTHING), groove_similarity(NOTHING, ONE_NOTE)] == [0, 0]
    assert groove_similarity(DRUMS, DRUMS) == 1


def test_bars_of_a_microsecond_take_no_memory():
    score = Score(Notes.of([0, 80_000], [1, 80_001], 60), tempo_map=TempoMap.constant(1))
    assert groove_consistency(score) == pytest.approx(1)
    assert groove_similarity(score, score) == 1
