"""The published decoder of MT3 ids, token by token as its code runs, what ids keep of a score, and how it is spelt.

A port of `run_length_encoding.decode_events` and `note_sequences.decode_note_event` (Apache-2.0, Google LLC) to plain
Python. Slow on purpose: it shares nothing with `musictool.symbolic.schemes.mt3`.
"""

from __future__ import annotations

from collections import defaultdict

from musictool.symbolic.notes import Score

PITCH, VELOCITY, TIE, PROGRAM, DRUM, END = 1004, 1132, 1134, 1135, 1263, 1
Row = tuple[int, int, int, int, int, bool]  # onset and offset in steps of 10 ms, pitch, velocity, program, is_drum


def decode(ids: list[int]) -> list[Row]:
    """The notes that ids stand for, sorted."""
    segments: list[list[int]] = [[]]
    for token in ids:
        if token == END:
            segments.append([])
        else:
            segments[-1].append(token)
    state = _State()
    for number, segment in enumerate(segments if segments[-1] else segments[:-1]):
        state.read(segment, start=number * 2048 // 10, next_start=(number + 1) * 2048 // 10)
    for (program, pitch), onset in state.sounding.items():
        state.add(onset, state.now, pitch, program)
    return sorted(state.rows)


class _State:
    def __init__(self) -> None:
        self.sounding: dict[tuple[int, int], int] = {}
        self.rows: list[Row] = []
        self.now = 0
        self.program = 0
        self.is_struck = True

    def add(self, onset: int, offset: int, pitch: int, program: int, is_drum: bool = False) -> None:
        self.rows.append((onset, max(offset, onset + 1), pitch, 127, program, is_drum))

    def read(self, segment: list[int], start: int, next_start: int) -> None:
        time, shifts, is_listing, tied = start, 0, True, set()
        for token in segment:
            if 3 <= token < PITCH:
                shifts += token - 3
                time = start + shifts
                if time > next_start:
                    return
                continue
            shifts = 0
            if not PITCH <= token < DRUM + 128 or time < self.now:
                continue
            self.now = time
            if token < VELOCITY:
                key = self.program, token - PITCH
                if is_listing:
                    tied |= {key} & self.sounding.keys()
                    continue
                if key in self.sounding:
                    self.add(self.sounding.pop(key), time, key[1], key[0])
                if self.is_struck:
                    self.sounding[key] = time
            elif token < TIE:
                self.is_struck = token > VELOCITY
            elif token == TIE:
                if is_listing:
                    for key in self.sounding.keys() - tied:
                        self.add(self.sounding.pop(key), time, key[1], key[0])
                is_listing = False
            elif token < DRUM:
                self.program = token - PROGRAM
            elif self.is_struck:
                self.add(time, time + 1, token - DRUM, 0, is_drum=True)


def keeps(score: Score) -> list[Row]:
    """The notes that ids can say: one of a pitch and program at a time, drums of one step and one kit."""
    notes = score.notes
    longest: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)  # program, pitch -> onset -> offset
    for index in range(len(notes)):
        onset = round(float(notes.onset_seconds[index]) * 100)
        offset = max(round(float(notes.offset_seconds[index]) * 100), onset + 1)
        if notes.is_drum[index]:
            offset = onset + 1
        key = (-1 if notes.is_drum[index] else int(notes.program[index])), int(notes.pitch[index])
        longest[key][onset] = max(offset, longest[key].get(onset, 0))
    rows = []
    for (program, pitch), ends in longest.items():
        onsets = sorted(ends)
        for onset, following in zip(onsets, [*onsets[1:], None], strict=True):
            offset = ends[onset] if following is None else min(ends[onset], following)
            rows.append((onset, offset, pitch, 127, max(program, 0), program < 0))
    return sorted(rows)


def encode(score: Score) -> list[int]:
    """The ids of what is kept, segment by segment."""
    notes = keeps(score)
    last = max((onset if is_drum else offset for onset, offset, *_, is_drum in notes), default=0)
    ids: list[int] = []
    start, number = 0, 0
    while start <= last:
        next_start = (number + 1) * 2048 // 10
        ties, events = [], []
        for onset, offset, pitch, _, program, is_drum in notes:
            if onset < start <= offset and not is_drum:
                ties.append((program, pitch))
            if start <= onset < next_start:
                events.append((onset, 1, 128 if is_drum else program, pitch))
            if start <= offset < next_start and not is_drum:
                events.append((offset, 0, program, pitch))
        ids += _spelt(start, sorted(ties), sorted(events))
        start, number = next_start, number + 1
    return ids


def _spelt(start: int, ties: list[tuple[int, int]], events: list[tuple[int, int, int, int]]) -> list[int]:
    """One segment: what is written only when it changes is written where it first stands."""
    ids: list[int] = []
    program = struck = -1
    for tied_program, pitch in ties:
        ids += [PROGRAM + tied_program] * (tied_program != program) + [PITCH + pitch]
        program = tied_program
    ids.append(TIE)
    time = start
    for step, is_on, source, pitch in events:
        if step != time:
            ids.append(3 + step - start)
        if source not in (program, 128):
            ids.append(PROGRAM + source)
            program = source
        if is_on != struck:
            ids.append(VELOCITY + is_on)
        ids.append((DRUM if source == 128 else PITCH) + pitch)
        time, struck = step, is_on
    return [*ids, END]
