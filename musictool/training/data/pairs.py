"""Pairs of sound and notes on disk, and stretches of them.

A pair is a sound file and, with the same stem beside it, its notes: MIDI, or a table of notes. A collection is a folder
of pairs, or a text file that lists stems, one a line, relative to the list's own folder. Sound is read from where it is
asked for; notes are parsed once and kept. Knows nothing of models, features or targets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from musictool.audio.checks import AUDIO_SUFFIXES
from musictool.errors import InputError
from musictool.metrics.note_files import MIDI_SUFFIXES, read_score
from musictool.symbolic.note_tables import TABLE_SUFFIXES
from musictool.symbolic.notes import Score
from musictool.symbolic.synthesis import sounding_until

NOTE_SUFFIXES = (*MIDI_SUFFIXES, *TABLE_SUFFIXES)  # the first that is there counts: MIDI has pedals and programs
RESAMPLER_MARGIN_SECONDS = 0.05  # read on both sides, so that a stretch sounds as it does within the whole
_HINT = "a pair is a sound file and its notes, .mid or .tsv, with one stem: mtk data synth makes some"


@dataclass(frozen=True, slots=True)
class Pair:
    """A sound file and its notes.

    Attributes:
        stem: the path of both without suffix, relative to the collection's folder.
        audio: the sound.
        notes: MIDI, or a table of notes.
        duration_seconds: of the sound.
    """

    stem: str
    audio: Path
    notes: Path
    duration_seconds: float


@dataclass(frozen=True, eq=False, slots=True)
class PairNotes:
    """Notes of a pair or of a stretch of it, n rows by rising onset, and p presses of the sustain pedal.

    Times are seconds from the start of the pair or the stretch; a note that began before has a negative onset, and one
    that goes on lies partly behind the end.

    Attributes:
        onset_seconds: float32 [n].
        offset_seconds: float32 [n], when the key is let go.
        silent_seconds: float32 [n], when the note is damped: its offset, or the end of the pedal press that holds it.
        pitch: uint8 [n].
        velocity: uint8 [n].
        program: uint8 [n].
        is_drum: bool [n].
        pedal_onset_seconds: float32 [p].
        pedal_offset_seconds: float32 [p].
    """

    onset_seconds: NDArray[np.float32]
    offset_seconds: NDArray[np.float32]
    silent_seconds: NDArray[np.float32]
    pitch: NDArray[np.uint8]
    velocity: NDArray[np.uint8]
    program: NDArray[np.uint8]
    is_drum: NDArray[np.bool_]
    pedal_onset_seconds: NDArray[np.float32]
    pedal_offset_seconds: NDArray[np.float32]

    @classmethod
    def of(cls, score: Score) -> PairNotes:
        """Take a score's notes and pedals."""
        notes = score.notes.sorted()
        return cls(
            notes.onset_seconds.astype(np.float32),
            notes.offset_seconds.astype(np.float32),
            sounding_until(notes, score.pedals).astype(np.float32),
            notes.pitch.astype(np.uint8),
            notes.velocity.astype(np.uint8),
            notes.program.astype(np.uint8),
            notes.is_drum,
            score.pedals.onset_seconds.astype(np.float32),
            score.pedals.offset_seconds.astype(np.float32),
        )

    def __len__(self) -> int:
        return len(self.onset_seconds)

    def between(self, start_seconds: float, end_seconds: float) -> PairNotes:
        """The notes and presses that sound in a stretch, with times from its start."""
        rows = (self.silent_seconds > start_seconds) & (self.onset_seconds < end_seconds)
        presses = (self.pedal_offset_seconds > start_seconds) & (self.pedal_onset_seconds < end_seconds)
        start = np.float32(start_seconds)
        return PairNotes(
            self.onset_seconds[rows] - start,
            self.offset_seconds[rows] - start,
            self.silent_seconds[rows] - start,
            self.pitch[rows],
            self.velocity[rows],
            self.program[rows],
            self.is_drum[rows],
            self.pedal_onset_seconds[presses] - start,
            self.pedal_offset_seconds[presses] - start,
        )

    def stretched(self, ratio: float) -> PairNotes:
        """The same notes with every time `ratio` times as long."""
        times = [column.name for column in fields(self) if column.name.endswith("_seconds")]
        return replace(self, **{name: getattr(self, name) * np.float32(ratio) for name in times})


@dataclass(frozen=True, eq=False, slots=True)
class Excerpt:
    """A stretch of a pair.

    Attributes:
        samples: float32 [N], mono; silence where the stretch reaches past the end of the sound.
        rate_hz: of the samples.
        notes: what sounds in it, times from its start.
        stem: of the pair.
        start_seconds: where in the pair it starts, on a sample.
    """

    samples: NDArray[np.float32]
    rate_hz: int
    notes: PairNotes
    stem: str
    start_seconds: float


@dataclass(eq=False)
class Collection:
    """Pairs, by rising stem within each of the paths they were found at.

    Attributes:
        pairs: all of them.
    """

    pairs: Sequence[Pair]
    _notes: dict[int, PairNotes] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def duration_seconds(self) -> float:
        """How much sound there is."""
        return sum(pair.duration_seconds for pair in self.pairs)

    def notes(self, index: int) -> PairNotes:
        """All notes of a pair; parsed once, then kept in some 30 bytes a note.

        Raises:
            InputError: the file cannot be read.
        """
        if index not in self._notes:
            self._notes[index] = PairNotes.of(read_score(self.pairs[index].notes))
        return self._notes[index]

    def excerpt(self, index: int, start_seconds: float, duration_seconds: float, rate_hz: int) -> Excerpt:
        """Read a stretch of a pair.

        Args:
            index: of the pair.
            start_seconds: moved to the nearest sample of `rate_hz`.
            duration_seconds: of the stretch; it has round(duration * rate) samples wherever it lies.
            rate_hz: the sound is resampled to it if need be, and its channels are averaged.

        Raises:
            InputError: the sound or the notes cannot be read.
        """
        pair = self.pairs[index]
        first = round(start_seconds * rate_hz)
        count = round(duration_seconds * rate_hz)
        samples = _read_samples(pair.audio, first, count, rate_hz)
        start = first / rate_hz
        return Excerpt(samples, rate_hz, self.notes(index).between(start, start + count / rate_hz), pair.stem, start)


def open_collections(paths: Sequence[Path | str]) -> Collection:
    """Find the pairs of some collections; sound files are opened for their length, notes are not read yet.

    Args:
        paths: folders, walked to their bottom, and lists of stems. A sound without notes is no pair and is left out.

    Raises:
        InputError: a path is not there or holds no pair, or a listed pair is not whole.
    """
    return Collection([pair for path in paths for pair in _open_collection(Path(path))])


def _open_collection(path: Path) -> list[Pair]:
    try:
        pairs = _pairs_in_folder(path) if path.is_dir() else _listed_pairs(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a folder, nor a list of stems"
        raise InputError(f"cannot open the collection: {reason.lower()}", context=str(path), hint=_HINT) from error
    if not pairs:
        raise InputError("the collection holds no pair", context=str(path), hint=_HINT, code="empty-collection")
    return pairs


def _pairs_in_folder(folder: Path) -> list[Pair]:
    stems: dict[str, set[str]] = {}
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            stem, suffix = os.path.splitext(os.path.join(root, name))
            if not name.startswith("."):
                stems.setdefault(stem, set()).add(suffix)
    found = (
        (stem, _pick(suffixes, AUDIO_SUFFIXES), _pick(suffixes, NOTE_SUFFIXES)) for stem, suffixes in stems.items()
    )
    whole = sorted((stem, audio, notes) for stem, audio, notes in found if audio and notes)
    return [_pair(folder, os.path.relpath(stem, folder), audio, notes) for stem, audio, notes in whole]


def _listed_pairs(path: Path) -> list[Pair]:
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    stems = [line for line in lines if line and not line.startswith("#")]
    pairs = []
    for stem in stems:
        beside = path.parent / stem
        suffixes = {s for s in (*AUDIO_SUFFIXES, *NOTE_SUFFIXES) if os.path.isfile(f"{beside}{s}")}
        audio, notes = _pick(suffixes, AUDIO_SUFFIXES), _pick(suffixes, NOTE_SUFFIXES)
        if not audio or not notes:
            missing = "notes" if audio else "sound"
            raise InputError(f"a listed pair has no {missing}", context=f"{path}: {stem[:80]}", hint=_HINT)
        pairs.append(_pair(path.parent, stem, audio, notes))
    return pairs


def _pick(there: set[str], wanted: Sequence[str]) -> str:
    """The suffix that stands first among the wanted ones, as it is written on disk; empty where none is there."""
    by_lower = {suffix.lower(): suffix for suffix in sorted(there)}
    return next((by_lower[suffix] for suffix in wanted if suffix in by_lower), "")


def _pair(folder: Path, stem: str, audio_suffix: str, notes_suffix: str) -> Pair:
    audio = folder / (stem + audio_suffix)
    try:
        info = soundfile.info(str(audio))
    except soundfile.LibsndfileError as error:
        raise InputError("cannot read the sound of a pair", context=str(audio)) from error
    return Pair(Path(stem).as_posix(), audio, folder / (stem + notes_suffix), info.frames / info.samplerate)


def _read_samples(path: Path, first: int, count: int, rate_hz: int) -> NDArray[np.float32]:
    """Mono samples [first, first + count) of a file as if all of it were at `rate_hz`, float32 [count]."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.samplerate == rate_hz:
                return _read_frames(file, first, count)
            # A grid that both rates share: what is cut off after resampling is a whole number of samples.
            step = file.samplerate // np.gcd(file.samplerate, rate_hz)
            per_step = rate_hz // np.gcd(file.samplerate, rate_hz)
            margin = int(np.ceil(RESAMPLER_MARGIN_SECONDS * rate_hz / per_step))
            first_step, last_step = first // per_step - margin, -(-(first + count) // per_step) + margin
            sound = _read_frames(file, int(first_step * step), int((last_step - first_step) * step))
            resampled = soxr.resample(sound, file.samplerate, rate_hz)
            skip = int(first - first_step * per_step)
            return np.ascontiguousarray(resampled[skip : skip + count], np.float32)
    except soundfile.LibsndfileError as error:
        raise InputError("cannot read the sound of a pair", context=str(path)) from error


def _read_frames(file: soundfile.SoundFile, first: int, count: int) -> NDArray[np.float32]:
    """Frames of a file, channels averaged, with silence before its start and behind its end; float32 [count]."""
    samples = np.zeros(count, np.float32)
    start, stop = max(first, 0), min(first + count, file.frames)
    if start < stop:
        file.seek(start)
        block = file.read(stop - start, dtype="float32", always_2d=True)
        samples[start - first : start - first + len(block)] = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    return samples
