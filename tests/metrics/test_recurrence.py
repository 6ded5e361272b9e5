"""How much of a piece comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.metrics.recurrence import APART, bar_recurrence
from musictool.symbolic.notes import Notes, Score

BAR_SECONDS = 2.0  # at 120 quarters a minute in common time


def piece(bars: list[set[tuple[int, int]]], transposed: int = 0) -> Score:
    """Bars of pairs (sixteenth, pitch)."""
    rows = [
        (BAR_SECONDS * (bar + place / 16), 60 + pitch + transposed)
        for bar, pairs in enumerate(bars)
        for place, pitch in sorted(pairs)
    ]
    onset, pitch = zip(*rows, strict=True)
    return Score(Notes.of(onset, np.add(onset, 0.1), pitch, 64))


pairs = st.sets(st.tuples(st.integers(0, 15), st.integers(0, 11)), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(pairs, min_size=APART + 1, max_size=12), st.integers(-12, 12))
def test_each_bar_is_held_against_all_that_are_far_enough_before_it(bars, semitones):
    alike = [
        max(len(bars[late] & bars[early]) / len(bars[late] | bars[early]) for early in range(late - APART + 1))
        for late in range(APART, len(bars))
    ]
    assert bar_recurrence(piece(bars)) == pytest.approx(np.mean(alike))
    assert bar_recurrence(piece(bars, semitones)) == pytest.approx(np.mean(alike))


def test_a_form_that_returns_recurs_and_a_figure_that_goes_on_at_once_does_not():
    verse = [{(4 * beat, beat + bar) for beat in range(4)} for bar in range(APART)]
    ever_new = [{(bar % 16, pitch) for pitch in range(bar // 16, 12, 5)} for bar in range(8)]
    assert bar_recurrence(piece(verse * 3)) == 1
    assert bar_recurrence(piece(ever_new)) < 0.2


def test_bars_without_an_onset_do_not_count():
    bars = [{(0, 1)}, {(0, 2)}, {(0, 3)}, {(0, 4)}, {(0, 1)}]
    score = piece(bars)
    late = score.notes.take(slice(-1, None))
    moved = late.with_columns(
        onset_seconds=late.onset_seconds + 2 * BAR_SECONDS, offset_seconds=late.offset_seconds + 9
    )
    assert bar_recurrence(Score(Notes.concatenate([score.notes.take(slice(0, -1)), moved]))) == 1


def test_a_short_piece_has_no_form():
    assert bar_recurrence(Score()) is None
    assert bar_recurrence(piece([{(0, 0)}] * APART)) is None
