"""Scheme `remi`: notes on a metrical grid of 24 steps a quarter note, for music that is to be read.

After Huang and Yang, "Pop Music Transformer" (2020), section 3, with programs, drums and metre. `Bar` begins a bar;
`Numerator_n DenominatorLog2_d` after it set the time signature from there on (n beats of 1/2**d, kept until changed);
`Position_p` is a place in the bar in steps; `Tempo_b` (quarters a minute) holds from its position on. A note is
`Pitch_p Velocity_b Duration_d…` by the source that `Program_p` or `Kit_k` named last; durations in a row add up. Bin b
holds velocities 4b..4b+3. `Position_p` right before `Bar` says that the bar ends there, short of its time signature.

A bar longer than 16 quarters, or in a time signature that the vocabulary cannot say, is written in bars of 4/4. Pedals
are not kept; time is kept in steps of the score, so that a performance's timing within a step is not.

What a decoder makes of any ids at all: a pitch that is not followed by a velocity and a duration is no note, and what
comes before the first bar is in a bar of 4/4, and a tempo at a place before one already reached is passed over.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.metre import metre_of
from musictool.symbolic.notes import Notes, Pedals, Score, TempoMap, TimeSignature, order_by
from musictool.symbolic.schemes.columns import Column, GridNotes, changes, grid_table, latest, sources_of
from musictool.symbolic.vocabulary import EventRange, Ids, Vocabulary

STEPS_PER_QUARTER = 24
STEPS_PER_WHOLE = 4 * STEPS_PER_QUARTER
BAR_STEPS_MAX = 16 * STEPS_PER_QUARTER
DURATION_STEPS_MAX = 8 * STEPS_PER_QUARTER
DENOMINATOR_LOG2_MAX = 5  # a 32nd is the shortest beat of whole steps
TEMPO_MIN, TEMPO_MAX = 10, 400
VELOCITY_BIN = 4
HELD_IDS_MAX = 1 << 17

VOCABULARY = Vocabulary(
    "remi",
    (
        EventRange("Pad"),
        EventRange("Start"),
        EventRange("End"),
        EventRange("Bar"),
        EventRange("Position", 0, BAR_STEPS_MAX - 1),
        EventRange("Numerator", 1, 64),
        EventRange("DenominatorLog2", 0, DENOMINATOR_LOG2_MAX),
        EventRange("Tempo", TEMPO_MIN, TEMPO_MAX),
        EventRange("Program", 0, 127),  # Program and Kit stand side by side, so that a source is an offset
        EventRange("Kit", 0, 127),
        EventRange("Pitch", 0, 127),
        EventRange("Velocity", 0, 128 // VELOCITY_BIN - 1),
        EventRange("Duration", 1, DURATION_STEPS_MAX),
        EventRange("Style", 0, 63),
    ),
)


def _fit(score: Score) -> GridNotes:
    """The notes in steps of the metrical grid, by onset, source, pitch, velocity and offset, with velocity bins."""
    notes = score.notes
    seconds = np.concatenate([notes.onset_seconds, notes.offset_seconds])
    steps = np.rint(score.tempo_map.quarters(seconds) * STEPS_PER_QUARTER).astype(np.int64)
    on, off = steps[: len(notes)], steps[len(notes) :]
    source, pitch = sources_of(notes), notes.pitch.astype(np.int64)
    bins = (notes.velocity // VELOCITY_BIN).astype(np.int64)
    grid = GridNotes(on, np.maximum(off, on + 1), source, pitch, bins, np.zeros_like(on))
    return grid.take(order_by(on << 20 | grid.key() << 5 | grid.velocity, grid.off))


def _metre(score: Score) -> list[tuple[int, int, int, int]]:
    """Time signatures as (step, numerator, log2 of the denominator, steps a bar), those that can't be said as 4/4."""
    rows = []
    for signature in metre_of(score):
        log2 = max(signature.denominator, 1).bit_length() - 1
        bar_steps = signature.numerator * STEPS_PER_WHOLE >> log2
        can_say = (
            signature.denominator == 1 << log2
            and log2 <= DENOMINATOR_LOG2_MAX
            and 1 <= signature.numerator <= 64
            and bar_steps <= BAR_STEPS_MAX
        )
        step = round(signature.quarter * STEPS_PER_QUARTER)
        rows.append((step, signature.numerator, log2, bar_steps) if can_say else (step, 4, 2, STEPS_PER_WHOLE))
    return [row for row, after in zip(rows, [*rows[1:], None], strict=True) if after is None or after[0] > row[0]]


def _bars(score: Score, end_step: int) -> tuple[Column, Column, Column, Column]:
    """Start, numerator, log2 of the denominator and full length of every bar that begins up to `end_step`."""
    metre = _metre(score)
    ends = [min(row[0], end_step + 1) for row in metre[1:]] + [end_step + 1]
    starts = [np.arange(step, max(end, step), length) for (step, _, _, length), end in zip(metre, ends, strict=True)]
    counts = [len(span) for span in starts]
    numerator, log2, length = np.repeat(np.array(metre)[:, 1:], counts, axis=0).T
    return np.concatenate(starts), numerator, log2, length


def _tempos(score: Score, end_step: int) -> tuple[Column, Column]:
    """Tempo changes before `end_step` as steps and whole quarters a minute; the last within a step counts."""
    step = np.rint(score.tempo_map.start_quarters * STEPS_PER_QUARTER).astype(np.int64)
    rate = np.rint(60e6 / score.tempo_map.microseconds_per_quarter).astype(np.int64)
    rate = np.minimum(np.maximum(rate, TEMPO_MIN), TEMPO_MAX)
    if len(step) == 1:
        return step, rate
    kept = np.append(step[1:] != step[:-1], True) & (step < end_step)
    step, rate = step[kept], rate[kept]
    changed = changes(rate)
    return step[changed], rate[changed]


def quantize(score: Score) -> tuple[Notes, Pedals]:
    """What `encode` keeps: notes on the metrical grid at the tempos it can say, and velocity bins; no pedals."""
    grid = _fit(score)
    middle = grid.velocity * VELOCITY_BIN + VELOCITY_BIN // 2
    tempo_map = _tempo_map(*_tempos(score, int(grid.off.max(initial=1))))
    on, off = (tempo_map.seconds(step / STEPS_PER_QUARTER) for step in (grid.on, grid.off))
    return grid_table(replace(grid, velocity=middle), on, off), Pedals.of()


def _tempo_map(step: Column, rate: Column) -> TempoMap:
    return TempoMap.of(step / STEPS_PER_QUARTER, _microseconds(rate))


_MICROSECONDS_OF_RATE = np.rint(60e6 / np.maximum(np.arange(TEMPO_MAX + 1), 1)).astype(np.int64)


def _microseconds(rate: NDArray[np.integer]) -> Column:
    """How long a quarter lasts at so many a minute."""
    return _MICROSECONDS_OF_RATE[rate]


_BAR_EVENT, _TEMPO_EVENT, _NOTE_EVENT = range(3)


def encode(score: Score) -> Ids:
    """The ids of a score, int32 [t]: every bar up to the last onset or change of tempo."""
    grid = _fit(score)
    tempo_step, tempo = _tempos(score, int(grid.off.max(initial=1)))
    bar_start, numerator, log2, bar_length = _bars(score, max(int(grid.on.max(initial=0)), int(tempo_step[-1])))

    # Bars, tempos and notes in one sequence: step << 2 | kind. Those of one kind stay in the order they are in.
    parts = (bar_start << 2 | _BAR_EVENT, tempo_step << 2 | _TEMPO_EVENT, grid.on << 2 | _NOTE_EVENT)
    events = np.concatenate(parts)
    events.sort()
    step, kind = events >> 2, events & 3
    bars, tempos, notes = (np.flatnonzero(kind == k) for k in (_BAR_EVENT, _TEMPO_EVENT, _NOTE_EVENT))

    is_bar = kind == _BAR_EVENT
    placed = changes(step)
    placed[1:] |= is_bar[:-1]
    placed &= ~is_bar
    new_source = changes(grid.source)
    turn = notes[new_source]
    bar_steps = bar_start[1:] - bar_start[:-1]
    is_cut = bar_steps < bar_length[:-1]
    cut = bars[1:][is_cut]
    metre_change = changes(numerator << 3 | log2)
    metre = bars[metre_change]
    length = grid.off - grid.on
    durations = (length + (DURATION_STEPS_MAX - 1)) // DURATION_STEPS_MAX

    count = 1 + placed
    count[turn] += 1
    count[cut] += 1
    count[metre] += 2
    count[notes] += 1 + durations
    end = np.cumsum(count)
    start = end - count
    ids = np.full(end[-1], VOCABULARY.id("Duration", DURATION_STEPS_MAX), np.int32)

    ids[start[cut]] = VOCABULARY.offset("Position") + bar_steps[is_cut]
    start[cut] += 1
    ids[start[bars]] = VOCABULARY.id("Bar")
    ids[start[metre] + 1] = VOCABULARY.offset("Numerator") + numerator[metre_change]
    ids[start[metre] + 2] = VOCABULARY.offset("DenominatorLog2") + log2[metre_change]
    place = np.flatnonzero(placed)
    position = step[place] - bar_start[np.cumsum(is_bar)[place] - 1]
    ids[start[place]] = VOCABULARY.offset("Position") + position
    start += placed
    ids[start[tempos]] = VOCABULARY.offset("Tempo") + tempo
    ids[start[turn]] = VOCABULARY.offset("Program") + grid.source[new_source]
    start[turn] += 1
    pitch_at = start[notes]
    ids[pitch_at] = VOCABULARY.offset("Pitch") + grid.pitch
    ids[pitch_at + 1] = VOCABULARY.offset("Velocity") + grid.velocity
    ids[end[notes] - 1] = VOCABULARY.offset("Duration") + length - (durations - 1) * DURATION_STEPS_MAX
    return ids


_BAR, _POSITION, _NUMERATOR, _DENOMINATOR, _TEMPO, _PROGRAM, _KIT, _PITCH, _VELOCITY, _DURATION = (
    VOCABULARY.range_index(type)
    for type in (
        "Bar",
        "Position",
        "Numerator",
        "DenominatorLog2",
        "Tempo",
        "Program",
        "Kit",
        "Pitch",
        "Velocity",
        "Duration",
    )
)
_DEFAULT_TEMPO = 120


class _Tempos:
    """Tempo changes as they come: all of them in ten bytes each, and apart those that notes may still need."""

    def __init__(self) -> None:
        self._settled_steps: list[Column] = []
        self._settled_rates: list[NDArray[np.int16]] = []
        self._steps = np.zeros(1, np.int64)
        self._rates = np.full(1, _DEFAULT_TEMPO, np.int64)
        self._start_seconds = np.zeros(1)  # when each of these begins

    def add(self, step: Column, rate: Column) -> None:
        """Take in changes by rising step, not before those so far; the last within a step counts."""
        if len(step):
            step, rate = np.concatenate([self._steps, step]), np.concatenate([self._rates, rate])
            is_last = np.append(step[1:] != step[:-1], True)
            step, rate = step[is_last], rate[is_last]
            changed = changes(rate)
            self._steps, self._rates = step[changed], rate[changed]
            spans = np.diff(self._steps / STEPS_PER_QUARTER) * _microseconds(self._rates[:-1]) / 1e6
            self._start_seconds = np.cumsum(np.append(self._start_seconds[0], spans))

    def seconds(self, step: Column) -> NDArray[np.float64]:
        """When steps are that do not lie before what has settled; as `TempoMap.seconds` to the last bit."""
        at = np.maximum(np.searchsorted(self._steps, step, side="right") - 1, 0)
        into = step / STEPS_PER_QUARTER - self._steps[at] / STEPS_PER_QUARTER
        return self._start_seconds[at] + into * (_microseconds(self._rates[at]) / 1e6)

    def settle(self, needed: int, reached: int) -> None:
        """Put away the changes that no step from `needed` on needs, where no change before `reached` is to come."""
        first = int(np.searchsorted(self._steps, min(needed, reached - 1), side="right")) - 1
        if first > 0:
            self._settled_steps.append(self._steps[:first])
            self._settled_rates.append(self._rates[:first].astype(np.int16))
            self._steps, self._rates = self._steps[first:], self._rates[first:]
            self._start_seconds = self._start_seconds[first:]

    def tempo_map(self) -> TempoMap:
        """All changes so far."""
        start_quarters = np.concatenate([*self._settled_steps, self._steps], dtype=np.float64)
        start_quarters /= STEPS_PER_QUARTER
        rates = np.concatenate([*self._settled_rates, self._rates.astype(np.int16)])
        return TempoMap(start_quarters, _microseconds(rates))


class Decoder:
    """Ids to notes, chunk by chunk; a chunk's last bar or note waits for the next chunk to complete it."""

    def __init__(self) -> None:
        self.keeps_pedals = True  # all of none
        self._held = np.zeros(0, np.int32)
        self._is_begun = False  # whether there was a bar yet
        self._bar_step = 0  # where the current bar began
        self._after_cut = False  # whether the bar before it was cut short
        self._numerator, self._log2 = 4, 2
        self._position = 0
        self._reached = 0
        self._source = 0
        self._tempos = _Tempos()
        self._signatures: list[TimeSignature] = []
        self._waiting = GridNotes.of(Notes.empty(), 1)  # their ends may lie beyond a tempo change to come

    def feed(self, ids: Ids) -> Notes:
        """The notes whose times these ids, int32 [t], make certain; `track` holds the voice, always 0."""
        ids = np.concatenate([self._held, ids]) if len(self._held) else ids
        kind = VOCABULARY.range_of_id[ids]
        openings = np.flatnonzero((kind == _BAR) | (kind == _PITCH))
        cut = int(openings[-1]) if len(openings) else 0
        cut -= bool(cut and kind[cut - 1] == _POSITION)
        cut = cut if len(ids) - cut <= HELD_IDS_MAX else len(ids)
        self._held = ids[cut:].copy()
        reached = self._read(ids[:cut])
        return self._release(self._waiting.off <= reached)

    def finish(self) -> Score:
        """The remaining notes, with the tempos and time signatures that the ids said."""
        held, self._held = self._held, np.zeros(0, np.int32)
        self._read(held)
        if self._is_begun:
            open_bar = (np.array([value]) for value in (self._bar_step, self._numerator, self._log2, self._after_cut))
            self._note_signatures(*open_bar)
        notes = self._release(np.ones(len(self._waiting), np.bool_))
        return Score(
            notes, tempo_map=self._tempos.tempo_map(), time_signatures=tuple(self._signatures), has_metre=self._is_begun
        )

    def _release(self, certain: np.ndarray) -> Notes:
        grid = self._waiting.take(certain)
        self._waiting = self._waiting.take(~certain)
        on, off = self._tempos.seconds(grid.on), self._tempos.seconds(grid.off)
        # No note to come begins before the open bar, and no tempo to come before what has been reached.
        self._tempos.settle(min(self._bar_step, int(self._waiting.on.min(initial=self._bar_step))), self._reached)
        return grid_table(grid, on, off)

    def _read(self, ids: Ids) -> int:
        """Take in whole bars and notes; the furthest step that any event so far stands at."""
        if len(ids):
            kind, value = VOCABULARY.range_of_id[ids], VOCABULARY.value_of_id[ids].astype(np.int64)
            bars, positions = np.flatnonzero(kind == _BAR), np.flatnonzero(kind == _POSITION)
            bar_step = self._bar_steps(kind, value, bars)
            # Where every event that needs a place stands, and, last, where the next chunk goes on.
            placed = np.append(np.flatnonzero((kind == _PITCH) | (kind == _TEMPO)), len(kind))
            bar = np.searchsorted(bars, placed)
            last = np.searchsorted(positions, placed)
            position = np.append(self._position, value[positions])[last]
            is_stale = np.append(-1, positions)[last] < np.append(-1, bars)[bar]  # a new bar begins at position 0
            position = np.where(is_stale & (bar > 0), 0, position)
            step = bar_step[bar] + position
            placed, step = placed[:-1], step[:-1]
            reached = np.maximum.accumulate(np.append(self._reached, step))
            before = reached[:-1]
            self._reached, self._position = int(reached[-1]), int(position[-1])

            timely = (kind[placed] == _TEMPO) & (step >= before)  # a tempo can't change what has been played
            self._tempos.add(step[timely], value[placed[timely]])
            is_pitch = kind[placed] == _PITCH
            self._collect(ids, kind, value, placed[is_pitch], step[is_pitch])
        return self._reached

    def _bar_steps(self, kind: np.ndarray, value: Column, bars: Column) -> Column:
        """Where the bar that was open before, and each bar that begins at the indices `bars`, starts in steps."""
        before_next = np.append(bars, len(kind))
        numerators, denominators = np.flatnonzero(kind == _NUMERATOR), np.flatnonzero(kind == _DENOMINATOR)
        numerator = latest(numerators, value[numerators], before_next, self._numerator)
        log2 = latest(denominators, value[denominators], before_next, self._log2)
        is_cut = (bars > 0) & (kind[bars - 1] == _POSITION)
        length = np.where(is_cut, value[bars - 1], numerator[:-1] * STEPS_PER_WHOLE >> log2[:-1])
        if not self._is_begun:
            length[:1] = 0  # the first bar begins the piece
        steps = self._bar_step + np.append(0, np.cumsum(length))

        final = slice(0 if self._is_begun else 1, len(bars))  # bars that have ended: nothing can change their metre
        after_cut = np.append(self._after_cut, is_cut)
        self._note_signatures(steps[final], numerator[final], log2[final], after_cut[final])
        self._numerator, self._log2 = int(numerator[-1]), int(log2[-1])
        self._bar_step, self._after_cut = int(steps[-1]), bool(after_cut[-1])
        self._is_begun |= len(bars) > 0
        return steps

    def _note_signatures(self, steps: Column, numerator: Column, log2: Column, after_cut: np.ndarray) -> None:
        """Add the time signatures of ended bars where they change, or where a bar was cut short before them."""
        for index in np.flatnonzero(changes(numerator << 3 | log2) | after_cut).tolist():
            new = TimeSignature(steps[index] / STEPS_PER_QUARTER, int(numerator[index]), 1 << int(log2[index]))
            known = self._signatures[-1] if self._signatures else None
            if after_cut[index] or known is None or replace(known, quarter=new.quarter) != new:
                self._signatures.append(new)

    def _collect(self, ids: Ids, kind: np.ndarray, value: Column, pitch: Column, on: Column) -> None:
        """Put the notes that begin at the indices `pitch`, in steps `on`, among those that wait."""
        turns = np.flatnonzero((kind == _PROGRAM) | (kind == _KIT))
        turn_sources = ids[turns].astype(np.int64) - VOCABULARY.offset("Program")
        is_duration = np.append(kind == _DURATION, [False, False])
        is_whole = is_duration[pitch + 2] & (np.append(kind, 0)[pitch + 1] == _VELOCITY)
        pitch, on = pitch[is_whole], on[is_whole]
        total = np.append(0, np.cumsum(np.where(is_duration[:-2], value, 0)))
        breaks = np.flatnonzero(~is_duration)
        run_end = breaks[np.searchsorted(breaks, pitch + 2)]
        duration = total[run_end] - total[pitch + 2]
        velocity = value[pitch + 1] * VELOCITY_BIN + VELOCITY_BIN // 2
        source = latest(turns, turn_sources, pitch, self._source)
        new = GridNotes(on, on + duration, source, value[pitch], velocity, np.zeros_like(on))
        self._waiting = GridNotes.concatenate([self._waiting, new])
        self._source = int(turn_sources[-1]) if len(turns) else self._source
