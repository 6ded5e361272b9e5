"""A result beside its reference, against mir_eval, scipy and matrices written out."""

from __future__ import annotations

import mir_eval
import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cosine as cosine_distance

from musictool.errors import InputError
from musictool.metrics.pitch_content import centroids, profiles
from musictool.metrics.symbolic import FIGURES, figures_of
from musictool.metrics.symbolic_similarity import (
    COMPARISONS,
    chord_similarity,
    compare,
    divergence_bits,
    melody_similarity,
    structural_similarity,
)
from musictool.symbolic.chords import chords_of
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.pretty import to_pretty_midi
from musictool.symbolic.skyline import skyline_of
from tests.metrics.pieces import DRUMS, NOTHING, ONE_NOTE, random_piece, steady_piece

SIMILARITIES = [name for name in COMPARISONS if name.endswith(("similarity", "cosine"))]
DISTANCES = ["pitch_class_kl", "tonal_distance"]


def pair(seed):
    """Two pieces that share half of their notes."""
    one, other = random_piece(seed, drums=0.1), random_piece(seed + 100, 60, seconds=25)
    half = one.notes.take(slice(0, None, 2))
    return one, Score(Notes.concatenate([half, other.notes]))


def in_key(score, tonic):
    """The notes, moved to the major scale on a tonic."""
    octave, above = np.divmod(score.notes.pitch - tonic, 12)
    degree = np.array([0, 0, 2, 2, 4, 5, 5, 7, 7, 9, 9, 11])[above]
    return Score(score.notes.with_columns(pitch=(tonic + 12 * octave + degree).astype(np.int16)))


def sounding(notes, count):
    """Seconds that each pitch class sounds in each second, [count, 12]."""
    found = np.zeros((count, 12))
    for on, off, pitch in zip(notes.onset_seconds, notes.offset_seconds, notes.pitch):
        for frame in range(count):
            found[frame, pitch % 12] += max(0.0, min(off, frame + 1) - max(on, frame))
    return found


def similarity(one, other):
    return 1 - cosine_distance(one, other) if one.any() and other.any() else 0.0


@pytest.mark.parametrize("score", [random_piece(0, drums=0.2), ONE_NOTE])
def test_a_copy_is_alike_in_everything(score):
    scores = compare(score, score)
    assert tuple(scores) == (*FIGURES, *COMPARISONS)
    assert {name: scores[name] for name in FIGURES} == figures_of(score)
    alike = {scores[name] for name in SIMILARITIES if scores[name] is not None}
    assert all(value == pytest.approx(1, abs=1e-12) and value <= 1 for value in alike)
    assert [scores[name] for name in DISTANCES] == [0, 0]
    assert {scores[f"{name}_difference"] for name in FIGURES} <= {0, None}


def test_a_stranger_is_less_alike_in_everything():
    one, other = in_key(random_piece(0), 0), in_key(random_piece(1), 6)
    mixed = Score(Notes.concatenate([one.notes.take(slice(0, None, 2)), other.notes.take(slice(0, None, 2))]))
    half, stranger = compare(one, mixed), compare(one, other)
    for name in SIMILARITIES:
        assert -0.2 < stranger[name] < half[name] < 1, name
    for name in DISTANCES:
        assert stranger[name] > half[name] > 0, name


@pytest.mark.parametrize("seed", range(3))
def test_histograms_and_transitions_are_held_against_pretty_midis(seed):
    one, other = pair(seed)
    midi = [to_pretty_midi(score) for score in (one, other)]
    scores = compare(one, other)
    p, q = (np.array(m.get_pitch_class_histogram(normalize=False)) + 1 for m in midi)
    assert scores["pitch_class_kl"] == pytest.approx(scipy.stats.entropy(p, q, base=2))
    matrices = [m.get_pitch_class_transition_matrix().ravel() for m in midi]
    assert scores["pitch_class_transition_cosine"] == pytest.approx(1 - cosine_distance(*matrices))
    durations = [m.get_pitch_class_histogram(use_duration=True, normalize=False) for m in midi]
    assert scores["profile_similarity"] == pytest.approx(1 - cosine_distance(*durations))


@pytest.mark.parametrize("seed", range(3))
def test_frames_are_held_against_each_other_one_by_one(seed):
    one, other = (score.notes.take(~score.notes.is_drum) for score in pair(seed))
    one = one.take((one.onset_seconds < 8) | (one.onset_seconds > 12))  # a stretch where one is silent
    frames = [(a, b) for a, b in zip(sounding(one, 40), sounding(other, 40)) if a.any() or b.any()]
    scores = compare(Score(one), Score(other))
    assert scores["frame_profile_similarity"] == pytest.approx(np.mean([similarity(*frame) for frame in frames]))
    distances = [np.linalg.norm(np.subtract(*centroids(np.stack(frame)))) for frame in frames]
    assert scores["tonal_distance"] == pytest.approx(np.mean(distances))


def test_melody_agrees_with_mir_eval():
    one, other = pair(4)
    pitch = other.notes.pitch + np.where(np.arange(len(other.notes)) % 3, 0, 12)
    other = Score(other.notes.with_columns(pitch=pitch.astype(np.int16)))

    def melody(score):
        line = skyline_of(score.notes)
        at = (np.arange(4000) + 0.5) / 100
        pitch = np.zeros(len(at))
        for on, off, note in zip(line.onset_seconds, line.offset_seconds, line.pitch):
            pitch[(on <= at) & (at < off)] = mir_eval.util.midi_to_hz(float(note))
        return at, pitch

    def agreeing(measure):
        """Frames that mir_eval takes for correct, of those in which either has a melody."""
        voicing, cents, other_voicing, other_cents = mir_eval.melody.to_cent_voicing(
            *melody(one), *melody(other), base_frequency=10
        )
        assert len(voicing) >= 3000
        right = measure(voicing, cents, other_voicing, other_cents) * voicing.sum()
        return right / np.count_nonzero((voicing > 0) | (other_voicing > 0))

    in_tune = agreeing(mir_eval.melody.raw_pitch_accuracy)
    assert melody_similarity(one.notes, other.notes) == pytest.approx(in_tune, abs=2e-3)
    assert 0.1 < in_tune < 0.9
    octaves = agreeing(mir_eval.melody.raw_chroma_accuracy)
    assert melody_similarity(one.notes, other.notes, any_octave=True) == pytest.approx(octaves, abs=2e-3)
    assert octaves > in_tune


@pytest.mark.parametrize("seed", range(3))
def test_chords_agree_with_mir_eval(seed):
    one, other = in_key(random_piece(seed), 0), in_key(random_piece(seed + 1), 0)
    half = one.notes.take(one.notes.onset_seconds < 10)
    late = other.notes.take(other.notes.onset_seconds > 13)  # after a silence of seconds
    other = Score(Notes.concatenate([half, late]))
    found = [chords_of(score.notes) for score in (one, other)]
    start, end = (min(c[0].start_seconds for c in found), max(c[-1].end_seconds for c in found))
    spans, labels = [], []
    for chords in found:
        interval = np.array([[chord.start_seconds, chord.end_seconds] for chord in chords])
        adjusted = mir_eval.util.adjust_intervals(interval, [chord.label for chord in chords], start, end, "N", "N")
        spans.append(adjusted[0])
        labels.append(adjusted[1])
    spans, ours, theirs = mir_eval.util.merge_labeled_intervals(spans[0], labels[0], spans[1], labels[1])
    is_any = np.array([a != "N" or b != "N" for a, b in zip(ours, theirs)])
    weights = mir_eval.util.intervals_to_durations(spans) * is_any
    expected = mir_eval.chord.weighted_accuracy(mir_eval.chord.triads(ours, theirs), weights)
    assert compare(one, other)["chord_similarity"] == pytest.approx(expected, abs=5e-3)
    assert 0.3 < expected < 0.9


def test_a_chord_with_a_seventh_is_its_triad():
    triad, seventh, other = (
        Notes.of([0] * len(some), [4] * len(some), some) for some in ((48, 64, 67), (48, 64, 67, 70), (48, 63, 67))
    )
    assert [chords_of(notes)[0].quality for notes in (triad, seventh, other)] == ["maj", "7", "min"]
    assert chord_similarity(triad, seventh) == 1
    assert chord_similarity(triad, other) == 0
    assert chord_similarity(
        triad,
        Notes.concatenate([triad, other.with_columns(onset_seconds=np.full(3, 4.0), offset_seconds=np.full(3, 6.0))]),
    ) == pytest.approx(4 / 6)


# ---------------------------------------------------------------------------------------------------------- structure


@pytest.mark.parametrize("seed", range(4))
def test_structure_is_the_correlation_of_the_matrices_without_their_diagonals(seed):
    generator = np.random.default_rng(seed)
    one, other = (generator.random((30, 12)) * (generator.random((30, 1)) > 0.1) for _ in range(2))
    other = 0.5 * one + other

    def matrix(rows):
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
        return (rows @ rows.T)[~np.eye(len(rows), dtype=bool)]

    one[0] = other[-1] = 1
    expected = np.corrcoef(matrix(one), matrix(other))[0, 1]
    assert structural_similarity(one, other) == pytest.approx(expected)
    silence = np.zeros((20, 12))
    padded = [np.concatenate([silence, rows, silence]) for rows in (one, other)]
    assert structural_similarity(*padded) == pytest.approx(expected), "silence around both does not count"


def test_structure_outlives_transposition_but_not_shuffling():
    score = random_piece(8)
    moved = Score(score.notes.with_columns(pitch=score.notes.pitch + np.int16(5)))
    scores = compare(score, moved)
    assert scores["structural_similarity"] == pytest.approx(1)
    assert scores["profile_similarity"] < 0.9
    rows = profiles(score.notes, 20)
    shuffled = rows[np.random.default_rng(0).permutation(20)]
    assert structural_similarity(rows, shuffled) < 0.5


def test_a_piece_that_never_changes_has_no_structure():
    held, other = Score(Notes.of([0], [30], 60)), random_piece(0)
    assert compare(held, held)["structural_similarity"] is None
    assert compare(held, other)["structural_similarity"] == 0


# -------------------------------------------------------------------------------------------------- what is not there


@pytest.mark.parametrize("score", [NOTHING, DRUMS])
def test_of_two_pieces_without_pitch_only_time_is_compared(score):
    scores = compare(score, score)
    compared = {name for name in COMPARISONS if scores[name] is not None}
    of_time = {"groove_similarity", "note_density_difference", "mean_ioi_seconds_difference"}
    assert compared == (set() if score is NOTHING else {*of_time, "groove_consistency_difference"})


@pytest.mark.parametrize("empty", [NOTHING, DRUMS])
def test_a_piece_without_pitch_is_like_no_other(empty):
    piece = steady_piece([60, 64, 67, 72] * 10)
    for scores in (compare(piece, empty), compare(empty, piece)):
        of_pitch = [name for name in SIMILARITIES if name != "groove_similarity" or empty is NOTHING]
        assert {scores[name] for name in of_pitch} == {0}
        assert all(scores[name] > 0.05 for name in DISTANCES)
        assert scores["polyphony_difference"] is None


@pytest.mark.parametrize("one", [NOTHING, DRUMS, ONE_NOTE, random_piece(0)])
@pytest.mark.parametrize("other", [NOTHING, DRUMS, ONE_NOTE, random_piece(1)])
def test_comparisons_are_numbers_in_range_or_none(one, other):
    scores = compare(one, other)
    assert tuple(scores) == (*FIGURES, *COMPARISONS)
    for name, value in scores.items():
        assert value is None or np.isfinite(value), name
        if name in SIMILARITIES and value is not None:
            assert (-1 if name == "structural_similarity" else 0) <= value <= 1, name
    assert scores["tonal_distance"] is None or 0 <= scores["tonal_distance"] <= 3


def test_differences_are_the_results_less_the_references():
    one, other = pair(1)
    scores, ours, theirs = compare(one, other), figures_of(one), figures_of(other)
    assert {name: scores[f"{name}_difference"] for name in FIGURES} == {
        name: theirs[name] - ours[name] for name in FIGURES
    }


def test_the_divergence_is_finite_and_one_sided():
    one, other = np.array([10, 0, 0]), np.array([0, 6, 4])
    assert divergence_bits(one, other) == pytest.approx(scipy.stats.entropy([11, 1, 1], [1, 7, 5], base=2))
    assert divergence_bits(one, other) != pytest.approx(divergence_bits(other, one))


def test_times_that_make_no_sense_are_refused_by_name():
    good, bad = random_piece(0), Score(Notes.of([np.nan], [1], 60))
    with pytest.raises(InputError, match="the reference"):
        compare(bad, good)
    with pytest.raises(InputError, match="the result"):
        compare(good, bad)
