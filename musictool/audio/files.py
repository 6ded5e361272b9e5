"""Writing sound files, block by block, through libsndfile.

Knows containers and sample formats; not what the sound is.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from musictool.errors import UsageError

CONTAINERS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG"}
SAMPLE_FORMATS = {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}


def sample_format(container: str, bits: int) -> str:
    """libsndfile's name for the samples of a file.

    Args:
        container: `wav`, `flac` or `ogg`.
        bits: 16, 24 or 32 (floating point); an OGG file is Vorbis whatever they are.

    Raises:
        UsageError: the container has no such samples.
    """
    if container == "ogg":
        return "VORBIS"
    name = SAMPLE_FORMATS.get(bits, "")
    if not soundfile.check_format(CONTAINERS[container], name):
        raise UsageError(f"{container} has no samples of {bits} bits", hint="choose 16 or 24, or 32 for wav")
    return name


def write_audio(
    sink: BinaryIO, blocks: Iterable[NDArray[np.float32]], rate_hz: int, *, container: str = "wav", bits: int = 16
) -> None:
    """Write sound as it comes, in bounded memory.

    Args:
        sink: a binary file; one that cannot seek, such as a pipe, gets the file when it is whole.
        blocks: float32 [frames, channels] each, two channels, within -1..1.
        rate_hz: of the sound.
        container: `wav`, `flac` or `ogg`.
        bits: a sample's.

    Raises:
        OSError: the sink cannot take it.
        UsageError: the container has no such samples.
    """
    if not sink.seekable():
        with tempfile.TemporaryFile() as spool:
            write_audio(cast(BinaryIO, spool), blocks, rate_hz, container=container, bits=bits)
            spool.seek(0)
            shutil.copyfileobj(spool, sink)
        return
    guard = _Guard(sink)
    kind = {"format": CONTAINERS[container], "subtype": sample_format(container, bits)}
    try:
        with soundfile.SoundFile(guard, "w", rate_hz, 2, **kind) as file:
            for block in blocks:
                file.write(block)
                guard.check()
    except (soundfile.LibsndfileError, AssertionError):
        guard.check()  # the sink's own error says more
        raise
    guard.check()


class _Guard:
    """A file whose errors wait until libsndfile, which can't pass them on, has returned."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self._error = error
            return 0

    def read(self, size: int = -1) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            self._error = error
            return 0

    def tell(self) -> int:
        return self._file.tell()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._error is not None:
            raise self._error
