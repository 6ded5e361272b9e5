"""The sound of an item's part, read through libsndfile from where the item's span lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.training.data.pipeline.items import Item

Samples = NDArray[np.float32]

BLOCK_FRAMES = 1 << 16
_FINE = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")  # libsndfile's names of what 16 bits do not hold
_HINT = "mtk data ingest brings any sound to what the other stages read"


class SoundFormat(NamedTuple):
    """What a sound is written as.

    Attributes:
        rate_hz, channels: of the sound.
        bits: of a sample, 16 or 24.
    """

    rate_hz: int
    channels: int
    bits: int


@dataclass(frozen=True)
class Sound:
    """A file's sound, or a stretch of it.

    Attributes:
        path: of the file.
        format: that another file keeps all of it in.
        first, frames: where the stretch begins, and how long it is.
    """

    path: Path
    format: SoundFormat
    first: int
    frames: int

    @classmethod
    def of(cls, item: Item, part: str) -> Sound:
        """The sound of an item's part.

        Raises:
            InputError: it cannot be read, or the item has no such part.
        """
        path = item.parts[part].file
        try:
            info = soundfile.info(str(path))
        except (soundfile.LibsndfileError, OSError) as error:
            raise _unreadable(path, error) from error
        rate = info.samplerate
        first, last = (0, info.frames) if item.span is None else (round(second * rate) for second in item.span)
        if not 0 <= first < last <= info.frames:
            reason = "there is no sound in it" if item.span is None else "its span is not within the sound"
            raise InputError(reason, context=str(path), code="empty-audio")
        return cls(path, SoundFormat(rate, info.channels, 24 if info.subtype in _FINE else 16), first, last - first)

    @property
    def seconds(self) -> float:
        return self.frames / self.format.rate_hz

    def blocks(self, first: int = 0, frames: int | None = None) -> Iterator[Samples]:
        """Frames [first, first + frames) of the stretch, or all to its end: float32 [n, C] each.

        Raises:
            InputError: it cannot be read, or ends too soon.
        """
        left = self.frames - first if frames is None else frames
        try:
            with soundfile.SoundFile(str(self.path)) as file:
                file.seek(self.first + first)
                while left:
                    block = file.read(min(left, BLOCK_FRAMES), dtype="float32", always_2d=True)
                    if not len(block):
                        raise InputError("the file ends before the sound does", context=str(self.path), hint=_HINT)
                    left -= len(block)
                    yield block
        except (soundfile.LibsndfileError, OSError) as error:
            raise _unreadable(self.path, error) from error

    def samples(self) -> Samples:
        """All of it, float32 [n, C]."""
        return np.concatenate(list(self.blocks()))


def sounds_of(item: Item) -> dict[str, Sound]:
    """The sounds of all parts of an item.

    Raises:
        InputError: one cannot be read, they differ in rate, channels or length, or there is none.
    """
    sounds = {part: Sound.of(item, part) for part in item.parts}
    if not sounds:
        raise InputError("the item has no sound")
    if len({(sound.format[:2], sound.frames) for sound in sounds.values()}) > 1:
        raise InputError(
            "the parts differ in rate, channels or length",
            context=", ".join(str(sound.path) for sound in sounds.values()),
        )
    return sounds


def notes_of(item: Item) -> dict[str, bytes]:
    """The MIDI files of those parts of which the notes are known.

    Raises:
        InputError: one cannot be read.
    """
    found = {}
    for name, part in item.parts.items():
        if part.notes is not None:
            try:
                found[name] = part.notes.read_bytes()
            except OSError as error:
                raise _unreadable(part.notes, error) from error
    return found


def _unreadable(path: Path, error: Exception) -> InputError:
    if not path.exists():
        return InputError("the file is not there", context=str(path), code="no-such-file")
    reason = str(getattr(error, "error_string", "") or getattr(error, "strerror", "") or error).rstrip(".")
    return InputError(
        f"unreadable: {reason[:1].lower()}{reason[1:]}", context=str(path), hint=_HINT, code="unreadable-file"
    )
