"""One piece on its way: what is asked of it, what may come next, and the window of it that a model reads.

A passage is written under `symbolic.composing_grammar`, so that it always says a piece. What is asked for is told or
enforced: style and key stand in the header, tempo and chords in the bars, and how many bars are left at each bar line.
When the context is full, the passage goes on from its last bars, which then begin by saying what still holds: memory
does not grow, and the model reads nothing that it has not learned to read. Knows no model and draws nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic import composing as language
from musictool.symbolic.composing import LANGUAGE, Composition, Held, RemiWriter, header, sounds, with_source
from musictool.symbolic.composing_grammar import PassageGrammar
from musictool.symbolic.schemes import remi

DEFAULT_BARS = 16
LENGTHY_BAR_SHARE = 1 / 2  # of the context; a bar of more ids ends as soon as it can
KEPT_SHARE = 3 / 4  # of the context when it is full
_LIKELY_TEMPO = 120
_CHORDS = slice(language.CHORD, language.CHORD + language.NO_CHORD + 1)
_PROGRAM = LANGUAGE.offset("Program")
_LEFT_RANGE, _NUMERATOR_RANGE, _DENOMINATOR_RANGE, _POSITION_RANGE, _TEMPO_RANGE, _PITCH_RANGE = (
    LANGUAGE.range_index(type) for type in ("Left", "Numerator", "DenominatorLog2", "Position", "Tempo", "Pitch")
)
_SOURCE_RANGES = (LANGUAGE.range_index("Program"), LANGUAGE.range_index("Kit"))
_IS_TEMPO = LANGUAGE.range_of_id == _TEMPO_RANGE


@dataclass(frozen=True)
class Wishes:
    """What a piece is to be like, as numbers.

    Attributes:
        style: its number; None for any.
        key: its number; None for any.
        tempo: quarters a minute; None for what the model likes.
        chords: of each bar, in turns; none for what the model likes.
        bars: how many there are to be; 0 where seconds are asked for.
        seconds: how long it is to be.
        past: what it goes on from, as a composition; None for nothing.
    """

    style: int | None = None
    key: int | None = None
    tempo: int | None = None
    chords: tuple[tuple[int, ...], ...] = ()
    bars: int = DEFAULT_BARS
    seconds: float = 0.0
    past: Composition | None = None


class _Bar(NamedTuple):
    """A bar of the window: its ids, `Bar Left` included, and what held where it began."""

    ids: list[int]
    held: Held | None  # None of the first, which says all itself


class Passage:
    """One piece on its way: what stands in its window, what may come next, and what has become certain.

    Args:
        wishes: what it is to be like.
        context: the most ids of the window.
    """

    def __init__(self, wishes: Wishes, context: int) -> None:
        self._wishes = wishes
        self._context = context
        self._grammar = PassageGrammar()
        self._writer = RemiWriter()
        self._bars: deque[_Bar] = deque()
        self._length = language.HEADER_IDS
        self._written = 0  # bars of this piece that have begun, not counting the past
        self._bar_seconds = 0.0  # when the open bar began
        self._tempo_step, self._tempo_seconds = 0, 0.0  # since when the tempo holds
        self._places: list[tuple[int, int]] = []  # where chords are asked for in the open bar, and which
        self._begins = True
        self.is_done = False
        if wishes.past is not None:
            self._remember(wishes.past)

    def _remember(self, past: Composition) -> None:
        """Take in what there was before: all of it in the grammar, its last bars in the window."""
        ids = past.passage(0, len(past.ids) + 4 * len(past.bars) + 16, None, None)[language.HEADER_IDS : -1]
        for id in ids.tolist():
            self._grammar.advance(id)
        to_come = self._bars_to_come() + len(past.bars)
        for bar, part in enumerate(np.split(ids, np.flatnonzero(ids == language.BAR)[1:])):
            left = language.LEFT + min(to_come - 1 - bar, language.LEFT_MAX)
            self._bars.append(_Bar([language.BAR, left, *part[2:].tolist()], past.held(bar) if bar else None))
            self._length += len(part)
        if self._length > self._context * KEPT_SHARE:
            self.slide()

    def window(self, is_told: bool = True) -> list[int]:
        """All that the model is to have read by now, with style and key told or left open."""
        style, key = (self._wishes.style, self._wishes.key) if is_told else (None, None)
        return [*header(self._begins, style, key).tolist(), *(id for bar in self._bars for id in bar.ids)]

    @property
    def seconds(self) -> float:
        """How long the bars are that have ended."""
        return self._bar_end_seconds() if self.is_done else self._bar_seconds

    # ------------------------------------------------------------------------------------------------------- what next

    def allowed(self) -> NDArray[np.bool_]:
        """The ids that may come next, bool [V]; one at least."""
        grammar = self._grammar
        mask = grammar.allowed()
        last = self._bars[-1].ids[-1] if self._bars else -1
        if last == language.BAR:
            return _only(language.LEFT + min(self._bars_to_come(), language.LEFT_MAX))
        if not self._written:
            return _only(language.BAR)
        mask[language.END if self._bars_to_come() else language.BAR] = False
        self._enforce_tempo(mask)
        if self._wishes.chords:
            self._enforce_chords(mask, last)
        if len(self._bars[-1].ids) > self._context * LENGTHY_BAR_SHARE:
            ending = [language.BAR, language.END, *(language.POSITION + place for place, _ in self._places[:1])]
            if mask[ending].any():
                return mask & _only(*ending)
        return mask

    def _enforce_tempo(self, mask: NDArray[np.bool_]) -> None:
        wanted = self._wishes.tempo
        if wanted is None:
            return
        if mask[_IS_TEMPO].any() and self._grammar.tempo != wanted:
            mask[:] = False
            mask[language.TEMPO + wanted] = True
        else:
            mask[_IS_TEMPO] = False

    def _enforce_chords(self, mask: NDArray[np.bool_], last: int) -> None:
        """Let chords be said where they are asked for, and nowhere else."""
        grammar = self._grammar
        if not grammar.signature[0]:
            return
        mask[_CHORDS] = False
        while self._places and self._places[0][1] == grammar.chord:
            self._places.pop(0)  # it holds already
        if not self._places:
            return
        place, chord = self._places[0]
        if grammar.place == place and LANGUAGE.range_of_id[last] in (_POSITION_RANGE, _TEMPO_RANGE):
            is_tempo = mask & _IS_TEMPO
            mask[:] = is_tempo
            mask[language.CHORD + chord] = grammar.tempo > 0 and self._wishes.tempo in (None, grammar.tempo)
        elif grammar.place < place and grammar.tempo:
            mask[[language.BAR, language.END]] = False
            mask[language.POSITION + place + 1 : language.POSITION + grammar.bar_steps] = False

    def _bars_to_come(self) -> int:
        """How many bars are to follow the open one, or the past, as far as can be told now."""
        wishes = self._wishes
        if wishes.bars:
            return max(wishes.bars - self._written, 0)
        reached = self._bar_end_seconds() if self._written else 0.0
        return max(round((wishes.seconds - reached) / self._seconds_of(self._bar_steps)), 0)

    @property
    def _bar_steps(self) -> int:
        return self._grammar.bar_steps or remi.STEPS_PER_WHOLE  # a guess, before there is a metre

    def _bar_end_seconds(self) -> float:
        return self._seconds_at(self._grammar.bar_start + self._bar_steps)

    def _seconds_at(self, step: int) -> float:
        """When a step is, of those from the last change of tempo on."""
        return self._tempo_seconds + self._seconds_of(step - self._tempo_step)

    def _seconds_of(self, steps: int) -> float:
        """How long steps last at the tempo that holds, or what may become it."""
        return steps / remi.STEPS_PER_QUARTER * 60 / (self._grammar.tempo or self._wishes.tempo or _LIKELY_TEMPO)

    # ---------------------------------------------------------------------------------------------------------- taking

    def take(self, id: int) -> list[int]:
        """Take the next id.

        Returns:
            Ids of scheme `remi` that it makes certain.
        """
        grammar = self._grammar
        if id == language.BAR:
            self._written += 1
            self._bars.append(_Bar([id], self._held() if grammar.signature[0] else None))
        elif id == language.END:
            self.is_done = True
        else:
            self._bars[-1].ids.append(id)
        if _IS_TEMPO[id]:
            self._tempo_step, self._tempo_seconds = grammar.now, self._seconds_at(grammar.now)
        grammar.advance(id)
        self._length += 1
        if id == language.BAR:
            if self._written == 1:
                self._tempo_step = grammar.bar_start
            self._bar_seconds = self._seconds_at(grammar.bar_start)
        if self._wishes.chords and LANGUAGE.range_of_id[id] in (_LEFT_RANGE, _DENOMINATOR_RANGE):
            self._place_chords()
        return self._writer.feed([id])

    def _held(self) -> Held:
        grammar = self._grammar
        numerator, log2 = grammar.signature
        return Held(
            (language.NUMERATOR + numerator, language.DENOMINATOR + log2),
            language.TEMPO + grammar.tempo if grammar.tempo else -1,
            _PROGRAM + grammar.source if grammar.source >= 0 else -1,
            language.CHORD + grammar.chord if grammar.chord >= 0 else -1,
        )

    def _place_chords(self) -> None:
        """Share the open bar among the chords asked for in it, on beats where there are as many."""
        chords = self._wishes.chords[(self._written - 1) % len(self._wishes.chords)]
        steps = self._grammar.bar_steps
        numerator, _ = self._grammar.signature
        if not numerator:
            return
        beats = [beat * steps // numerator for beat in range(numerator)]
        grid = beats if len(chords) <= numerator else range(steps)
        at = [grid[len(grid) * index // len(chords)] for index in range(len(chords))]
        self._places = list(dict(zip(at, chords, strict=True)).items())

    # ---------------------------------------------------------------------------------------------------------- window

    @property
    def is_full(self) -> bool:
        """Whether the window has no room for another id."""
        return self._length >= self._context

    def slide(self) -> None:
        """Go on from the last bars alone, as many as leave a good part of the context free."""
        most = int(self._context * KEPT_SHARE)
        while self._length > most and len(self._bars) > 1 + (not sounds(np.array(self._bars[-1].ids))):
            self._length -= len(self._bars.popleft().ids)
            self._begins = False
            if self._bars[0].held is not None:
                self._say_what_holds(self._bars[0].held)
        if self._length > most:
            self._shorten(self._length - most)

    def _say_what_holds(self, held: Held) -> None:
        """Let the first bar say what holds where it begins, and the first note who plays it."""
        opening, said = self._bars[0].ids[:2], self._bars[0].ids[2:]
        if len(said) > 1 and LANGUAGE.range_of_id[said[0]] == _NUMERATOR_RANGE:
            held = held._replace(signature=(said[0], said[1]))
        self._replace(0, [*opening, *held.said(np.array(said, np.int32)).tolist()], None)
        for index in range(1, len(self._bars)):
            if sounds(np.array(self._bars[index - 1].ids)):
                break
            bar = self._bars[index]
            if bar.held is not None:
                self._replace(index, with_source(np.array(bar.ids, np.int32), bar.held.source).tolist(), bar.held)

    def _shorten(self, excess: int) -> None:
        """Leave out so many ids of a first bar that is too long by itself: what it says first behind its opening."""
        ids = np.array(self._bars[0].ids, np.int32)
        kind = LANGUAGE.range_of_id[ids]
        positions = np.flatnonzero(kind == _POSITION_RANGE)
        is_behind = np.isin(kind, _SOURCE_RANGES) | (kind == _PITCH_RANGE)
        is_behind[positions[1:]] = True
        first = int(is_behind.argmax()) if is_behind.any() else len(ids)
        last = min(first + excess, len(ids))
        last = int(min(positions[positions >= last], default=last))
        sources = [id for id in ids[first:last].tolist() if LANGUAGE.range_of_id[id] in _SOURCE_RANGES]
        rest = with_source(ids[last:], sources[-1] if sources else -1)
        self._begins = False
        self._replace(0, [*ids[:first].tolist(), *rest.tolist()], None)

    def _replace(self, index: int, ids: list[int], held: Held | None) -> None:
        self._length += len(ids) - len(self._bars[index].ids)
        self._bars[index] = _Bar(ids, held)


def _only(*ids: int) -> NDArray[np.bool_]:
    mask = np.zeros(len(LANGUAGE), bool)
    mask[list(ids)] = True
    return mask
