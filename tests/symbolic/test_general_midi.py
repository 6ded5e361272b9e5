"""Instruments by name."""

from __future__ import annotations

import pretty_midi
import pytest

from musictool.errors import UsageError
from musictool.symbolic.general_midi import FAMILIES, PROGRAM_NAMES, parse_instruments


def test_there_are_128_programs_in_16_families():
    assert (len(set(PROGRAM_NAMES)), len(FAMILIES)) == (128, 16)


@pytest.mark.parametrize("program", [0, 6, 24, 33, 40, 56, 68, 73, 80, 104, 114])
def test_names_are_those_of_the_standard(program):
    word = pretty_midi.program_to_instrument_name(program).lower().split()[-1].strip("()s")
    assert word in PROGRAM_NAMES[program] or PROGRAM_NAMES[program] in ("fingered bass", "nylon guitar", "square lead")


@pytest.mark.parametrize(
    ("text", "programs", "has_drums"),
    [
        ("piano", range(8), False),
        ("Piano, DRUMS", range(8), True),
        ("violin,33", (33, 40), False),
        ("electric-piano_1", (4,), False),
        ("honky-tonk piano", (3,), False),
        ("sax", range(64, 68), False),
        ("drums", (), True),
    ],
)
def test_instruments_are_read(text, programs, has_drums):
    assert parse_instruments(text) == (frozenset(programs), has_drums)


@pytest.mark.parametrize("text", ["pianoo", "", "128", "piano,,bass", "guitar;bass"])
def test_unknown_instruments_are_refused(text):
    with pytest.raises(UsageError, match="no such instrument"):
        parse_instruments(text)


def test_the_nearest_name_is_offered():
    with pytest.raises(UsageError) as caught:
        parse_instruments("vioiln")
    assert caught.value.hint == "did you mean violin?"
