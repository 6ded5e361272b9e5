"""Scores on the grid of scheme `remi`, for tests of what is written in it and learned from it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

from musictool.symbolic.notes import Notes, Score, TempoMap, TimeSignature

SOURCES = ((0, False), (33, False), (127, False), (0, True), (8, True))
METRES = ((4, 4), (3, 4), (6, 8), (7, 16), (5, 8), (2, 2), (1, 32))
STEPS = 24

Row = tuple[int, int, int, int, int]  # onset and length in steps, number of the source, pitch, velocity


def score_of(
    rows: Iterable[Row], tempos: Iterable[tuple[int, int]] = (), metres: Iterable[tuple[int, int, int]] = ()
) -> Score:
    """A score of notes, of tempos as (step, quarters a minute) and metres as (step, numerator, denominator)."""
    changes = [(0, 120), *tempos]
    tempo_map = TempoMap.of([step / STEPS for step, _ in changes], [round(60e6 / rate) for _, rate in changes])
    on, length, source, pitch, velocity = np.array(list(rows), np.int64).reshape(-1, 5).T
    program, is_drum = np.array(SOURCES)[source].T
    times = (tempo_map.seconds(step / STEPS) for step in (on, on + length))
    notes = Notes.of(*times, pitch, velocity, program, is_drum > 0, source)
    signatures = tuple(TimeSignature(step / STEPS, *metre) for step, *metre in metres)
    return Score(notes.sorted(), tempo_map=tempo_map, time_signatures=signatures, has_metre=True)


@st.composite
def scores(draw: st.DrawFn, *, has_overlaps: bool = True, has_cuts: bool = True) -> Score:
    """Notes of several sources, changes of tempo and metre, bars that are cut short, the first one among them.

    Args:
        has_overlaps: whether a key may be struck again while it is down.
        has_cuts: whether bars may be cut short.
    """
    end, metres = 0, []
    sections = st.tuples(st.sampled_from(METRES), st.integers(1, 4), st.integers(0, 400) if has_cuts else st.just(0))
    for (numerator, denominator), bars, cut in draw(st.lists(sections, min_size=1, max_size=3)):
        bar_steps = numerator * 4 * STEPS // denominator
        metres.append((end, numerator, denominator))
        end += bars * bar_steps - cut % bar_steps
    row = st.tuples(
        st.integers(0, end + 40),
        st.integers(1, 30) | st.integers(180, 600),
        st.integers(0, len(SOURCES) - 1),
        st.integers(58, 66) | st.integers(0, 127),
        st.integers(1, 127),
    )
    rows = draw(st.lists(row, min_size=1, max_size=16))
    tempos = draw(st.lists(st.tuples(st.integers(0, end), st.integers(10, 400)), max_size=3))
    return score_of(rows if has_overlaps else without_overlaps(rows), tempos, metres)


def without_overlaps(rows: Iterable[Row]) -> list[Row]:
    """Notes that end where their key is struck again."""
    kept: dict[tuple[int, int, int], Row] = {
        (source, pitch, on): row for row in rows for on, _, source, pitch, _ in [row]
    }
    cut = []
    for source, pitch, on in kept:
        again = min((other for *key, other in kept if key == [source, pitch] and other > on), default=1 << 30)
        _, length, _, _, velocity = kept[source, pitch, on]
        cut.append((on, min(length, again - on), source, pitch, velocity))
    return cut


def tune(seed: int, bars: int = 8, source: int = 0) -> Score:
    """Bars of quarters over the chords C, Am, F, G, the melody drawn from the seed."""
    generator = np.random.default_rng(seed)
    rows: list[Row] = []
    for bar in range(bars):
        root, *upper = ((48, 64, 67), (45, 60, 64), (41, 57, 60), (43, 59, 62))[bar % 4]
        rows += [(bar * 96, 96, source, pitch, 64) for pitch in (root, *upper)]
        rows += [(bar * 96 + 24 * beat, 24, source, int(generator.choice(upper)) + 12, 90) for beat in range(4)]
    return score_of(rows)
