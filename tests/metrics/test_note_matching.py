"""Matching block by block: the same pairs as mir_eval's, without its memory."""

from __future__ import annotations

import tracemalloc

import mir_eval
import numpy as np
import pytest

from musictool.errors import InputError, UsageError
from musictool.metrics import note_matching
from musictool.metrics.note_matching import Tolerances, frequencies_hz, intervals, match_notes
from musictool.symbolic.notes import Notes


def random_notes(generator, count, seconds=10.0, pitches=8):
    """Notes on a grid of 10 ms, so that distances of just the tolerance are common."""
    onset = np.round(generator.uniform(0, seconds, count), 2)
    length = np.round(generator.exponential(0.3, count), 2)
    return Notes.of(onset, onset + length, generator.integers(60, 60 + pitches, count))


def whole_matching(reference, estimate, offset_ratio):
    return mir_eval.transcription.match_notes(
        intervals(reference),
        frequencies_hz(reference.pitch),
        intervals(estimate),
        frequencies_hz(estimate.pitch),
        offset_ratio=offset_ratio,
    )


@pytest.mark.parametrize("block_notes", [1, 20, 256])
@pytest.mark.parametrize("with_offsets", [False, True])
def test_matching_in_blocks_equals_mir_evals_to_the_last_pair(monkeypatch, block_notes, with_offsets):
    monkeypatch.setattr(note_matching, "BLOCK_NOTES", block_notes)
    generator = np.random.default_rng(block_notes)
    for _ in range(30):
        reference, estimate = (random_notes(generator, generator.integers(1, 300)) for _ in range(2))
        matched = match_notes(reference, estimate, Tolerances(), with_offsets=with_offsets)
        assert matched.tolist() == [list(p) for p in whole_matching(reference, estimate, 0.2 if with_offsets else None)]


def test_tolerances_are_those_of_mir_eval():
    reference = Notes.of([1.0, 2.0, 3.0], [2.0, 2.1, 3.5], 60)
    estimate = Notes.of([1.1, 2.05, 3.051], [2.1, 2.15, 3.5], 60)
    assert match_notes(reference, estimate, Tolerances(), with_offsets=False).tolist() == [[1, 1]]
    wider = Tolerances(onset_seconds=0.1, offset_ratio=0.05, offset_seconds=0.04)
    assert match_notes(reference, estimate, wider, with_offsets=False).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert match_notes(reference, estimate, wider, with_offsets=True).tolist() == [[2, 2]]


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (3, 0)])
def test_nothing_matches_an_empty_table(counts):
    reference, estimate = (random_notes(np.random.default_rng(1), count) for count in counts)
    assert match_notes(reference, estimate, Tolerances(), with_offsets=True).shape == (0, 2)


def test_memory_does_not_grow_with_the_square_of_the_notes():
    reference, estimate = (random_notes(np.random.default_rng(seed), 20_000, 3600.0, 60) for seed in (1, 2))
    tracemalloc.start()
    match_notes(reference, estimate, Tolerances(), with_offsets=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20  # one byte a pair would be 400 MB


def test_notes_too_dense_to_be_matched_are_refused(monkeypatch):
    onset = 1 + np.arange(2001) * 0.04
    chain = Notes.of(onset, onset + 0.03, 60)
    pushed_onset = np.append(onset[:-1] + 0.02, onset[0] - 0.04)  # the last belongs to the first, and all move up
    pushed = Notes.of(pushed_onset, pushed_onset + 0.03, 60)
    with pytest.raises(InputError, match="too many notes of one pitch"):  # mir_eval recurses along the chain
        match_notes(chain, pushed, Tolerances(), with_offsets=False)
    monkeypatch.setattr(note_matching, "PAIRS_MAX", 3)
    with pytest.raises(InputError, match="too many notes of one pitch"):
        match_notes(chain.take(slice(2)), chain.take(slice(2)), Tolerances(), with_offsets=False)


@pytest.mark.parametrize("name", ["onset_seconds", "offset_ratio", "offset_seconds"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_is_a_number_from_0(name, value):
    with pytest.raises(UsageError, match=name.replace("_", " ")):
        Tolerances(**{name: value})
