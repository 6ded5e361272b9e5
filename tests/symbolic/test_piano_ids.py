"""One piano's ids say what it plays, and where in time each of them stands; held against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.symbolic.notes import Notes, Pedals
from musictool.symbolic.piano_ids import FRAME_TICKS, Piano, frames_of_ids, piano_ids, score_of_ids, ticks_of_ids
from musictool.symbolic.schemes.tatum import VOCABULARY
from tests.symbolic.oracles import random_score

SEEDS = 200


def ticks(seconds) -> list[int]:
    return [round(100 * float(moment)) for moment in seconds]


def rows(notes: Notes) -> list[tuple[int, int, int, int]]:
    """Onset and offset in ticks, pitch, velocity."""
    return list(zip(ticks(notes.onset_seconds), ticks(notes.offset_seconds), notes.pitch.tolist(), notes.velocity))


def presses(pedals: Pedals) -> list[tuple[int, int]]:
    return list(zip(ticks(pedals.onset_seconds), ticks(pedals.offset_seconds)))


def one_piano(notes: Notes) -> list[tuple[int, int, int, int]]:
    """What a piano makes of notes, one by one."""
    by_pitch: dict[int, dict[int, tuple[int, int]]] = {}
    for (on, off, pitch, velocity), is_drum in zip(rows(notes), notes.is_drum):
        if not is_drum:
            loudest = by_pitch.setdefault(pitch, {})
            loudest[on] = max(loudest.get(on, (0, 0)), (velocity, max(off, on + 1)))
    played = []
    for pitch, loudest in by_pitch.items():
        onsets = sorted(loudest)
        for on, following in zip(onsets, [*onsets[1:], 1 << 40]):
            velocity, off = loudest[on]
            played.append((on, min(off, following), pitch, velocity))
    return sorted(played, key=lambda row: (row[0], row[2]))


def one_pedal(pedals: Pedals) -> list[tuple[int, int]]:
    """Presses joined, tick by tick."""
    down: set[int] = set()
    gaps: set[int] = set()  # moments at which it is up, between ticks
    for on, off in presses(pedals):
        down |= set(range(on, max(off, on + 1)))
    gaps = {tick for tick in down if tick - 1 not in down}
    joined = []
    for on in sorted(gaps):
        off = on
        while off in down:
            off += 1
        joined.append((on, off))
    return joined


def in_bins(played) -> list[tuple[int, int, int, int]]:
    return [(on, off, pitch, velocity // 4 * 4 + 2) for on, off, pitch, velocity in played]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_ids_say_what_one_piano_plays(seed):
    score = random_score(seed)
    ids = piano_ids(score.notes, score.pedals)
    said = score_of_ids(ids)
    assert rows(said.notes) == in_bins(one_piano(score.notes))
    assert presses(said.pedals) == one_pedal(score.pedals)
    assert {VOCABULARY.token_names[index].split("_")[0] for index in ids} <= {
        "Time",
        "NoteOn",
        "NoteOff",
        "Velocity",
        "Pedal",
    }


@pytest.mark.parametrize("seed", range(0, SEEDS, 10))
def test_a_piano_keeps_the_velocities_and_times_it_was_given(seed):
    score = random_score(seed)
    piano = Piano.of(score.notes, score.pedals)
    assert rows(piano.notes()) == one_piano(score.notes)
    assert presses(piano.pedals()) == one_pedal(score.pedals)
    assert piano.end == max((off for _, off, _, _ in one_piano(score.notes)), default=0)


def test_the_loudest_then_longest_of_notes_at_once_stays_and_presses_that_meet_are_one():
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        notes = Notes.of([1.0] * 3, [2.0, 3.0, 4.0], [60] * 3, [50, 50, 40]).take(np.array(order))
        pedals = Pedals.of([1.0, 2.0, 2.5], [2.0, 2.2, 3.0], [0, 0, 0])
        piano = Piano.of(notes, pedals)
        assert rows(piano.notes()) == [(100, 300, 60, 50)]
        assert presses(piano.pedals()) == [(100, 220), (250, 300)]


def test_nothing_has_no_ids():
    assert piano_ids(Notes.empty()).tolist() == []
    assert piano_ids(Notes.of([0.0], [1.0], [36], is_drum=True)).tolist() == []
    assert Piano.of(Notes.empty()).end == 0


def test_the_order_of_the_table_does_not_matter():
    for seed in range(20):
        score = random_score(seed)
        shuffled = score.notes.take(np.random.default_rng(seed).permutation(len(score.notes)))
        assert piano_ids(shuffled).tolist() == piano_ids(score.notes).tolist()


@pytest.mark.parametrize("seed", range(0, SEEDS, 10))
def test_every_id_stands_in_the_tick_and_frame_it_happens_in(seed):
    score = random_score(seed)
    ids = np.concatenate([[VOCABULARY.id("Start")], piano_ids(score.notes, score.pedals), [VOCABULARY.id("End")]])
    now, expected = 0, []
    for name in VOCABULARY.names(ids):
        kind, _, value = name.partition("_")
        now += int(value) if kind == "Time" else 0
        expected.append(now)
    assert ticks_of_ids(ids).tolist() == expected
    assert frames_of_ids(ids).tolist() == [tick // 25 for tick in expected]
    assert ticks_of_ids(ids).dtype == frames_of_ids(ids).dtype == np.int64
    is_on = np.char.startswith(np.array(VOCABULARY.names(ids)), "NoteOn")
    assert ticks_of_ids(ids)[is_on].tolist() == [on for on, *_ in one_piano(score.notes)]


def test_a_stretch_holds_the_notes_that_begin_in_it_cut_at_its_end():
    notes = Notes.of([0.0, 0.5, 0.75, 1.0], [2.0, 0.7, 9.0, 1.1], [60, 62, 64, 65], [10, 20, 30, 40])
    pedals = Pedals.of([0.0, 0.4, 0.9, 1.0], [0.3, 0.6, 1.2, 1.3], [0, 0, 0, 0])
    piano = Piano.of(notes, pedals)
    stretch = piano.between(2 * FRAME_TICKS, 4 * FRAME_TICKS)
    assert rows(stretch.notes()) == [(0, 20, 62, 20), (25, 50, 64, 30)]
    assert presses(stretch.pedals()) == [(0, 10), (40, 50)]
    assert presses(piano.between(30, 40).pedals()) == []
    assert presses(piano.between(60, 91).pedals()) == [(30, 31)]


def test_any_ids_decode_to_one_piano():
    generator = np.random.default_rng(0)
    for _ in range(100):
        ids = generator.integers(0, len(VOCABULARY), 200).astype(np.int32)
        score = score_of_ids(ids)
        assert not score.notes.is_drum.any()
        assert not score.notes.program.any()
        assert not score.pedals.track.any()
        by_name = [name for name in VOCABULARY.names(ids) if name.startswith(("Time", "Note", "Velocity", "Pedal"))]
        again = score_of_ids(VOCABULARY.ids(by_name))
        assert rows(again.notes) == rows(score.notes)
        assert (np.diff(score.notes.onset_seconds) >= 0).all()
        assert len(score.notes) > 0
