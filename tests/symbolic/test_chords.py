"""Chords of a note table: named as a musician would, wherever and however they are played."""

from __future__ import annotations

import itertools
import os

import mir_eval
import numpy as np
import pytest

from musictool.symbolic import chords
from musictool.symbolic.chords import Chord, block_chords, chords_of, qualities_of, simplified
from musictool.symbolic.notes import Notes
from musictool.symbolic.theory import CHORDS, PITCH_CLASSES
from tests.symbolic.theory_table import chord_scores, pop909

CADENCE = {"C:maj": (48, 64, 67, 72), "A:min": (45, 60, 64, 69), "D:min7": (50, 60, 65, 69), "G:7": (43, 62, 65, 71)}


def played(pitches: list[tuple[int, ...]], seconds: float = 1.0, gap: float = 0.0) -> Notes:
    """Chords one after another, the notes of each `gap` seconds apart."""
    rows = [
        (i * seconds + j * gap, (i + 1) * seconds, p) for i, tones in enumerate(pitches) for j, p in enumerate(tones)
    ]
    return Notes.of(*zip(*rows, strict=True))


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.1])
def test_a_cadence_is_named_in_blocks_and_broken(gap: float) -> None:
    found = chords_of(played(list(CADENCE.values()), gap=gap))
    assert [chord.label for chord in found] == list(CADENCE)
    assert [chord.start_seconds for chord in found] == pytest.approx([0, 1, 2, 3])
    assert [chord.end_seconds for chord in found] == pytest.approx([1, 2, 3, 4])


def test_every_chord_is_told_in_every_key() -> None:
    for quality, intervals in CHORDS.items():
        for root in range(12):
            (chord,) = chords_of(played([tuple(48 + root + interval for interval in intervals)]))
            assert (chord.root, chord.quality, chord.bass) == (root, quality, root)


def test_the_lowest_note_is_the_bass_if_it_belongs_to_the_chord() -> None:
    (inversion,) = chords_of(played([(52, 60, 67, 72)]))
    assert (inversion.label, inversion.symbol) == ("C:maj/3", "C/E")
    (foreign,) = chords_of(played([(38, 60, 64, 67, 72, 76, 79)]))
    assert foreign.symbol == "C"


@pytest.mark.parametrize(
    ("quality", "vocabulary", "found"),
    [
        ("min7", ("maj", "min"), "min"),
        ("7", ("maj", "min"), "maj"),
        ("maj7", ("min", "maj"), "maj"),
        ("hdim7", ("maj", "min"), "min"),
        ("aug", ("maj", "min"), "maj"),
        ("dim7", ("maj", "min", "7", "hdim7"), "hdim7"),
        ("maj", ("min", "7"), "7"),
        ("7", ("maj", "min", "7"), "7"),
        ("dim7", (), "dim7"),
    ],
)
def test_a_chord_is_simplified_to_what_has_most_in_common_with_it(quality, vocabulary, found) -> None:
    chord = Chord(1.0, 2.0, 4, quality, 4)
    assert simplified(chord, vocabulary) == chord._replace(quality=found)


def test_a_bass_that_is_no_member_any_more_gives_way_and_another_stays() -> None:
    dominant = Chord(0.0, 1.0, 7, "7", (7 + 10) % 12)
    assert simplified(dominant, ("maj",)) == Chord(0.0, 1.0, 7, "maj", 7)
    third = dominant._replace(bass=(7 + 4) % 12)
    assert simplified(third, ("maj",)) == third._replace(quality="maj")
    silence = Chord(0.0, 1.0, None, "", None)
    assert simplified(silence, ("maj",)) == silence


def test_the_qualities_of_a_style_are_those_that_last() -> None:
    lengths = {"maj": 10.0, "min": 8.0, "7": 0.5, "dim": 0.3}
    chords = [Chord(0.0, seconds, 0, quality, 0) for quality, seconds in lengths.items()]
    silence = Chord(0.0, 900.0, None, "", None)
    assert qualities_of([*chords, silence]) == {"maj", "min", "7"}  # 2.7 and 1.6 % of 18.8 s
    assert qualities_of([silence]) == frozenset()


@pytest.mark.parametrize("seed", range(5))
def test_chords_that_are_played_are_heard_as_they_were(seed: int) -> None:
    generator = np.random.default_rng(seed)
    edges = np.cumsum(generator.uniform(1.0, 3.0, 13))
    wanted = []
    for start, end in itertools.pairwise(edges.tolist()):
        quality = str(generator.choice(["maj", "min", "7", "maj7", "min7", "hdim7"]))
        root = int(generator.integers(12))
        wanted.append(Chord(start, end, root, quality, root))
    notes = block_chords([wanted[0], Chord(edges[1], edges[1], None, "", None), *wanted[1:]])
    heard = chords_of(notes)
    merged = [
        chord
        for before, chord in zip([None, *wanted], wanted, strict=False)
        if before is None or before[2:] != chord[2:]
    ]
    assert [chord.label for chord in heard] == [chord.label for chord in merged]
    assert notes.pitch.min() >= 32
    assert notes.pitch.max() <= 65
    assert len(block_chords([])) == 0


def test_passing_notes_change_nothing() -> None:
    chord = played([(48, 64, 67), (48, 64, 67)])
    scale = Notes.of(np.arange(8) * 0.25, np.arange(8) * 0.25 + 0.25, [72, 74, 76, 77, 79, 77, 74, 72])
    assert [chord.symbol for chord in chords_of(Notes.concatenate([chord, scale]))] == ["C"]


def test_drums_velocities_and_the_order_of_rows_are_not_looked_at() -> None:
    notes = played(list(CADENCE.values()))
    drums = Notes.of(np.arange(16) * 0.25, np.arange(16) * 0.25 + 0.1, 38, is_drum=True)
    shuffled = notes.take(np.random.default_rng(0).permutation(len(notes)))
    louder = shuffled.with_columns(velocity=np.arange(1, len(notes) + 1, dtype=np.int16))
    assert chords_of(Notes.concatenate([drums, louder])) == chords_of(notes)


def test_boundaries_say_where_chords_may_change_and_silence_has_none() -> None:
    found = chords_of(played(list(CADENCE.values())), [-2, 0, 2, 4, 7])
    assert [(chord.start_seconds, chord.end_seconds) for chord in found] == [(-2, 0), (0, 2), (2, 4), (4, 7)]
    assert [chord.label for chord in found[::3]] == ["N", "N"]
    assert found[0] == Chord(-2, 0, None, "", None)
    assert found[0].symbol == "N"
    assert [chord.label for chord in chords_of(Notes.empty(), [0, 1])] == ["N"]
    assert chords_of(Notes.empty()) == chords_of(played([(60, 64)]), [0]) == []


def test_a_cluster_is_no_chord() -> None:
    assert [chord.label for chord in chords_of(played([tuple(range(48, 60))]))] == ["N"]


def test_the_path_is_the_best_of_all_paths() -> None:
    random = np.random.default_rng(0)
    for _ in range(30):
        agreement, change = random.normal(size=(6, 3)), random.uniform(0, 2)

        def worth(path: tuple[int, ...], agreement=agreement, change=change) -> float:
            return agreement[range(6), path].sum() - change * np.count_nonzero(np.diff(path))

        best = max(itertools.product(range(3), repeat=6), key=worth)
        assert tuple(chords._cheapest_path(agreement, change)) == best


def test_mir_eval_reads_every_label_as_the_notes_that_are_meant() -> None:
    for quality, intervals in CHORDS.items():
        for root, bass in itertools.product(range(12), intervals):
            label = Chord(0, 1, root, quality, (root + bass) % 12).label
            read_root, bitmap, read_bass = mir_eval.chord.encode(label)
            assert (read_root, tuple(np.flatnonzero(bitmap)), read_bass) == (root, intervals, bass), label
    assert len({Chord(0, 1, root, quality, root).symbol for root in range(12) for quality in CHORDS}) == 108
    assert Chord(0, 1, 9, "min7", 0).symbol == f"Am7/{PITCH_CLASSES[0]}"


@pytest.mark.skipif(not os.environ.get("MTK_TEST_DATA"), reason="MTK_TEST_DATA is not set")
def test_pop909s_chords_are_found() -> None:
    """A slice of the pieces that nothing was tuned on; `theory_table` has all."""
    pieces = list(pop909(range(10, 910, 60)))
    means = {grid: np.mean([chord_scores(*piece, grid) for piece in pieces], axis=0) for grid in ("onsets", "beats")}
    assert means["onsets"][0] >= 0.87
    assert means["onsets"][3] >= 0.75
    assert means["beats"][0] >= 0.78
