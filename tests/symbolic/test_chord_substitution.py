"""Dominants become their tritone substitutes or get a ii, the melody stays, and nothing else changes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from musictool.errors import UsageError
from musictool.symbolic.augment import Augmentation, augmented
from musictool.symbolic.chord_substitution import cadences_of, substituted
from musictool.symbolic.chords import chords_of
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.skyline import skyline_of
from musictool.symbolic.tokenization import Tokenization, tokenize_midi

CORPORA = os.environ.get("MTK_TEST_DATA")

C, G, G7 = (36, 52, 55, 60), (43, 50, 55, 59), (43, 53, 55, 59)
CM, DM = (36, 51, 55, 60), (38, 50, 53, 57)
MELODY = (76, 79, 77, 77, 72, 76)


def a_score(*blocks: tuple[int, ...], melody: tuple[int, ...] = MELODY, seconds: float = 2.0) -> Score:
    """Chords, one behind the other, below a melody of two notes to each."""
    chords = [
        (index * seconds, (index + 1) * seconds, pitch, 50) for index, block in enumerate(blocks) for pitch in block
    ]
    line = [(index * seconds / 2, (index + 1) * seconds / 2, pitch, 90) for index, pitch in enumerate(melody)]
    return Score(Notes.of(*zip(*chords, *line)).sorted())


def outcomes(score: Score, draws: int = 20) -> set[tuple[str, ...]]:
    """The chords that come of a score, in any number of draws."""
    made = (substituted(score, 1.0, np.random.default_rng(seed))[0] for seed in range(draws))
    return {tuple(chord.symbol for chord in chords_of(variation.notes)) for variation in made}


def rows(notes: Notes) -> list[tuple[float, float, int, int]]:
    columns = (notes.onset_seconds, notes.offset_seconds, notes.pitch, notes.velocity)
    return list(zip(*(column.tolist() for column in columns)))


# ------------------------------------------------------------------------------------------------------------ cadences


def test_dominants_that_fall_to_their_tonics_are_found():
    score = a_score(C, G7, C)
    assert [chord.symbol for chord in chords_of(score.notes)] == ["C", "G7", "C"]
    (cadence,) = cadences_of(score.notes)
    assert tuple(cadence) == (2.0, 4.0, 7, False, False)
    (cadence,) = cadences_of(a_score(DM, G7, CM, melody=(74, 77, 77, 74, 75, 72)).notes)
    assert tuple(cadence) == (2.0, 4.0, 7, True, True)


def test_a_triad_is_a_dominant_only_of_the_key():
    f = (41, 53, 57, 60)
    key = (C, f, G, C)  # C F falls a fifth as well, to no tonic
    found = cadences_of(a_score(*key, melody=(76, 76, 77, 77, 74, 74, 72, 72)).notes)
    assert [(cadence.start_seconds, cadence.root) for cadence in found] == [(4.0, 7)]


def test_a_dominant_that_falls_to_a_diminished_chord_is_none():
    score = a_score(C, G7, (36, 51, 54, 60), C, melody=(76, 76, 77, 77, 75, 78, 72, 72))
    assert [chord.symbol for chord in chords_of(score.notes)] == ["C", "G7", "Cdim", "C"]
    assert cadences_of(score.notes) == []


def test_what_is_no_cadence_stays():
    for score in (a_score(C, C, C), a_score(G7, (45, 57, 60, 64), C), a_score(C, G7, melody=MELODY[:4]), Score()):
        assert substituted(score, 1.0, np.random.default_rng(0)) == (score, 0)


# ------------------------------------------------------------------------------------------------------- substitutions


def test_a_dominant_becomes_its_tritone_substitute_or_gets_a_supertonic():
    assert outcomes(a_score(C, G7, C)) == {("C", "C#7", "C"), ("C", "Dm7", "G7", "C")}
    assert outcomes(a_score(CM, G7, CM, melody=(75, 79, 77, 77, 72, 75))) == {
        ("Cm", "C#7", "Cm"),
        ("Cm", "Dm7b5", "G7", "Cm"),
    }


def test_a_triad_gets_the_seventh_that_its_substitute_needs():
    blocks = (C, (41, 53, 57, 60), G, C)
    for melody, found in ((71, ("C", "F", "C#7", "C")), (74, ("C", "F", "Dm7", "G", "C"))):
        score = a_score(*blocks, melody=(76, 76, 77, 77, melody, melody, 72, 72))
        assert outcomes(score) == {found}
        if "C#7" in found:  # whose third the fifth of G has become
            made = substituted(score, 1.0, np.random.default_rng(0))[0].notes
            assert set((made.pitch[made.onset_seconds == 4] % 12).tolist()) == {1, 5, 11}


@pytest.mark.parametrize(("melody", "pitch"), [(71, [37, 53, 61]), (59, [25, 49, 53])])
def test_a_bass_that_would_go_too_low_goes_up_if_the_melody_lets_it(melody, pitch):
    score = a_score(C, (31, 53, 55), C, melody=(76, 76, melody, melody, 76, 76))
    made, count = substituted(score, 1.0, np.random.default_rng(0))
    assert count == 1
    is_new = (made.notes.onset_seconds == 2) & (made.notes.velocity == 50)
    assert made.notes.pitch[is_new].tolist() == pitch


def test_a_prepared_dominant_gets_no_second_supertonic():
    assert outcomes(a_score(DM, G7, C, melody=(74, 77, 77, 77, 72, 76))) == {("Dm", "C#7", "C")}


def test_a_short_dominant_gets_no_supertonic():
    found = outcomes(a_score(C, G7, C, seconds=0.9))
    assert found == {("C", "C#7", "C")}


def test_a_melody_that_would_clash_is_respected():
    fifth, third = (76, 79, 74, 74, 72, 76), (76, 79, 71, 71, 72, 76)
    assert outcomes(a_score(C, G7, C, melody=fifth)) == {("C", "Dm7", "G7", "C")}
    assert outcomes(a_score(C, G7, C, melody=third)) == {("C", "C#7", "C")}


def test_a_held_note_that_would_clash_is_respected():
    score = a_score(C, G7, C)
    held = Notes.concatenate([score.notes, Notes.of([1.0], [4.0], [55], [50])]).sorted()
    assert outcomes(Score(held)) == {("C", "Dm7", "G7", "C")}


def test_what_lasts_into_the_tonic_is_struck_again():
    notes = a_score(C, G7, C).notes
    is_long = (notes.pitch == 55) & (notes.onset_seconds == 2)
    score = Score(notes.with_columns(offset_seconds=notes.offset_seconds + is_long))
    for seed in range(20):
        made = rows(substituted(score, 1.0, np.random.default_rng(seed))[0].notes)
        if (2.0, 4.0, 49, 50) in made:  # the tritone substitute
            assert sorted(row for row in made if 4 <= row[0] < 5 and row[2] == 55) == [
                (4.0, 5.0, 55, 50),
                (4.0, 6.0, 55, 50),
            ]
            return
    pytest.fail("no tritone substitute in twenty draws")


@pytest.mark.parametrize("seed", range(10))
def test_only_the_accompaniment_of_the_dominant_changes(seed):
    score = a_score(C, G7, C)
    drums = Notes.of([2.0, 3.0], [2.1, 3.1], [43, 38], is_drum=True)
    score = Score(Notes.concatenate([score.notes, drums]).sorted())
    made = substituted(score, 1.0, np.random.default_rng(seed))[0].notes
    before, after = set(rows(score.notes)), set(rows(made))
    assert all(2 <= on < 4 and pitch < 60 and velocity == 50 for on, _, pitch, velocity in before - after)
    assert all(2 <= on < 4 and pitch < 76 and velocity == 50 for on, _, pitch, velocity in after - before)
    melody = {row for row in before if row[3] == 90}
    assert melody <= after
    assert made.is_drum.sum() == 2
    assert rows(made) == rows(made.sorted())


def test_the_share_says_how_many_and_the_generator_which():
    score = a_score(*(C, G7) * 60, C, melody=MELODY[:4] * 60)
    none = substituted(score, 0.0, np.random.default_rng(0))
    assert none == (score, 0)
    counts = [substituted(score, 0.3, np.random.default_rng(seed))[1] for seed in range(10)]
    assert 14 < np.mean(counts) < 22  # of 60
    first, second, other = (substituted(score, 0.3, np.random.default_rng(seed))[0].notes for seed in (1, 1, 2))
    assert rows(first) == rows(second) != rows(other)


# -------------------------------------------------------------------------------------------------------- augmentation


def test_variations_substitute_before_they_move():
    settings = Augmentation.parse("pitch=2..2,time=2..2,substitute=1")
    variation, drawn = augmented(a_score(C, G7, C), settings, np.random.default_rng(0))
    assert drawn == {"substituted": 1, "pitch": 2, "time": 2.0, "velocity": 0}
    chords = [(chord.symbol, chord.start_seconds) for chord in chords_of(variation.notes)]
    assert chords in ([("D", 0.0), ("Eb7", 4.0), ("D", 8.0)], [("D", 0.0), ("Em7", 4.0), ("A7", 6.0), ("D", 8.0)])


def test_without_substitution_nothing_is_said_of_it():
    drawn = augmented(a_score(C, G7, C), Augmentation.parse("pitch=2..2"), np.random.default_rng(0))[1]
    assert drawn == {"pitch": 2, "time": 1.0, "velocity": 0}


@pytest.mark.parametrize("wrong", ["substitute=1.5", "substitute=-1", "substitute=nan", "substitute=much"])
def test_a_senseless_share_is_refused(wrong):
    with pytest.raises(UsageError):
        Augmentation.parse(wrong)


def test_tokenized_variations_say_how_many_cadences_changed():
    data = write_midi(a_score(C, G7, C))
    options = Tokenization("tatum", augmentation=Augmentation(substitute=1.0), copies=3)
    plain, *variations = tokenize_midi("x", data, options)
    assert [item.head.made[0]["augment"]["substituted"] for item in variations] == [1, 1, 1]
    assert all(item.ids.tolist() != plain.ids.tolist() for item in variations)


# --------------------------------------------------------------------------------------------------------------- music


@pytest.mark.skipif(not CORPORA, reason="no unpacked corpora")
def test_in_real_music_the_new_chords_can_be_heard_and_the_melody_stays():
    seen = heard = 0
    for path in sorted((Path(CORPORA or "") / "pop909").glob("*.mid"))[:5]:
        score = read_midi(path)
        made, count = substituted(score, 1.0, np.random.default_rng(0))
        before = rows(score.notes)
        assert {before[row] for row in skyline_of(score.notes).row} <= set(rows(made.notes))
        chords = chords_of(made.notes)
        starts = [chord.start_seconds for chord in chords]
        for cadence in cadences_of(score.notes):
            root = chords[int(np.searchsorted(starts, cadence.start_seconds + 0.1)) - 1].root
            heard += root in ((cadence.root + 6) % 12, (cadence.root + 7) % 12)
        seen += count
    assert seen > 15
    assert heard > 0.6 * seen
