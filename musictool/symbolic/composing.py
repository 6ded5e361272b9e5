"""The language in which a model composes: ids of scheme `remi`, and between them what it is told or tells itself.

A passage is `Start Style_s Key_k`, then bars. `Start` says that a piece begins here, `Within` that it has been going
on; `AnyStyle` and `Key_24` leave style and key open. After each `Bar` stands `Left_n`, how many bars are still to come
(32 for that many or more), and `Chord_c` says the harmony from its place on, before the notes of that place, as in
Huang and Yang (2020), section 3.2. The first bar of a passage says metre, tempo, chord and program even where they have
not changed, so that a passage can be read without what was before it. `End` follows the last bar of a piece.

Chord c is quality c // 12 of `musictool.symbolic.theory.CHORDS` on root c % 12, and 108 none; key k is the major key on
pitch class k, or from 12 on the minor one. Knows nothing of models.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.chord_symbols import ChordSymbol
from musictool.symbolic.chords import Chord, chords_of
from musictool.symbolic.key import key_of
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import remi
from musictool.symbolic.schemes.columns import latest
from musictool.symbolic.theory import CHORDS
from musictool.symbolic.vocabulary import EventRange, Ids, Vocabulary

LEFT_MAX = 32
NO_CHORD = 12 * len(CHORDS)
ANY_KEY = 24

LANGUAGE = Vocabulary(
    "remi-composing",
    (
        *remi.VOCABULARY.ranges,
        EventRange("Within"),
        EventRange("AnyStyle"),
        EventRange("Key", 0, ANY_KEY),
        EventRange("Left", 0, LEFT_MAX),
        EventRange("Chord", 0, NO_CHORD),
    ),
)
HEADER_IDS = 3
STYLES_MAX = 64
PAD, START, END, BAR, WITHIN, ANY_STYLE = (
    LANGUAGE.id(name) for name in ("Pad", "Start", "End", "Bar", "Within", "AnyStyle")
)
KEY, LEFT, CHORD, STYLE, POSITION, NUMERATOR, DENOMINATOR, TEMPO, PITCH, VELOCITY, DURATION = (
    LANGUAGE.offset(type)
    for type in (
        "Key",
        "Left",
        "Chord",
        "Style",
        "Position",
        "Numerator",
        "DenominatorLog2",
        "Tempo",
        "Pitch",
        "Velocity",
        "Duration",
    )
)

IS_TOLD = np.isin(
    LANGUAGE.range_of_id,
    [LANGUAGE.range_index(type) for type in ("Pad", "Start", "Within", "Style", "AnyStyle", "Key", "Left")],
)
"""bool [V]: which ids a model is told and never asked for."""

_QUALITIES = tuple(CHORDS)
_RANGES = {r.type: index for index, r in enumerate(LANGUAGE.ranges)}
# How events stand in a bar: at rising places, and in one place in this order.
_AT_BAR, _AT_POSITION, _AT_TEMPO, _AT_CHORD, _AT_NOTES = range(5)


def chord_number(chord: Chord | ChordSymbol) -> int:
    """The number of a chord, whatever its bass."""
    return NO_CHORD if chord.root is None else 12 * _QUALITIES.index(chord.quality) + chord.root


def key_number(tonic: int, is_minor: bool) -> int:
    """The number of a key."""
    return tonic + 12 * is_minor


@dataclass(frozen=True)
class Composition:
    """A piece in the language, without header and without what is left.

    Attributes:
        ids: int32 [t].
        bars: int64 [b], where each bar begins.
        signature: int32 [b, 2], the ids of its metre.
        tempo, source, chord: int32 [b], the ids that hold where a bar begins; -1 where none does.
        key: its number.
    """

    ids: Ids
    bars: NDArray[np.int64]
    signature: NDArray[np.int32]
    tempo: NDArray[np.int32]
    source: NDArray[np.int32]
    chord: NDArray[np.int32]
    key: int

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """int64 [b], where each bar ends."""
        return np.append(self.bars[1:], len(self.ids))

    def passage(self, first_bar: int, tokens_max: int, style: int | None, key: int | None) -> Ids:
        """The passage that begins with a bar, as long as it has at most so many ids.

        Args:
            first_bar: its number.
            tokens_max: of ids, with the header; whole bars, but for one that has more by itself.
            style: number of the style; None leaves it open.
            key: number of the key; None leaves it open.
        """
        parts = [header(first_bar == 0, style, key)]
        count, is_silent = HEADER_IDS, True
        for bar in range(first_bar, len(self.bars)):
            ids = self.ids[self.bars[bar] + 1 : self.ends[bar]]
            if bar == first_bar:
                ids = self.held(bar).said(ids)
            elif is_silent:
                ids = with_source(ids, int(self.source[bar]))
            count += 2 + len(ids)
            if count > tokens_max and bar > first_bar:
                break
            parts += [np.array([BAR, LEFT + min(len(self.bars) - 1 - bar, LEFT_MAX)], np.int32), ids]
            is_silent = is_silent and not sounds(ids)
        else:
            parts.append(np.array([END], np.int32))
        return np.concatenate(parts)[:tokens_max]

    def held(self, bar: int) -> Held:
        """What holds where a bar begins."""
        return Held(
            (int(self.signature[bar, 0]), int(self.signature[bar, 1])),
            int(self.tempo[bar]),
            int(self.source[bar]),
            int(self.chord[bar]),
        )


class Held(NamedTuple):
    """What holds where a bar begins, as ids.

    Attributes:
        signature: of the bar that begins.
        tempo, source, chord: from before it; -1 where none was said.
    """

    signature: tuple[int, int]
    tempo: int
    source: int
    chord: int

    def said(self, ids: Ids) -> Ids:
        """A bar's ids, behind `Bar Left`, with all of this said, int32 [t]; what the bar says itself is not changed."""
        kind = LANGUAGE.range_of_id[ids]
        skipped = 2 * int(len(ids) > 0 and kind[0] == _RANGES["Numerator"])
        ids, kind = ids[skipped:], kind[skipped:]
        opening = [*self.signature, POSITION]
        if len(ids) and ids[0] == POSITION:
            ids, kind = ids[1:], kind[1:]
        for type, held in (("Tempo", self.tempo), ("Chord", self.chord)):
            if len(ids) and kind[0] == _RANGES[type]:
                opening.append(int(ids[0]))
                ids, kind = ids[1:], kind[1:]
            elif held >= 0:
                opening.append(held)
        return np.concatenate([np.array(opening, np.int32), with_source(ids, self.source)])


def sounds(ids: Ids) -> bool:
    """Whether there is a note in ids."""
    return bool((LANGUAGE.range_of_id[ids] == _RANGES["Pitch"]).any())


def with_source(ids: Ids, source: int) -> Ids:
    """Ids whose first note says who plays it: the id `source`, unless they say so themselves; int32 [t]."""
    if source < 0 or not sounds(ids):
        return ids
    kind = LANGUAGE.range_of_id[ids]
    first = int((kind == _RANGES["Pitch"]).argmax())
    if np.isin(kind[:first], (_RANGES["Program"], _RANGES["Kit"])).any():
        return ids
    return np.insert(ids, first, source)


def header(begins: bool, style: int | None, key: int | None) -> Ids:
    """What a passage begins with, int32 [3]."""
    return np.array(
        [
            START if begins else WITHIN,
            ANY_STYLE if style is None else STYLE + style,
            KEY + (ANY_KEY if key is None else key),
        ],
        np.int32,
    )


def compose(score: Score) -> Composition:
    """Write a score in the language; chords are found in its notes, one a quarter of a bar's own at most.

    Raises:
        ValueError: it has no note.
    """
    if not len(score.notes):
        raise ValueError("there are no notes")
    ids = remi.encode(score).astype(np.int64)
    kind, value = LANGUAGE.range_of_id[ids], LANGUAGE.value_of_id[ids].astype(np.int64)
    bar_at = np.flatnonzero(kind == _RANGES["Bar"])
    bar = np.cumsum(kind == _RANGES["Bar"]) - 1
    after = np.arange(len(ids)) + 1

    is_position = kind == _RANGES["Position"]
    place_at = np.flatnonzero(is_position | (kind == _RANGES["Bar"]))
    place = latest(place_at, np.where(is_position, value, -1)[place_at], after, -1)
    order = np.full(len(ids), _AT_NOTES)
    order[place < 0] = _AT_BAR
    order[is_position] = _AT_POSITION
    order[kind == _RANGES["Tempo"]] = _AT_TEMPO

    numerators, denominators = (np.flatnonzero(kind == _RANGES[type]) for type in ("Numerator", "DenominatorLog2"))
    bar_ends = np.append(bar_at[1:], len(ids))
    signature = np.stack(
        [latest(numerators, ids[numerators], bar_ends, 0), latest(denominators, ids[denominators], bar_ends, 0)], 1
    ).astype(np.int32)
    tempos = np.flatnonzero(kind == _RANGES["Tempo"])
    sources = np.flatnonzero((kind == _RANGES["Program"]) | (kind == _RANGES["Kit"]))

    chord_bar, chord_place, chord = _chord_rows(score, kind, value, bar_at)
    known = np.unique((bar << 10 | np.maximum(place, 0))[is_position])
    chord_key = chord_bar << 10 | chord_place
    missing = chord_key[~np.isin(chord_key, known)]
    rows = np.concatenate([bar, chord_bar, missing >> 10])
    places = np.concatenate([place, chord_place, missing & 1023])
    orders = np.concatenate([order, np.full(len(chord), _AT_CHORD), np.full(len(missing), _AT_POSITION)])
    values = np.concatenate([ids, CHORD + chord, POSITION + (missing & 1023)]).astype(np.int32)
    values = values[np.lexsort((orders, places, rows))]  # stable: notes of a place stay in their order

    bars = np.flatnonzero(values == BAR)
    key = key_of(score.notes)
    return Composition(
        values,
        bars,
        signature,
        latest(tempos, ids[tempos], bar_at, -1).astype(np.int32),
        latest(sources, ids[sources], bar_at, int(ids[sources[0]])).astype(np.int32),
        latest(chord_bar, CHORD + chord, np.arange(len(bar_at)), CHORD + NO_CHORD).astype(np.int32),
        ANY_KEY if key is None else key_number(key.tonic, key.is_minor),
    )


def _chord_rows(
    score: Score, kind: NDArray[np.uint8], value: NDArray[np.int64], bar_at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Bar, place and number of every chord that differs from the one before."""
    starts = _bar_starts(kind, value, bar_at)
    last = max(int(np.rint(score.tempo_map.quarters(score.notes.onset_seconds).max() * remi.STEPS_PER_QUARTER)) + 1, 1)
    spans = itertools.pairwise([*starts[starts < last].tolist(), last])
    beats = np.concatenate([np.arange(start, end, remi.STEPS_PER_QUARTER) for start, end in spans])
    edges = score.tempo_map.seconds(np.append(beats, beats[-1] + remi.STEPS_PER_QUARTER) / remi.STEPS_PER_QUARTER)
    found = chords_of(score.notes, edges)
    step = beats[np.searchsorted(edges, [chord.start_seconds for chord in found])]
    numbers = np.array([chord_number(chord) for chord in found], np.int64)
    bar = np.searchsorted(starts, step, side="right") - 1
    return bar, step - starts[bar], numbers


def _bar_starts(kind: NDArray[np.uint8], value: NDArray[np.int64], bar_at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where bars begin, in steps, int64 [b]."""
    bar_ends = np.append(bar_at[1:], len(kind))
    numerators, denominators = (np.flatnonzero(kind == _RANGES[type]) for type in ("Numerator", "DenominatorLog2"))
    numerator = latest(numerators, value[numerators], bar_ends, 4)
    log2 = latest(denominators, value[denominators], bar_ends, 2)
    length = numerator * remi.STEPS_PER_WHOLE >> log2
    is_cut = kind[bar_ends - 1] == _RANGES["Position"]
    length = np.where(is_cut, value[bar_ends - 1], length)
    return np.cumsum(length) - length


def transposed(ids: Ids, semitones: int) -> Ids:
    """Ids with pitches, chords and key moved by as much, int32 [t]; nearest to it where a pitch would leave 0..127.

    Drums stay as they are.
    """
    kind = LANGUAGE.range_of_id[ids]
    is_pitch, is_chord, is_key = (kind == _RANGES[type] for type in ("Pitch", "Chord", "Key"))
    sources = np.flatnonzero((kind == _RANGES["Program"]) | (kind == _RANGES["Kit"]))
    is_pitch &= latest(sources, kind[sources].astype(np.int64), np.arange(len(ids)), 0) != _RANGES["Kit"]
    pitch = ids[is_pitch] - PITCH
    if len(pitch):
        semitones = min(max(semitones, -int(pitch.min())), 127 - int(pitch.max()))
    moved = ids.copy()
    moved[is_pitch] += semitones
    for offset, chosen, none in ((CHORD, is_chord, NO_CHORD), (KEY, is_key, ANY_KEY)):
        number = ids[chosen] - offset
        moved[chosen] = offset + np.where(number == none, none, number // 12 * 12 + (number + semitones) % 12)
    return moved


def shaded(ids: Ids, velocity_bins: int, tempo_ratio: float) -> Ids:
    """Ids played louder by so many bins of four, and so many times as fast; int32 [t]."""
    kind, value = LANGUAGE.range_of_id[ids], LANGUAGE.value_of_id[ids]
    changed = ids.copy()
    is_velocity, is_tempo = kind == _RANGES["Velocity"], kind == _RANGES["Tempo"]
    changed[is_velocity] = VELOCITY + np.clip(value[is_velocity] + velocity_bins, 0, 31)
    rate = np.rint(value[is_tempo] * tempo_ratio).astype(np.int32)
    changed[is_tempo] = TEMPO + np.clip(rate, remi.TEMPO_MIN, remi.TEMPO_MAX)
    return changed


class RemiWriter:
    """Takes the language apart as it comes: what is left are ids of scheme `remi`."""

    def __init__(self) -> None:
        self._held: int | None = None  # a place of which nobody knows yet whether anything stands there
        self._has_chord = False

    def feed(self, ids: Sequence[int]) -> list[int]:
        """The ids of the scheme that these make certain."""
        written: list[int] = []
        for id in ids:
            kind = int(LANGUAGE.range_of_id[id])
            if kind == _RANGES["Position"]:
                self._held, self._has_chord = id, False
            elif kind == _RANGES["Chord"]:
                self._has_chord = True
            elif id < len(remi.VOCABULARY) and not IS_TOLD[id]:
                stands_alone = id in (BAR, END)
                if self._held is not None and not (stands_alone and (self._has_chord or id == END)):
                    written.append(self._held)
                self._held = None
                if id != END:
                    written.append(id)
        return written
