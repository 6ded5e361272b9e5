"""What a rhythm section plays under a solo: chords of the symbols, led well, clear of the solo, and in its rhythms."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from musictool.symbolic.comping import (
    BASS_HIGHEST,
    BASS_LOWEST,
    Beat,
    Chord,
    above_chords,
    accompaniment,
    led_voicing,
    parse_chord,
)
from musictool.symbolic.notes import Notes
from musictool.symbolic.weimar import read_table


def test_chord_symbols_are_read():
    for symbol, root, shell, colours in (
        ("C", 0, (4, 0), (2, 7)),
        ("Bb7", 10, (2, 8), (0, 5)),
        ("C-7", 0, (3, 10), (2, 7)),
        ("Fj7911#", 5, (9, 4), (7, 11, 0)),
        ("Am7b5", 9, (0, 7), (3,)),
        ("G79b", 7, (11, 5), (8, 2)),
        ("Do7", 2, (5, 11), (8,)),
        ("Esus7", 4, (9, 2), (6, 11)),
        ("D7alt", 2, (6, 0), (5, 10, 9)),
        ("C7/G", 0, (4, 10), (2, 7)),
    ):
        assert parse_chord(symbol) == Chord(root, shell, colours), symbol
    assert parse_chord("NC") is None
    assert parse_chord("") is None


def test_voicings_move_little_and_stay_between_the_other_parts():
    assert led_voicing((11, 5), (53, 60), 70, 50) == (53, 59)  # F-C of D-7 to F-B of G7
    assert led_voicing((0, 4, 7), (), 66, 55) == (55, 60, 64)
    assert led_voicing((0, 4, 7), (), 58, 54) == ()


def a_solo(count: int = 100, pitch: int = 72) -> Notes:
    onset = np.arange(count) * 0.2
    return Notes.of(onset, onset + 0.2, pitch + np.arange(count) % 5, 90)


def beats_of(chord: str, bass: int | None, count: int = 52) -> list[Beat]:
    return [Beat(0.4 * k - 0.1, k // 4, chord, bass) for k in range(count)]


def test_bass_is_as_it_was_measured_or_else_of_the_chord():
    bass, chords = accompaniment(a_solo(), beats_of("G7", 63), "swing", np.random.default_rng(0))
    assert set(bass.pitch.tolist()) == {39}  # two octaves down, where a bass plays
    assert BASS_LOWEST <= 39 <= BASS_HIGHEST
    unknown, _ = accompaniment(a_solo(), beats_of("G7", None), "swing", np.random.default_rng(0))
    assert set((unknown.pitch % 12).tolist()) == {7, 2}  # root and fifth
    assert set((chords.pitch % 12).tolist()) <= {11, 5, 9, 2}


def test_the_feel_decides_how_long_chords_are_held_and_the_generator_which():
    lengths = {}
    for feel in ("swing", "ballad", "funk"):
        _, chords = accompaniment(a_solo(), beats_of("C-7", 36), feel, np.random.default_rng(0))
        lengths[feel] = float(np.median(chords.offset_seconds - chords.onset_seconds))
    assert lengths["ballad"] > lengths["swing"] > lengths["funk"]
    first, again, other = (
        accompaniment(a_solo(), beats_of("C-7", 36), "swing", np.random.default_rng(seed))[1] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.onset_seconds, again.onset_seconds)
    assert len(first) != len(other) or not np.array_equal(first.onset_seconds, other.onset_seconds)


def test_without_beats_there_is_no_accompaniment():
    bass, chords = accompaniment(a_solo(), beats_of("C", 36, 1), "swing", np.random.default_rng(0))
    assert len(bass) == len(chords) == 0


def test_a_low_solo_is_moved_up_by_octaves_alone():
    moved = above_chords(a_solo(pitch=48))
    np.testing.assert_array_equal(moved.pitch - a_solo(pitch=48).pitch, 24)
    np.testing.assert_array_equal(above_chords(a_solo(pitch=80)).pitch, a_solo(pitch=80).pitch)


@pytest.mark.skipif("MTK_TEST_DATA" not in os.environ, reason="needs the corpora")
def test_every_chord_symbol_of_the_database_is_read():
    folder = Path(os.environ["MTK_TEST_DATA"]) / "wjazz" / "mcsv_beat"
    symbols = {row["chord"] for path in folder.glob("*.csv") for row in read_table(path)}
    unread = {symbol for symbol in symbols if symbol and parse_chord(symbol) is None}
    assert len(symbols) > 400
    assert unread == {"NC"}
