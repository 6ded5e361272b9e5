"""Keys and chords as they are typed: every spelling that is known, and none that says nothing."""

from __future__ import annotations

import pytest

from musictool.errors import UsageError
from musictool.symbolic.chord_symbols import ChordSymbol, parse_chord, parse_key, parse_progression
from musictool.symbolic.chords import Chord
from musictool.symbolic.theory import CHORDS, PITCH_CLASSES


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("C", (0, False)),
        ("c", (0, True)),
        ("Am", (9, True)),
        ("a minor", (9, True)),
        ("A minor", (9, True)),
        ("a major", (9, False)),
        (" F# minor ", (6, True)),
        ("f#", (6, True)),
        ("F♯", (6, False)),
        ("Bb", (10, False)),
        ("BB", (10, False)),
        ("bb", (10, True)),
        ("b", (11, True)),
        ("B", (11, False)),
        ("Bb major", (10, False)),
        ("E♭min", (3, True)),
        ("Cb", (11, False)),
        ("B#", (0, False)),
        ("CM", (0, False)),
        ("D MAJOR", (2, False)),
        ("D MINOR", (2, True)),
    ],
)
def test_a_key_is_read_however_it_is_typed(text: str, key: tuple[int, bool]) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["", "H", "A dorian", "C##", "12", "a minor b", "mi\nnor", "A" * 5000])
def test_what_is_no_key_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_key(text)
    assert "no such key" in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 80
    assert caught.value.hint


@pytest.mark.parametrize("quality", CHORDS)
@pytest.mark.parametrize("root", range(12))
def test_symbols_and_labels_that_are_printed_are_read(root: int, quality: str) -> None:
    for bass in ((root + interval) % 12 for interval in CHORDS[quality]):
        chord = Chord(0.0, 1.0, root, quality, bass)
        assert parse_chord(chord.symbol) == parse_chord(chord.label) == ChordSymbol(root, quality)
    assert parse_chord(Chord(0.0, 1.0, None, "", None).symbol) == ChordSymbol(None, "")


@pytest.mark.parametrize(
    ("symbol", "quality"),
    [
        ("C", "maj"),
        ("CM", "maj"),
        ("C6", "maj"),
        ("C6/9", "maj"),
        ("C69", "maj"),
        ("C5", "maj"),
        ("Cadd9", "maj"),
        ("Csus4", "maj"),
        ("Cmajor", "maj"),
        ("C7", "7"),
        ("C9", "7"),
        ("C13", "7"),
        ("C7sus4", "7"),
        ("C7b9", "7"),
        ("C7(b9,#11)", "7"),
        ("C7911#", "7"),
        ("Calt", "7"),
        ("Cmaj7", "maj7"),
        ("CM7", "maj7"),
        ("CM9", "maj7"),
        ("Cj7", "maj7"),
        ("CΔ", "maj7"),
        ("CΔ7", "maj7"),
        ("Cmaj7#11", "maj7"),
        ("Cmaj13", "maj7"),
        ("Cm", "min"),
        ("C-", "min"),
        ("Cmin", "min"),
        ("Cminor", "min"),
        ("Cm6", "min"),
        ("Cm(maj7)", "min"),
        ("CmM7", "min"),
        ("C-7", "min7"),
        ("Cm9", "min7"),
        ("Cm11", "min7"),
        ("Cmin7", "min7"),
        ("C-9", "min7"),
        ("Cdim", "dim"),
        ("C°", "dim"),
        ("Co", "dim"),
        ("Co7", "dim7"),
        ("Cdim7", "dim7"),
        ("C°7", "dim7"),
        ("Cm7b5", "hdim7"),
        ("C-7b5", "hdim7"),
        ("Cø", "hdim7"),
        ("Cø7", "hdim7"),
        ("Caug", "aug"),
        ("C+", "aug"),
        ("C+7", "aug"),
    ],
)
def test_a_chord_is_brought_down_to_the_nearest_quality(symbol: str, quality: str) -> None:
    assert parse_chord(symbol) == ChordSymbol(0, quality)


def test_accidentals_belong_to_the_root() -> None:
    roots = [parse_chord(symbol).root for symbol in ("Bb", "B♭7", "F#m", "F♯", "Cb", "B#", "Ab", "A:min/b3", "C/G")]
    assert roots == [10, 10, 6, 6, 11, 0, 8, 9, 0]
    assert tuple(parse_chord(name).root for name in PITCH_CLASSES) == tuple(range(12))


@pytest.mark.parametrize(
    "symbol", ["H7", "c", "am", "", "Cabbage", "Empty", "Blues.txt", "C/", "C/H", "C7x", "Cmaj7/E/G", "|", "A" * 5000]
)
def test_what_is_no_chord_is_refused_in_one_line(symbol: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_chord(symbol)
    assert "no such chord" in caught.value.message
    assert len(caught.value.message) < 80
    assert caught.value.hint


def spelt(text: str) -> list[list[tuple[int | None, str]]]:
    return [[tuple(chord) for chord in bar] for bar in parse_progression(text)]


def test_a_symbol_is_a_bar_unless_there_are_bar_lines() -> None:
    c, am, f = (0, "maj"), (9, "min"), (5, "maj")
    assert spelt("C Am\nF") == [[c], [am], [f]]
    assert spelt("C Am | F") == spelt("| C Am |\n| F |") == spelt("C Am\n|F") == [[c, am], [f]]
    assert spelt("N | C") == spelt("N.C. C") == spelt("NC C") == [[(None, "")], [c]]


@pytest.mark.parametrize("text", ["", " \n", "| |"])
def test_no_chords_at_all_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no chords"):
        parse_progression(text)
