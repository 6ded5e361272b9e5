"""What is played of a piece: stretches, lines, keys, touch, pedals and lag."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.symbolic.notes import Notes, Pedals, Score, Track
from musictool.training.data import performance as p


def random_score(seed: int, count: int = 300, tracks: int = 2) -> Score:
    """Notes that overlap on few keys, some at once, some drums, and pedals."""
    generator = np.random.default_rng(seed)
    onset = np.round(generator.uniform(0, 30, count), 1)
    notes = Notes.of(
        onset,
        onset + generator.exponential(0.5, count),
        generator.integers(50, 70, count),
        generator.integers(20, 120, count),
        0,
        generator.random(count) < 0.1,
        generator.integers(0, tracks, count),
    )
    down = np.sort(generator.uniform(0, 29, 20))
    pedals = Pedals.of(down, down + 0.5, np.zeros(20, int))
    return Score(notes.sorted(), tuple(Track(f"track {i}") for i in range(tracks)), pedals=pedals)


@pytest.mark.parametrize("seed", range(5))
def test_a_key_is_held_by_one_note_at_a_time(seed):
    before, notes = random_score(seed).notes, p.playable(random_score(seed)).notes
    keys = [(t, d, k) for t, d, k in zip(notes.track.tolist(), notes.is_drum.tolist(), notes.pitch.tolist())]
    for key in set(keys):
        rows = [i for i, other in enumerate(keys) if other == key]
        onset, offset = notes.onset_seconds[rows], notes.offset_seconds[rows]
        assert (offset - onset >= p.MIN_NOTE_SECONDS - 1e-9).all()
        assert (offset[:-1] <= onset[1:]).all()
    struck = set(
        zip(before.track.tolist(), before.is_drum.tolist(), before.pitch.tolist(), before.onset_seconds.tolist())
    )
    assert {(*key, t) for key, t in zip(keys, notes.onset_seconds.tolist())} == struck


def test_notes_that_do_not_collide_stay_as_they_are():
    notes = Notes.of([0.0, 0.0, 0.5, 1.0], [0.4, 1.0, 0.9, 1.2], [60, 64, 60, 60])
    kept = p.playable(Score(notes)).notes
    np.testing.assert_array_equal(kept.offset_seconds, notes.offset_seconds)
    assert len(p.playable(Score()).notes) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_melody_is_one_note_at_a_time_and_never_under_another(seed):
    score = p.playable(random_score(seed))
    line = p.melody(score).notes
    assert len(line) > 20
    assert (line.offset_seconds[:-1] <= line.onset_seconds[1:]).all()
    assert not line.is_drum.any()
    others = score.notes.take(~score.notes.is_drum)
    for onset, pitch in zip(line.onset_seconds, line.pitch):
        assert pitch >= others.pitch[others.onset_seconds == onset].max()


def test_a_track_that_is_called_melody_is_the_melody():
    notes = Notes.of([0, 0, 1, 1], [1, 1, 2, 2], [60, 72, 62, 74], track=[1, 0, 1, 0])
    score = Score(notes, (Track("PIANO"), Track("MELODY")))
    assert p.melody(score).notes.pitch.tolist() == [60, 62]
    assert p.melody(Score(notes, (Track("PIANO"), Track("left")))).notes.pitch.tolist() == [72, 74]


def test_a_low_note_waits_until_the_high_one_ends():
    notes = Notes.of([0.0, 0.5, 1.0, 1.2], [1.0, 0.9, 1.4, 2.0], [72, 60, 62, 65])
    line = p.melody(Score(notes)).notes
    assert line.pitch.tolist() == [72, 62, 65]
    np.testing.assert_allclose(line.offset_seconds, [1.0, 1.2, 2.0])
    assert len(p.melody(Score()).notes) == 0


@pytest.mark.parametrize("seed", range(10))
def test_an_excerpt_holds_what_starts_in_it_and_ends_with_it(seed):
    score = random_score(1)
    part, start = p.excerpt(score, 5.0, np.random.default_rng(seed))
    notes = score.notes
    inside = notes.take((notes.onset_seconds >= start) & (notes.onset_seconds < start + 5.0 - p.LAST_ONSET_SECONDS))
    assert 0 <= start <= score.duration_seconds - 5.0
    assert len(part.notes) > 0
    np.testing.assert_allclose(part.notes.onset_seconds, inside.onset_seconds - start)
    np.testing.assert_allclose(part.notes.offset_seconds, np.minimum(inside.offset_seconds - start, 5.0))
    np.testing.assert_array_equal(part.notes.pitch, inside.pitch)
    assert (part.pedals.onset_seconds >= 0).all()
    assert (part.pedals.offset_seconds <= 5.0).all()
    assert len(part.pedals)


def test_an_excerpt_starts_near_a_note_however_far_apart_they_are():
    score = Score(Notes.of([10.0, 500.0, 990.0], [11.0, 501.0, 991.0], 60))
    starts = [p.excerpt(score, 5.0, np.random.default_rng(seed)) for seed in range(20)]
    assert all(len(part.notes) == 1 and part.notes.onset_seconds[0] < 5 for part, _ in starts)
    assert len({round(start, -2) for _, start in starts}) == 3


def test_transposition_stays_in_the_compass_and_loses_as_few_notes_as_can_be():
    notes = Notes.of(np.arange(5), np.arange(5) + 1, [50, 60, 64, 67, 36], is_drum=[0, 0, 0, 0, 1])
    shifts = set()
    for seed in range(30):
        moved, shift = p.transposed_into(Score(notes), 5, (52, 70), np.random.default_rng(seed), by_octaves=False)
        shifts.add(shift)
        assert moved.notes.pitch.tolist() == [50 + shift, 60 + shift, 64 + shift, 67 + shift, 36]
    assert shifts == {2, 3}


def test_a_line_too_low_is_moved_by_octaves():
    notes = Notes.of([0, 1, 2], [1, 2, 3], [40, 45, 50])
    moved, shift = p.transposed_into(Score(notes), 0, (55, 100), np.random.default_rng(0), by_octaves=True)
    assert (shift, moved.notes.pitch.tolist()) == (24, [64, 69, 74])
    lost, shift = p.transposed_into(Score(notes), 0, (45, 100), np.random.default_rng(0), by_octaves=False)
    assert (shift, lost.notes.pitch.tolist()) == (0, [45, 50])


def test_nothing_leaves_the_piano():
    notes = Notes.of([0, 1, 2], [1, 2, 3], [10, 60, 120])
    moved, _ = p.transposed_into(Score(notes), 0, (0, 127), np.random.default_rng(0), by_octaves=False)
    assert moved.notes.pitch.tolist() == [60]


def test_touch_keeps_velocities_playable_and_the_order_of_loudness():
    score = random_score(2)
    for seed in range(10):
        touched = p.with_touch(score, 20, np.random.default_rng(seed)).notes.velocity
        assert touched.min() >= p.MIN_VELOCITY
        assert touched.max() <= 127
        assert np.corrcoef(touched, score.notes.velocity)[0, 1] > 0.9
        assert not np.array_equal(touched, score.notes.velocity)
    assert p.with_touch(score, 0, np.random.default_rng(0)) is score


@pytest.mark.parametrize("seed", range(5))
def test_drawn_pedals_come_one_after_the_other_within_the_piece(seed):
    score = random_score(3)
    pedals = p.with_drawn_pedal(score, np.random.default_rng(seed)).pedals
    assert set(pedals.track.tolist()) == {0, 1}
    down, up = (times[pedals.track == 0] for times in (pedals.onset_seconds, pedals.offset_seconds))
    assert len(down) > 3
    assert (up > down).all()
    assert (down[1:] > up[:-1]).all()
    assert up[-1] <= score.notes.end_seconds + 0.5


def test_soft_notes_come_later_and_none_before_its_time():
    notes = Notes.of(np.zeros(2000), np.ones(2000), 60, np.tile([20, 120], 1000))
    lag = p.lags(notes, 0.02, np.random.default_rng(0), jitter_seconds=0.002, soft_seconds=0.01)
    soft, loud = lag[::2], lag[1::2]
    assert soft.mean() - loud.mean() == pytest.approx(0.01 * 100 / 127, abs=5e-4)
    assert lag.mean() == pytest.approx(0.02 + 0.01 * (0.5 - 70 / 127), abs=5e-4)
    assert np.abs(soft - soft.mean()).max() < 0.0045
    assert p.lags(notes, 0.0, np.random.default_rng(0), jitter_seconds=0.002, soft_seconds=0.01).min() == 0
