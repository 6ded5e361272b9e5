"""The grammar of composing: what is written of scores obeys it, and what obeys it is a score as it would be written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.symbolic.composing import END, HEADER_IDS, LANGUAGE, RemiWriter, compose
from musictool.symbolic.composing_grammar import PassageGrammar
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import find_scheme, remi
from tests.symbolic.scores import score_of, scores

EXAMPLES = Path(__file__).parents[2] / "examples"
ALL = 1 << 30
OPENING = (
    "Bar Left_3 Numerator_4 DenominatorLog2_2 Position_0 Tempo_120 Chord_0 Program_1 Pitch_60 Velocity_9 Duration_24"
)
a_few = settings(max_examples=25, deadline=None, derandomize=True)


def refused(ids: Iterable[int]) -> list[str]:
    """Names of the ids that a grammar did not allow, which it was told all the same."""
    grammar, found = PassageGrammar(), []
    for id in ids:
        if not grammar.allowed()[id]:
            found.append(LANGUAGE.token_names[id])
        grammar.advance(id)
    return found


def refused_of(score: Score) -> set[str]:
    """The types of what a grammar does not allow of a score's passages, from any bar on."""
    composition = compose(score)
    passages = (composition.passage(bar, ALL, None, None) for bar in range(len(composition.bars)))
    return {name.partition("_")[0] for passage in passages for name in refused(passage[HEADER_IDS:].tolist())}


@given(scores(has_overlaps=False, has_cuts=False))
@a_few
def test_passages_of_any_piece_are_allowed(score: Score) -> None:
    assert refused_of(score) == set()


@given(scores())
@a_few
def test_of_any_piece_only_keys_struck_while_down_and_bars_cut_short_are_refused(score: Score) -> None:
    assert refused_of(score) <= {"Pitch", "Program", "Kit", "Bar"}
    assert refused_of(Score(score.notes.take(slice(1)), tempo_map=score.tempo_map)) == set()


def test_passages_of_the_example_are_allowed() -> None:
    composition = compose(read_midi(EXAMPLES / "waltz.mid"))
    for bar in range(0, len(composition.bars), 5):
        assert refused(composition.passage(bar, 600, 1, composition.key)[HEADER_IDS:].tolist()) == []


@pytest.mark.parametrize(
    "text",
    [
        "Position_24",
        "Bar Numerator_4",
        "Bar Left_3 Position_0",
        "Bar Left_3 Numerator_64 DenominatorLog2_0",
        "Bar Left_3 Numerator_4 DenominatorLog2_2 Tempo_120",
        "Bar Left_3 Numerator_4 DenominatorLog2_2 Position_24",
        "Bar Left_3 Numerator_4 DenominatorLog2_2 Position_0 Chord_0",
        f"{OPENING} Position_0",
        f"{OPENING} Position_96",
        f"{OPENING} Position_24 Position_48",
        f"{OPENING} Position_24 Tempo_120",
        f"{OPENING} Position_24 Chord_0",
        f"{OPENING} Position_24 Chord_1 Tempo_90",
        f"{OPENING} Position_24 Bar",
        f"{OPENING} Position_24 Program_1",
        f"{OPENING} Position_23 Pitch_60",
        f"{OPENING} Pitch_60",
        f"{OPENING} Pitch_59",
        f"{OPENING} Program_0",
        f"{OPENING} Program_2 Velocity_1",
        f"{OPENING} Duration_1",
        f"{OPENING} Chord_3",
        f"{OPENING} Tempo_90",
        f"{OPENING} Pitch_62 Duration_1",
        f"{OPENING} Bar Left_2 Numerator_4 DenominatorLog2_2",
        f"{OPENING} Bar Left_2 Position_0 Program_2 Program_3",
        f"{OPENING} Start",
        f"{OPENING} Within",
        f"{OPENING} Style_1",
        f"{OPENING} Key_1",
        f"{OPENING} Left_1",
        f"{OPENING} Pad",
    ],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    assert refused(LANGUAGE.ids(text.split()).tolist()) == text.split()[-1:]


@pytest.mark.parametrize(
    "text",
    [
        f"{OPENING} End",
        f"{OPENING} Bar Left_2 Bar Left_1 End",
        f"{OPENING} Position_24 Pitch_60",
        f"{OPENING} Position_12 Kit_1 Pitch_60",
        f"{OPENING} Program_2 Pitch_0",
        f"{OPENING} Pitch_61 Velocity_0 Duration_192 Duration_192 Duration_1",
        f"{OPENING} Position_95 Tempo_10 Chord_108 Pitch_0",
        f"{OPENING} Bar Left_2 Numerator_3 DenominatorLog2_2 Position_71 Chord_4 Bar",
    ],
)
def test_what_makes_sense_is_allowed(text: str) -> None:
    assert refused(LANGUAGE.ids(text.split()).tolist()) == []


def test_a_bar_cut_short_is_followed_where_it_was_written() -> None:
    score = score_of([(0, 24, 0, 60, 64), (41, 24, 0, 62, 64)], metres=[(0, 4, 4), (41, 3, 4)])
    grammar = PassageGrammar()
    for id in compose(score).passage(0, ALL, None, None)[HEADER_IDS:-1].tolist():
        grammar.advance(id)
    assert (grammar.bar_start, grammar.bar_steps, grammar.signature) == (41, 72, (3, 2))


# -------------------------------------------------------------------------------------------------------- random walks


def walk(seed: int, steps: int = 250) -> list[int]:
    """Ids that are allowed, of any type alike, up to where a piece may end."""
    generator = np.random.default_rng(seed)
    grammar, ids, ends = PassageGrammar(), [], [0]
    for _ in range(steps):
        allowed = np.flatnonzero(grammar.allowed())
        assert len(allowed)
        if END in allowed:
            ends.append(len(ids))
        allowed = allowed[allowed != END]
        kind = generator.choice(np.unique(LANGUAGE.range_of_id[allowed]))
        ids.append(int(generator.choice(allowed[LANGUAGE.range_of_id[allowed] == kind])))
        grammar.advance(ids[-1])
    return [*ids[: ends[-1]], END]


@given(st.integers(0, 1 << 30))
@a_few
def test_a_random_walk_never_gets_stuck_and_is_what_the_scheme_would_write(seed: int) -> None:
    written = np.array(RemiWriter().feed(walk(seed)), np.int32)
    again = remi.encode(find_scheme("remi").decode([written]))
    assert written[: len(again)].tolist() == again.tolist()
    beyond = {name.partition("_")[0] for name in LANGUAGE.names(written[len(again) :])}
    assert beyond <= {"Bar", "Numerator", "DenominatorLog2", "Position", "Tempo"}  # bars without a note


@given(st.integers(0, 1 << 30))
@a_few
def test_no_key_is_held_twice_in_a_random_walk(seed: int) -> None:
    notes = find_scheme("remi").decode([np.array(RemiWriter().feed(walk(seed)), np.int32)]).notes
    key = notes.program.astype(int) << 8 | notes.is_drum << 7 | notes.pitch
    for one in np.unique(key):
        same = notes.take(key == one)
        assert (same.onset_seconds[1:] >= same.offset_seconds[:-1] - 1e-9).all()


def test_random_walks_have_notes_of_every_kind() -> None:
    """What the two tests above look at."""
    names = {LANGUAGE.token_names[id].partition("_")[0] for seed in range(20) for id in walk(seed)}
    told = {"Pad", "Start", "Within", "Style", "AnyStyle", "Key"}
    assert names == {r.type for r in LANGUAGE.ranges} - told
    counts = [sum(LANGUAGE.token_names[id].startswith("Pitch") for id in walk(seed)) for seed in range(20)]
    assert np.mean(counts) > 15


def test_a_source_whose_every_key_is_down_is_not_named() -> None:
    grammar = PassageGrammar()
    for name in OPENING.split()[:7]:
        grammar.advance(LANGUAGE.id(*_split(name)))
    for id in LANGUAGE.ids(
        ["Program_5", *(n for p in range(128) for n in (f"Pitch_{p}", "Velocity_1", "Duration_48"))]
    ):
        assert grammar.allowed()[id]
        grammar.advance(int(id))
    for place, is_free in ((24, False), (48, True)):
        for name in (f"Position_{place}", "Program_6", "Pitch_1", "Velocity_1", "Duration_1", f"Position_{place + 1}"):
            grammar.advance(LANGUAGE.id(*_split(name)))
        assert grammar.allowed()[LANGUAGE.id("Program", 5)] == is_free


def _split(name: str) -> tuple[str, int | None]:
    kind, _, value = name.partition("_")
    return kind, int(value) if value else None
