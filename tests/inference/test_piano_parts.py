"""A piano's part out of a score, in windows, joined, and back in its place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from musictool.errors import InputError
from musictool.inference.piano_parts import PianoPart, Window, joined, looped, thinned, windows_of
from musictool.symbolic.notes import Notes, Pedals, Score, Track
from musictool.symbolic.piano_ids import FRAME_TICKS, Piano

SHAPE = (64, 768, 12, 8)  # as windows are cut for the model that ships
SEEDS = range(8)


def piano_of(onset, length, pitch, velocity=64, pedals=((), ())) -> Piano:
    """A part of notes at ticks."""
    onset = np.asarray(onset)
    velocity = np.broadcast_to(velocity, onset.shape)
    return Piano.on_grid(onset, onset + length, np.asarray(pitch), velocity, *map(np.array, pedals))


def random_piano(seed: int, seconds: int = 120, longest: int = 60) -> Piano:
    """Chords of one to four notes at random times, two in a second, and a pedal now and then."""
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.integers(12, 90, seconds * 2))
    onset = np.repeat(times, generator.integers(1, 5, len(times)))
    length = generator.integers(3, longest, len(onset))
    down = np.cumsum(generator.integers(100, 400, seconds // 4))
    pedals = down, down + generator.integers(5, 90, len(down))
    return piano_of(
        onset, length, generator.integers(30, 100, len(onset)), generator.integers(1, 128, len(onset)), pedals
    )


def rows(piano: Piano) -> list[tuple[int, ...]]:
    columns = piano.onset, piano.pitch, piano.velocity, piano.offset
    return list(zip(*(column.tolist() for column in columns), strict=True))


def played(piano: Piano, play: Callable[[Piano], Piano] = lambda cut: cut) -> Piano:
    """What comes of a part whose windows are each played by `play`."""
    return joined((window, play(window.of(piano))) for window in windows_of(piano, *SHAPE))


@pytest.mark.parametrize("seed", SEEDS)
def test_windows_played_as_they_are_are_the_part_again(seed):
    piano = random_piano(seed)
    again = played(piano)
    assert rows(again) == rows(piano)
    assert again.pedal_onset.tolist() == piano.pedal_onset.tolist()
    assert again.pedal_offset.tolist() == piano.pedal_offset.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_notes_that_each_window_plays_a_little_early_or_late_are_neither_doubled_nor_missing(seed):
    generator = np.random.default_rng(seed)

    def play(cut: Piano) -> Piano:
        moved = np.maximum(cut.onset + generator.integers(-3, 4, len(cut)), 0)
        return piano_of(moved, cut.offset - cut.onset, cut.pitch, cut.velocity)

    piano = random_piano(seed, longest=8)
    again = played(piano, play)
    assert sorted(again.pitch.tolist()) == sorted(piano.pitch.tolist())
    for pitch in np.unique(piano.pitch):
        apart = again.onset[again.pitch == pitch] - piano.onset[piano.pitch == pitch]
        assert np.abs(apart).max() <= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_note_that_its_window_cuts_off_is_as_long_as_the_next_window_has_it(seed):
    piano = random_piano(seed, longest=350)  # less than what windows share
    assert rows(played(piano)) == rows(piano)


def test_the_seam_lies_where_both_windows_rest():
    first, second = Window(0, 20, 0), Window(8, 20, 8)  # ticks 200 to 400 are shared
    earlier = piano_of([210, 300, 310, 390], 5, [60, 61, 62, 63])
    later = piano_of([15, 106, 112, 195], 5, [60, 61, 62, 64])  # at 215, 306, 312 and 395
    found = joined([(first, earlier), (second, later)])
    assert rows(found) == rows(piano_of([210, 300, 310, 395], 5, [60, 61, 62, 64]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [SHAPE, (16, 64, 3, 2), (8, 40, 1, 1), (64, 300, 12, 8), (64, 768, 0, 0)])
def test_every_note_begins_in_a_frame_that_its_window_does_not_hold(seed, shape):
    frames_max, ids_max, overlap, margin = shape
    piano = random_piano(seed)
    windows = list(windows_of(piano, *shape))
    owned = np.zeros(len(piano), int)
    end = 0
    for before, window in zip([None, *windows], windows, strict=False):
        assert 0 <= window.held <= overlap
        assert window.held < window.frames <= frames_max
        assert len(window.of(piano).ids()) <= ids_max or window.frames <= max(frames_max // 2, window.held + margin + 1)
        if before is not None and window.held:
            assert before.start <= window.start
            assert window.start + window.held <= before.start + before.frames
        begin = (window.start + window.held) * FRAME_TICKS
        owned += (piano.onset >= max(begin, end)) & (piano.onset < window.stop_tick)
        end = max(end, window.stop_tick)
    assert (owned == 1).all()


def test_no_window_lies_where_the_piano_rests_for_long():
    piano = piano_of([1000, 1010, 50_000, 8_000_000], 20, [60, 62, 64, 65])
    windows = list(windows_of(piano, *SHAPE))
    assert [window.held for window in windows] == [0, 0, 0]
    assert [window.start for window in windows] == [40, 2000, 320_000]
    assert rows(played(piano)) == rows(piano)


def test_a_long_note_before_a_rest_is_not_cut_off():
    piano = piano_of([0, 500, 1380, 1380, 8000], [90, 90, 700, 650, 90], [60, 62, 64, 67, 69])
    assert rows(played(piano)) == rows(piano)


def test_a_part_without_notes_has_no_windows():
    assert list(windows_of(piano_of([], 1, []), *SHAPE)) == []
    assert len(joined([])) == 0


def test_a_wall_of_notes_goes_forward_all_the_same():
    keys = np.tile(np.arange(21, 109), 1000)
    piano = piano_of(np.repeat(np.arange(1000), 88), 1, keys)
    windows = list(windows_of(piano, *SHAPE))
    assert len(windows) <= 5
    assert len(thinned(windows[0].of(piano), 768).ids()) <= 768


def test_thinning_leaves_the_loudest():
    piano = random_piano(0)
    thin = thinned(piano, 200)
    assert len(thin.ids()) <= 200
    kept = set(rows(thin))
    assert kept < set(rows(piano))
    assert min(row[2] for row in kept) >= max(row[2] for row in set(rows(piano)) - kept)
    assert thinned(piano, len(piano.ids())) is piano


# -------------------------------------------------------------------------------------------------------- in a score

BAND = Score(
    Notes.of(
        [0, 0, 1, 1, 2, 2, 3, 4, 5],
        [1, 1, 2, 2, 3, 3, 4, 5, 6],
        [60, 40, 64, 67, 36, 110, 62, 50, 48],
        [60, 61, 62, 63, 64, 65, 66, 67, 68],
        [0, 33, 0, 4, 0, 0, 4, 33, 33],
        [False, False, False, False, True, False, False, False, False],
        [0, 1, 0, 2, 3, 0, 2, 1, 1],
    ).sorted(),
    (Track("left"), Track("bass", 33), Track("right", 4), Track("drums", 0, True)),
    pedals=Pedals.of([0.0, 0.5, 2.0], [0.4, 1.5, 2.5], [0, 1, 2]),
)


def test_a_part_is_all_pianos_and_their_pedals_without_what_no_piano_can_play():
    part = PianoPart.of(BAND)
    assert part.piano.pitch.tolist() == [60, 64, 67, 62]
    assert part.piano.pedal_onset.tolist() == [0, 200]
    assert (part.program, part.track) == (0, 0)


def test_a_part_put_back_leaves_everyone_else_alone():
    made = piano_of([7, 30], 5, [70, 71], 90, ([3], [9]))
    score = PianoPart.of(BAND).replaced(BAND, made)
    others = (BAND.notes.program == 33) | BAND.notes.is_drum
    kept = (score.notes.program == 33) | score.notes.is_drum
    for name in ("onset_seconds", "offset_seconds", "pitch", "velocity", "program", "is_drum", "track"):
        expected, found = (getattr(s.notes, name) for s in (BAND, score))
        assert found[kept].tolist() == expected[others].tolist()
    new = score.notes.take(~kept)
    assert (new.pitch.tolist(), new.program.tolist(), new.track.tolist()) == ([70, 71], [0, 0], [0, 0])
    assert new.onset_seconds.tolist() == [0.07, 0.3]
    presses = zip(score.pedals.onset_seconds.tolist(), score.pedals.track.tolist(), strict=True)
    assert list(presses) == [(0.03, 0), (0.5, 1)]
    assert (score.tracks, score.tempo_map) == (BAND.tracks, BAND.tempo_map)


@pytest.mark.parametrize(
    ("programs", "who"),
    [(range(128), (0, 0)), ({33}, (33, 1)), ({4}, (4, 2)), ({33, 40}, (33, 1)), ({4, 33}, (4, 2))],
)
def test_several_instruments_become_a_piano_if_one_is_among_them(programs, who):
    part = PianoPart.of(BAND, programs)
    assert (part.program, part.track) == who


def test_there_is_no_part_without_notes_that_a_piano_can_play():
    assert PianoPart.of(Score()) is None
    assert PianoPart.of(BAND, {40}) is None
    assert PianoPart.of(Score(Notes.of([0.0], [1.0], [36], is_drum=True))) is None
    assert PianoPart.of(Score(Notes.of([0.0], [1.0], [110]))) is None


def test_more_than_a_day_is_refused():
    with pytest.raises(InputError, match="more than a day"):
        PianoPart.of(Score(Notes.of([1e9], [1e9 + 1], [60])))


# -------------------------------------------------------------------------------------------------------------- loops


def test_a_part_over_and_over_begins_with_its_first_frame_and_repeats_in_whole_frames():
    once = piano_of([60, 90, 130], [10, 20, 15], [60, 64, 67])  # in frames 2 to 5
    wanted = [(onset + 100 * turn, pitch) for turn in range(3) for onset, pitch in ((10, 60), (40, 64), (80, 67))]
    for frames in (1, 4, 5, 11):
        got = looped(once, frames)
        expected = [row for row in wanted if row[0] < frames * FRAME_TICKS]
        assert list(zip(got.onset.tolist(), got.pitch.tolist(), strict=True)) == expected
        assert got.end <= frames * FRAME_TICKS


@pytest.mark.parametrize("seed", SEEDS)
def test_a_part_that_is_long_enough_is_not_repeated(seed):
    piano = random_piano(seed)
    first = int(piano.onset[0]) // FRAME_TICKS
    assert rows(looped(piano, 100)) == rows(Window(first, 100, 0).of(piano))
