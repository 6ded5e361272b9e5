"""Notes -> sound with libfluidsynth, where it is installed.

The binding is pyfluidsynth, an optional extra; two functions of the library that it lacks are added here. Knows
SoundFonts and frames; knows nothing of pedals, files or tokens.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.notes import Notes
from musictool.symbolic.sampler import BLOCK_FRAMES
from musictool.symbolic.soundfont import SoundFont

GAIN = 1.0
GRID_FRAMES = 64  # libfluidsynth hears events at the borders of such blocks
MAX_CHANNELS = 256
POLYPHONY = 1024
LOG_LEVELS = 5


@lru_cache(maxsize=1)
def load_library() -> ModuleType | None:
    """The module that binds libfluidsynth, silenced; None where the binding or the library is not there."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the binding tells where it found the library
            import fluidsynth
        silence = _bind(fluidsynth, "fluid_set_log_function", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        bind_write_float(fluidsynth)
    except (ImportError, OSError, AttributeError):  # the last: an old library, or another package of that name
        return None
    for level in range(LOG_LEVELS):
        silence(level, None, None)
    module: ModuleType = fluidsynth
    return module


def library_version(library: ModuleType) -> str:
    """The version of libfluidsynth itself."""
    numbers = [ctypes.c_int() for _ in range(3)]
    library.fluid_version(*numbers)
    return ".".join(str(number.value) for number in numbers)


def _bind(library: ModuleType, name: str, *kinds: type) -> Callable[..., int]:
    function: Callable[..., int] | None = library.cfunc(
        name, ctypes.c_int, *((f"argument_{i}", kind, 1) for i, kind in enumerate(kinds))
    )
    if function is None:
        raise AttributeError(f"the library has no function {name}")
    return function


def bind_write_float(library: ModuleType) -> Callable[..., int]:
    """The library's `fluid_synth_write_float(synth, frames, left, offset, stride, right, offset, stride)`."""
    integer, pointer = ctypes.c_int, ctypes.c_void_p
    side = (pointer, integer, integer)
    return _bind(library, "fluid_synth_write_float", pointer, integer, *side, *side)


def play(
    library: ModuleType,
    font: SoundFont,
    notes: Notes,
    stop_seconds: NDArray[np.float64],
    total_frames: int,
    rate_hz: int,
) -> Iterator[NDArray[np.float32]]:
    """Mix notes.

    Args:
        library: what `load_library` gave.
        font: the SoundFont; libfluidsynth reads its file itself.
        notes: by rising onset.
        stop_seconds: float64 [n], when each note is let go.
        total_frames: how much to render.
        rate_hz: of the sound.

    Yields:
        float32 [2, frames], left and right.

    Raises:
        InputError: libfluidsynth cannot read the font.
    """
    channel, presets = _assign_channels(font, notes, stop_seconds)
    settings = {
        "synth.reverb.active": 0,
        "synth.chorus.active": 0,
        "synth.polyphony": POLYPHONY,
        "synth.dynamic-sample-loading": 1,
        "synth.cpu-cores": 1,
    }
    channels = max(16 * math.ceil(len(presets) / 16), 16)
    synth = library.Synth(GAIN, rate_hz, channels, **settings)
    try:
        font_id = synth.sfload(str(font.path))
        if font_id < 0:
            raise InputError("libfluidsynth cannot read the SoundFont", context=str(font.path))
        for number, (bank, program) in enumerate(presets):
            synth.program_select(number, font_id, bank, program)
        write_float = bind_write_float(library)
        place = 0
        block = np.zeros((2, BLOCK_FRAMES), np.float32)
        for frame, is_on, row in [*_events(notes, stop_seconds, rate_hz), (total_frames, 0, -1)]:
            while place < min(frame, total_frames):
                offset = place % BLOCK_FRAMES
                n = min(frame, total_frames, place - offset + BLOCK_FRAMES) - place
                write_float(synth.synth, n, block[0].ctypes.data, offset, 1, block[1].ctypes.data, offset, 1)
                place += n
                if offset + n == BLOCK_FRAMES or place == total_frames:
                    yield block[:, : offset + n].copy()
            if is_on:
                synth.noteon(channel[row], int(notes.pitch[row]), int(notes.velocity[row]))
            elif row >= 0:
                synth.noteoff(channel[row], int(notes.pitch[row]))
    finally:
        synth.delete()


def _events(notes: Notes, stop_seconds: NDArray[np.float64], rate_hz: int) -> list[tuple[int, int, int]]:
    """(frame, 1 for an onset and 0 for a release, row), releases first, frames on libfluidsynth's grid."""
    grid_hz = rate_hz / GRID_FRAMES
    onset = np.rint(notes.onset_seconds * grid_hz).astype(np.int64)
    release = np.maximum(np.rint(stop_seconds * grid_hz).astype(np.int64), onset + 1)
    frame = np.concatenate([onset, release]) * GRID_FRAMES
    is_on = np.repeat([1, 0], len(notes))
    row = np.tile(np.arange(len(notes)), 2)
    order = np.lexsort((row, is_on, frame))
    return list(zip(frame[order].tolist(), is_on[order].tolist(), row[order].tolist(), strict=True))


def _assign_channels(
    font: SoundFont, notes: Notes, stop_seconds: NDArray[np.float64]
) -> tuple[list[int], list[tuple[int, int]]]:
    """A channel for each note and a preset for each channel, so that no key of a channel is held twice at once.

    Once all channels are in use, a note goes to the first one of its program, or to the first of all.
    """
    presets: list[tuple[int, int]] = []
    lanes: dict[tuple[int, bool], list[int]] = {}
    free_from: dict[tuple[int, int], float] = {}
    assigned = []
    columns = zip(notes.program.tolist(), notes.is_drum.tolist(), notes.pitch.tolist(), strict=True)
    for row, (program, is_drum, pitch) in enumerate(columns):
        own = lanes.setdefault((program, is_drum), [])
        onset = notes.onset_seconds[row]
        channel = next((lane for lane in own if free_from.get((lane, pitch), -math.inf) <= onset), -1)
        if channel < 0 and len(presets) < MAX_CHANNELS:
            channel = len(presets)
            presets.append(font.find(program, is_drum))
            own.append(channel)
        channel = channel if channel >= 0 else next(iter(own), 0)
        free_from[channel, pitch] = max(stop_seconds[row], free_from.get((channel, pitch), -math.inf))
        assigned.append(channel)
    return assigned, presets
