"""Two sounds side by side, and the reference that belongs to an item: what an evaluation of sound reads.

The result is brought to the reference's rate, never the other way round. Where one of them is longer by no more than a
tolerance, what it has too much is left out: codecs and containers add a little. Nothing is shifted: a result that comes
late is a worse one. Knows nothing of what is measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from musictool.audio.checks import AUDIO_SUFFIXES
from musictool.audio.reading import AudioReader, open_audio
from musictool.audio.resampling import Resampler, remixed
from musictool.errors import InputError, UsageError

LENGTH_TOLERANCE_SECONDS = 0.1
_BLOCK_SECONDS = 1.0


class SoundPair:
    """A reference and a result, read once and together, in a `with` statement.

    Args:
        reference, result: the files.
        is_mixed: compare the mean of all channels.
        tolerance_seconds: by how much their lengths may differ.
        result_context: what to call the result in errors; its path by default.

    Attributes:
        rate_hz, channels: of what is compared.
        samples: of each channel that have been given.
        surplus_seconds: by how much the result is longer than the reference, below 0 if it is shorter; known when all
            has been given.
        truncated: which of the files broke off before their sound ended; likewise.

    Raises:
        InputError: one of them cannot be read, or they differ in their channels.
    """

    def __init__(
        self,
        reference: Path,
        result: Path,
        *,
        is_mixed: bool = False,
        tolerance_seconds: float = LENGTH_TOLERANCE_SECONDS,
        result_context: str = "",
    ) -> None:
        self.samples = 0
        self.surplus_seconds = 0.0
        self.truncated: tuple[Path, ...] = ()
        self._paths = reference, result
        self._result_context = result_context or str(result)
        self._tolerance_seconds = tolerance_seconds
        with ExitStack() as stack:
            readers = [
                stack.enter_context(open_audio(path, context))
                for path, context in ((reference, str(reference)), (result, self._result_context))
            ]
            self.rate_hz = readers[0].rate_hz
            counts = [1 if is_mixed else reader.channels for reader in readers]
            if counts[0] != counts[1]:
                message = f"{_channels(counts[1])} where the reference has {_channels(counts[0])}"
                hint = "compare the mean of all channels with --mono"
                raise InputError(message, context=self._result_context, hint=hint, code="other-channels")
            self.channels = counts[0]
            self._readers = readers
            self._feeds = [_Feed(reader, self.rate_hz, self.channels) for reader in readers]
            self._stack = stack.pop_all()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Both sounds, as far as the shorter one goes.

        Yields:
            float32 [2, C, n]: the reference and the result.

        Raises:
            InputError: one of them cannot be read to its end or holds what is no sound, or one is longer than the
                other by more than is tolerated.
        """
        size = max(1, round(_BLOCK_SECONDS * self.rate_hz))
        while True:
            both = [feed.take(size) for feed in self._feeds]
            length = min(map(len, both))
            if length:
                self.samples += length
                yield np.stack([block[:length].T for block in both])
            if length < size:
                break
        lengths = [self.samples + len(block) - length + feed.rest() for block, feed in zip(both, self._feeds)]
        self.truncated = tuple(path for path, reader in zip(self._paths, self._readers) if reader.is_truncated)
        self.surplus_seconds = (lengths[1] - lengths[0]) / self.rate_hz
        if abs(self.surplus_seconds) > self._tolerance_seconds:
            kind = "longer" if self.surplus_seconds > 0 else "shorter"
            message = f"{abs(self.surplus_seconds):.3f} s {kind} than the reference"
            hint = f"{self._tolerance_seconds:g} s are tolerated: --length-tolerance SECONDS"
            raise InputError(message, context=self._result_context, hint=hint, code="other-length")

    def __enter__(self) -> SoundPair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


class _Feed:
    """Sound at a given rate in blocks of any size."""

    def __init__(self, reader: AudioReader, rate_hz: int, channels: int) -> None:
        self._blocks = _converted(reader, rate_hz, channels)
        self._held = np.zeros((0, channels), np.float32)

    def take(self, frames: int) -> NDArray[np.float32]:
        """The next float32 [frames, C], fewer only at the end."""
        held = [self._held]
        count = len(self._held)
        while count < frames and (block := next(self._blocks, None)) is not None:
            held.append(block)
            count += len(block)
        joined = np.concatenate(held)
        self._held = joined[frames:]
        return joined[:frames]

    def rest(self) -> int:
        """Read on to the end; how many frames there were."""
        count = len(self._held) + sum(len(block) for block in self._blocks)
        self._held = self._held[:0]
        return count


def _converted(reader: AudioReader, rate_hz: int, channels: int) -> Iterator[NDArray[np.float32]]:
    """Sound at another rate, float32 [n, C] each."""
    resampler = Resampler(reader.rate_hz, rate_hz, channels)
    for block in reader.blocks():
        yield resampler.push(remixed(block, channels))
    yield resampler.finish()


def _channels(count: int) -> str:
    return f"{count} channel{'s' if count > 1 else ''}"


class SoundReferences:
    """Where the reference of an item is.

    Args:
        path: a folder, in which the reference of item `a/b` is `a/b` with the suffix of a sound file, or else `b` with
            one; or a file, which is the reference of the one item there is.

    Raises:
        InputError: there is no such file or folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listings: dict[Path, dict[str, Path]] = {}
        self._is_taken = False
        try:
            path.stat()
        except OSError as error:
            raise InputError((error.strerror or "cannot be read").lower(), context=str(path)) from error

    def find(self, *names: str) -> Path:
        """The reference of an item.

        Args:
            names: what the item is called, the best name first.

        Raises:
            InputError: it has none.
            UsageError: a second item asks for the one reference.
        """
        if self._path.is_dir():
            return self._in_folder(names)
        if self._is_taken:
            raise UsageError(
                "more than one item for one reference",
                context=str(self._path),
                hint="name a folder in which each item's reference has the item's name",
            )
        self._is_taken = True
        return self._path

    def _in_folder(self, names: Sequence[str]) -> Path:
        for name in names:
            *folders, stem = name.split("/")
            inner = self._path.joinpath(*folders) if {"", ".", ".."}.isdisjoint(folders) else self._path
            for folder in (inner, self._path):
                if (path := self._listing(folder).get(stem)) is not None:
                    return path
        hint = f"{stem}.wav, .flac, .ogg, .mp3 and so on is looked for in {self._path}"
        raise InputError("there is no reference", hint=hint, code="no-reference")

    def _listing(self, folder: Path) -> dict[str, Path]:
        """A folder's sound files by stem; of several with one stem the first in the order of the suffixes counts."""
        if folder not in self._listings:
            found: dict[str, tuple[int, str]] = {}
            for name in os.listdir(folder) if folder.is_dir() else ():
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in AUDIO_SUFFIXES:
                    rank = AUDIO_SUFFIXES.index(suffix.lower()), name
                    found[stem] = min(found.get(stem, rank), rank)
            self._listings[folder] = {stem: folder / name for stem, (_, name) in found.items()}
        return self._listings[folder]
