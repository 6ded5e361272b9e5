"""The longest common runs are those that a search place by place finds, and those of notes are the same in any key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musictool.metrics import common_runs
from musictool.metrics.common_runs import RunSearch, note_symbols
from musictool.symbolic.notes import Notes, Score
from tests.metrics.pieces import DRUMS, NOTHING, ONE_NOTE, in_metre, random_piece


def longest_by_hand(sequence, others):
    best = 0
    for other in others:
        row = np.zeros(len(other) + 1, int)
        for symbol in sequence:
            row[1:] = np.where(other == symbol, row[:-1] + 1, 0)
            best = max(best, int(row.max()))
    return best


@pytest.mark.parametrize("table_max", [1 << 22, 0], ids=["by table", "by search"])
@pytest.mark.parametrize("symbols", [2, 5, 40])
def test_longest_runs_are_those_found_place_by_place(symbols, table_max, monkeypatch):
    monkeypatch.setattr(common_runs, "_TABLE_MAX", table_max)
    generator = np.random.default_rng(symbols)
    for _ in range(15):
        sequences, body = (
            [generator.integers(0, symbols + more, generator.integers(0, 40)) for _ in range(6)] for more in (0, 2)
        )
        search = RunSearch(sequences)
        search.look_through(body[:2])
        search.look_through(body[2:])
        for sequence, run in zip(sequences, search.longest, strict=True):
            assert run.length == longest_by_hand(sequence, body)
            ours = sequence[run.start : run.start + run.length]
            theirs = body[run.source][run.source_start : run.source_start + run.length]
            assert run.length == 0 or (ours == theirs).all()


def test_big_blocks_are_searched_by_table(monkeypatch):
    generator = np.random.default_rng(0)
    body = generator.integers(0, 300, common_runs._TABLE_MAX // 8)
    quote = body[5000:5040]
    search = RunSearch([np.concatenate([[999], quote, [999]]), np.array([999, 999])])
    search.look_through([body])
    assert (search.longest[0].length, search.longest[0].source_start) == (40, 5000)
    assert search.longest[1] == common_runs.CommonRun()


def test_a_run_lies_within_one_sequence():
    search = RunSearch([np.array([1, 2, 3, 4])])
    search.look_through([np.array([1, 2]), np.array([3, 4])])
    assert search.longest[0].length == 2


def metric(piece, **options):
    return replace(in_metre(piece, **options), has_metre=True)


def notes_only(piece, **columns):
    return replace(piece, notes=piece.notes.with_columns(**columns))


def test_note_symbols_are_the_same_in_any_key_however_it_is_played():
    piece = metric(random_piece(1, programs=(0, 33), drums=0.2))
    notes = piece.notes
    transposed = notes_only(piece, pitch=np.where(notes.is_drum, notes.pitch, notes.pitch + 5).astype(np.int16))
    other_touch = notes_only(piece, velocity=128 - notes.velocity, offset_seconds=notes.offset_seconds + 0.3)
    shuffled = replace(piece, notes=notes.take(np.random.default_rng(0).permutation(len(notes))))
    without_drums = replace(piece, notes=notes.take(~notes.is_drum))
    slower = metric(replace(piece, notes=_stretched(notes, 2.0)), quarters_a_minute=50)
    own = note_symbols(piece)
    assert len(own) == 2
    assert sum(map(len, own)) == int((~notes.is_drum).sum()) - 2
    for other in (transposed, other_touch, shuffled, without_drums, slower):
        assert [part.tolist() for part in note_symbols(other)] == [part.tolist() for part in own]


def _stretched(notes: Notes, factor: float) -> Notes:
    return notes.with_columns(onset_seconds=notes.onset_seconds * factor, offset_seconds=notes.offset_seconds * factor)


def test_another_note_or_another_time_is_another_symbol():
    piece = metric(random_piece(2))
    order = np.argsort(piece.notes.onset_seconds)
    own = note_symbols(piece)[0]
    for column, change in (("pitch", 1), ("onset_seconds", 0.2)):
        values = getattr(piece.notes, column).copy()
        values[order[75]] += change
        assert (note_symbols(notes_only(piece, **{column: values}))[0] != own).sum() >= 1


def test_pieces_without_intervals_have_no_symbols():
    assert all(not sum(map(len, note_symbols(piece))) for piece in (NOTHING, DRUMS, ONE_NOTE, Score()))
    search = RunSearch([])
    search.look_through([np.arange(4)])
    assert search.longest == []
