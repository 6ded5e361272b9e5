"""Where a stage writes: files in a folder of scratch, which take their names when the item's work is done.

A sound is FLAC. An item's only part lies at its name; of several, each has a folder: `lead/name.flac` and
`backing/name.flac` go together. Knows nothing of what is done already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from musictool.checkpoints.files import sha256_of
from musictool.errors import InputError
from musictool.training.data.pipeline.items import Part
from musictool.training.data.pipeline.sounds import Samples, SoundFormat

SOUND_SUFFIX, NOTES_SUFFIX, CODES_SUFFIX = ".flac", ".mid", ".mtk"
UNWRITABLE = "unwritable"  # the code of errors that no other item will be spared


class Sinks:
    """Files that are being written, one for each part of an item.

    Attributes:
        parts: what they are, when they are whole.
    """

    def __init__(self, paths: Mapping[str, Path], sound: SoundFormat) -> None:
        self.parts: dict[str, Part] = {}
        self._paths = paths
        self._files = {}
        for part, path in paths.items():
            with _reported(path):
                self._files[part] = soundfile.SoundFile(
                    str(path), "w", sound.rate_hz, sound.channels, subtype=f"PCM_{sound.bits}", format="FLAC"
                )

    def write(self, part: str, block: Samples) -> None:
        """Add a block, float32 [n, C], to a part; what lies outside of -1..1 is clipped."""
        with _reported(self._paths[part]):
            self._files[part].write(np.clip(block, -1, 1))

    def finish(self) -> None:
        """End the files, which are whole now."""
        for part, path in self._paths.items():
            with _reported(path):
                self._files[part].close()
                self.parts[part] = Part(path, _synced(path))

    def close(self) -> None:
        """Let go of the files, whole or not."""
        for file in self._files.values():
            file.close()


@dataclass(frozen=True)
class Outlet:
    """A folder of scratch, for one item of a stage's input.

    Attributes:
        folder: where files lie as they will in the stage's folder.
    """

    folder: Path

    @contextmanager
    def sounds(self, name: str, parts: Sequence[str], sound: SoundFormat) -> Iterator[Sinks]:
        """Write an item's sounds; its parts are known when the block has ended.

        Args:
            name: the item's.
            parts: names of the parts.
            sound: what they are written as.

        Raises:
            InputError: they cannot be written.
        """
        sinks = Sinks({part: self._path(name, part, parts, SOUND_SUFFIX) for part in parts}, sound)
        try:
            yield sinks
            sinks.finish()
        finally:
            sinks.close()

    @contextmanager
    def file(self, name: str, part: str, parts: Sequence[str], suffix: str) -> Iterator[BinaryIO]:
        """Write a part's file as bytes; `part` makes a part of it when the block has ended.

        Args:
            name: the item's.
            part: which it is.
            parts: names of all parts.
            suffix: of the file, with the dot.
        """
        path = self._path(name, part, parts, suffix)
        with _reported(path), open(path, "wb") as file:
            yield file

    def part(self, name: str, part: str, parts: Sequence[str], suffix: str) -> Part:
        """The part whose file has been written."""
        path = self._path(name, part, parts, suffix)
        with _reported(path):
            return Part(path, _synced(path))

    def with_notes(self, name: str, parts: Mapping[str, Part], notes: Mapping[str, bytes]) -> dict[str, Part]:
        """Write the notes of those parts of which they are known.

        Args:
            name: the item's.
            parts: all of its parts.
            notes: MIDI files by part.
        """
        found = dict(parts)
        for part, content in notes.items():
            path = self._path(name, part, list(parts), NOTES_SUFFIX)
            with _reported(path):
                path.write_bytes(content)
                found[part] = replace(parts[part], notes=path, notes_sha256=_synced(path))
        return found

    def _path(self, name: str, part: str, parts: Sequence[str], suffix: str) -> Path:
        path = self.folder / (f"{part}/{name}{suffix}" if len(parts) > 1 else f"{name}{suffix}")
        with _reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Put what keeps a file from being written in a user's words."""
    try:
        yield
    except (soundfile.LibsndfileError, AssertionError, OSError) as error:
        cause = error if isinstance(error, OSError) else _system_error(path, error)
        reason = str(getattr(cause, "strerror", None) or cause)
        raise InputError(
            f"cannot write: {reason[:1].lower()}{reason[1:200]}",
            context=path.name,
            hint="look for space and permissions there, or write elsewhere with -o",
            code=UNWRITABLE,
        ) from error


def _system_error(path: Path, error: Exception) -> Exception:
    """What kept libsndfile from writing: it keeps that to itself, so some more bytes are tried."""
    try:
        with open(path, "ab") as file:
            file.write(b"\0" * 65_536)
    except OSError as cause:
        return cause
    return error


def _synced(path: Path) -> str:
    """Wait until a file is on the disk; its digest."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return sha256_of(path)
