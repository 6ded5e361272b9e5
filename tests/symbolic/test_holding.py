"""What notes are held to is what they have afterwards, and what they have already stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.symbolic.holding import REACH_TICKS, held
from musictool.symbolic.piano_ids import Piano
from musictool.symbolic.skyline import skyline_of

FACTORS = ("harmony", "melody", "rhythm", "dynamics")
SEEDS = range(12)
CHORD_TICKS = 3


def piano(seed: int, count: int = 80, keys: tuple[int, ...] = tuple(range(36, 90))) -> Piano:
    """Some ten seconds of chords and single notes."""
    generator = np.random.default_rng(seed)
    onset = np.sort(generator.choice(np.arange(0, 1000, 5), count))
    pitch, velocity = generator.choice(keys, count), generator.integers(20, 120, count)
    nothing = np.zeros(0, np.int64)
    return Piano.on_grid(onset, onset + generator.integers(5, 150, count), pitch, velocity, nothing, nothing)


def rows(piano: Piano) -> list[tuple[int, ...]]:
    columns = (piano.onset, piano.offset, piano.pitch, piano.velocity)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def line(piano: Piano) -> list[int]:
    return skyline_of(piano.notes()).pitch.tolist()


def attacks(piano: Piano) -> list[int]:
    return piano.onset[np.diff(piano.onset, prepend=-CHORD_TICKS) >= CHORD_TICKS].tolist()


def loudest(piano: Piano) -> dict[int, int]:
    found: dict[int, int] = {}
    for onset, velocity in zip(piano.onset.tolist(), piano.velocity.tolist(), strict=True):
        found[onset] = max(found.get(onset, 0), velocity)
    return found


def test_notes_that_are_held_to_nothing_are_the_same():
    made = piano(0)
    assert held(made, {}) is made
    empty = piano(0, 0)
    assert rows(held(made, dict.fromkeys(FACTORS, empty))) == rows(made)
    assert len(held(empty, dict.fromkeys(FACTORS, made))) == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("names", [("rhythm",), ("harmony",), ("dynamics",), ("harmony", "rhythm", "dynamics")])
def test_what_notes_have_already_stays(seed, names):
    made = piano(seed)
    assert rows(held(made, dict.fromkeys(names, made))) == rows(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_melody_is_on_top_note_for_note(seed):
    made, wanted = piano(seed), piano(seed + 100)
    result = held(made, {"melody": wanted})
    assert line(made) != line(wanted)
    top = skyline_of(wanted.notes())
    kept = {(wanted.onset[row], wanted.pitch[row], wanted.velocity[row]) for row in top.row}
    there = set(zip(result.onset.tolist(), result.pitch.tolist(), result.velocity.tolist(), strict=True))
    assert kept <= there
    above = skyline_of(result.notes())  # what begins where the melody rests is on top, too
    assert set(zip(top.onset_seconds.tolist(), top.pitch.tolist(), strict=True)) <= set(
        zip(above.onset_seconds.tolist(), above.pitch.tolist(), strict=True)
    )
    is_rest = ~np.isin(np.arange(len(made)), skyline_of(made.notes()).row)
    assert len(result) > len(top.row) + 0.7 * is_rest.sum()


def test_notes_that_overlap_a_little_are_one_melody_and_what_is_far_below_is_not():
    nothing = np.zeros(0, np.int64)
    columns = [[0, 100, 190, 190], [120, 200, 300, 300], [72, 69, 65, 45], [80] * 4]
    wanted = Piano.on_grid(*np.array(columns), nothing, nothing)
    made = Piano.on_grid(*np.array([[10], [90], [40], [60]]), nothing, nothing)
    assert line(wanted) == [72]
    assert {row[:3] for row in rows(held(made, {"melody": wanted}))} == {(0, 120, 72), (100, 200, 69), (190, 300, 65)}


@pytest.mark.parametrize("seed", SEEDS)
def test_attacks_within_reach_fall_where_the_rhythm_has_them(seed):
    made, wanted = piano(seed), piano(seed + 100, 30)
    theirs = np.array(attacks(wanted))
    result = held(made, {"rhythm": wanted})
    near = [tick for tick in attacks(made) if abs(theirs - tick).min() <= REACH_TICKS]
    assert set(attacks(result)) - set(attacks(made)) <= set(theirs.tolist())
    assert {int(theirs[abs(theirs - tick).argmin()]) for tick in near} <= set(attacks(result))
    assert sum(tick in theirs for tick in attacks(result)) > 1.5 * sum(tick in theirs for tick in attacks(made))
    far = [tick for tick in attacks(made) if abs(theirs - tick).min() > REACH_TICKS]
    assert set(far) <= set(result.onset.tolist())


@pytest.mark.parametrize("seed", SEEDS)
def test_notes_take_the_nearest_pitch_class_of_the_harmony(seed):
    made, wanted = piano(seed), piano(seed + 100, 40, (48, 52, 55, 60, 64, 67))
    result = held(made, {"harmony": wanted})
    assert abs(len(result) - len(made)) < 0.3 * len(made)
    checked = 0
    for onset, offset, pitch, _ in rows(result):
        sounds = (wanted.onset < offset) & (wanted.offset > onset)
        if sounds.any() and ((wanted.onset <= onset) & (wanted.offset > onset)).any():
            assert pitch % 12 in {0, 4, 7}
            checked += 1
    assert checked > 0.5 * len(result)
    assert abs(np.sort(result.pitch.astype(int)).mean() - made.pitch.mean()) < 2


@pytest.mark.parametrize("seed", SEEDS)
def test_attacks_are_as_loud_as_the_dynamics(seed):
    made, wanted = piano(seed), piano(seed + 100)
    result = held(made, {"dynamics": wanted})
    assert [row[:3] for row in rows(result)] == [row[:3] for row in rows(made)]
    assert set(result.velocity.tolist()) <= set(wanted.velocity.tolist())
    theirs, ours = loudest(wanted), loudest(result)
    alone = [
        tick
        for tick in theirs
        if tick in ours and all(other == tick or abs(other - tick) > 25 for other in [*theirs, *ours])
    ]
    assert all(theirs[tick] == ours[tick] for tick in alone)
    # A chord keeps the order of its notes, from the loudest to the softest.
    for tick in {onset for onset, *_ in rows(made)}:
        before = made.velocity[made.onset == tick].astype(int)
        after = result.velocity[result.onset == tick].astype(int)
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order]) >= 0).all()


def test_an_attack_is_as_loud_as_what_stands_most_of_its_time():
    nothing = np.zeros(0, np.int64)
    made = Piano.on_grid(
        *np.array([[100, 100, 160, 400], [150] * 3 + [450], [50, 60, 70, 60], [9] * 4]), nothing, nothing
    )
    onset, velocity = [80, 115, 115, 117, 160, 170, 420], [30, 60, 50, 55, 10, 90, 20]
    wanted = Piano.on_grid(*np.array([onset, [450] * 7, range(40, 47), velocity]), nothing, nothing)
    # From 100 to 160 mostly the chord at 115; from 160 to 400 what begins at 170; from 400 for two seconds the last.
    assert held(made, {"dynamics": wanted}).velocity.tolist() == [60, 50, 90, 20]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_borrowed_melody_gives_way_and_one_that_is_kept_does_not(seed):
    made, mine, other = piano(seed), piano(seed + 100, 50, (48, 52, 55, 60, 64, 67)), piano(seed + 200)
    harmony = held(made, {"melody": other, "harmony": mine}, borrowed={"melody"})
    assert {pitch % 12 for pitch in line(harmony)} & {0, 4, 7}
    good = sum(pitch % 12 in {0, 4, 7} for pitch in line(harmony)) / len(line(harmony))
    assert good > 0.8 > sum(pitch % 12 in {0, 4, 7} for pitch in line(other)) / len(line(other))
    kept = held(made, {"melody": other, "harmony": mine}, borrowed={"harmony"})
    assert set(line(other)) <= set(kept.pitch.tolist())

    sparse = piano(seed + 300, 15)
    in_time = held(sparse, {"melody": other, "rhythm": sparse}, borrowed={"melody"})
    assert set(attacks(in_time)) <= set(attacks(sparse))
    whole = held(sparse, {"melody": other, "rhythm": sparse}, borrowed={"rhythm"})
    assert sorted(set(line(other)) - set(whole.pitch.tolist())) == []
    assert len(line(whole)) > len(line(in_time))
    assert set(line(other)) - set(in_time.pitch.tolist())
