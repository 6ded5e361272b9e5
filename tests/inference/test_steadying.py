"""Two readings into one, and instruments that hold."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.inference.steadying import agree, read_segments, without_flips
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.schemes import find_scheme, mt3
from musictool.symbolic.schemes.mt3 import VOCABULARY

SEGMENT = 2.048


def segments(*texts: str) -> list[np.ndarray]:
    return [VOCABULARY.ids(text.split()) for text in texts]


def rows(notes: Notes) -> list[tuple[float, float, int, int]]:
    columns = notes.onset_seconds.round(3), notes.offset_seconds.round(3), notes.pitch, notes.program
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def random_score(seed: int) -> Score:
    generator = np.random.default_rng(seed)
    onset = np.sort(generator.uniform(0, 30, 200))
    length = generator.uniform(0.05, 3, 200)
    pitch, program = generator.integers(30, 90, 200), generator.choice([0, 24, 33], 200)
    is_drum = generator.random(200) < 0.1
    return Score(Notes.of(onset, onset + length, pitch, 64, np.where(is_drum, 0, program), is_drum))


@pytest.mark.parametrize("seed", range(5))
def test_what_the_scheme_writes_is_read_as_its_decoder_reads_it(seed):
    ids = mt3.encode(random_score(seed))
    ends = np.flatnonzero(ids == mt3.END) + 1
    read = read_segments(np.split(ids, ends)[:-1])
    assert rows(read) == rows(find_scheme("mt3").decode([ids]).notes)
    drums = find_scheme("mt3").decode([ids]).notes
    assert rows(read.take(read.is_drum)) == rows(drums.take(drums.is_drum))


def test_a_tie_under_another_instrument_keeps_the_note():
    first = "Tie Shift_100 Program_0 Velocity_1 Pitch_60 End"
    second = "Program_24 Pitch_60 Tie Shift_50 Velocity_0 Pitch_60 End"
    assert rows(read_segments(segments(first, second))) == [(1.0, 2.54, 60, 0)]
    official = find_scheme("mt3").decode(segments(first, second)).notes
    assert rows(official) == [(1.0, 2.04, 60, 0)]


def test_a_release_under_another_instrument_ends_the_note():
    struck, released = "Shift_10 Program_0 Velocity_1 Pitch_60", "Shift_50 Program_24 Velocity_0 Pitch_60"
    one = f"Tie {struck} {released} Shift_90 Velocity_1 Pitch_70 End"
    assert (0.1, 0.5, 60, 0) in rows(read_segments(segments(one)))


def test_what_is_not_tied_ends_at_the_border_and_origin_shifts_all():
    notes = read_segments(segments("Tie Shift_150 Program_0 Velocity_1 Pitch_60 End", "Tie End"), -1.024)
    assert rows(notes) == [(0.476, 1.016, 60, 0)]
    assert not len(read_segments([]))


def notes_of(*rows: tuple[float, float, int, int]) -> Notes:
    onset, offset, pitch, program = zip(*rows, strict=True)
    return Notes.of(onset, offset, pitch, 127, program)


def test_readings_that_agree_give_the_mean_onset_and_the_deeper_offset():
    # 1.0 s is in the middle of the first reading's segment; 2.1 s is in that of the second's, at the first's border.
    merged = agree(notes_of((1.0, 2.1, 60, 0)), notes_of((1.04, 2.2, 60, 24)), SEGMENT)
    assert rows(merged) == [(1.02, 2.2, 60, 0)]


def test_what_one_reading_hears_stays_if_it_lies_deep_in_its_segment():
    deep, shallow = (1.0, 1.5, 60, 0), (2.1, 2.5, 62, 0)
    assert rows(agree(notes_of(deep, shallow), Notes.empty(), SEGMENT)) == [deep]
    assert rows(agree(Notes.empty(), notes_of(deep, shallow), SEGMENT)) == [shallow]


def test_each_note_is_paired_once_and_with_the_nearest():
    first = notes_of((1.0, 1.1, 60, 0), (1.12, 1.2, 60, 0))
    second = notes_of((1.1, 1.25, 60, 0))
    assert rows(agree(first, second, SEGMENT)) == [(1.0, 1.1, 60, 0), (1.11, 1.2, 60, 0)]


@pytest.mark.parametrize("seed", range(3))
def test_a_reading_agrees_with_itself(seed):
    notes = random_score(seed).notes.sorted()
    grid = mt3.quantize(Score(notes))[0].sorted()
    merged = agree(grid, grid, SEGMENT)
    assert rows(merged) == rows(grid)


def test_an_instrument_of_one_segment_goes_to_its_neighbour_in_register():
    piano = [(i * 0.5, i * 0.5 + 0.4, 72, 0) for i in range(30)]
    bass = [(i * 0.5 + 0.1, i * 0.5 + 0.4, 36, 33) for i in range(30)]
    flip = [(7.3, 7.5, 70, 24), (7.35, 7.5, 38, 24)]
    steadied = without_flips(notes_of(*piano, *bass, *flip).sorted(), SEGMENT)
    assert (7.3, 7.5, 70, 0) in rows(steadied)
    assert (7.35, 7.5, 38, 33) in rows(steadied)
    assert set(steadied.program.tolist()) == {0, 33}


def test_an_instrument_that_comes_back_stays():
    twice = notes_of((1.0, 1.2, 60, 0), (3.0, 3.2, 60, 24), (5.0, 5.2, 60, 0), (7.0, 7.2, 60, 24))
    assert rows(without_flips(twice, SEGMENT)) == rows(twice)
    assert not len(without_flips(Notes.empty(), SEGMENT))
