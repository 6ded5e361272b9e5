"""A performance -> sound, through libfluidsynth: notes, controllers and tuning, several voices of several fonts.

Each performance gets a synthesizer of its own, so that its sound depends on nothing that was played before; samples
stay in memory between them. Knows no scores and no files but fonts.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from musictool.errors import InputError, MissingError
from musictool.symbolic import fluidsynth_player
from musictool.symbolic.fluidsynth_player import GRID_FRAMES
from musictool.training.data.voices import Preset

# libfluidsynth plays samples of 44.1 kHz without a filter, so what lies over half its own rate folds over. At 32 kHz
# that lands over 9.9 kHz, where a resampler to 16 kHz takes it away; at 16 kHz directly it is 12 to 16 dB under the
# sound from 4 kHz on, for half the time.
PLAYING_RATE_HZ = 32_000
GRID_SECONDS = GRID_FRAMES / PLAYING_RATE_HZ  # 2 ms: when libfluidsynth hears events
KEPT_PRESETS = 64
POLYPHONY = 256
GAIN = 0.5
NOTE_OFF, CONTROL, BEND, NOTE_ON = range(4)  # of events at one moment, the order in which they count
_RPN_HIGH, _RPN_LOW, _DATA_HIGH, _DATA_LOW = 101, 100, 6, 38


@dataclass(frozen=True, eq=False, slots=True)
class Events:
    """What is played on one channel: m events, in any order.

    Attributes:
        seconds: float64 [m]; libfluidsynth hears them at multiples of `GRID_SECONDS`.
        kind: int64 [m], NOTE_OFF, CONTROL, BEND or NOTE_ON.
        number: int64 [m], the pitch or the controller.
        value: int64 [m], the velocity, the controller's value, or a bend of 0..16383 over two semitones each way.
    """

    seconds: NDArray[np.float64]
    kind: NDArray[np.int64]
    number: NDArray[np.int64]
    value: NDArray[np.int64]

    def joined(self, other: Events) -> Events:
        """These events and others."""
        return Events(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


@dataclass(frozen=True, eq=False, slots=True)
class Channel:
    """A voice and what it plays.

    Attributes:
        preset: of the voice.
        events: its notes and controllers.
        tuning_cents: -100..100.
    """

    preset: Preset
    events: Events
    tuning_cents: float = 0.0


def library() -> ModuleType:
    """The binding of libfluidsynth.

    Raises:
        MissingError: it is not there.
    """
    found = fluidsynth_player.load_library()
    if found is None:
        raise MissingError(
            "rendering needs libfluidsynth and its Python binding",
            hint="apt install libfluidsynth3 (or brew install fluid-synth) and pip install pyfluidsynth",
            code="missing-dependency",
        )
    return found


def on_grid(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move times to the nearest moment at which libfluidsynth hears events."""
    return np.rint(seconds / GRID_SECONDS) * GRID_SECONDS


def play_channels(channels: list[Channel], duration_seconds: float, rate_hz: int) -> NDArray[np.float32]:
    """Play some channels at once.

    Args:
        channels: 256 at most.
        duration_seconds: how much is rendered.
        rate_hz: of the result.

    Returns:
        float32 [round(duration * rate)], mono; not limited, so it may leave -1..1.

    Raises:
        InputError: libfluidsynth cannot read a font.
        MissingError: it is not there.
    """
    synthesizer = Synthesizer(len(channels))
    try:
        for number, channel in enumerate(channels):
            _keeper().keep(channel.preset)
            synthesizer.select(number, channel.preset)
            synthesizer.tune(number, channel.tuning_cents)
        blocks = -(-round(duration_seconds * PLAYING_RATE_HZ) // GRID_FRAMES)
        sound = synthesizer.play(channels, blocks)
    finally:
        synthesizer.close()
    count = round(duration_seconds * rate_hz)
    resampled = sound if rate_hz == PLAYING_RATE_HZ else soxr.resample(sound, PLAYING_RATE_HZ, rate_hz)
    return np.ascontiguousarray(np.pad(resampled, (0, max(count - len(resampled), 0)))[:count], np.float32)


class Synthesizer:
    """One instance of libfluidsynth without reverb or chorus.

    Args:
        channels: how many it has at least, 256 at most.
    """

    def __init__(self, channels: int) -> None:
        self._library = library()
        settings = {
            "synth.reverb.active": 0,
            "synth.chorus.active": 0,
            "synth.polyphony": POLYPHONY,
            "synth.dynamic-sample-loading": 1,
            "synth.cpu-cores": 1,
        }
        rounded = max(-(-channels // 16), 1) * 16
        self._synth: Any = self._library.Synth(GAIN, PLAYING_RATE_HZ, rounded, **settings)
        self._write = fluidsynth_player.bind_write_float(self._library)
        self._fonts: dict[Path, int] = {}

    def close(self) -> None:
        self._synth.delete()

    def select(self, channel: int, preset: Preset) -> None:
        """Give a channel its voice; the font is loaded where need be."""
        if preset.font not in self._fonts:
            font_id = self._synth.sfload(str(preset.font))
            if font_id < 0:
                raise InputError("libfluidsynth cannot read the SoundFont", context=str(preset.font))
            self._fonts[preset.font] = font_id
        self._synth.program_select(channel, self._fonts[preset.font], preset.bank, preset.program)

    def tune(self, channel: int, cents: float) -> None:
        """Detune a channel by MIDI's registered parameter 1, which is 8192 steps a semitone."""
        if cents:
            value = min(max(round(8192 + cents * 81.92), 0), 16_383)
            steps = ((_RPN_HIGH, 0), (_RPN_LOW, 1), (_DATA_LOW, value & 127), (_DATA_HIGH, value >> 7))  # in this order
            for controller, number in (*steps, (_RPN_HIGH, 127), (_RPN_LOW, 127)):
                self._synth.cc(channel, controller, number)

    def play(self, channels: list[Channel], blocks: int) -> NDArray[np.float32]:
        """Render blocks of `GRID_FRAMES` frames, float32 [blocks * GRID_FRAMES], both sides averaged."""
        sides = np.zeros((2, blocks * GRID_FRAMES), np.float32)
        place = 0
        for block, channel, kind, number, value in _schedule(channels):
            if block >= blocks:
                break
            place = self.render(sides, place, block * GRID_FRAMES)
            self.send(channel, kind, number, value)
        self.render(sides, place, sides.shape[1])
        mono: NDArray[np.float32] = sides.mean(axis=0)
        return mono

    def send(self, channel: int, kind: int, number: int, value: int) -> None:
        """Pass one event on."""
        if kind == NOTE_ON:
            self._synth.noteon(channel, number, value)
        elif kind == NOTE_OFF:
            self._synth.noteoff(channel, number)
        elif kind == CONTROL:
            self._synth.cc(channel, number, value)
        else:
            self._synth.pitch_bend(channel, value - 8192)

    def silence(self) -> None:
        """End every note at once."""
        self._synth.all_sounds_off(-1)

    def render(self, sides: NDArray[np.float32], start: int, stop: int) -> int:
        """Fill frames [start, stop) of float32 [2, frames]; gives the frame where the next begin."""
        if stop > start:
            left, right = sides[0].ctypes.data, sides[1].ctypes.data
            self._write(self._synth.synth, stop - start, left, start, 1, right, start, 1)
        return max(start, stop)


def _schedule(channels: list[Channel]) -> list[tuple[int, int, int, int, int]]:
    """(block, channel, kind, number, value) of all events in the order they are sent."""
    if not channels:
        return []
    rows = []
    for number, channel in enumerate(channels):
        events = channel.events
        block = np.rint(events.seconds / GRID_SECONDS).astype(np.int64)
        rows.append(np.stack([block, np.full_like(block, number), events.kind, events.number, events.value]))
    table = np.concatenate(rows, axis=1)
    block, owner, kind, number_of_event, _ = table
    order = np.lexsort((number_of_event, owner, kind, block))
    return list(zip(*table[:, order].tolist(), strict=True))


class _SampleKeeper:
    """A synthesizer that plays nothing but holds presets, whose samples libfluidsynth then need not read again."""

    def __init__(self) -> None:
        self._synthesizer = Synthesizer(KEPT_PRESETS)
        self._channels: OrderedDict[Preset, int] = OrderedDict()

    def keep(self, preset: Preset) -> None:
        """Hold a preset; the one that was not used for longest makes room."""
        if preset not in self._channels:
            full = len(self._channels) == KEPT_PRESETS
            channel = self._channels.popitem(last=False)[1] if full else len(self._channels)
            self._synthesizer.select(channel, preset)
            self._channels[preset] = channel
        self._channels.move_to_end(preset)


@lru_cache(maxsize=1)
def _keeper() -> _SampleKeeper:
    return _SampleKeeper()
