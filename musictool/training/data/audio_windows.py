"""Windows of sound out of folders of sound files, drawn at random or spread evenly.

Files are opened once for their length, in frames; after that, sound is read from where a window lies. Knows nothing of
models; what is drawn comes from the generator that is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from musictool.audio.checks import AUDIO_SUFFIXES
from musictool.errors import InputError

Samples = NDArray[np.float32]

_RESAMPLER_MARGIN_SECONDS = 0.05  # read on both sides, so that a window sounds as it does within the whole
_NAMED = 3
_HINT = "name folders of sound files, sound files, or lists of them, one path a line"


class SoundFile(NamedTuple):
    """A file that windows are read from.

    Attributes:
        path: where it is.
        frames: its length at its own rate.
        rate_hz: that rate.
    """

    path: Path
    frames: int
    rate_hz: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate_hz


@dataclass(frozen=True, eq=False)
class SoundCollection:
    """Files with sound in them, by rising path.

    Attributes:
        files: all of them, none empty.
    """

    files: Sequence[SoundFile]

    @property
    def seconds(self) -> float:
        """How much sound there is."""
        return float(self._ends[-1])

    @cached_property
    def _ends(self) -> NDArray[np.float64]:
        """Where each file would end if they were played in a row, in seconds."""
        return np.array(list(accumulate(file.seconds for file in self.files)))

    def drawn(self, count: int, rate_hz: int, channels: int, generator: np.random.Generator) -> Samples:
        """A window at random: each second of sound is as likely as any other.

        Args:
            count: samples of the window; a shorter file has silence after it.
            rate_hz, channels: what the window is to have.
            generator: draws the file, then the place in it.

        Returns:
            float32 [channels, count].

        Raises:
            InputError: the file cannot be read.
        """
        file = self.files[int(np.searchsorted(self._ends[:-1], generator.uniform(0, self.seconds), side="right"))]
        latest = max(0.0, file.seconds - count / rate_hz)
        return read_window(file, generator.uniform(0.0, latest), count, rate_hz, channels)

    def spread(self, number: int, of: int, count: int, rate_hz: int, channels: int) -> Samples:
        """The `number`-th of windows that are spread evenly over all of the sound, float32 [channels, count]."""
        place = (number + 0.5) / of * self.seconds
        row = int(np.searchsorted(self._ends[:-1], place, side="right"))
        file = self.files[row]
        start = place - (self._ends[row] - file.seconds)
        latest = max(0.0, file.seconds - count / rate_hz)
        return read_window(file, min(start, latest), count, rate_hz, channels)


def read_window(file: SoundFile, start_seconds: float, count: int, rate_hz: int, channels: int) -> Samples:
    """Read a window of a file.

    Args:
        file: what to read.
        start_seconds: moved to the nearest of the file's own samples.
        count: samples of the window; there is silence where it reaches past the end.
        rate_hz: sound of another rate is resampled.
        channels: one is the mean of all; two of a file with one are alike, and of a file with more they are its first.

    Returns:
        float32 [channels, count].

    Raises:
        InputError: the file cannot be read.
    """
    first = round(start_seconds * file.rate_hz)
    margin = 0 if file.rate_hz == rate_hz else min(first, round(_RESAMPLER_MARGIN_SECONDS * file.rate_hz))
    wanted = margin + -(-count * file.rate_hz // rate_hz) + round(_RESAMPLER_MARGIN_SECONDS * file.rate_hz)
    try:
        with soundfile.SoundFile(str(file.path)) as sound:
            sound.seek(first - margin)
            block = sound.read(wanted if file.rate_hz != rate_hz else count, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError("cannot read this sound", context=str(file.path), hint="leave it out of data.train") from error
    block = _with_channels(block, channels)
    if file.rate_hz != rate_hz:
        block = soxr.resample(block, file.rate_hz, rate_hz)[round(margin * rate_hz / file.rate_hz) :]
    window = np.zeros((channels, count), np.float32)
    window[:, : len(block)] = block[:count].T
    return window


def open_sounds(paths: Sequence[Path]) -> SoundCollection:
    """Find sound files and look how long they are.

    Args:
        paths: folders, walked to their bottom; sound files; and lists of sound files, one path a line, relative to the
            list's own folder, with or without the suffix.

    Raises:
        InputError: a path is not there or holds no sound, or files cannot be read; they are named in one line.
    """
    files, broken = [], []
    for path in chain.from_iterable(map(_found, paths)):
        try:
            info = soundfile.info(str(path))
        except (soundfile.LibsndfileError, OSError):
            broken.append(str(path))
        else:
            if info.frames > 0:
                files.append(SoundFile(path, info.frames, info.samplerate))
    if broken:
        others = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise InputError(
            f"cannot read {', '.join(broken[:_NAMED])}{others}",
            hint="remove them, or convert them to WAV or FLAC",
            code="unreadable-audio",
        )
    if not files:
        raise InputError("no sound to learn from", context=", ".join(map(str, paths)), hint=_HINT, code="empty-audio")
    return SoundCollection(files)


def _found(path: Path) -> Iterator[Path]:
    """The sound files that a path means."""
    if path.is_dir():
        yield from _in_folder(path)
    elif path.suffix.lower() in AUDIO_SUFFIXES:
        yield path
    else:
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a folder, a sound file or a list"
            raise InputError(f"cannot open the collection: {reason.lower()}", context=str(path), hint=_HINT) from error
        for line in map(str.strip, lines):
            if line and not line.startswith("#"):
                yield _listed(path.parent / line)


def _listed(path: Path) -> Path:
    """The sound file of a list's line, which may leave the suffix away, as those of `mtk data split` do."""
    found = (path.with_name(path.name + suffix) for suffix in ("", *AUDIO_SUFFIXES))
    return next((candidate for candidate in found if candidate.is_file()), path)


def _in_folder(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield Path(root) / name


def _with_channels(block: Samples, channels: int) -> Samples:
    """[n, C] to [n, channels]."""
    if channels == 1 < block.shape[1]:
        return block.mean(axis=1, keepdims=True, dtype=np.float32)
    return block[:, [min(number, block.shape[1] - 1) for number in range(channels)]]
