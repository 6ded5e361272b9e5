"""The language of composing: what it keeps of a score, and what a passage of it says alone."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.symbolic import composing
from musictool.symbolic.composing import IS_TOLD, LANGUAGE, LEFT_MAX, NO_CHORD, RemiWriter, compose, shaded, transposed
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import remi
from musictool.symbolic.vocabulary import Ids
from tests.symbolic.oracles import random_score
from tests.symbolic.scores import score_of, scores, tune

ALL = 1 << 30
a_few = settings(max_examples=30, deadline=None, derandomize=True)


class Told(NamedTuple):
    """A note, and all that has been said where it stands."""

    bar: int
    place: int
    metre: tuple[str, str]
    tempo: str
    chord: str
    source: str
    note: tuple[str, ...]


def told(ids: Ids) -> list[Told]:
    """Read ids name by name; what was not said is empty."""
    found: list[Told] = []
    bar, place, said = -1, 0, dict.fromkeys(("Numerator", "DenominatorLog2", "Tempo", "Chord", "Source", "Pitch"), "")
    for name in LANGUAGE.names(ids):
        kind, _, value = name.partition("_")
        said["Source" if kind in ("Program", "Kit") else kind] = name
        if kind == "Bar":
            bar, place = bar + 1, 0
        elif kind == "Position":
            place = int(value)
        elif kind == "Velocity":
            metre = said["Numerator"], said["DenominatorLog2"]
            note = said["Pitch"], name
            found.append(Told(bar, place, metre, said["Tempo"], said["Chord"], said["Source"], note))
        elif kind == "Duration":
            found[-1] = found[-1]._replace(note=(*found[-1].note, name))
    return found


def spelt(text: str) -> Ids:
    return LANGUAGE.ids(text.split())


def kinds(ids: Ids) -> list[str]:
    return [name.partition("_")[0] for name in LANGUAGE.names(ids)]


def values(ids: Ids, kind: str) -> list[int]:
    return LANGUAGE.value_of_id[ids[LANGUAGE.range_of_id[ids] == LANGUAGE.range_index(kind)]].tolist()


# ----------------------------------------------------------------------------------------------------- what is written


@given(scores())
@a_few
def test_taken_apart_a_piece_is_what_the_scheme_writes(score: Score) -> None:
    assert RemiWriter().feed(compose(score).passage(0, ALL, 3, 5)) == remi.encode(score).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_taken_apart_the_rarest_pieces_are_what_the_scheme_writes(seed: int) -> None:
    score = random_score(seed)
    if len(score.notes):
        assert RemiWriter().feed(compose(score).passage(0, ALL, None, None)) == remi.encode(score).tolist()


@given(scores())
@a_few
def test_taken_apart_id_by_id_a_passage_is_the_same_as_at_once(score: Score) -> None:
    passage = compose(score).passage(0, ALL, 3, 5)
    writer = RemiWriter()
    assert [id for taken in passage.tolist() for id in writer.feed([taken])] == RemiWriter().feed(passage)


def test_what_is_written_before_the_next_id_is_certain() -> None:
    """A place is held back until something stands at it, and everything else is written at once."""
    writer = RemiWriter()
    for taken, written in (
        ("Start Style_1 Key_3 Bar Left_2 Numerator_4 DenominatorLog2_2", "Bar Numerator_4 DenominatorLog2_2"),
        ("Position_0 Tempo_120", "Position_0 Tempo_120"),
        ("Position_24 Chord_7 Position_48", ""),
        ("Chord_8 Pitch_60", "Position_48 Pitch_60"),
        ("Velocity_9 Duration_4", "Velocity_9 Duration_4"),
        ("Position_72 Chord_9 Bar", "Bar"),
        ("Left_1 Position_30 Bar", "Position_30 Bar"),
        ("Left_0 Position_0 Chord_1 End", ""),
        ("Bar Position_30 End", "Bar"),
    ):
        assert writer.feed(spelt(taken)) == spelt(written).tolist(), taken


def test_a_piece_without_notes_is_none() -> None:
    with pytest.raises(ValueError, match="no notes"):
        compose(Score())


def test_a_tune_is_spelt_as_it_was() -> None:
    """The language decides what models have learned: what it says is not to change."""
    chord = [(0, 96, 0, 60, 64), (0, 96, 0, 64, 64), (0, 96, 0, 67, 64)]
    score = score_of([*chord, (96, 200, 1, 45, 80), (96, 200, 1, 48, 80), (96, 200, 1, 52, 80)])
    assert " ".join(LANGUAGE.names(compose(score).passage(0, ALL, 2, None))) == (
        "Start Style_2 Key_24 Bar Left_1 Numerator_4 DenominatorLog2_2 Position_0 Tempo_120 Chord_0 Program_0 "
        "Pitch_60 Velocity_16 Duration_96 Pitch_64 Velocity_16 Duration_96 Pitch_67 Velocity_16 Duration_96 "
        "Bar Left_0 Position_0 Chord_21 Program_33 Pitch_45 Velocity_20 Duration_192 Duration_8 "
        "Pitch_48 Velocity_20 Duration_192 Duration_8 Pitch_52 Velocity_20 Duration_192 Duration_8 End"
    )
    assert LANGUAGE.fingerprint == "d7a0aeba32c9f756b95b934c960c694e28a0d387291be66e2fb38eba5cac6624"


def test_ids_of_the_scheme_are_the_first_of_the_language() -> None:
    assert LANGUAGE.token_names[: len(remi.VOCABULARY)] == remi.VOCABULARY.token_names


def test_what_is_told_is_header_padding_and_what_is_left() -> None:
    assert {name.partition("_")[0] for name in np.array(LANGUAGE.token_names)[IS_TOLD]} == {
        "Pad", "Start", "Within", "Style", "AnyStyle", "Key", "Left",
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- chords


@given(scores())
@a_few
def test_chords_stand_on_quarters_of_their_bar_and_only_where_they_change(score: Score) -> None:
    ids = compose(score).ids
    chords = values(ids, "Chord")
    assert all(before != after for before, after in pairwise(chords))
    place, names = -1, LANGUAGE.names(ids)
    for before, name in zip(["", *names], names):
        if name.startswith("Position_"):
            place = int(name.partition("_")[2])
        if name.startswith("Chord_"):
            assert place % 24 == 0
            assert before.partition("_")[0] in ("Position", "Tempo")
    assert kinds(ids)[:6] == ["Bar", "Numerator", "DenominatorLog2", "Position", "Tempo", "Chord"]


def test_chords_are_those_that_are_played() -> None:
    composition = compose(tune(0))
    assert values(composition.ids, "Chord") == [0, 12 + 9, 5, 7] * 2
    assert [bar.chord - composing.CHORD for bar in map(composition.held, range(1, 5))] == [0, 12 + 9, 5, 7]
    assert composition.key == 0


def test_drums_alone_have_neither_chords_nor_a_key() -> None:
    composition = compose(score_of([(24 * beat, 12, 3, 36 + beat % 3, 90) for beat in range(16)]))
    assert values(composition.ids, "Chord") == [NO_CHORD]
    assert composition.key == composing.ANY_KEY


# ------------------------------------------------------------------------------------------------------------ passages


@given(scores())
@a_few
def test_a_passage_from_any_bar_says_what_the_piece_says_there(score: Score) -> None:
    composition = compose(score)
    whole = told(composition.passage(0, ALL, None, None))
    for bar in range(len(composition.bars)):
        here = [note._replace(bar=note.bar - bar) for note in whole if note.bar >= bar]
        assert told(composition.passage(bar, ALL, None, None)) == here


@given(scores())
@a_few
def test_a_passage_opens_with_metre_tempo_and_chord(score: Score) -> None:
    composition = compose(score)
    for bar in range(len(composition.bars)):
        passage = composition.passage(bar, ALL, 1, 2)
        opening = ["Style", "Key", "Bar", "Left", "Numerator", "DenominatorLog2", "Position", "Tempo", "Chord"]
        assert kinds(passage)[:10] == ["Within" if bar else "Start", *opening]
        assert LANGUAGE.names(passage)[7] == "Position_0"


def test_a_source_is_named_where_the_first_bars_are_silent() -> None:
    rows = [(0, 24, 1, 40, 64), (3 * 96, 24, 1, 43, 64), (4 * 96, 24, 1, 45, 64)]
    passage = compose(score_of(rows)).passage(1, ALL, None, None)
    assert [note.source for note in told(passage)] == ["Program_33", "Program_33"]
    assert kinds(passage).count("Program") == 1


@given(scores(), st.integers(12, 120))
@a_few
def test_a_passage_is_as_many_whole_bars_as_its_bound_allows(score: Score, most: int) -> None:
    composition = compose(score)
    for bar in range(len(composition.bars)):
        whole, part = (composition.passage(bar, bound, None, None) for bound in (ALL, most))
        assert len(part) <= most
        assert part.tolist() == whole[: len(part)].tolist()
        if len(part) < len(whole):
            starts = np.flatnonzero(np.isin(whole, (composing.BAR, composing.END)))
            fitting = starts[starts <= most]
            assert len(part) == (fitting[-1] if len(fitting) > 1 else most)


def test_what_is_left_counts_down_to_the_end() -> None:
    composition = compose(tune(1, bars=40))
    passage = composition.passage(0, ALL, None, None)
    assert values(passage, "Left") == [min(39 - bar, LEFT_MAX) for bar in range(40)]
    assert values(composition.passage(35, ALL, None, None), "Left") == [4, 3, 2, 1, 0]
    assert passage[-1] == composing.END
    assert np.count_nonzero(passage == composing.END) == 1
    assert not np.isin(composing.END, composition.passage(0, len(passage) - 1, None, None))


def test_a_header_says_where_a_passage_begins_and_what_it_is_to_be() -> None:
    names = [LANGUAGE.names(composing.header(*of)) for of in ((True, 3, 5), (False, None, None))]
    assert names == [["Start", "Style_3", "Key_5"], ["Within", "AnyStyle", "Key_24"]]
    assert composing.HEADER_IDS == 3
    assert composing.key_number(9, True) == 21


# ---------------------------------------------------------------------------------------------------------- renditions


@given(scores(), st.integers(-6, 6))
@a_few
def test_a_passage_moved_and_moved_back_is_the_same(score: Score, semitones: int) -> None:
    passage = compose(score).passage(0, ALL, 0, 7)
    pitches = [int(note.note[0][6:]) for note in told(passage) if note.source.startswith("Program")]
    moved = transposed(passage, semitones)
    if pitches and (min(pitches) + semitones < 0 or max(pitches) + semitones > 127):
        there = [int(note.note[0][6:]) for note in told(moved) if note.source.startswith("Program")]
        assert len({new - old for old, new in zip(pitches, there)}) == 1
        assert min(there) == 0 or max(there) == 127
    else:
        assert transposed(moved, -semitones).tolist() == passage.tolist()


def test_moved_up_are_pitches_chords_and_key_and_nothing_else() -> None:
    ids = spelt("Key_10 Chord_11 Chord_23 Chord_108 Program_0 Pitch_60 Velocity_3 Kit_0 Pitch_36")
    moved = spelt("Key_1 Chord_2 Chord_14 Chord_108 Program_0 Pitch_63 Velocity_3 Kit_0 Pitch_36")
    assert transposed(ids, 3).tolist() == moved.tolist()
    assert transposed(spelt("Key_24 Key_13"), -2).tolist() == spelt("Key_24 Key_23").tolist()
    assert LANGUAGE.names(ids)[0] == "Key_10"  # what was given is as it was


@given(scores(), st.integers(-3, 3), st.floats(0.5, 2.0))
@a_few
def test_shaded_are_velocities_and_tempos_and_nothing_else(score: Score, bins: int, ratio: float) -> None:
    passage = compose(score).passage(0, ALL, 0, 7)
    changed = shaded(passage, bins, ratio)
    is_other = ~np.isin(
        LANGUAGE.range_of_id[passage], [LANGUAGE.range_index("Velocity"), LANGUAGE.range_index("Tempo")]
    )
    assert kinds(changed) == kinds(passage)
    assert changed[is_other].tolist() == passage[is_other].tolist()
    assert values(changed, "Velocity") == [min(max(bin + bins, 0), 31) for bin in values(passage, "Velocity")]
    assert values(changed, "Tempo") == [min(max(round(rate * ratio), 10), 400) for rate in values(passage, "Tempo")]
    assert shaded(passage, 0, 1.0).tolist() == passage.tolist()
