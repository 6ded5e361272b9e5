"""Which instruments play: programs drawn by weight, and fonts that have them in tune.

Knows presets of SoundFonts and the compass of real instruments; plays nothing and reads no notes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musictool.errors import InputError, UsageError
from musictool.symbolic.soundfont import DRUM_BANK

LOWEST_PITCH, HIGHEST_PITCH = 21, 108  # the piano's keys: what transcribers know
DECAYING_PROGRAMS = frozenset((*range(6), *range(8, 15), 24, 25, 46))  # ring on under a pedal or where they are let
SUSTAINED_PROGRAMS = frozenset((*range(20, 24), *range(40, 45), *range(48, 55), *range(56, 80)))  # swell and vibrate

_GROUP = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?(?::(\d+(?:\.\d*)?))?")
_FONT_WEIGHT = re.compile(r"(.+)[:=](\d+(?:\.\d*)?)")
_DEFAULT_COMPASS = (36, 96)
# Lowest and highest sounding pitch that players use; programs that are not named have the default.
_COMPASS: dict[int, tuple[int, int]] = {
    **dict.fromkeys(range(6), (21, 108)),
    6: (29, 89),
    7: (28, 88),
    8: (60, 108),
    9: (79, 108),
    10: (60, 96),
    11: (53, 89),
    12: (45, 96),
    13: (65, 108),
    14: (60, 77),
    15: (48, 84),
    21: (41, 93),
    22: (55, 96),
    23: (41, 93),
    **dict.fromkeys(range(24, 32), (40, 86)),
    **dict.fromkeys(range(32, 40), (28, 60)),
    40: (55, 100),
    41: (48, 88),
    42: (36, 76),
    43: (28, 60),
    46: (24, 103),
    47: (40, 57),
    48: (28, 96),
    49: (28, 96),
    52: (40, 84),
    53: (40, 84),
    54: (40, 84),
    56: (54, 86),
    57: (40, 72),
    58: (28, 58),
    59: (54, 82),
    60: (41, 77),
    61: (36, 84),
    64: (56, 88),
    65: (49, 81),
    66: (44, 76),
    67: (36, 69),
    68: (58, 91),
    69: (52, 81),
    70: (34, 72),
    71: (50, 94),
    72: (74, 102),
    73: (60, 96),
    74: (60, 98),
    75: (60, 96),
    77: (55, 84),
}


def compass(program: int) -> tuple[int, int]:
    """The lowest and the highest pitch that a program's instrument plays."""
    return _COMPASS.get(program, _DEFAULT_COMPASS)


def parse_programs(text: str) -> dict[int, float] | None:
    """Read `0-7:6,24-27:2,40`: programs or ranges of them, each with a weight (1 where none is given).

    A range shares its weight out evenly.

    Returns:
        program -> weight; None for `original`.

    Raises:
        UsageError: it is not of that form.
    """
    if text == "original":
        return None
    weights: dict[int, float] = {}
    for part in text.split(","):
        match = _GROUP.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        weight = float(match[3] or 1) if match else 0.0
        if not (first <= last <= 127 and weight > 0):
            hint = "write original, or programs 0 to 127 with weights, as in 0-7:6,24-27:2,40"
            raise UsageError(f"no such programs: {part.strip()[:40]!r}", context="--programs", hint=hint)
        for program in range(first, last + 1):
            weights[program] = weights.get(program, 0.0) + weight / (last + 1 - first)
    return weights


def parse_font(text: str) -> tuple[Path, float]:
    """Read `FILE`, `FILE:WEIGHT` or `FILE=WEIGHT`; a file of that very name goes before a weight.

    Raises:
        UsageError: the weight is 0.
    """
    match = _FONT_WEIGHT.fullmatch(text)
    if match is None or Path(text).exists():
        return Path(text), 1.0
    if float(match[2]) <= 0:
        raise UsageError("a font's weight is over 0", context=f"--soundfont {text}", hint="leave the font out")
    return Path(match[1]), float(match[2])


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset of a font.

    Attributes:
        font: the SoundFont file.
        bank: 0, or 128 for drums.
        program: General MIDI program, or kit.
    """

    font: Path
    bank: int
    program: int

    @property
    def is_drum(self) -> bool:
        return self.bank == DRUM_BANK


@dataclass(frozen=True, slots=True)
class Voice:
    """A preset that was listened to.

    Attributes:
        preset: which.
        name: what the font's author called it.
        cents: how far its tuning is off, the median over some pitches; None for drums, and where nothing was measured.
        worst_cents: the deviation of the pitch that is furthest off.
        audible: the pitches of 0..127 that sound.
        fault: why it is left out, to follow its name; empty for a good one.
    """

    preset: Preset
    name: str
    cents: float | None
    worst_cents: float | None
    audible: frozenset[int]
    fault: str = ""


@dataclass(frozen=True)
class VoiceTable:
    """The good voices of some fonts.

    Attributes:
        fonts: files with their weights, in the order they were named.
        digests: the sha256 of each, in hexadecimal.
        voices: (font, is_drum, program) -> voice.
    """

    fonts: tuple[tuple[Path, float], ...]
    digests: dict[Path, str]
    voices: dict[tuple[Path, bool, int], Voice]

    @classmethod
    def of(
        cls,
        fonts: Sequence[tuple[Path, float]],
        digests: dict[Path, str],
        voices: Sequence[Voice],
        *,
        is_drawn: bool,
    ) -> VoiceTable:
        """Keep the voices without fault.

        Args:
            fonts: files with their weights.
            digests: the sha256 of each.
            voices: what was listened to.
            is_drawn: whether a program will be drawn, so that one that is no drum kit is needed.

        Raises:
            InputError: none is left, or only drums although other voices were asked for.
        """
        kept = {(v.preset.font, v.preset.is_drum, v.preset.program): v for v in voices if not v.fault}
        needs_melodic = is_drawn or not all(voice.preset.is_drum for voice in voices)
        if not kept or (needs_melodic and all(is_drum for _, is_drum, _ in kept)):
            hint = "name other fonts with --soundfont, or other programs with --programs"
            raise InputError("no font has a program that is asked for, in tune", hint=hint, code="no-voice")
        return cls(tuple(fonts), digests, kept)

    def font_order(self, generator: np.random.Generator) -> list[Path]:
        """The fonts in an order drawn by their weights: an item takes each of its voices from the first that has it."""
        waits = generator.exponential(size=len(self.fonts)) / np.array([weight for _, weight in self.fonts])
        return [self.fonts[i][0] for i in np.argsort(waits)]

    def find(self, program: int, is_drum: bool, order: Sequence[Path]) -> Voice | None:
        """The voice of a program or kit from the first font that has it; a kit falls back to the standard kit."""
        for wanted in (program, 0) if is_drum else (program,):
            for font in order:
                voice = self.voices.get((font, is_drum, wanted))
                if voice is not None:
                    return voice
        return None

    def draw_program(self, weights: dict[int, float], generator: np.random.Generator) -> int:
        """Draw a program that some font has.

        Raises:
            InputError: no font has any of them.
        """
        there = {program for _, is_drum, program in self.voices if not is_drum}
        programs = [program for program in weights if program in there]
        if not programs:
            raise InputError("no font has a program that is asked for, in tune", code="no-voice")
        share = np.array([weights[program] for program in programs])
        return int(generator.choice(programs, p=share / share.sum()))


def presets_to_try(
    used: Iterable[tuple[bool, int]], weights: dict[int, float] | None, *, has_drums: bool
) -> list[tuple[int, int]]:
    """The (bank, program) of fonts that a run may play, by rising number.

    Args:
        used: (is_drum, program) of the pieces' notes.
        weights: programs that are drawn instead of the pieces' own; None where none are.
        has_drums: whether drums are played; the standard kit stands in for one that no font has.
    """
    used = set(used)
    melodic = {program for is_drum, program in used if not is_drum} if weights is None else set(weights)
    kits = {program for is_drum, program in used if is_drum} if has_drums else set()
    return sorted({(0, p) for p in melodic} | {(DRUM_BANK, k) for k in kits | ({0} if kits else set())})
