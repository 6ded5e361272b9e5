"""What the schemes tatum and remi keep of a score and make of ids, as slow plain loops; and scores to try them on.

Written from the words of the schemes' docstrings; shares no code with them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from musictool.symbolic.notes import Notes, Pedals, Score, TempoMap, TimeSignature, Track

StepRow = tuple[int, int, int, int, int, bool]
Row = tuple[float, float, int, int, int, bool]  # onset, offset, pitch, velocity, program, is_drum
SOURCES = [(0, False), (33, False), (127, False), (0, True), (8, True)]
METRES = [(4, 4), (3, 4), (6, 8), (7, 16), (1, 32), (33, 32), (64, 16), (65, 4), (3, 64), (5, 6), (17, 4), (2, 1)]


def random_score(seed: int) -> Score:
    """A score with much that is rare: crowds on one pitch, hour-long notes, metres that can't be said, pedals."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(0, 60))
    grain = generator.choice([0.0, 0.005, 0.05, 0.25])  # a coarse one makes notes meet, 5 ms makes halves to round

    def times(size: int, longest: float) -> np.ndarray:
        drawn = generator.uniform(0, longest, size)
        return np.round(drawn / grain) * grain if grain else drawn

    rests = np.cumsum(np.where(generator.random(count) < 0.1, generator.uniform(1, 20, count), 0.0))
    onset = times(count, generator.choice([2.0, 20.0])) + rests
    length = times(count, generator.choice([0.5, 3.0]))
    length[generator.random(count) < 0.1] = 0.0
    if generator.random() < 0.2:
        length[:1] = generator.uniform(3600, 7200)
    track = generator.integers(0, len(SOURCES), count)
    sources = np.array(SOURCES, np.int64)[track]
    crowd = generator.integers(0, 128, generator.choice([1, 3, 30]))
    velocity = generator.integers(1, 128, count)
    notes = Notes.of(
        onset, onset + length, generator.choice(crowd, count), velocity, sources[:, 0], sources[:, 1] > 0, track
    )
    copies = generator.integers(0, max(count, 1), count // 4)  # duplicates, and the same with another velocity
    twins = notes.take(copies)
    notes = Notes.concatenate([notes, twins, twins.with_columns(velocity=generator.permutation(twins.velocity))])

    places = generator.integers(0, 60 * 480, 4) / 480
    tempo_map = TempoMap.of(places[:2], generator.choice([150_000, 400_001, 500_000, 6_000_000, 16_000_000], 2))
    metres = [METRES[index] for index in generator.integers(0, len(METRES), 2)]
    pressed = times(6, 20.0)
    return Score(
        notes.sorted(),
        tuple(Track(f"track {index}", *source) for index, source in enumerate(SOURCES)),
        tempo_map if generator.random() < 0.7 else TempoMap.constant(),
        tuple(TimeSignature(float(place), *metre) for place, metre in zip(sorted(places[2:]), metres, strict=True)),
        pedals=Pedals.of(pressed, pressed + times(6, 4.0), generator.integers(0, len(SOURCES), 6)),
        has_metre=bool(generator.random() < 0.7),
    )


def rows(notes: Notes) -> list[Row]:
    """A note table as sorted rows, times to a microsecond."""
    columns = (notes.onset_seconds, notes.offset_seconds, notes.pitch, notes.velocity, notes.program, notes.is_drum)
    return _rounded(zip(*(column.tolist() for column in columns), strict=True))


def presses(pedals: Pedals) -> list[tuple[float, float, int]]:
    """A pedal table as sorted rows, times to a microsecond."""
    columns = (pedals.onset_seconds, pedals.offset_seconds, pedals.track)
    return _rounded(zip(*(column.tolist() for column in columns), strict=True))


def tatum_keeps(score: Score) -> list[Row]:
    """Every note but those that find sixteen of their source and pitch sounding."""
    kept, ends = [], defaultdict(list)
    for on, off, pitch, velocity, program, is_drum in _stepped(score, lambda seconds: seconds * 100):
        ends[pitch, program, is_drum] = sounding = [end for end in ends[pitch, program, is_drum] if end > on]
        if len(sounding) < 16:
            sounding.append(off)
            kept.append((on / 100, off / 100, pitch, velocity, program, is_drum))
    return _rounded(kept)


def tatum_keeps_pedals(score: Score) -> list[tuple[float, float, int]]:
    """Pedal presses, those of one source that touch joined."""
    pedals, by_source, kept = score.pedals, defaultdict(list), []
    for onset, offset, track in zip(
        pedals.onset_seconds.tolist(), pedals.offset_seconds.tolist(), pedals.track.tolist(), strict=True
    ):
        on = round(onset * 100)
        program, is_drum = SOURCES[track]
        by_source[program + 128 * is_drum].append((on, max(round(offset * 100), on + 1)))
    for source, spans in by_source.items():
        joined: list[tuple[int, int]] = []
        for on, off in sorted(spans):
            if joined and on <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(off, joined[-1][1])
            else:
                joined.append((on, off))
        kept += [(on / 100, off / 100, source) for on, off in joined]
    return sorted(kept)


def tatum_decode(names: list[str]) -> tuple[list[Row], list[tuple[float, float, int]]]:
    """The notes and pedal presses of tokens."""
    now, source, velocity, voice = 0, 0, 66, 0
    sounding: dict[tuple[int, int, int], tuple[int, int]] = {}
    down: dict[int, int] = {}
    notes: list[Row] = []
    pressed: list[tuple[float, float, int]] = []

    def end(key: tuple[int, int, int]) -> None:
        if key in sounding:
            on, loudness = sounding.pop(key)
            notes.append((on / 100, max(now, on + 1) / 100, key[1], loudness, key[0] & 127, key[0] > 127))

    def lift(source: int) -> None:
        on = down.pop(source, now)
        if now > on:
            pressed.append((on / 100, now / 100, source))

    for name in names:
        kind, _, text = name.partition("_")
        value = int(text or 0)
        if kind == "Time":
            now += value
        elif kind in ("Program", "Kit"):
            source = value + 128 * (kind == "Kit")
        elif kind == "Velocity":
            velocity = 4 * value + 2
        elif kind == "Pedal" and value:
            down.setdefault(source, now)
        elif kind == "Pedal":
            lift(source)
        elif kind in ("NoteOn", "NoteOff"):
            end((source, value, voice))
            if kind == "NoteOn":
                sounding[source, value, voice] = now, velocity
        voice = value if kind == "Voice" else 0
    for key in list(sounding):
        end(key)
    for source in list(down):
        lift(source)
    return _rounded(notes), sorted(pressed)


def remi_keeps(score: Score) -> list[Row]:
    """Every note at the nearest 24th of a quarter, at tempos of whole quarters a minute."""
    starts, lengths = score.tempo_map.start_quarters.tolist(), score.tempo_map.microseconds_per_quarter.tolist()
    given = _Clock(starts, lengths)
    notes = _stepped(score, lambda seconds: given.quarters(seconds) * 24)
    last = max((off for _, off, *_ in notes), default=1)
    spoken = {}  # step -> quarters a minute, the last of those that share a step
    for start, length in zip(starts, lengths, strict=True):
        if round(start * 24) < last:
            spoken[round(start * 24)] = min(max(round(60e6 / length), 10), 400)
        elif round(start * 24) in spoken:
            del spoken[round(start * 24)]
    clock = _Clock([step / 24 for step in spoken], [round(60e6 / rate) for rate in spoken.values()])
    return _rounded((clock.seconds(on / 24), clock.seconds(off / 24), *rest) for on, off, *rest in notes)


def remi_decode(names: list[str]) -> tuple[list[Row], list[tuple[float, int, int]]]:
    """The notes and time signatures of tokens."""
    tokens = [(kind, int(text or 0)) for kind, _, text in (name.partition("_") for name in names)]
    tokens += [("", 0)] * 3
    bar, position, reached, source, numerator, log2 = 0, 0, 0, 0, 4, 2
    is_begun = is_after_cut = False
    notes: list[list[int]] = []
    tempos = {0: 120}
    signatures: list[tuple[float, int, int]] = []

    def end_bar() -> None:
        signature = bar / 24, numerator, 1 << log2
        if is_begun and (is_after_cut or not signatures or signatures[-1][1:] != signature[1:]):
            signatures.append(signature)

    for index, (kind, value) in enumerate(tokens[:-3]):
        step = bar + position
        if kind == "Bar":
            end_bar()
            is_cut = index > 0 and tokens[index - 1][0] == "Position"
            length = tokens[index - 1][1] if is_cut else numerator * 96 >> log2
            bar, position = bar + (length if is_begun else 0), 0
            is_begun, is_after_cut = True, is_cut
        elif kind == "Position":
            position = value
        elif kind == "Numerator":
            numerator = value
        elif kind == "DenominatorLog2":
            log2 = value
        elif kind in ("Program", "Kit"):
            source = value + 128 * (kind == "Kit")
        elif kind == "Tempo":
            if step >= reached:
                tempos[step], reached = value, step
        elif kind == "Pitch":
            reached = max(reached, step)
            if tokens[index + 1][0] == "Velocity" and tokens[index + 2][0] == "Duration":
                after, off = index + 2, step
                while tokens[after][0] == "Duration":
                    off += tokens[after][1]
                    after += 1
                notes.append([step, off, value, 4 * tokens[index + 1][1] + 2, source & 127, source > 127])
    end_bar()
    clock = _Clock([step / 24 for step in tempos], [round(60e6 / rate) for rate in tempos.values()])
    return _rounded((clock.seconds(on / 24), clock.seconds(off / 24), *rest) for on, off, *rest in notes), signatures


class _Clock:
    """Quarters and seconds of a tempo map: the same sums in the same order, so that halves round alike."""

    def __init__(self, start_quarters: list[float], microseconds: list[int]) -> None:
        self.start_quarters, self.start_seconds, self.lengths = [0.0], [0.0], [microseconds[0] / 1e6]
        for start, length in zip(start_quarters[1:], microseconds[1:], strict=True):
            if length / 1e6 != self.lengths[-1]:
                span = (start - self.start_quarters[-1]) * round(self.lengths[-1] * 1e6) / 1e6
                self.start_quarters.append(start)
                self.start_seconds.append(self.start_seconds[-1] + span)
                self.lengths.append(length / 1e6)

    def seconds(self, quarters: float) -> float:
        step = bisect_right(self.start_quarters, quarters) - 1
        return self.start_seconds[step] + (quarters - self.start_quarters[step]) * self.lengths[step]

    def quarters(self, seconds: float) -> float:
        step = bisect_right(self.start_seconds, seconds) - 1
        return self.start_quarters[step] + (seconds - self.start_seconds[step]) / self.lengths[step]


def _stepped(score: Score, steps: Callable[[float], float]) -> list[StepRow]:
    """Notes as (on, off, pitch, velocity, program, is_drum) in whole steps, in the order they begin."""
    notes = score.notes
    table = []
    for onset, offset, pitch, velocity, program, is_drum in zip(
        *(column.tolist() for column in (notes.onset_seconds, notes.offset_seconds, notes.pitch, notes.velocity)),
        *(column.tolist() for column in (notes.program, notes.is_drum)),
        strict=True,
    ):
        on = round(steps(onset))
        table.append((on, max(round(steps(offset)), on + 1), pitch, velocity // 4 * 4 + 2, program, is_drum))
    return sorted(table)


def _rounded(notes: Iterable[Sequence[Any]]) -> list[Any]:
    return sorted((round(on, 6), round(off, 6), *rest) for on, off, *rest in notes)
