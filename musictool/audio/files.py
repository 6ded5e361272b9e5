"""Writing sound files, block by block, through libsndfile.

Knows containers and sample formats; not what the sound is.
"""

from __future__ import annotations

import os
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
    descriptor = _own_descriptor(sink)
    if descriptor is None:
        with tempfile.TemporaryFile() as spool:
            write_audio(cast(BinaryIO, spool), blocks, rate_hz, container=container, bits=bits)
            spool.seek(0)
            shutil.copyfileobj(spool, sink)
        return
    # libsndfile writes to the descriptor itself: calls back into Python would swallow errors, and a Ctrl-C.
    kind = {"format": CONTAINERS[container], "subtype": sample_format(container, bits)}
    try:
        with soundfile.SoundFile(descriptor, "w", rate_hz, 2, closefd=False, **kind) as file:
            for block in blocks:
                file.write(block)
    except (soundfile.LibsndfileError, AssertionError) as error:
        raise _system_error(descriptor, error) from error
    os.lseek(descriptor, 0, os.SEEK_END)


def _own_descriptor(sink: BinaryIO) -> int | None:
    """The descriptor of a file that can seek; None for a pipe, or for what is no file of the system's."""
    try:
        return sink.fileno() if sink.seekable() else None
    except (OSError, ValueError):
        return None


def _system_error(descriptor: int, error: Exception) -> Exception:
    """What kept libsndfile from writing: it keeps that to itself, so one more byte is tried."""
    try:
        os.write(descriptor, b"\0" * 65_536)
    except OSError as cause:
        return cause
    return error
