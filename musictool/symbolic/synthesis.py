"""Notes -> audio, in tune and in bounded memory.

Two synthesizers play the same SoundFont: libfluidsynth, where it is installed, and the builtin sampler, which needs pip
alone. Both get the same notes, already lengthened by the sustain pedal, and pass the same limiter; neither adds reverb
or chorus, so that what is heard is what the notes say. Knows nothing of files other than fonts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError, MissingError, UsageError
from musictool.symbolic import fluidsynth_player
from musictool.symbolic.notes import Notes, Pedals
from musictool.symbolic.sampler import Sampler
from musictool.symbolic.soundfont import SoundFont

SynthesizerName = Literal["auto", "fluidsynth", "builtin"]

SHIPPED_FONT = "general-midi-small.sf3"
BUILTIN_VERSION = "1"  # to be raised with every change of the builtin synthesizer that is heard
DEFAULT_TAIL_SECONDS = 2.0
RATE_RANGE_HZ = (8_000, 96_000)

CEILING = 0.89  # -1 dB: what a lossy codec may overshoot
LIMITER_WINDOW_FRAMES = 256
LIMITER_RECOVERY_SECONDS = 0.25
FADE_OUT_SECONDS = 0.02

BUILTIN_GAIN = 0.7


@dataclass(frozen=True, slots=True)
class SynthesizerInfo:
    """What makes the sound, for provenance.

    Attributes:
        name: `fluidsynth` or `builtin`.
        version: of the synthesizer.
        font_name: the font's file name.
        font_sha256: the digest of that file, in hexadecimal.
    """

    name: str
    version: str
    font_name: str
    font_sha256: str


def describe_synthesizer(soundfont: Path | None = None, synthesizer: SynthesizerName = "auto") -> SynthesizerInfo:
    """What `render` would use for these arguments.

    Raises:
        InputError: the font cannot be read.
        MissingError: libfluidsynth is asked for and is not there.
    """
    library = _choose(synthesizer)
    font = _open_font(soundfont)
    name, version = (
        ("builtin", BUILTIN_VERSION) if library is None else ("fluidsynth", fluidsynth_player.library_version(library))
    )
    return SynthesizerInfo(name, version, font.path.name, font.sha256)


def render(
    notes: Notes,
    pedals: Pedals,
    *,
    rate_hz: int = 44_100,
    soundfont: Path | None = None,
    synthesizer: SynthesizerName = "auto",
    tail_seconds: float = DEFAULT_TAIL_SECONDS,
) -> Iterator[NDArray[np.float32]]:
    """Play notes.

    Args:
        notes: in any order.
        pedals: sustain presses; each lengthens the melodic notes of its own track.
        rate_hz: of the sound.
        soundfont: an SF2 or SF3 file; the font that ships where none is given.
        synthesizer: `auto` takes libfluidsynth where it is there and the builtin one elsewhere.
        tail_seconds: how long the sound goes on after the last note is let go.

    Returns:
        Stereo blocks, float32 [frames, 2] within -1..1; the same bytes for the same arguments.

    Raises:
        InputError: the font cannot be read, or a note's time is no number.
        MissingError: libfluidsynth is asked for and is not there.
        UsageError: a sample rate or a tail that makes no sense.
    """
    if not RATE_RANGE_HZ[0] <= rate_hz <= RATE_RANGE_HZ[1]:
        raise UsageError(f"cannot synthesize at {rate_hz} Hz", hint="choose {} to {} Hz".format(*RATE_RANGE_HZ))
    if not 0 <= tail_seconds < math.inf:
        raise UsageError(f"a tail of {tail_seconds} s makes no sense", hint="choose 0 or more seconds")
    if not (np.isfinite(notes.onset_seconds).all() and np.isfinite(notes.offset_seconds).all()):
        raise InputError("a note's time is not a finite number")
    library = _choose(synthesizer)
    font = _open_font(soundfont)
    notes = notes.take((notes.velocity > 0) & (notes.onset_seconds >= 0)).sorted()
    stop_seconds = sounding_until(notes, pedals)
    end_seconds = float(stop_seconds.max()) if len(notes) else 0.0
    total_frames = math.ceil((end_seconds + tail_seconds) * rate_hz)
    mixed: Iterator[NDArray[np.float32]]
    if library is None:
        blocks = Sampler(font, rate_hz).play(notes, stop_seconds, total_frames)
        mixed = (np.multiply(block, BUILTIN_GAIN, dtype=np.float32) for block in blocks)
    else:
        mixed = fluidsynth_player.play(library, font, notes, stop_seconds, total_frames, rate_hz)
    return _faded(_limited(mixed, rate_hz), total_frames, rate_hz)


def sounding_until(notes: Notes, pedals: Pedals) -> NDArray[np.float64]:
    """When each note falls silent, float64 [n]: its offset, or the end of the pedal press that holds it.

    A held string that is struck again starts anew, so a pedal holds a note no longer than to the next onset of its
    pitch, program and track. Drums have no pedal.
    """
    stop = np.maximum(notes.offset_seconds, notes.onset_seconds)
    for track in np.unique(pedals.track):
        presses = pedals.track == track
        starts, ends = _merged(pedals.onset_seconds[presses], pedals.offset_seconds[presses])
        rows = np.flatnonzero((notes.track == track) & ~notes.is_drum)
        press = np.searchsorted(starts, stop[rows], side="right") - 1
        is_held = (press >= 0) & (stop[rows] < ends[press])
        rows, press = rows[is_held], press[is_held]
        stop[rows] = np.minimum(ends[press], np.maximum(_next_strike(notes)[rows], stop[rows]))
    return stop


def _merged(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals in order, with those that overlap or touch made one."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    is_first = np.append(True, starts[1:] > ends[:-1])
    return starts[is_first], ends[np.append(is_first[1:], True)]


def _next_strike(notes: Notes) -> NDArray[np.float64]:
    """The next later onset of each note's pitch, program and track, float64 [n]; infinite where there is none."""
    order = np.lexsort((notes.onset_seconds, notes.pitch, notes.program, notes.track))
    onset = notes.onset_seconds[order]
    after = np.full(len(notes), np.inf)
    same = np.ones(max(len(notes) - 1, 0), bool)
    for column in (notes.pitch, notes.program, notes.track):
        same &= np.diff(column[order]) == 0
    later = np.where(same, onset[1:], np.inf)
    for i in range(len(later) - 1, -1, -1):  # notes struck together share what follows them
        after[order[i]] = after[order[i + 1]] if later[i] == onset[i] else later[i]
    return after


def _open_font(path: Path | None) -> SoundFont:
    if path is not None:
        return _read_font(Path(path), Path(path).stat().st_mtime_ns if Path(path).is_file() else 0)
    shipped = resources.files("musictool") / "assets" / "soundfonts" / SHIPPED_FONT
    with resources.as_file(shipped) as file:
        if not file.is_file():
            raise MissingError("the font that ships is not there", context=str(file), hint="reinstall musictool")
        return _read_font(file, 0)


@lru_cache(maxsize=2)
def _read_font(path: Path, modified_ns: int) -> SoundFont:
    """A font; opened once for many renders while the file stays as it is."""
    return SoundFont.read(path)


def _choose(synthesizer: SynthesizerName) -> ModuleType | None:
    """The module that binds libfluidsynth, or None for the builtin synthesizer."""
    if synthesizer not in ("auto", "fluidsynth", "builtin"):
        raise UsageError(f"no synthesizer is called '{synthesizer}'", hint="choose auto, fluidsynth or builtin")
    if synthesizer == "builtin":
        return None
    library = fluidsynth_player.load_library()
    if library is None and synthesizer == "fluidsynth":
        raise MissingError(
            "libfluidsynth or its Python binding is not there",
            hint="apt install libfluidsynth3 (or brew install fluid-synth) and pip install pyfluidsynth",
        )
    return library


def _limited(blocks: Iterable[NDArray[np.float32]], rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """Keep the sound under `CEILING`; float32 [2, frames] in and out, as many frames as there were.

    The gain runs in straight lines between the borders of windows that lie on a grid from the first frame: at each
    border it is low enough for the windows on both sides, and it recovers slowly. It follows the sound alone, not how
    the sound was cut into blocks.
    """
    window = LIMITER_WINDOW_FRAMES
    recovery = 1 - math.exp(-window / (LIMITER_RECOVERY_SECONDS * rate_hz))
    ramp = np.arange(window, dtype=np.float32) / np.float32(window)
    waiting = np.zeros((2, 0), np.float32)
    gain = 1.0  # at the left border of the waiting frames

    def process(sound: NDArray[np.float32], peaks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Limit whole windows, one fewer than there are peaks."""
        nonlocal gain
        if gain == 1.0 and (peaks <= CEILING).all():
            return sound
        need: list[float] = np.minimum(1.0, CEILING / np.maximum(peaks.astype(np.float64), CEILING)).tolist()
        borders = [min(gain, need[0])]
        for left, right in itertools.pairwise(need):
            recovered = borders[-1] + (1 - borders[-1]) * recovery
            borders.append(min(left, right, recovered if recovered < 0.9999 else 1.0))
        gain = borders[-1]
        line = np.asarray(borders, np.float32)
        gains = line[:-1, None] + np.diff(line)[:, None] * ramp
        return sound * gains.reshape(-1).astype(np.float32, copy=False)

    for block in blocks:
        waiting = np.concatenate([waiting, block], axis=1)
        count = waiting.shape[1] // window - 1
        if count > 0:
            cut = count * window
            yield process(waiting[:, :cut], _peaks(waiting[:, : cut + window]))
            waiting = waiting[:, cut:]
    if waiting.shape[1]:
        padded = np.pad(waiting, ((0, 0), (0, -waiting.shape[1] % window + window)))
        yield process(padded[:, :-window], _peaks(padded))[:, : waiting.shape[1]]


def _peaks(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest magnitude in each window, float32 [windows]."""
    peaks: NDArray[np.float32] = np.abs(sound).max(0).reshape(-1, LIMITER_WINDOW_FRAMES).max(1)
    return peaks


def _faded(blocks: Iterable[NDArray[np.float32]], total_frames: int, rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """Let the very end fade, and turn [2, frames] into [frames, 2]."""
    fade = min(round(FADE_OUT_SECONDS * rate_hz), total_frames)
    place = 0
    for block in blocks:
        frames = block.shape[1]
        if place + frames > total_frames - fade:
            left = total_frames - np.arange(place, place + frames)
            block = block * np.minimum(left / fade, 1).astype(np.float32)
        place += frames
        yield np.ascontiguousarray(block.T)
