"""Sound files of every kind, and ways to hand them over: by path, as a file without a descriptor, through a pipe."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile

from musictool.audio.reading import AudioReader, open_audio
from musictool.errors import InputError

RATE = 22_050
WAYS = ("path", "bytes", "pipe")


@cache
def tone(frames: int = 3 * RATE, channels: int = 2) -> np.ndarray:
    """Sound that compresses badly and never repeats, float64 [frames, C]."""
    noise = np.random.default_rng(0).normal(0, 0.05, (frames, channels))
    sound = np.sin(np.arange(frames) ** 1.2 / 50)[:, None] / 3 + noise
    sound.flags.writeable = False
    return sound


def encoded(samples: np.ndarray, container: str, subtype: str | None = None, rate: int = RATE, **options: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype, **options)
    return file.getvalue()


@contextmanager
def given(data: bytes, way: str, folder: Path) -> Iterator[Path | BinaryIO]:
    """Bytes as something to open."""
    if way == "path":
        path = folder / "sound"
        path.write_bytes(data)
        yield path
    elif way == "bytes":
        yield io.BytesIO(data)
    else:
        with piped(lambda pipe: pipe.write(data)) as pipe:
            yield pipe


@contextmanager
def piped(write: Callable[[BinaryIO], object]) -> Iterator[BinaryIO]:
    """The end of a pipe that a thread writes into."""
    read_end, write_end = os.pipe()

    def work() -> None:
        try:
            with open(write_end, "wb", buffering=0) as pipe:
                write(pipe)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    try:
        with open(read_end, "rb") as pipe:
            yield pipe
    finally:
        thread.join()


def read(file: Path | BinaryIO, **options: int) -> tuple[np.ndarray, AudioReader]:
    """All of a sound, float32 [frames, C], and what its reader says of it."""
    with open_audio(file, "take") as reader:
        blocks = list(reader.blocks(**options))
    return np.concatenate(blocks), reader


def refused(file: Path | BinaryIO) -> InputError:
    """Why a sound cannot be read to its end."""
    with pytest.raises(InputError) as caught:
        read(file)
    assert caught.value.context == "take"
    return caught.value
