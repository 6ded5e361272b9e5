"""Each corruption changes what it says and nothing else, of as many notes as it is told, by the generator alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from musictool.symbolic.notes import Notes, Pedals
from musictool.symbolic.piano_ids import Piano, score_of_ids, ticks_of_ids
from musictool.symbolic.schemes.tatum import VOCABULARY
from musictool.training.data.corruptions import (
    CORRUPTIONS,
    corrupt,
    drop_fragments,
    modify_notes,
    permute_pitches,
)
from musictool.training.data.style_corpus import StyleWindow

MASKS, CHANGES = CORRUPTIONS[:3], CORRUPTIONS[3:]
SEEDS = 30


def window_of(notes: Notes, pedals: Pedals | None = None, frames: int = 48) -> StyleWindow:
    piano = Piano.of(notes, pedals)
    return StyleWindow(piano.ids(), piano.notes(), piano.pedals(), frames, 0, -1, 0)


def a_window(seed: int, count: int = 80, rest: float = 1.5) -> StyleWindow:
    """Twelve seconds of notes at random, some of them at once, with a rest and a pedal."""
    generator = np.random.default_rng(seed)
    onset = np.sort(generator.integers(0, 1100, count) // 5 * 5) / 100
    onset[count // 2 :] = np.minimum(onset[count // 2 :] + rest, 11.5)
    offset = np.minimum(onset + generator.integers(1, 120, count) / 100, 12.0)
    notes = Notes.of(onset, offset, generator.integers(21, 109, count), generator.integers(1, 128, count))
    return window_of(notes, Pedals.of([1.0, 4.0], [3.0, 12.0], [0, 0]))


def names(ids) -> list[str]:
    return VOCABULARY.names(ids)


def kinds(ids) -> list[str]:
    return [name.split("_")[0] for name in names(ids)]


def rows(notes: Notes) -> list[tuple[int, int, int, int]]:
    times = (np.rint(column * 100).astype(int).tolist() for column in (notes.onset_seconds, notes.offset_seconds))
    return list(zip(*times, notes.pitch.tolist(), (notes.velocity // 4).tolist(), strict=True))


def difference(before, after) -> tuple[list, list]:
    """Rows that are gone, and rows that are new."""
    before, after = Counter(before), Counter(after)
    return sorted((before - after).elements()), sorted((after - before).elements())


def switches_of(ids) -> list[tuple[int, int]]:
    """Where each note's switches stand, found by a plain walk."""
    sounding, found = {}, []
    for place, name in enumerate(names(ids)):
        kind, _, value = name.partition("_")
        if kind == "NoteOn":
            sounding[value] = place
        elif kind == "NoteOff":
            found.append((sounding.pop(value), place))
    return sorted(found)


# ------------------------------------------------------------------------------------------------------------- all


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_state_does_the_same_damage_and_none_to_the_window(kind):
    window = a_window(0)
    before = window.ids.tolist(), rows(window.notes)
    drawn = [corrupt(window, [kind], 0.3, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert (window.ids.tolist(), rows(window.notes)) == before
    assert drawn[0] != before[0]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_no_share_is_no_damage_and_any_share_of_nothing_is_nothing(kind):
    window = a_window(1)
    assert corrupt(window, [kind], 0.0, np.random.default_rng(0)).tolist() == window.ids.tolist()
    assert corrupt(window_of(Notes.empty()), [kind], 1.0, np.random.default_rng(0)).tolist() == []


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_all_notes_of_the_smallest_windows_can_be_taken(kind):
    for frames in (1, 2):
        window = window_of(Notes.of([0.0, 0.1], [0.25, 0.2], [21, 108], [1, 127]), frames=frames)
        for seed in range(20):
            ids = corrupt(window, [kind], 1.0, np.random.default_rng(seed))
            assert ids.dtype == np.int32
            assert ticks_of_ids(ids).max(initial=0) <= 25 * frames
            assert score_of_ids(ids).notes.pitch.min(initial=60) >= 21


def test_kinds_come_one_after_the_other():
    window = a_window(2)
    both = corrupt(window, ["note_mask", "fragmentation"], 0.25, np.random.default_rng(3))
    fragments = corrupt(window, ["fragmentation"], 0.25, np.random.default_rng(3))
    assert len(both) == len(fragments)
    assert Counter(kinds(fragments))["NoteOn"] == 60
    assert Counter(kinds(both))["NoteOn"] == 45
    everything = corrupt(window, CORRUPTIONS, 0.5, np.random.default_rng(3))
    assert 0 < Counter(kinds(everything))["NoteOn"] < 25
    assert corrupt(window, [], 0.5, np.random.default_rng(3)).tolist() == window.ids.tolist()


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'note_maks'; did you mean note_mask\?"):
        corrupt(a_window(0), ["note_maks"], 0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="there are pitch_velocity_mask, "):
        corrupt(a_window(0), ["zzz"], 0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="a share is from 0 to 1"):
        corrupt(a_window(0), ["note_mask"], 1.5, np.random.default_rng(0))


# ------------------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_pitch_and_velocity_mask_hides_switches_of_whole_notes_and_their_velocities(seed):
    window = a_window(seed)
    masked = corrupt(window, ["pitch_velocity_mask"], 0.2, np.random.default_rng(seed))
    assert len(masked) == len(window.ids)
    hidden = set(np.flatnonzero(masked != window.ids).tolist())
    assert {names(masked)[place] for place in hidden} == {"Pad"}
    taken = [pair for pair in switches_of(window.ids) if pair[0] in hidden]
    assert len(taken) == -(-len(window.notes) // 5)
    velocities = {on - 1 for on, _ in taken if kinds(window.ids)[on - 1] == "Velocity"}
    assert hidden == {place for pair in taken for place in pair} | velocities
    assert ticks_of_ids(masked).tolist() == ticks_of_ids(window.ids).tolist()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_onset_and_duration_mask_hides_times_and_leaves_all_others(seed):
    window = a_window(seed)
    masked = corrupt(window, ["onset_duration_mask"], 0.1, np.random.default_rng(seed))
    before, after = kinds(window.ids), kinds(masked)
    assert len(before) == len(after)
    changed = np.flatnonzero(masked != window.ids)
    assert {before[place] for place in changed} == {"Time"}
    assert {after[place] for place in changed} == {"Time", "Pad"}
    # What has a Time of its own still, and all that follows it in the same tick, is where it was.
    was, now = ticks_of_ids(window.ids), ticks_of_ids(masked)
    is_hidden, right = False, 0
    for place, kind in enumerate(after):
        if kind in ("Time", "Pad"):
            is_hidden = kind == "Pad"
        elif not is_hidden:
            assert was[place] == now[place]
            right += 1
        else:
            assert now[place] < was[place]
    assert right > len(after) / 3
    moments = {tick for on, off in switches_of(window.ids) for tick in (was[on], was[off])}
    assert len({was[place] for place in changed if after[place] == "Pad"}) <= len(moments)


def test_an_onset_and_duration_mask_hides_both_times_of_as_many_notes_as_told():
    onset = np.arange(40) / 10
    window = window_of(Notes.of(onset, onset + 0.04, np.arange(40, 80)))
    masked = corrupt(window, ["onset_duration_mask"], 0.25, np.random.default_rng(0))
    is_hidden = [
        (names(masked)[on - 1 - (kinds(masked)[on - 1] == "Velocity")], names(masked)[off - 1])
        for on, off in switches_of(window.ids)[1:]  # the first begins at 0: there is no Time to hide
    ]
    both = sum(pair == ("Pad", "Pad") for pair in is_hidden)
    assert both == sum("Pad" in pair for pair in is_hidden)
    assert both in (9, 10)


def test_a_time_that_the_next_cannot_take_in_stays():
    onset = np.arange(10) * 0.6
    window = window_of(Notes.of(onset, onset + 0.6, np.arange(40, 50)))
    for seed in range(10):
        masked = corrupt(window, ["onset_duration_mask"], 1.0, np.random.default_rng(seed))
        assert names(masked)[:-2] == names(window.ids)[:-2]  # but for the last, which nothing follows
        assert names(masked)[-2:] == ["Pad", "NoteOff_49"]


def test_hidden_times_in_a_row_are_summed_up():
    window = window_of(Notes.of([0.1, 0.2, 0.35], [0.8, 0.8, 2.0], [60, 62, 64]))
    plain = "Time_10 Velocity_16 NoteOn_60 Time_10 NoteOn_62 Time_15 NoteOn_64 Time_45 NoteOff_60 NoteOff_62"
    assert " ".join(names(window.ids)) == plain + " Time_100 Time_20 NoteOff_64"
    drawn = (corrupt(window, ["onset_duration_mask"], 0.6, np.random.default_rng(seed)) for seed in range(60))
    found = {" ".join(names(ids)).replace("Velocity_16 ", "") for ids in drawn}
    assert found == {
        "Pad NoteOn_60 Pad NoteOn_62 Time_35 NoteOn_64 Pad NoteOff_60 NoteOff_62 Time_100 Time_65 NoteOff_64",
        "Pad NoteOn_60 Time_20 NoteOn_62 Pad NoteOn_64 Pad NoteOff_60 NoteOff_62 Pad Pad NoteOff_64",
        "Time_10 NoteOn_60 Pad NoteOn_62 Pad NoteOn_64 Pad NoteOff_60 NoteOff_62 Pad Pad NoteOff_64",
    }


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_note_mask_hides_pitches_and_the_times_that_are_those_notes_alone(seed):
    window = a_window(seed, 150, rest=0.0)  # dense: the next Time can always take in what is hidden
    generator = np.random.default_rng
    masked = corrupt(window, ["note_mask"], 0.2, generator(seed))
    switched = corrupt(window, ["pitch_velocity_mask"], 0.2, generator(seed))
    is_time = np.array(kinds(window.ids)) == "Time"
    assert masked[~is_time].tolist() == switched[~is_time].tolist()
    # A tick in which only hidden switches happen has no Time of its own any more, every other one has.
    was, now, after = ticks_of_ids(window.ids), ticks_of_ids(masked), np.array(kinds(masked))
    for tick in np.unique(was[was > 0]):
        here = was == tick
        is_empty = (after[here & ~is_time] == "Pad").all()
        time_kinds = set(after[here & is_time])
        assert time_kinds == ({"Pad"} if is_empty else {"Time"})
        if not is_empty:
            assert set(now[here & ~is_time]) == {tick}
    assert "Pad" in set(after[is_time])


# ---------------------------------------------------------------------------------------------------------- changes


def played(change, window: StyleWindow, share: float, seed: int) -> tuple[list, list]:
    piano = Piano.of(window.notes, window.pedals)
    end = window.frames * 25
    return rows(piano.notes()), rows(change(piano, end, share, np.random.default_rng(seed)).notes())


@pytest.mark.parametrize("kind", CHANGES)
def test_changes_leave_pedals_and_what_they_make_is_one_piano(kind):
    for seed in range(10):
        window = a_window(seed)
        ids = corrupt(window, [kind], 0.3, np.random.default_rng(seed))
        said = score_of_ids(ids)
        assert said.pedals.onset_seconds.tolist() == window.pedals.onset_seconds.tolist()
        assert said.pedals.offset_seconds.tolist() == window.pedals.offset_seconds.tolist()
        assert set(kinds(ids)) == {"Time", "NoteOn", "NoteOff", "Velocity", "Pedal"}
        assert said.notes.end_seconds <= 12


@pytest.mark.parametrize("seed", range(SEEDS))
def test_fragmentation_drops_notes_in_rows_and_changes_none(seed):
    window = a_window(seed)
    before, after = played(drop_fragments, window, 0.3, seed)
    gone, new = difference(before, after)
    assert new == []
    assert len(gone) == np.ceil(0.3 * len(before))
    places = np.array([row in gone for row in before])
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], places, [0]]))))[::2]
    assert (runs > 1).sum() >= len(runs) - 1  # one may have been cut short
    ids = corrupt(window, ["fragmentation"], 0.3, np.random.default_rng(seed))
    assert difference(rows(score_of_ids(ids).notes), after) == ([], [])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_modification_changes_one_thing_of_each_note_it_takes(seed):
    onset = np.arange(48) / 5  # two keys apart and far from one another, so that no note ends another
    window = window_of(Notes.of(onset, onset + 0.05, 21 + np.arange(48) % 44 * 2, 60 + np.arange(48)))
    piano = Piano.of(window.notes)
    after = modify_notes(piano, 1200, 0.25, np.random.default_rng(seed))
    before, after_rows = (
        list(zip(*(column.tolist() for column in (p.onset, p.offset, p.pitch, p.velocity)))) for p in (piano, after)
    )
    gone, new = difference(before, after_rows)
    assert len(gone) == len(new) == 12
    changed: Counter = Counter()
    for on, off, pitch, velocity in gone:
        for row in new:
            steps = [abs(now - was) for now, was in zip(row, (on, off, pitch, velocity), strict=True)]
            changed["pitch"] += steps[0] == steps[1] == steps[3] == 0 and 1 <= steps[2] <= 12
            changed["velocity"] += steps[0] == steps[1] == steps[2] == 0 and 8 <= steps[3] <= 40
            changed["time"] += steps[2] == steps[3] == 0 and 3 <= steps[0] == steps[1] <= 50
    assert changed == {"velocity": 4, "pitch": 4, "time": 4}
    assert after.pitch.min() >= 21
    assert after.pitch.max() <= 108


@pytest.mark.parametrize("seed", range(SEEDS))
def test_permutation_exchanges_pitches_of_neighbours_alone(seed):
    window = window_of(Notes.of(np.arange(60) / 10, np.arange(60) / 10 + 0.05, 25 + np.arange(60), np.arange(1, 61)))
    before, after = played(permute_pitches, window, 0.5, seed)
    assert [(on, off, velocity) for on, off, _, velocity in after] == [(on, off, v) for on, off, _, v in before]
    assert sorted(row[2] for row in after) == sorted(row[2] for row in before)
    moved = [abs(old[2] - new[2]) for old, new in zip(before, after, strict=True)]
    assert max(moved) < 8
    assert 15 <= np.count_nonzero(moved) <= 30
