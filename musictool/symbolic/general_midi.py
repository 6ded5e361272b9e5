"""The names of General MIDI's instruments (MIDI Manufacturers Association, 1991), and programs by name.

Families are eight programs each: the sixteen words of `FAMILIES`, in the order of their programs.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from musictool.errors import UsageError

FAMILIES = (
    "piano",
    "chromatic percussion",
    "organ",
    "guitar",
    "bass",
    "strings",
    "ensemble",
    "brass",
    "reed",
    "pipe",
    "synth lead",
    "synth pad",
    "synth effects",
    "ethnic",
    "percussive",
    "sound effects",
)
_NAMES = """
    acoustic grand piano|bright acoustic piano|electric grand piano|honky-tonk piano|electric piano 1
    |electric piano 2|harpsichord|clavinet|celesta|glockenspiel|music box|vibraphone|marimba|xylophone|tubular bells
    |dulcimer|drawbar organ|percussive organ|rock organ|church organ|reed organ|accordion|harmonica|tango accordion
    |nylon guitar|steel guitar|jazz guitar|clean guitar|muted guitar|overdriven guitar|distortion guitar
    |guitar harmonics|acoustic bass|fingered bass|picked bass|fretless bass|slap bass 1|slap bass 2|synth bass 1
    |synth bass 2|violin|viola|cello|contrabass|tremolo strings|pizzicato strings|orchestral harp|timpani
    |string ensemble 1|string ensemble 2|synth strings 1|synth strings 2|choir aahs|voice oohs|synth voice
    |orchestra hit|trumpet|trombone|tuba|muted trumpet|french horn|brass section|synth brass 1|synth brass 2
    |soprano sax|alto sax|tenor sax|baritone sax|oboe|english horn|bassoon|clarinet|piccolo|flute|recorder|pan flute
    |blown bottle|shakuhachi|whistle|ocarina|square lead|sawtooth lead|calliope lead|chiff lead|charang lead
    |voice lead|fifths lead|bass and lead|new age pad|warm pad|polysynth pad|choir pad|bowed pad|metallic pad|halo pad
    |sweep pad|rain|soundtrack|crystal|atmosphere|brightness|goblins|echoes|sci-fi|sitar|banjo|shamisen|koto|kalimba
    |bagpipe|fiddle|shanai|tinkle bell|agogo|steel drums|woodblock|taiko drum|melodic tom|synth drum|reverse cymbal
    |guitar fret noise|breath noise|seashore|bird tweet|telephone ring|helicopter|applause|gunshot"""
PROGRAM_NAMES = tuple(" ".join(name.split()) for name in _NAMES.split("|"))
DRUMS = "drums"
_GROUPS = {"sax": range(64, 68), "horn": range(60, 61), "voice": range(52, 55), "synth strings": range(50, 52)}


def parse_instruments(text: str) -> tuple[frozenset[int], bool]:
    """Read instruments such as `piano,bass,drums`, `violin`, `electric piano 1` or `33`.

    Args:
        text: names of families, of programs, numbers 0..127 and `drums`, between commas; case and hyphens are the same.

    Returns:
        Programs, and whether drums are among the instruments.

    Raises:
        UsageError: a name that is not known.
    """
    programs: set[int] = set()
    has_drums = False
    for part in text.split(","):
        name = " ".join(re.split(r"[\s_-]+", part.strip().lower()))
        if name == DRUMS:
            has_drums = True
        else:
            programs.update(_programs_of(name))
    return frozenset(programs), has_drums


def _programs_of(name: str) -> range:
    """The programs of one name, in lower case with single spaces."""
    if name in FAMILIES:
        first = FAMILIES.index(name) * 8
        return range(first, first + 8)
    if name in _GROUPS:
        return _GROUPS[name]
    plain_names = [program.replace("-", " ") for program in PROGRAM_NAMES]
    if name in plain_names:
        program = plain_names.index(name)
        return range(program, program + 1)
    if re.fullmatch("[0-9]{1,3}", name) and int(name) < 128:
        return range(int(name), int(name) + 1)
    near = get_close_matches(name, [*FAMILIES, *_GROUPS, DRUMS, *plain_names], n=1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"families are {', '.join(FAMILIES)}; {DRUMS}; programs by name or number"
    )
    raise UsageError(f"no such instrument: {name[:40]!r}", hint=hint)
