"""Scores of transcriptions, held against mir_eval itself and against plain Python."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mir_eval
import numpy as np
import pytest

from musictool.errors import InputError, UsageError
from musictool.metrics.granularity import Granularity
from musictool.metrics.note_matching import Tolerances, frequencies_hz, intervals
from musictool.metrics.transcription import METRICS, Comparison, evaluate, frame_counts, mean_scores
from musictool.symbolic.note_tables import read_note_table
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.schemes import find_scheme

SHARED = os.environ.get("MTK_TEST_SHARED")
RATES = ("precision", "recall", "f1")


def random_notes(seed, count=200, *, programs=(0,), drums=0.0, pitches=(48, 72)):
    generator = np.random.default_rng(seed)
    onset = np.round(generator.uniform(0, 20, count), 3)
    return Notes.of(
        onset,
        onset + np.round(generator.exponential(0.4, count), 3),
        generator.integers(*pitches, count),
        generator.integers(1, 128, count),
        generator.choice(programs, count),
        generator.random(count) < drums,
    )


def blurred(notes, seed):
    """The same notes a little earlier or later, some of them gone and some others added."""
    generator = np.random.default_rng(seed)
    onset = np.maximum(notes.onset_seconds + generator.normal(0, 0.04, len(notes)), 0)
    length = (notes.offset_seconds - notes.onset_seconds) * generator.uniform(0.7, 1.3, len(notes))
    velocity = np.clip(notes.velocity + generator.integers(-30, 30, len(notes)), 1, 127).astype(np.int16)
    moved = notes.with_columns(onset_seconds=onset, offset_seconds=onset + length, velocity=velocity)
    others = random_notes(seed + 1, 40, programs=np.unique(notes.program))
    return Notes.concatenate([moved.take(generator.random(len(notes)) < 0.8), others])


def as_mir_eval(notes):
    return intervals(notes), frequencies_hz(notes.pitch)


@pytest.mark.parametrize("seed", range(6))
def test_note_scores_equal_mir_evals(seed):
    reference = random_notes(seed)
    estimate = blurred(reference, seed)
    scores = evaluate(reference, estimate)
    pair = (*as_mir_eval(reference), *as_mir_eval(estimate))
    velocities = (*as_mir_eval(reference), reference.velocity, *as_mir_eval(estimate), estimate.velocity)

    onset = mir_eval.transcription.precision_recall_f1_overlap(*pair, offset_ratio=None)
    assert [scores[f"onset_{rate}"] for rate in RATES] == list(onset[:3])
    offset = mir_eval.transcription.precision_recall_f1_overlap(*pair)
    assert [scores[f"onset_offset_{rate}"] for rate in (*RATES, "overlap")] == list(offset)
    velocity = mir_eval.transcription_velocity.precision_recall_f1_overlap(*velocities)
    assert [scores[f"onset_offset_velocity_{rate}"] for rate in RATES] == list(velocity[:3])
    assert 0 < velocity[2] < offset[2] < onset[2] < 1


def test_tolerances_reach_every_note_score():
    reference = random_notes(3, programs=(0, 40), drums=0.2)
    estimate = blurred(reference, 3)
    loose, tight = (evaluate(reference, estimate, Tolerances(t, t, t)) for t in (0.5, 0.01))
    names = [name for name in METRICS if name.endswith("_f1") and name != "frame_f1"]
    assert len(names) == 4
    assert all(loose[name] > tight[name] for name in names)


@pytest.mark.parametrize("seed", range(4))
def test_frame_scores_equal_mir_evals(seed):
    reference = random_notes(seed, 60, pitches=(28, 100))
    estimate = blurred(reference, seed)

    def frames(notes):
        times = np.arange(3000) / 100
        first, end = (np.round(column * 100, 4)[:, None] for column in intervals(notes).T)
        sounds = (first <= np.arange(3000)) & (np.arange(3000) < end)  # [n, frames]
        pitches = [np.unique(notes.pitch[sounds[:, k]]) for k in range(3000)]
        return times, [frequencies_hz(at_frame) for at_frame in pitches]

    precision, recall, *_ = mir_eval.multipitch.metrics(*frames(reference), *frames(estimate))
    scores = evaluate(reference, estimate)
    assert scores["frame_precision"] == pytest.approx(precision, abs=1e-12)
    assert scores["frame_recall"] == pytest.approx(recall, abs=1e-12)
    assert scores["frame_f1"] == pytest.approx(mir_eval.util.f_measure(precision, recall), abs=1e-12)


def test_frames_count_a_pitch_once_however_many_play_it():
    reference = Notes.of([0.07, 0.10, 1.0], [0.20, 0.30, 1.1], [60, 60, 0])
    estimate = Notes.of([0.15, 1.0], [0.35, 1.1], [60, 127])
    assert frame_counts(reference, estimate) == (15, 33, 30)


def plain_instrument_f1(reference, estimate):
    """Multi-instrument F1 one group at a time, each with mir_eval alone."""

    def groups(notes):
        return {("drums" if d else int(p)) for p, d in zip(notes.program, notes.is_drum)}

    correct = 0
    for group in groups(reference) & groups(estimate):
        true, found = (
            notes.take(notes.is_drum if group == "drums" else ~notes.is_drum & (notes.program == group))
            for notes in (reference, estimate)
        )
        ratio = None if group == "drums" else 0.2
        correct += len(mir_eval.transcription.match_notes(*as_mir_eval(true), *as_mir_eval(found), offset_ratio=ratio))
    return 2 * correct / (len(reference) + len(estimate))


@pytest.mark.parametrize("seed", range(6))
def test_multi_instrument_f1_counts_group_by_group(seed):
    reference = random_notes(seed, 300, programs=(0, 24, 40), drums=0.3)
    estimate = blurred(reference, seed)
    scores = evaluate(reference, estimate)
    assert scores["multi_instrument_f1"] == pytest.approx(plain_instrument_f1(reference, estimate), abs=1e-12)
    wrong_program = estimate.with_columns(program=np.where(estimate.program == 24, 25, estimate.program))
    assert evaluate(reference, wrong_program)["multi_instrument_f1"] < scores["multi_instrument_f1"] - 0.05
    assert evaluate(reference, wrong_program)["onset_offset_f1"] == scores["onset_offset_f1"]


def test_drums_count_for_instruments_alone_and_whatever_their_kit_and_length():
    piano = Notes.of([0, 1], [0.5, 1.5], [36, 60])
    drums = Notes.of([0, 1], [0.5, 1.5], [36, 38], program=[0, 8], is_drum=True)
    ticks = Notes.of([0, 1], [0.01, 1.01], [36, 38], is_drum=True)
    scores = evaluate(Notes.concatenate([piano, drums]), Notes.concatenate([piano, ticks]))
    assert {scores[name] for name in METRICS if name.endswith("f1")} == {1.0}
    scores = evaluate(piano, Notes.concatenate([piano, ticks]))
    assert (scores["onset_f1"], scores["frame_f1"], scores["multi_instrument_precision"]) == (1.0, 1.0, 0.5)


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0)])
def test_scores_of_nothing_are_0_and_its_median_none(counts):
    reference, estimate = (random_notes(1, count) for count in counts)
    scores = evaluate(reference, estimate)
    assert scores.pop("median_onset_error_ms") is None
    assert set(scores.values()) == {0.0}


def test_a_note_without_length_is_a_note():
    notes = Notes.of([1.0, 2.0], [1.0, 2.0], [60, 62])
    scores = evaluate(notes, notes)
    assert scores.pop("median_onset_error_ms") == 0
    assert set(scores.values()) == {1.0}


def test_a_late_estimate_has_a_positive_median():
    notes = random_notes(5)
    late = notes.with_columns(onset_seconds=notes.onset_seconds + 0.012, offset_seconds=notes.offset_seconds + 0.012)
    assert evaluate(notes, late)["median_onset_error_ms"] == pytest.approx(12)
    assert evaluate(late, notes)["median_onset_error_ms"] == pytest.approx(-12)


@pytest.mark.parametrize(
    ("onset", "offset", "message"),
    [(np.nan, 1, "no number"), (0, np.inf, "no number"), (-0.1, 1, "before the start"), (1, 0.9, "before it begins")],
)
def test_times_that_make_no_sense_are_refused(onset, offset, message):
    good, bad = Notes.of([1], [2], 60), Notes.of([onset], [offset], 60)
    with pytest.raises(InputError, match=f"reference .*{message}"):
        evaluate(bad, good)
    with pytest.raises(InputError, match=f"estimate .*{message}"):
        evaluate(good, bad)


def test_a_duration_leaves_what_begins_before_it_and_cuts_it_there():
    score = Score(Notes.of([0, 1, 2], [0.5, 9, 3], [60, 61, 62]))
    for part in Comparison(duration_seconds=2.0).notes_of(score, score):
        assert (part.pitch.tolist(), part.offset_seconds.tolist()) == ([60, 61], [0.5, 2.0])


def test_the_pedal_lengthens_the_reference_alone():
    score = Score(Notes.of([0, 1], [0.5, 1.5], [60, 62]), pedals=Pedals.of([0.4], [1.2], [0]))
    reference, estimate = Comparison(with_pedal=True).notes_of(score, score)
    assert reference.offset_seconds.tolist() == [1.2, 1.5]
    assert estimate.offset_seconds.tolist() == [0.5, 1.5]
    assert Comparison().notes_of(score, score)[0].offset_seconds.tolist() == [0.5, 1.5]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_duration_is_a_positive_number(seconds):
    with pytest.raises(UsageError, match="no duration"):
        Comparison(duration_seconds=seconds)


def test_means_leave_out_what_has_no_value():
    items = [evaluate(Notes.of([0], [1], 60), Notes.of([0.01], [1], pitch)) for pitch in (60, 61)]
    mean = mean_scores(items)
    assert (mean["onset_f1"], mean["median_onset_error_ms"]) == (0.5, pytest.approx(10))
    assert set(mean_scores([]).values()) == {None}


# ------------------------------------------------------------------------------------ the published model's own results

PUBLISHED = {  # file: onset F1, onset+offset F1
    "MAPS_MUS-chpn_op25_e3_ENSTDkAm": (0.5088, 0.1930),
    "MAPS_MUS-chpn_op7_1_ENSTDkAm": (0.7701, 0.4380),
    "MAPS_MUS-muss_1_ENSTDkAm": (0.8991, 0.6139),
    "MAPS_MUS-schumm-1_ENSTDkAm": (0.9216, 0.5137),
    "MAPS_MUS-ty_mai_ENSTDkAm": (0.7957, 0.5787),
}


def published_transcriptions():
    """Name, reference and decoded tokens of MT3 for each recording."""
    folder = Path(SHARED)
    tokens = json.loads((folder / "references/mt3/tokens_greedy_fp32.json").read_text())
    for name in PUBLISHED:
        reference = read_note_table((folder / f"data/recordings/maps-dev/{name}.tsv").read_bytes())
        yield name, reference, find_scheme("mt3").decode([np.concatenate(tokens[name]).astype(np.int32)]).notes


def begun_as_published(notes):
    """The published decoder floors a segment's start in floating point: number 15 begins at 30.71 s, not 30.72."""

    def moved(seconds):
        return seconds - np.where((seconds > 30.715) & (seconds < 32.755), 0.01, 0)

    return notes.with_columns(onset_seconds=moved(notes.onset_seconds), offset_seconds=moved(notes.offset_seconds))


@pytest.mark.skipif(not SHARED, reason="MTK_TEST_SHARED is not set")
def test_mt3s_tokens_score_as_published():
    for name, reference, notes in published_transcriptions():
        scores = evaluate(reference, begun_as_published(notes))
        assert (scores["onset_f1"], scores["onset_offset_f1"]) == pytest.approx(PUBLISHED[name], abs=0.5e-4), name


@pytest.mark.skipif(not SHARED, reason="MTK_TEST_SHARED is not set")
def test_mt3s_tokens_score_nearly_so_with_exact_segment_starts():
    mean = mean_scores([evaluate(reference, notes) for _, reference, notes in published_transcriptions()])
    assert mean["onset_f1"] == pytest.approx(0.7791, abs=0.001)
    assert mean["onset_offset_f1"] == pytest.approx(0.4675, abs=0.001)


@pytest.mark.parametrize(("granularity", "expected"), [("full", 1 / 3), ("midi_class", 2 / 3), ("flat", 1.0)])
def test_programs_are_told_apart_as_finely_as_asked(granularity, expected):
    onset = np.array([0.0, 1.0, 2.0])
    played, heard = (Score(Notes.of(onset, onset + 0.5, 60, 64, programs)) for programs in ([0, 24, 33], [0, 26, 0]))
    compared = Comparison(granularity=Granularity(granularity)).notes_of(played, heard)
    assert evaluate(*compared)["multi_instrument_f1"] == pytest.approx(expected)
