"""Chords of a note table: the likeliest sequence of them, by templates and a price on change.

Time is cut wherever notes begin, or at given boundaries. A cell's pitch classes, by the root of their share of the
sounding time, and its lowest note speak for and against each of 108 chords (`musictool.symbolic.theory.CHORDS` over
twelve roots) and for no chord; the Viterbi path through the cells pays `_CHANGE_SECONDS` of agreement a change. The few
weights below were chosen on the pieces of POP909 with odd numbers; `tests/symbolic/theory_table.py` prints what they
give on the even ones. Knows nothing of metre, keys or files; neither suspensions nor chords of five notes have a
template, and velocities are not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from musictool.symbolic.notes import Notes
from musictool.symbolic.theory import CHORD_SECONDS, CHORDS, PITCH_CLASSES
from musictool.symbolic.windows import LEAST_SECONDS, Windows, histogram, overlaps, shares_of

NO_CHORD = "N"

_ROOT, _MEMBER, _SEVENTH, _FOREIGN = 1.0, 0.9, 0.8, -0.45
_BASS_IS_ROOT, _BASS_IS_MEMBER = 0.6, 0.2
_RARE = -0.35  # for anything but a major or minor triad
_NO_AGREEMENT = 0.3  # where something sounds; 1 in silence
_CHANGE_SECONDS = 0.55

QUALITY_SHARE_MIN = 0.02
"""Of the time in which there is a chord; a quality that has less is foreign to a style."""

_MEMBERS_FROM, _BASS_FROM = 54, 32  # the lowest pitches of chords that are played

_QUALITIES = tuple(CHORDS)
_COUNT = 12 * len(_QUALITIES)
_DEGREES = {
    3: "b3",
    4: "3",
    6: "b5",
    7: "5",
    8: "#5",
    9: "bb7",
    10: "b7",
    11: "7",
}  # of a chord's members, Harte's names
_SYMBOLS = {
    "maj": "",
    "min": "m",
    "dim": "dim",
    "aug": "aug",
    "7": "7",
    "maj7": "maj7",
    "min7": "m7",
    "hdim7": "m7b5",
    "dim7": "dim7",
}


class Chord(NamedTuple):
    """A chord from `start_seconds` to `end_seconds`.

    Attributes:
        start_seconds, end_seconds: the stretch.
        root: pitch class 0..11, or None for no chord.
        quality: a key of `CHORDS`, empty for no chord.
        bass: the pitch class that is lowest for longest, where it belongs to the chord; else the root.
    """

    start_seconds: float
    end_seconds: float
    root: int | None
    quality: str
    bass: int | None

    @property
    def label(self) -> str:
        """In the syntax of Harte et al. (2005), which mir_eval reads: `A:min7/b3`, or `N`."""
        if self.root is None or self.bass is None:
            return NO_CHORD
        inversion = "" if self.bass == self.root else f"/{_DEGREES[(self.bass - self.root) % 12]}"
        return f"{PITCH_CLASSES[self.root]}:{self.quality}{inversion}"

    @property
    def symbol(self) -> str:
        """As on a lead sheet: `Am7/C`, or `N`."""
        if self.root is None or self.bass is None:
            return NO_CHORD
        slash = "" if self.bass == self.root else f"/{PITCH_CLASSES[self.bass]}"
        return f"{PITCH_CLASSES[self.root]}{_SYMBOLS[self.quality]}{slash}"


def chords_of(notes: Notes, boundaries: ArrayLike | None = None) -> list[Chord]:
    """Name the chords of a piece; drums are not looked at.

    Args:
        notes: the table, in any order.
        boundaries: float64 [c + 1], rising times in seconds between which a chord holds; else wherever notes begin,
            which follows chords more closely than a grid of beats does.

    Returns:
        Chords in order, each from where the last one ended, no two alike after one another; from the first boundary
        or onset to the last boundary or offset. None for a table without notes and boundaries.
    """
    notes = notes.take(~notes.is_drum)
    edges = _edges_of(notes) if boundaries is None else np.asarray(boundaries, np.float64)
    if len(edges) < 2:
        return []
    weights, bass = _cells(notes, Windows(edges[:-1], edges[1:]))
    path = _cheapest_path(_agreement(weights, bass) * np.diff(edges)[:, None], _CHANGE_SECONDS)
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    times = np.append(edges[starts], edges[-1])
    lowest = np.add.reduceat(bass * np.diff(edges)[:, None], starts)
    return [
        _chord(float(start), float(end), int(state), low)
        for start, end, state, low in zip(times[:-1], times[1:], path[starts], lowest, strict=True)
    ]


def qualities_of(chords: Iterable[Chord]) -> frozenset[str]:
    """The qualities that chords have for QUALITY_SHARE_MIN of their time or more: the vocabulary of a style."""
    seconds: Counter[str] = Counter()
    for chord in chords:
        if chord.root is not None:
            seconds[chord.quality] += chord.end_seconds - chord.start_seconds  # type: ignore[assignment]
    total = sum(seconds.values())
    return frozenset(quality for quality, each in seconds.items() if each >= QUALITY_SHARE_MIN * total)


def simplified(chord: Chord, qualities: Collection[str]) -> Chord:
    """A chord in a vocabulary: as it is where that has its quality, else what comes nearest to it over the same root.

    Nearest is what has most members in common with it, and fewest others. A bass that is no member then gives way to
    the root.

    Args:
        chord: any.
        qualities: keys of `CHORDS`, of which it is to be; any will do where there are none.
    """
    if chord.root is None or not qualities or chord.quality in qualities:
        return chord
    members = set(CHORDS[chord.quality])

    def nearness(quality: str) -> tuple[int, int, int]:
        others = set(CHORDS[quality])
        return len(members & others), -len(others - members), -_QUALITIES.index(quality)

    quality = max(qualities, key=nearness)
    assert chord.bass is not None
    is_member = (chord.bass - chord.root) % 12 in CHORDS[quality]
    return chord._replace(quality=quality, bass=chord.bass if is_member else chord.root)


def block_chords(chords: Iterable[Chord]) -> Notes:
    """Chords as one would play them off a lead sheet: held, the members above, the bass below.

    Returns:
        The table by onset, velocity 64: each member of a chord once, from F#3 to F4, and its bass from G#1 to G2.
    """
    rows = []
    for chord in chords:
        if chord.root is None or chord.bass is None:
            continue
        members = [_MEMBERS_FROM + (chord.root + interval - _MEMBERS_FROM) % 12 for interval in CHORDS[chord.quality]]
        bass = _BASS_FROM + (chord.bass - _BASS_FROM) % 12
        rows += [(chord.start_seconds, chord.end_seconds, pitch) for pitch in (bass, *sorted(members))]
    return Notes.of(*zip(*rows, strict=True)) if rows else Notes.of((), (), ())


def _edges_of(notes: Notes) -> NDArray[np.float64]:
    """Where notes begin, those together once, and the end of the last one."""
    onset = np.sort(notes.onset_seconds)
    begin = onset[np.diff(onset, prepend=-np.inf) >= CHORD_SECONDS]
    return np.append(begin, max(notes.end_seconds, begin[-1] + LEAST_SECONDS)) if len(begin) else begin


def _cells(notes: Notes, windows: Windows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Roots of the shares of pitch classes, and the lowest note's as a one, each [c, 12]; zeros in silence."""
    count = len(windows.start)
    note, cell, seconds = overlaps(notes.onset_seconds, notes.offset_seconds, windows)
    pitch = notes.pitch[note].astype(np.int64)
    shares = shares_of(histogram(cell, pitch % 12, count, 12, seconds))
    lowest = np.full(count, 128)
    np.minimum.at(lowest, cell, pitch)
    return np.sqrt(shares), (lowest[:, None] % 12 == np.arange(12)) & (lowest < 128)[:, None]


def _templates() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What a pitch class and a bass say for each chord, both [12, 108], and what is said against it from the start."""
    members, basses, rarity = [], [], []
    for quality, intervals in CHORDS.items():
        member, bass = np.full(12, _FOREIGN), np.zeros(12)
        member[list(intervals)] = (_ROOT, _MEMBER, _MEMBER, _SEVENTH)[: len(intervals)]
        bass[list(intervals)] = _BASS_IS_MEMBER
        bass[0] = _BASS_IS_ROOT
        members += [np.roll(member, root) for root in range(12)]
        basses += [np.roll(bass, root) for root in range(12)]
        rarity += [0.0 if quality in ("maj", "min") else _RARE] * 12
    return np.stack(members, axis=1), np.stack(basses, axis=1), np.array(rarity)


_MEMBERS, _BASSES, _RARITY = _templates()


def _agreement(weights: NDArray[np.float64], bass: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well each chord agrees with each cell, [c, 109]; the last is no chord."""
    agreement = np.full((len(weights), _COUNT + 1), _NO_AGREEMENT)
    agreement[:, :-1] = weights @ _MEMBERS + bass @ _BASSES + _RARITY
    is_silent = ~bass.any(axis=1)
    agreement[is_silent] = 0.0
    agreement[is_silent, -1] = 1.0
    return agreement


def _cheapest_path(agreement: NDArray[np.float64], change: float) -> NDArray[np.int64]:
    """The states [c] of greatest agreement [c, states] less a price for each change (Viterbi).

    All changes cost the same, so the best way to change into any state comes from the best state before.
    """
    count = len(agreement)
    is_change, best = np.zeros(agreement.shape, bool), np.zeros(count, np.int64)
    total = agreement[0]
    for cell in range(1, count):
        best[cell] = total.argmax()
        changed = total[best[cell]] - change
        is_change[cell] = total < changed
        total = np.maximum(total, changed) + agreement[cell]
    path = np.empty(count, np.int64)
    path[-1] = total.argmax()
    for cell in range(count - 1, 0, -1):
        path[cell - 1] = best[cell] if is_change[cell, path[cell]] else path[cell]
    return path


def _chord(start: float, end: float, state: int, lowest: NDArray[np.float64]) -> Chord:
    if state == _COUNT:
        return Chord(start, end, None, "", None)
    quality, root = _QUALITIES[state // 12], state % 12
    bass = int(lowest.argmax())
    return Chord(start, end, root, quality, bass if (bass - root) % 12 in CHORDS[quality] else root)
