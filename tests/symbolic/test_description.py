"""What is said of a piece, stretch by stretch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from musictool.errors import InputError
from musictool.symbolic.description import MAX_STRETCHES, describe
from musictool.symbolic.notes import Notes, Score, TempoMap, TimeSignature


def song() -> Score:
    """Two bars of 3/4 at 120, then two of 2/4 at 60: a chord a bar, a melody in quarters, crescendo."""
    tempo = TempoMap.of([0, 6], [500_000, 1_000_000])
    bars = ((0, 3, (48, 64, 67)), (3, 3, (53, 65, 69)), (6, 2, (55, 62, 65, 71)), (8, 2, (48, 64, 67)))
    rows = [(start, start + length, pitch, 40) for start, length, pitches in bars for pitch in pitches]
    rows += [
        (beat, beat + 1, pitch, 50 + 6 * beat) for beat, pitch in enumerate((72, 74, 76, 77, 76, 74, 74, 71, 72, 72))
    ]
    start, end, pitch, velocity = zip(*rows, strict=True)
    notes = Notes.of(tempo.seconds(start), tempo.seconds(end), pitch, velocity).sorted()
    metre = (TimeSignature(0, 3, 4), TimeSignature(6, 2, 4))
    return Score(notes, tempo_map=tempo, time_signatures=metre, has_metre=True)


def test_bars_are_those_of_the_metre() -> None:
    description = describe(song())
    assert description.is_by_bar
    assert [(s.number, s.start_seconds, s.end_seconds) for s in description.stretches] == [
        (1, 0.0, 1.5),
        (2, 1.5, 3.0),
        (3, 3.0, 5.0),
        (4, 5.0, 7.0),
    ]
    assert description.time_signatures == ("3/4", "2/4")
    assert description.quarters_per_minute == pytest.approx(10 / 7 * 60)
    assert description.key is not None
    assert description.key.name == "C major"


def test_each_stretch_says_what_is_in_it() -> None:
    stretches = describe(song()).stretches
    assert [[chord.symbol for chord in stretch.chords] for stretch in stretches] == [["C"], ["F"], ["G7"], ["C"]]
    assert [stretch.melody.pitch.tolist() for stretch in stretches] == [
        [72, 74, 76], [77, 76, 74], [74, 71], [72, 72],
    ]  # fmt: skip
    assert [stretch.attacks_per_second for stretch in stretches] == pytest.approx([2, 2, 1, 1])
    assert [stretch.mean_velocity for stretch in stretches] == [48.0, 57.0, 56.33, 64.4]
    assert sum(len(stretch.onset_seconds) for stretch in stretches) == describe(song()).note_count == 23


def test_stretches_of_seconds_hold_what_sounds_on_into_them() -> None:
    description = describe(song(), 2.0)
    assert not description.is_by_bar
    assert [s.end_seconds for s in description.stretches] == [2, 4, 6, 8]
    assert [chord.symbol for chord in description.stretches[2].chords] == ["G7", "C"]
    long = describe(Score(Notes.of([0, 0, 0], [9, 9, 9], [60, 64, 67])))
    assert [stretch.melody.pitch.tolist() for stretch in long.stretches] == [[67]] * 5
    assert [len(stretch.onset_seconds) for stretch in long.stretches] == [3, 0, 0, 0, 0]
    assert [stretch.mean_velocity for stretch in long.stretches] == [64, None, None, None, None]
    assert long.quarters_per_minute is None
    assert long.time_signatures == ()


def test_what_begins_just_before_a_bar_belongs_to_it() -> None:
    onset = [0.0, 1.0, 1.97, 3.0, 3.95, 5.99]
    notes = Notes.of(onset, [*onset[1:], 6.0], [60, 62, 64, 65, 67, 69])
    stretches = describe(Score(notes)).stretches
    assert [stretch.melody.pitch.tolist() for stretch in stretches] == [[60, 62], [64, 65], [67, 69]]
    assert [len(stretch.onset_seconds) for stretch in stretches] == [2, 2, 2]


def test_drums_are_left_aside() -> None:
    plain = song()
    drums = Notes.of(np.arange(14) * 0.5, np.arange(14) * 0.5 + 0.1, 38, 127, is_drum=True)
    both = replace(plain, notes=Notes.concatenate([drums, plain.notes]))
    assert describe(both).to_json() == describe(plain).to_json()


def test_a_piece_of_nothing_is_described() -> None:
    for metre in (False, True):
        description = describe(Score(has_metre=metre))
        assert description.to_json() == {
            "duration_seconds": 0.0,
            "notes": 0,
            "key": None,
            "quarters_per_minute": None,
            "time_signatures": [],
            "is_by_bar": False,
            "stretches": [],
        }


def test_json_is_plain_and_says_the_same() -> None:
    record = json.loads(json.dumps(describe(song()).to_json(), allow_nan=False))
    assert [bar["chords"][0]["label"] for bar in record["stretches"]] == ["C:maj", "F:maj", "G:7", "C:maj"]
    assert record["stretches"][3]["velocity"] == {"mean": 64.4, "lowest": 40, "highest": 104}
    assert record["key"]["sharps"] == 0


def test_more_stretches_than_anyone_reads_are_refused() -> None:
    far = Notes.of([0.0, 80_000.0], [1.0, 80_001.0], 60)
    tiny = (TimeSignature(0, 1, 64),)
    with pytest.raises(InputError, match=f"more than {MAX_STRETCHES:,}"):
        describe(Score(far))
    with pytest.raises(InputError, match="more than"):
        describe(Score(far, time_signatures=tiny, has_metre=True))
    assert len(describe(Score(far, time_signatures=tiny, has_metre=True), 100.0).stretches) == 801
