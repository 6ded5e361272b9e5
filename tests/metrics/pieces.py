"""Pieces to measure: random, steady, and such as hold little."""

from __future__ import annotations

import numpy as np

from musictool.symbolic.notes import Notes, Score, TempoMap, TimeSignature

NOTHING = Score()
DRUMS = Score(Notes.of([0, 1, 2, 5], [0.1, 1.1, 2.1, 5.1], [36, 38, 36, 42], is_drum=True))
ONE_NOTE = Score(Notes.of([1.0], [3.0], [60]))


def random_piece(seed, count=150, *, seconds=20.0, programs=(0,), drums=0.0, grain=0.0007, shortest=0.06):
    """Notes that begin at random and last a while, some of them drums; no two are 50 ms apart to the rounding."""
    generator = np.random.default_rng(seed)
    onset = np.round(generator.uniform(0, seconds, count) / grain) * grain
    length = np.maximum(np.round(generator.exponential(0.4, count) / grain) * grain, shortest)
    return Score(
        Notes.of(
            onset,
            onset + length,
            generator.integers(36, 97, count),
            generator.integers(1, 128, count),
            generator.choice(programs, count),
            generator.random(count) < drums,
        )
    )


def steady_piece(pitches, *, seconds=0.5, start=0.0):
    """One note after the other, each as long as the next."""
    onset = start + np.arange(len(pitches)) * seconds
    return Score(Notes.of(onset, onset + seconds, pitches))


def in_metre(score, numerator=4, denominator=4, quarters_a_minute=100):
    """The same notes, in bars of their own."""
    tempo = TempoMap.constant(round(60e6 / quarters_a_minute))
    return Score(score.notes, tempo_map=tempo, time_signatures=(TimeSignature(0, numerator, denominator),))
