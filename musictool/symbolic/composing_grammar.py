"""What may come next in a passage of the language of `symbolic.composing`, id by id.

Whatever is written so is a passage, and what it says is a piece of scheme `remi` as `encode` would write it: places
rise within a bar, notes of a place come by source and pitch, a key that is down is not struck again, tempo, metre and
chord are said when they change. How long a piece is, and how many bars are left, is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic import composing as language
from musictool.symbolic.composing import LANGUAGE
from musictool.symbolic.schemes import remi

_KINDS = {r.type: index for index, r in enumerate(LANGUAGE.ranges)}
_SIZE = len(LANGUAGE)
_PROGRAM = LANGUAGE.offset("Program")  # kits follow, so that a source is an offset
_SOURCES = 256
_BEFORE_NOTES = ("Position", "Tempo", "Chord")


class PassageGrammar:
    """Follows a passage, from behind its header on.

    Attributes:
        bar_start, place: where the open bar begins in the piece, and the last place in it; -1 at its beginning.
        bar_steps: how long it is.
        tempo: quarters a minute; 0 where none was said.
        chord: its number; -1 where none was said.
        source: who plays; -1 where nobody was named.
        signature: numerator and log2 of the denominator; zeros where none was said.
    """

    def __init__(self) -> None:
        self.bar_start = 0
        self.place = -1
        self.bar_steps = 0
        self.tempo = 0
        self.chord = -1
        self.source = -1
        self.signature = (0, 0)
        self._last = ""  # the type of the last id
        self._value = 0
        self._numerator = 0
        self._pitch = -1  # the last one of this source in this place
        self._ends: dict[int, NDArray[np.int64]] = {}
        self._note_end = 0

    # -------------------------------------------------------------------------------------------------------- reading

    def advance(self, id: int) -> None:
        """Take the next id, which is one that is allowed, or one of a passage that was written elsewhere."""
        type = LANGUAGE.ranges[LANGUAGE.range_of_id[id]].type
        value = int(LANGUAGE.value_of_id[id])
        getattr(self, f"_take_{type.lower()}", self._take_nothing)(value)
        self._last, self._value = type, value

    def _take_nothing(self, value: int) -> None:
        """An id of which nothing has to be kept."""

    def _take_bar(self, value: int) -> None:
        is_cut = self._last == "Position"
        self.bar_start += self.place if is_cut else self.bar_steps
        self.place = -1

    def _take_numerator(self, value: int) -> None:
        self._numerator = value

    def _take_denominatorlog2(self, value: int) -> None:
        self.signature = (self._numerator, value)
        self.bar_steps = self._numerator * remi.STEPS_PER_WHOLE >> value

    def _take_position(self, value: int) -> None:
        self.place, self._pitch = value, -1

    def _take_tempo(self, value: int) -> None:
        self.tempo = value

    def _take_chord(self, value: int) -> None:
        self.chord = value

    def _take_program(self, value: int) -> None:
        self.source, self._pitch = value, -1

    def _take_kit(self, value: int) -> None:
        self.source, self._pitch = value + _SOURCES // 2, -1

    def _take_pitch(self, value: int) -> None:
        self._pitch = value
        self._note_end = self.now

    def _take_duration(self, value: int) -> None:
        self._note_end += value
        self._ends_of(self.source)[self._pitch] = self._note_end

    @property
    def now(self) -> int:
        """Steps from the beginning to the last place."""
        return self.bar_start + max(self.place, 0)

    def _ends_of(self, source: int) -> NDArray[np.int64]:
        """When each pitch of a source is free again, int64 [128]."""
        return self._ends.setdefault(max(source, 0), np.zeros(128, np.int64))

    # -------------------------------------------------------------------------------------------------------- writing

    def allowed(self) -> NDArray[np.bool_]:
        """The ids that may come next, bool [V]; always one at least."""
        mask = np.zeros(_SIZE, bool)
        last = self._last
        if last in ("", "End"):
            mask[language.BAR] = True
        elif last == "Bar":
            _allow(mask, "Left")
        elif last == "Numerator":
            _allow(mask, "DenominatorLog2", [log2 for log2 in range(6) if self._can_be(self._numerator, log2)])
        elif last in ("Program", "Kit"):
            self._allow_pitches(mask)
        elif last == "Pitch":
            _allow(mask, "Velocity")
        elif last == "Velocity":
            _allow(mask, "Duration")
        else:
            self._allow_events(mask)
        return mask

    def _allow_events(self, mask: NDArray[np.bool_]) -> None:
        """What may come where nothing is half said, or behind a place."""
        last = self._last
        if self.signature == (0, 0):
            _allow(mask, "Numerator", [n for n in range(1, 65) if any(self._can_be(n, log2) for log2 in range(6))])
            return
        if last == "Left":
            _allow(mask, "Numerator", [n for n in range(1, 65) if any(self._can_be(n, log2) for log2 in range(6))])
        if not self.tempo:  # the first bar begins with its tempo
            _allow(mask, *(("Tempo",) if last == "Position" else ("Position", [0])))
            return
        if last != "Position":
            _allow(mask, "Position", range(self.place + 1, self.bar_steps))
            mask[[language.BAR, language.END]] = True
        else:
            _allow(mask, "Tempo", {*range(remi.TEMPO_MIN, remi.TEMPO_MAX + 1)} - {self.tempo})
        if last in ("Position", "Tempo"):
            _allow(mask, "Chord", {*range(language.NO_CHORD + 1)} - {self.chord})
        if last == "Duration" and self._value == remi.DURATION_STEPS_MAX:
            _allow(mask, "Duration")
        if last in (*_BEFORE_NOTES, "Duration"):
            self._allow_sources(mask)
            if self.source >= 0:
                self._allow_pitches(mask)

    def _can_be(self, numerator: int, log2: int) -> bool:
        """Whether a metre can be said, and is a new one."""
        steps, rest = divmod(numerator * remi.STEPS_PER_WHOLE, 1 << log2)
        return not rest and steps <= remi.BAR_STEPS_MAX and (numerator, log2) != self.signature

    def _allow_pitches(self, mask: NDArray[np.bool_]) -> None:
        is_free = self._ends_of(self.source) <= self.now
        is_free[: self._pitch + 1] = False
        mask[language.PITCH : language.PITCH + 128] = is_free

    def _allow_sources(self, mask: NDArray[np.bool_]) -> None:
        """Other sources; behind a note of this place only those after its own."""
        first = self.source + 1 if self._last == "Duration" else 0
        mask[_PROGRAM + first : _PROGRAM + _SOURCES] = True
        if self.source >= 0:
            mask[_PROGRAM + self.source] = False
        for source, ends in self._ends.items():
            if (ends > self.now).all():
                mask[_PROGRAM + source] = False


def _allow(mask: NDArray[np.bool_], type: str, values: Iterable[int] | None = None) -> None:
    """Allow the ids of a type, all of them or those of some values."""
    offset = LANGUAGE.offset(type)
    if values is None:
        mask[LANGUAGE.range_of_id == _KINDS[type]] = True
    else:
        mask[[offset + value for value in values]] = True
