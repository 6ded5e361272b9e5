"""Keys and chords as people type them: `F# minor`, `Bbm`; `Am7`, `Cmaj7/E`, `A:min7`, and a row of them bar by bar.

What a symbol says beyond the qualities of `musictool.symbolic.theory.CHORDS` is brought down to the nearest of those:
tensions and added notes are dropped, a suspended chord is taken for a major one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from musictool.errors import UsageError

_NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
_NOTE = r"([A-Ga-g])([#b♯♭]?)"
_KEY = re.compile(_NOTE + r"\s*(m|min|minor|maj|major|)", re.IGNORECASE)
_CHORD = re.compile(r"([A-G])([#b♯♭]?):?([^/\s]*)(?:/(?:[A-G][#b♯♭]?|[#b♯♭]*\d{1,2}))?")
_NO_CHORD = ("N", "NC", "N.C.")
# In the order in which they are looked for: what a symbol begins with behind its root, and the quality.
_QUALITIES = tuple(
    (re.compile(pattern), quality)
    for pattern, quality in (
        (r"(?:min|m|-)7b5|hdim7?|ø7?", "hdim7"),
        (r"(?:dim|o|°)7", "dim7"),
        (r"dim|o|°", "dim"),
        (r"(?:maj|M|j)(?:7|9|11|13)|Δ", "maj7"),
        (r"aug|\+", "aug"),
        (r"(?:min|m|-)(?:7|9|11|13)", "min7"),
        (r"minor|min|m(?!aj)|-", "min"),
        (r"7|9|11|13|alt", "7"),
        (r"major|maj|M|", "maj"),
    )
)
_TENSIONS = re.compile(r"(?:[#b♯♭+\-(),]|2|4|5|6|7|9|11|13|sus|add|no|omit|alt|maj|M)*")


class ChordSymbol(NamedTuple):
    """A chord: root as pitch class 0..11, or None for no chord, and a key of `CHORDS`, empty for no chord."""

    root: int | None
    quality: str


def parse_key(text: str) -> tuple[int, bool]:
    """Read a key: its tonic as pitch class 0..11, and whether it is minor; a small letter alone is minor, as `f#`.

    Raises:
        UsageError: it is none.
    """
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"no such key: {text!r:.40}", hint='for example C, "a minor", F#m or "Bb major"')
    tonic = (_NATURALS[match[1].upper()] + _ACCIDENTALS[match[2].lower()]) % 12
    mode = match[3]
    is_minor = match[1].islower() if not mode else mode == "m" or mode.lower().startswith("min")
    return tonic, is_minor


def parse_chord(symbol: str) -> ChordSymbol:
    """Read a chord symbol.

    Raises:
        UsageError: it is none.
    """
    if symbol in _NO_CHORD:
        return ChordSymbol(None, "")
    match = _CHORD.fullmatch(symbol)
    if match is not None:
        for pattern, quality in _QUALITIES:
            begun = pattern.match(match[3])
            if begun is not None and _TENSIONS.fullmatch(match[3], begun.end()):
                return ChordSymbol((_NATURALS[match[1]] + _ACCIDENTALS[match[2]]) % 12, quality)
    hint = "for example C, Am7, F#m7b5, Bb7, Gmaj7, Edim, or N for none"
    raise UsageError(f"no such chord: {symbol!r:.40}", hint=hint)


def parse_progression(text: str) -> list[list[ChordSymbol]]:
    """Read chords bar by bar: each symbol is a bar, or what stands between two `|` is, which its chords share evenly.

    Raises:
        UsageError: there is none, or one that can't be read.
    """
    bars = text.replace("\n", "|").split("|") if "|" in text else text.split()
    read = [[parse_chord(symbol) for symbol in bar.split()] for bar in bars if bar.strip()]
    if not read:
        raise UsageError("there are no chords", hint='for example "C Am F G", or "C Am | F G"')
    return read
