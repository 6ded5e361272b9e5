"""The note table and the tempo map: laws that every other room leans on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musictool.symbolic.notes import DEFAULT_MICROSECONDS_PER_QUARTER, Notes, TempoMap

rows = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.integers(0, 8),
        st.integers(58, 62),
        st.integers(1, 127),
        st.integers(0, 2),
        st.booleans(),
        st.integers(0, 3),
    ),
    max_size=30,
)
changes = st.lists(st.tuples(st.integers(0, 4000).map(lambda n: n / 480), st.integers(50_000, 4_000_000)), max_size=20)


def table(rows: list[tuple]) -> Notes:
    if not rows:
        return Notes.empty()
    onset, length, *others = (np.array(column) for column in zip(*rows))
    return Notes.of(onset / 10, (onset + length) / 10, *others)


def as_rows(notes: Notes) -> list[tuple]:
    return list(
        zip(
            notes.onset_seconds.tolist(),
            notes.is_drum.tolist(),
            notes.program.tolist(),
            notes.pitch.tolist(),
            notes.offset_seconds.tolist(),
            notes.velocity.tolist(),
            notes.track.tolist(),
        )
    )


@given(rows, st.randoms())
def test_sorted_gives_one_order_for_one_set_of_notes(rows: list[tuple], shuffler) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    ordered = as_rows(table(rows).sorted())
    assert ordered == as_rows(table(shuffled).sorted()) == sorted(as_rows(table(rows)))


@given(rows, rows)
def test_concatenate_keeps_rows_and_take_finds_them(first: list[tuple], second: list[tuple]) -> None:
    joined = Notes.concatenate([table(first), Notes.empty(), table(second)])
    assert as_rows(joined) == as_rows(table(first)) + as_rows(table(second))
    assert as_rows(joined.take(slice(len(first), None))) == as_rows(table(second))
    assert as_rows(joined.take(np.arange(len(joined)) < len(first))) == as_rows(table(first))


def test_columns_keep_their_types() -> None:
    for notes in (Notes.empty(), Notes.of([0], [1], 60), Notes.concatenate([Notes.of(0, 1, 60), Notes.of(1, 2, 61)])):
        assert notes.onset_seconds.dtype == notes.offset_seconds.dtype == np.float64
        assert notes.pitch.dtype == notes.velocity.dtype == notes.program.dtype == notes.track.dtype == np.int16
        assert notes.is_drum.dtype == np.bool_


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="columns differ in length"):
        Notes.of([0.0, 1.0], [1.0, 2.0], [60])


@given(changes, st.lists(st.floats(0, 3600), min_size=1, max_size=50))
def test_tempo_map_quarters_inverts_seconds(changes: list[tuple[float, int]], places: list[float]) -> None:
    tempo_map = TempoMap.of(*zip(*changes)) if changes else TempoMap.constant()
    assert np.allclose(tempo_map.quarters(tempo_map.seconds(places)), places, rtol=1e-9, atol=1e-9)
    assert np.allclose(tempo_map.seconds(tempo_map.quarters(places)), places, rtol=1e-9, atol=1e-9)


@given(changes)
def test_tempo_map_is_canonical(changes: list[tuple[float, int]]) -> None:
    tempo_map = TempoMap.of(*zip(*changes)) if changes else TempoMap.of([], [])
    again = TempoMap.of(tempo_map.start_quarters, tempo_map.microseconds_per_quarter)
    assert tempo_map.start_quarters[0] == 0
    assert (np.diff(tempo_map.start_quarters) > 0).all()
    assert (np.diff(tempo_map.microseconds_per_quarter) != 0).all()
    assert again.start_quarters.tolist() == tempo_map.start_quarters.tolist()


def test_tempo_before_the_first_change_is_the_default() -> None:
    tempo_map = TempoMap.of([4, 8, 8], [1_000_000, 300_000, 250_000])
    assert tempo_map.microseconds_per_quarter.tolist() == [DEFAULT_MICROSECONDS_PER_QUARTER, 1_000_000, 250_000]
    assert tempo_map.seconds([4, 6, 8, 9]).tolist() == [2.0, 4.0, 6.0, 6.25]
