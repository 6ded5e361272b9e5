"""Facts of notes and what is found wrong with them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musictool.findings import Limit
from musictool.symbolic import checks
from musictool.symbolic.checks import InstrumentRules, NoteTally, Rules, content_digest, judge, score_facts
from musictool.symbolic.midi import MidiFacts
from musictool.symbolic.notes import Notes, Pedals, Score, TempoMap

GOOD = Notes.of([0, 1, 2], [1, 2, 3], [60, 64, 67])

moments = st.integers(0, 40).map(lambda tenths: tenths / 2)
rows = st.lists(st.tuples(moments, moments, st.integers(0, 127), st.integers(0, 127), st.booleans()), max_size=30)


def table_of(entries) -> Notes:
    columns = [list(column) for column in zip(*entries, strict=True)] or [[]] * 5
    onset = np.array(columns[0], float)
    return Notes.of(onset, onset + np.array(columns[1], float), columns[2], 64, columns[3], columns[4])


def facts_of(notes: Notes, **columns):
    return replace(score_facts(Score(notes)), **columns)


def rules_broken(facts, rules: Rules | None = None) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in judge(facts, rules or Rules())}


@given(rows, st.lists(st.integers(0, 30), max_size=4), st.randoms())
def test_any_cut_and_order_of_tables_gives_the_same_facts(entries, cuts, random):
    whole, pieces = NoteTally(), NoteTally()
    whole.add(table_of(entries))
    shuffled = list(entries)
    random.shuffle(shuffled)
    bounds = [0, *sorted(cuts), len(shuffled)]
    for start, end in pairwise(bounds):
        pieces.add(table_of(shuffled[start:end]))
    assert whole.facts() == pieces.facts()


@given(rows)
def test_the_longest_silence_is_what_a_walk_through_the_notes_finds(entries):
    longest, sounding_until = 0.0, None
    for onset, length, *_ in sorted(entries):
        if sounding_until is not None and onset - sounding_until >= checks.SILENCE_SECONDS:
            longest = max(longest, onset - sounding_until)
        sounding_until = max(sounding_until or 0.0, onset + length)
    facts = facts_of(table_of(entries))
    assert facts.silence_seconds == longest
    assert facts.leading_silence_seconds == min((entry[0] for entry in entries), default=0.0)


def test_the_longest_silence_survives_bounded_memory(monkeypatch):
    monkeypatch.setattr(checks._Coverage, "STRETCHES_MAX", 10)
    monkeypatch.setattr(checks._Coverage, "BATCH", 16)
    tally = NoteTally()
    for start in range(0, 6000, 2):
        onset = start + (100 if start > 3000 else 0)
        tally.add(Notes.of([onset], [onset + 0.5], [60]))
    assert len(tally._coverage._starts) <= 10
    assert tally.facts().silence_seconds == pytest.approx(101.5)


def test_duration_follows_the_tempo_map_and_the_pedal():
    tempo = TempoMap.of([0, 4], [500_000, 2_000_000])
    seconds = tempo.seconds([0, 8])
    score = Score(Notes.of(seconds[:1], seconds[1:], [60]), tempo_map=tempo)
    assert score_facts(score).duration_seconds == 10.0
    assert score_facts(replace(score, pedals=Pedals.of([1], [12], [0]))).duration_seconds == 12.0


def test_what_a_file_tells_is_among_the_facts():
    midi = MidiFacts(1, 480, None, 2, 3, hanging=4, orphan_offs=5, overlapping=6, zero_length=7, problems=["a", "b"])
    facts = score_facts(Score(GOOD), midi)
    assert (facts.hanging, facts.orphan_offs, facts.overlapping, facts.zero_length) == (4, 5, 6, 7)
    assert facts.repairs == ("a", "b")
    assert [f.message for f in judge(facts, Rules()) if f.rule == "repairs"] == ["a", "b"]


def test_sound_notes_have_no_findings():
    assert not rules_broken(facts_of(GOOD, hanging=0, overlapping=0, zero_length=0, orphan_offs=0))


def test_drums_have_no_pitches():
    band = Notes.of([0, 0, 0], [1, 1, 1], [60, 64, 38], is_drum=[False, False, True])
    assert (facts_of(band).pitches, facts_of(band).lowest_pitch) == (2, 60)
    drums = facts_of(band.take(band.is_drum))
    assert (drums.pitches, drums.lowest_pitch, drums.has_drums, drums.programs) == (None, None, True, ())
    assert not rules_broken(drums, Rules(pitches=Limit(min=5), lowest_pitch=Limit(min=40)))


def test_no_notes_is_one_finding():
    assert rules_broken(facts_of(Notes.empty())) == {"notes": "error"}


@pytest.mark.parametrize(
    ("rule", "severity", "facts"),
    [
        ("duration", "error", facts_of(Notes.of([0], [0], [60]))),
        ("hanging", "error", facts_of(GOOD, hanging=1)),
        ("overlapping", "warning", facts_of(GOOD, overlapping=1)),
        ("zero_length", "warning", facts_of(GOOD, zero_length=1)),
        ("orphan_offs", "warning", facts_of(GOOD, orphan_offs=1)),
        ("longest_note", "warning", facts_of(Notes.of([0], [61], [60]))),
        ("silence", "warning", facts_of(Notes.of([0, 32], [1, 33], [60, 60]))),
        ("leading_silence", "warning", facts_of(Notes.of([31], [32], [60]))),
        ("repairs", "warning", facts_of(GOOD, repairs=("a track is cut short (byte 9)",))),
    ],
)
def test_each_default_rule_finds_its_own_fault_and_no_other(rule, severity, facts):
    assert rules_broken(facts) == {rule: severity}


@pytest.mark.parametrize("rule", ["duration", "notes", "pitches", "lowest_pitch", "highest_pitch"])
def test_both_bounds_are_included_and_hold(rule):
    fact = {"duration": 3, "notes": 3, "pitches": 3, "lowest_pitch": 60, "highest_pitch": 67}[rule]
    facts = facts_of(GOOD)
    assert not rules_broken(facts, replace(Rules(), **{rule: Limit(fact, fact)}))
    for limit in (Limit(min=fact + 0.5), Limit(max=fact - 0.5)):
        (finding,) = judge(facts, replace(Rules(), **{rule: limit}))
        assert (finding.rule, finding.value) == (rule, fact)
        assert finding.limit in (limit.min, limit.max)


def test_a_value_that_is_no_number_lies_outside_every_bound():
    for limit in (Limit(min=0), Limit(max=1)):
        assert list(limit.judge("rule", "noun", math.nan))


def test_bounds_of_infinity_bound_nothing():
    assert not list(Limit(-math.inf, math.inf).judge("rule", "noun", math.nan))


@pytest.mark.parametrize("bounds", [(2, 1), (math.nan, None), (None, math.nan), (math.inf, None), (None, -math.inf)])
def test_bounds_that_nothing_lies_within_are_refused(bounds):
    with pytest.raises(ValueError):
        Limit(*bounds)


def test_what_cannot_be_known_passes():
    assert facts_of(GOOD).hanging is None
    assert "hanging" not in rules_broken(facts_of(GOOD), Rules(hanging=Limit(min=1)))


@pytest.mark.parametrize(
    ("allowed", "wrong"),
    [
        ((), None),
        (("piano", "drums", 40), None),
        (("piano", "drums"), ["program 40 (strings)"]),
        (("piano", "strings"), ["drums"]),
        (("bass",), ["program 0 (piano)", "program 40 (strings)", "drums"]),
        ((0, 40, "drums"), None),
    ],
)
def test_only_those_allowed_may_play(allowed, wrong):
    band = Notes.of([0, 0, 0], [1, 1, 1], [60, 60, 38], 64, [0, 40, 9], [False, False, True])
    findings = judge(facts_of(band), Rules(instruments=InstrumentRules(allowed)))
    assert [finding.value for finding in findings] == ([] if wrong is None else [wrong])


@pytest.mark.parametrize("entry", ["pianos", 128, -1, True + 127])
def test_unknown_instruments_are_refused(entry):
    with pytest.raises(ValueError, match="no program"):
        InstrumentRules((entry,))


@given(rows.filter(len), st.integers(0, 100), st.randoms())
def test_the_same_music_has_the_same_digest(entries, rest, random):
    shuffled = list(entries)
    random.shuffle(shuffled)
    moved = [(onset + rest, *others) for onset, *others in shuffled]
    assert content_digest(table_of(entries)) == content_digest(table_of(moved))


@pytest.mark.parametrize("column", ["onset_seconds", "offset_seconds", "pitch", "velocity", "program", "is_drum"])
def test_other_music_has_another_digest(column):
    values = getattr(GOOD, column).copy()
    values[1] = not values[1] if column == "is_drum" else values[1] + 1
    assert content_digest(GOOD.with_columns(**{column: values})) != content_digest(GOOD)


def test_no_music_has_no_digest():
    assert content_digest(Notes.empty()) == ""
