"""What notes are like, figured as they pass, and what is wrong with that.

Facts are computed once, in bounded memory: a `NoteTally` takes note tables in any order and number, and any cut of the
same notes into tables gives the same facts. `judge` holds facts against `Rules` and is pure. The defaults condemn what
is certainly wrong and warn of what often is; stricter rules for training are in `examples/rules/training.toml`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musictool.findings import Finding, Limit, Measure, Severity, judge_measures
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.schemes.columns import DRUM_SOURCE, GridNotes, sources_of

if TYPE_CHECKING:
    from musictool.symbolic.midi import MidiFacts

DRUMS = "drums"
FAMILIES = (
    "piano",
    "chromatic percussion",
    "organ",
    "guitar",
    "bass",
    "strings",
    "ensemble",
    "brass",
    "reed",
    "pipe",
    "synth lead",
    "synth pad",
    "synth effects",
    "ethnic",
    "percussive",
    "sound effects",
)
"""The families of General MIDI, eight programs each from program 0 on."""

SILENCE_SECONDS = 1.0
CONTENT_STEPS_PER_SECOND = 100


@dataclass(frozen=True)
class InstrumentRules:
    """Who may play.

    Attributes:
        allowed: programs 0..127, General MIDI families by name ("piano", "strings"), and "drums"; empty is anyone.
        severity: what anyone else is.
    """

    allowed: tuple[int | str, ...] = ()
    severity: Severity = "error"

    def __post_init__(self) -> None:
        for entry in self.allowed:
            if not (entry in FAMILIES or entry == DRUMS or (isinstance(entry, int) and 0 <= entry <= 127)):
                raise ValueError(f"{entry!r} is no program (0..127), no family ({', '.join(FAMILIES)}) and not 'drums'")

    def programs(self) -> frozenset[int]:
        """The programs that may play."""
        numbers = {entry for entry in self.allowed if isinstance(entry, int)}
        families = [FAMILIES.index(entry) for entry in self.allowed if entry in FAMILIES]
        return frozenset(numbers.union(*(range(8 * family, 8 * family + 8) for family in families)))


@dataclass(frozen=True)
class Rules:
    """What notes have to be like.

    Attributes:
        duration: seconds by the tempo map, to the last release of a key or pedal.
        notes: how many.
        pitches: how many different ones, drums left out.
        lowest_pitch, highest_pitch: MIDI note numbers, drums left out.
        instruments: who may play.
        hanging: notes that nothing ends.
        overlapping: notes struck while the same key of the same player is still down.
        zero_length: notes that end when they begin.
        orphan_offs: releases of keys that are not down.
        longest_note: seconds; a note that long is most often one that hangs.
        silence: seconds of the longest stretch inside the piece, of a second at least, in which no key is down.
        leading_silence: seconds before the first note.
        repairs: kinds of damage that reading had to repair.
    """

    duration: Limit = Limit(min=0.01)
    notes: Limit = Limit(min=1)
    pitches: Limit = Limit()
    lowest_pitch: Limit = Limit()
    highest_pitch: Limit = Limit()
    instruments: InstrumentRules = field(default_factory=InstrumentRules)
    hanging: Limit = Limit(max=0)
    overlapping: Limit = Limit(max=0, severity="warning")
    zero_length: Limit = Limit(max=0, severity="warning")
    orphan_offs: Limit = Limit(max=0, severity="warning")
    longest_note: Limit = Limit(max=60, severity="warning")
    silence: Limit = Limit(max=30, severity="warning")
    leading_silence: Limit = Limit(max=30, severity="warning")
    repairs: Limit = Limit(max=0, severity="warning")


_COUNT = Measure("notes", "notes", "notes")
_MEASURES = (
    Measure("duration", "duration_seconds", "duration", " s"),
    _COUNT,
    Measure("pitches", "pitches", "different pitches"),
    Measure("lowest_pitch", "lowest_pitch", "lowest pitch"),
    Measure("highest_pitch", "highest_pitch", "highest pitch"),
    Measure("hanging", "hanging", "hanging notes"),
    Measure("overlapping", "overlapping", "overlapping notes"),
    Measure("zero_length", "zero_length", "notes without length"),
    Measure("orphan_offs", "orphan_offs", "releases without a note"),
    Measure("longest_note", "longest_note_seconds", "longest note", " s"),
    Measure("silence", "silence_seconds", "longest silence", " s"),
    Measure("leading_silence", "leading_silence_seconds", "leading silence", " s"),
)


@dataclass(frozen=True, slots=True)
class NoteFacts:
    """What a piece is like; None is what its form cannot tell.

    Attributes:
        notes: how many.
        duration_seconds: to the last release of a key or pedal.
        leading_silence_seconds: before the first note.
        silence_seconds: the longest stretch without a note after it, 0 if none lasts `SILENCE_SECONDS`.
        longest_note_seconds: of any note.
        pitches, lowest_pitch, highest_pitch: drums left out; None where nothing else plays.
        programs: of all notes but drums, rising.
        has_drums: whether any note is a drum's.
        overlapping, hanging, zero_length, orphan_offs: counts, as in `Rules`.
        repairs: what reading repaired, a line a kind.
    """

    notes: int
    duration_seconds: float
    leading_silence_seconds: float
    silence_seconds: float
    longest_note_seconds: float
    pitches: int | None
    lowest_pitch: int | None
    highest_pitch: int | None
    programs: tuple[int, ...]
    has_drums: bool
    overlapping: int | None = None
    hanging: int | None = None
    zero_length: int | None = None
    orphan_offs: int | None = None
    repairs: tuple[str, ...] = ()


class NoteTally:
    """Running figures of notes that come in any order."""

    def __init__(self) -> None:
        self.notes = 0
        self.voiced = 0  # notes whose `track` is not 0: in what a decoder gives, those that overlap another
        self._end_seconds = 0.0
        self._longest_seconds = 0.0
        self._has_pitch = np.zeros(128, np.bool_)
        self._has_source = np.zeros(2 * DRUM_SOURCE, np.bool_)
        self._coverage = _Coverage()

    def add(self, notes: Notes) -> None:
        """Take in a table."""
        if not len(notes):
            return
        self.notes += len(notes)
        self.voiced += int(np.count_nonzero(notes.track))
        self._end_seconds = max(self._end_seconds, notes.end_seconds)
        self._longest_seconds = max(self._longest_seconds, float((notes.offset_seconds - notes.onset_seconds).max()))
        self._has_pitch[notes.pitch[~notes.is_drum]] = True
        self._has_source[sources_of(notes)] = True
        self._coverage.add(notes.onset_seconds, notes.offset_seconds)

    def facts(self, pedal_end_seconds: float = 0.0) -> NoteFacts:
        """The figures as of now."""
        first_seconds, silence_seconds = self._coverage.gaps()
        pitches = np.flatnonzero(self._has_pitch)
        return NoteFacts(
            self.notes,
            max(self._end_seconds, pedal_end_seconds),
            first_seconds,
            silence_seconds,
            self._longest_seconds,
            len(pitches) or None,
            int(pitches[0]) if len(pitches) else None,
            int(pitches[-1]) if len(pitches) else None,
            tuple(np.flatnonzero(self._has_source[:DRUM_SOURCE]).tolist()),
            bool(self._has_source[DRUM_SOURCE:].any()),
        )


class _Coverage:
    """The time in which notes sound, as stretches apart by silences.

    Memory is bounded: silences under `SILENCE_SECONDS` are not kept, and of more than `STRETCHES_MAX` stretches only
    those that ever longer silences part.
    """

    STRETCHES_MAX = 1 << 20
    BATCH = 1 << 16

    def __init__(self) -> None:
        self._starts = self._ends = np.zeros(0)
        self._waiting: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._waiting_count = 0
        self._least_seconds = SILENCE_SECONDS

    def add(self, onset_seconds: NDArray[np.float64], offset_seconds: NDArray[np.float64]) -> None:
        self._waiting.append((onset_seconds, offset_seconds))
        self._waiting_count += len(onset_seconds)
        if self._waiting_count >= max(self.BATCH, len(self._starts)):
            self._merge()

    def gaps(self) -> tuple[float, float]:
        """Seconds before the first stretch, and the longest silence between two."""
        self._merge()
        if not len(self._starts):
            return 0.0, 0.0
        return float(self._starts[0]), float((self._starts[1:] - self._ends[:-1]).max(initial=0.0))

    def _merge(self) -> None:
        if not self._waiting:
            return
        onsets, offsets = zip(*self._waiting, strict=True)
        self._waiting, self._waiting_count = [], 0
        starts, ends = np.concatenate([self._starts, *onsets]), np.concatenate([self._ends, *offsets])
        order = np.argsort(starts, kind="stable")
        self._starts, self._ends = starts[order], np.maximum.accumulate(ends[order])
        self._join()
        while len(self._starts) > self.STRETCHES_MAX:
            self._least_seconds *= 2
            self._join()

    def _join(self) -> None:
        """Make one of stretches that no silence worth keeping parts."""
        is_apart = self._starts[1:] - self._ends[:-1] >= self._least_seconds
        self._starts = self._starts[np.append(True, is_apart)]
        self._ends = self._ends[np.append(is_apart, True)]


def score_facts(score: Score, midi: MidiFacts | None = None) -> NoteFacts:
    """The facts of a score.

    Args:
        score: the piece.
        midi: what its file was found to be like; without it, what only a file can tell stays None.
    """
    tally = NoteTally()
    tally.add(score.notes)
    facts = tally.facts(score.duration_seconds)
    if midi is None:
        return facts
    return replace(
        facts,
        overlapping=midi.overlapping,
        hanging=midi.hanging,
        zero_length=midi.zero_length,
        orphan_offs=midi.orphan_offs,
        repairs=tuple(midi.problems),
    )


def judge(facts: NoteFacts, rules: Rules) -> list[Finding]:
    """What is wrong with a piece, in the order of `Rules`; of a piece without notes little more than that."""
    findings = list(judge_measures(_MEASURES if facts.notes else (_COUNT,), rules, facts))
    if rules.instruments.allowed:
        strangers = [program for program in facts.programs if program not in rules.instruments.programs()]
        names = [f"program {program} ({FAMILIES[program // 8]})" for program in strangers]
        if facts.has_drums and DRUMS not in rules.instruments.allowed:
            names.append(DRUMS)
        if names:
            message = f"instruments that are not wanted: {', '.join(names)}"
            findings.append(Finding("instruments", rules.instruments.severity, message, names))
    for _ in rules.repairs.judge("repairs", "repairs", len(facts.repairs)):
        findings += [Finding("repairs", rules.repairs.severity, line, line) for line in facts.repairs]
    return findings


def content_digest(notes: Notes) -> str:
    """What two files of the same music have in common: sha256 of the notes on a grid of 10 ms from the first onset on.

    Track order, names, tempo map and note order do not count. A table without notes has no digest: ''.
    """
    if not len(notes):
        return ""
    first = notes.onset_seconds.min()
    moved = notes.with_columns(onset_seconds=notes.onset_seconds - first, offset_seconds=notes.offset_seconds - first)
    grid = GridNotes.of(moved, CONTENT_STEPS_PER_SECOND)
    columns = np.stack([grid.on, grid.off, grid.key() << 7 | grid.velocity])
    ordered = columns[:, np.lexsort(columns[::-1])]
    return hashlib.sha256(np.ascontiguousarray(ordered, "<i8").data).hexdigest()
