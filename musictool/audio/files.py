"""Writing sound block by block: files through libsndfile, and raw samples for a sound card.

Knows containers and sample formats; not what the sound is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from musictool.audio.raw import RawFormat
from musictool.errors import InputError, UsageError

CONTAINERS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}
SAMPLE_FORMATS = {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}
LOSSY_FORMATS = {"ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
VORBIS_MAX_RATE_HZ, VORBIS_MAX_CHANNELS = 200_000, 255
_FRAMES_A_WRITE = 1 << 13  # a few million at once overflow the stack of the Vorbis encoder


def sample_format(container: str, bits: int) -> str:
    """libsndfile's name for the samples of a file.

    Args:
        container: `wav`, `flac`, `ogg` or `mp3`.
        bits: 16, 24 or 32 (floating point); an OGG file is Vorbis and an MP3 file is what it is, whatever they are.

    Raises:
        UsageError: the container has no such samples, or libsndfile does not write it here.
    """
    lossy = LOSSY_FORMATS.get(container)
    if lossy is not None and not soundfile.check_format(CONTAINERS[container], lossy):
        version = soundfile.__libsndfile_version__
        raise UsageError(f"libsndfile {version} writes no {container}", hint="1.1 does, or choose wav, flac or ogg")
    name = lossy or SAMPLE_FORMATS.get(bits, "")
    if not soundfile.check_format(CONTAINERS[container], name):
        raise UsageError(f"{container} has no samples of {bits} bits", hint="choose 16 or 24, or 32 for wav")
    return name


def write_audio(
    sink: BinaryIO,
    blocks: Iterable[NDArray[np.float32]],
    rate_hz: int,
    channels: int = 2,
    *,
    container: str = "wav",
    bits: int = 16,
) -> int:
    """Write sound as it comes, in bounded memory.

    Args:
        sink: a binary file; one that cannot seek, such as a pipe, gets the file when it is whole.
        blocks: float32 [frames, channels] each; what lies outside of -1..1 is clipped, unless samples are of 32 bits.
        rate_hz, channels: of the sound.
        container: `wav`, `flac`, `ogg` or `mp3`.
        bits: a sample's.

    Returns:
        How many samples were clipped.

    Raises:
        OSError: the sink cannot take it.
        InputError: there are no such files with this rate and these channels.
        UsageError: the container has no such samples.
    """
    descriptor = _own_descriptor(sink)
    if descriptor is None:
        with tempfile.TemporaryFile() as spool:
            clipped = write_audio(cast(BinaryIO, spool), blocks, rate_hz, channels, container=container, bits=bits)
            spool.seek(0)
            shutil.copyfileobj(spool, sink)
            return clipped
    # libsndfile writes to the descriptor itself: calls back into Python would swallow errors, and a Ctrl-C.
    kind = {"format": CONTAINERS[container], "subtype": sample_format(container, bits)}
    clipped = 0
    try:
        with _opened(descriptor, rate_hz, channels, kind) as file:
            for block in blocks:
                if kind["subtype"] != "FLOAT":
                    block, count = _clipped(block)
                    clipped += count
                for start in range(0, len(block), _FRAMES_A_WRITE):
                    file.write(block[start : start + _FRAMES_A_WRITE])
    except (soundfile.LibsndfileError, AssertionError) as error:
        raise _system_error(descriptor, error) from error
    os.lseek(descriptor, 0, os.SEEK_END)
    return clipped


def write_raw(sink: BinaryIO, blocks: Iterable[NDArray[np.float32]], layout: RawFormat) -> int:
    """Write sound without a header, each block at once.

    Args:
        sink: a binary file or a pipe.
        blocks: float32 [frames, C] each; clipped where the layout has whole numbers.
        layout: how samples are laid out.

    Returns:
        How many samples were clipped.
    """
    clipped = 0
    for block in blocks:
        if layout.is_integer:
            block, count = _clipped(block)
            clipped += count
        sink.write(layout.encode(block))
        sink.flush()
    return clipped


def _clipped(block: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """A block within -1..1, and how many of its samples were not."""
    count = int(np.count_nonzero(np.abs(block) > 1))
    return (np.clip(block, -1, 1), count) if count else (block, 0)


def _opened(descriptor: int, rate_hz: int, channels: int, kind: dict[str, str]) -> Any:
    """libsndfile's file on a descriptor, which stays open."""
    many = "1 channel" if channels == 1 else f"{channels} channels"
    refusal = InputError(
        f"no {kind['format']} file has {many} at {rate_hz} Hz", hint="choose another --rate, or another format"
    )
    if kind["subtype"] == "VORBIS" and (rate_hz > VORBIS_MAX_RATE_HZ or channels > VORBIS_MAX_CHANNELS):
        raise refusal  # libsndfile does not, and dies of it
    try:
        return soundfile.SoundFile(descriptor, "w", rate_hz, channels, closefd=False, **kind)
    except soundfile.LibsndfileError as error:
        cause = _system_error(descriptor, error)
        raise (refusal if cause is error else cause) from error


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
