"""What is going on in a piece, bar by bar: chords, melody, groove and loudness, and the key and tempo of the whole.

Where a score has metre its bars are described, elsewhere stretches of a few seconds. What begins just before a bar,
within `TOGETHER_SECONDS`, belongs to it. Drums are left aside. Knows nothing of files or of how a description is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.chords import Chord, chords_of
from musictool.symbolic.key import Key, key_of
from musictool.symbolic.metre import bar_starts, metre_of
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.skyline import TOGETHER_SECONDS, Skyline, skyline_of
from musictool.symbolic.theory import CHORD_SECONDS, DIMENSIONS, theory_windows
from musictool.symbolic.windows import Windows

DEFAULT_SECONDS = 2.0
MAX_STRETCHES = 20_000


@dataclass(frozen=True, eq=False)
class Stretch:
    """A bar, or a few seconds.

    Attributes:
        number: counted from 1.
        start_seconds, end_seconds: where it lies.
        chords: those that hold in it; the first may have begun before, the last may go on after.
        melody: the part of the skyline that sounds in it; the first note may have begun before.
        onset_seconds: float64 [n], rising: each note's that begins in it.
        velocity: int16 [n]: the same notes'.
        attacks_per_second: how often notes begin, those of a chord once.
        syncopation: share of attacks off the beat that are held over it, 0..1.
    """

    number: int
    start_seconds: float
    end_seconds: float
    chords: tuple[Chord, ...]
    melody: Skyline
    onset_seconds: NDArray[np.float64]
    velocity: NDArray[np.int16]
    attacks_per_second: float
    syncopation: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        chords = [
            {"start_seconds": round(max(chord.start_seconds, self.start_seconds), 6), "label": chord.label}
            for chord in self.chords
        ]
        low, high = (int(limit(self.velocity)) if len(self.velocity) else None for limit in (np.min, np.max))
        return {
            "number": self.number,
            "start_seconds": round(self.start_seconds, 6),
            "end_seconds": round(self.end_seconds, 6),
            "chords": chords,
            "melody": self.melody.pitch.tolist(),
            "notes": len(self.onset_seconds),
            "attacks_per_second": round(self.attacks_per_second, 3),
            "syncopation": round(self.syncopation, 3),
            "velocity": {"mean": self.mean_velocity, "lowest": low, "highest": high},
        }

    @property
    def mean_velocity(self) -> float | None:
        """Of the notes that begin in it, None if there are none."""
        return round(float(self.velocity.mean()), 2) if len(self.velocity) else None


@dataclass(frozen=True, eq=False)
class Description:
    """A piece.

    Attributes:
        duration_seconds: to the end of the last note or pedal press.
        note_count: drums aside.
        key: of the whole piece, None if nothing speaks for one.
        quarters_per_minute: the mean tempo, None without metre.
        time_signatures: those that are used, in order, such as "3/4"; none without metre.
        stretches: what it consists of, in order.
        is_by_bar: whether those are bars.
    """

    duration_seconds: float
    note_count: int
    key: Key | None
    quarters_per_minute: float | None
    time_signatures: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    is_by_bar: bool

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        key = self.key
        return {
            "duration_seconds": round(self.duration_seconds, 6),
            "notes": self.note_count,
            "key": None if key is None else {"name": key.name, "sharps": key.sharps, "margin": round(key.margin, 4)},
            "quarters_per_minute": None if self.quarters_per_minute is None else round(self.quarters_per_minute, 3),
            "time_signatures": list(self.time_signatures),
            "is_by_bar": self.is_by_bar,
            "stretches": [stretch.to_json() for stretch in self.stretches],
        }


def describe(score: Score, every_seconds: float | None = None) -> Description:
    """Describe a piece.

    Args:
        score: the piece.
        every_seconds: the length of stretches; else bars, or `DEFAULT_SECONDS` without metre.

    Raises:
        InputError: it has more than `MAX_STRETCHES` of them.
    """
    notes = score.notes.take(~score.notes.is_drum).sorted()
    edges = _edges(score, every_seconds)
    has_metre = score.has_metre and score.notes.end_seconds > 0
    signatures = [f"{signature.numerator}/{signature.denominator}" for signature in metre_of(score)]
    return Description(
        score.duration_seconds,
        len(notes),
        key_of(notes),
        _mean_tempo(score) if has_metre else None,
        tuple(dict.fromkeys(signatures)) if has_metre else (),
        tuple(_stretches(notes, edges)),
        has_metre and every_seconds is None,
    )


def _mean_tempo(score: Score) -> float:
    end = score.notes.end_seconds
    return float(score.tempo_map.quarters(end)) / end * 60


def _edges(score: Score, every_seconds: float | None) -> NDArray[np.float64]:
    """Where stretches meet, in seconds, from 0 to the end of the notes or after."""
    end = score.notes.end_seconds
    if every_seconds is None and score.has_metre:
        quarters = float(score.tempo_map.quarters(end))
        metre = metre_of(score)
        ends = [signature.quarter for signature in metre[1:]] + [quarters]
        spans = zip(metre, ends, strict=True)
        _check_count(sum(max(min(until, quarters) - s.quarter, 0) / s.bar_quarters for s, until in spans))
        starts = bar_starts(score, quarters)
        if not len(starts):
            return starts
        last = [signature for signature in metre if signature.quarter <= starts[-1]][-1]
        return np.unique(score.tempo_map.seconds(np.append(starts, starts[-1] + last.bar_quarters)))
    step = every_seconds or DEFAULT_SECONDS
    _check_count(end / step)
    return np.arange(np.ceil(end / step) + 1) * step


def _check_count(count: float) -> None:
    if count > MAX_STRETCHES:
        raise InputError(
            f"more than {MAX_STRETCHES:,} bars or stretches to describe", hint="make them longer with --every SECONDS"
        )


def _stretches(notes: Notes, edges: NDArray[np.float64]) -> Iterator[Stretch]:
    """Describe what lies between the edges.

    Args:
        notes: sorted, without drums.
        edges: float64 [s + 1], rising.
    """
    if len(edges) < 2:
        return
    early = edges - TOGETHER_SECONDS
    windows = Windows(early[:-1], np.append(early[1:-1], edges[-1] + TOGETHER_SECONDS))
    syncopation = theory_windows(notes, windows).rhythm[:, DIMENSIONS["rhythm"].index("syncopation")]
    line, chords = skyline_of(notes), chords_of(notes)
    onset = notes.onset_seconds
    attacks = onset[np.diff(onset, prepend=-np.inf) >= CHORD_SECONDS]
    starts, ends = (np.array([chord[side] for chord in chords]) for side in (0, 1))
    own, new = _slices(onset, onset, windows), _slices(attacks, attacks, windows)
    sung, heard = _slices(line.onset_seconds, line.offset_seconds, windows), _slices(starts, ends, windows)
    for place, (start, end) in enumerate(pairwise(edges.tolist())):
        yield Stretch(
            place + 1,
            start,
            end,
            tuple(chords[heard[place]]),
            line.take(sung[place]),
            onset[own[place]],
            notes.velocity[own[place]],
            (new[place].stop - new[place].start) / (end - start),
            float(syncopation[place]),
        )


def _slices(begin: NDArray[np.float64], end: NDArray[np.float64], windows: Windows) -> list[slice]:
    """The rows that begin in each window or reach into it from before by more than a hand is late; in order of time."""
    reach = np.maximum(end - 2 * TOGETHER_SECONDS, begin)
    first, last = np.searchsorted(reach, windows.start), np.searchsorted(begin, windows.end)
    return [slice(low, max(low, high)) for low, high in zip(first.tolist(), last.tolist(), strict=True)]
