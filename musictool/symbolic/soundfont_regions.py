"""What a SoundFont's zone means: generators and modulators -> what sounds for a key and a velocity.

Follows the SoundFont 2.04 specification, with every MIDI controller at its default. Where EMU's hardware and
FluidSynth differ from the text (attenuation counts 0.4-fold, velocity moves no filter by default), this follows the
hardware, since fonts are made by ear. Knows nothing of files and mixes no sound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

FILTER_MOMENT_SECONDS = 0.3
_ATTENUATION_SCALE = 0.4
MAX_CENTS = 12_000  # ten octaves; only a broken font asks for more


class Generator(IntEnum):
    """The generators that are read, numbered as in section 8.1.2 of the specification."""

    START_OFFSET = 0
    END_OFFSET = 1
    LOOP_START_OFFSET = 2
    LOOP_END_OFFSET = 3
    START_COARSE_OFFSET = 4
    MODULATION_TO_PITCH = 7
    FILTER_CUTOFF = 8
    FILTER_RESONANCE = 9
    MODULATION_TO_CUTOFF = 11
    END_COARSE_OFFSET = 12
    PAN = 17
    MODULATION_DELAY = 25
    MODULATION_ATTACK = 26
    MODULATION_HOLD = 27
    MODULATION_DECAY = 28
    MODULATION_SUSTAIN = 29
    DELAY = 33
    ATTACK = 34
    HOLD = 35
    DECAY = 36
    SUSTAIN = 37
    RELEASE = 38
    KEY_TO_HOLD = 39
    KEY_TO_DECAY = 40
    INSTRUMENT = 41
    KEY_RANGE = 43
    VELOCITY_RANGE = 44
    LOOP_START_COARSE_OFFSET = 45
    FIXED_KEY = 46
    FIXED_VELOCITY = 47
    ATTENUATION = 48
    LOOP_END_COARSE_OFFSET = 50
    COARSE_TUNE = 51
    FINE_TUNE = 52
    SAMPLE = 53
    SAMPLE_MODES = 54
    SCALE_TUNING = 56
    EXCLUSIVE_CLASS = 57
    ROOT_KEY = 58


GENERATOR_DEFAULTS: dict[int, int] = {
    Generator.FILTER_CUTOFF: 13_500,
    Generator.MODULATION_DELAY: -12_000,
    Generator.MODULATION_ATTACK: -12_000,
    Generator.MODULATION_HOLD: -12_000,
    Generator.MODULATION_DECAY: -12_000,
    Generator.DELAY: -12_000,
    Generator.ATTACK: -12_000,
    Generator.HOLD: -12_000,
    Generator.DECAY: -12_000,
    Generator.RELEASE: -12_000,
    Generator.FIXED_KEY: -1,
    Generator.FIXED_VELOCITY: -1,
    Generator.SCALE_TUNING: 100,
    Generator.ROOT_KEY: -1,
}
# A preset may not set these: they say which part of which sample sounds.
INSTRUMENT_ONLY = frozenset(
    {
        Generator.START_OFFSET,
        Generator.END_OFFSET,
        Generator.LOOP_START_OFFSET,
        Generator.LOOP_END_OFFSET,
        Generator.START_COARSE_OFFSET,
        Generator.END_COARSE_OFFSET,
        Generator.LOOP_START_COARSE_OFFSET,
        Generator.LOOP_END_COARSE_OFFSET,
        Generator.FIXED_KEY,
        Generator.FIXED_VELOCITY,
        Generator.SAMPLE,
        Generator.SAMPLE_MODES,
        Generator.EXCLUSIVE_CLASS,
        Generator.ROOT_KEY,
    }
)
RANGES = frozenset({Generator.KEY_RANGE, Generator.VELOCITY_RANGE})

ModulatorKey = tuple[int, int, int, int]
"""Source, destination, amount source, transform: two modulators with the same key are one."""

_VELOCITY_TO_ATTENUATION: ModulatorKey = (0x0502, Generator.ATTENUATION, 0, 0)
DEFAULT_MODULATORS: dict[ModulatorKey, int] = {_VELOCITY_TO_ATTENUATION: 960}
_CONTROLLER_DEFAULTS = {8: 64, 10: 64, 11: 127, **dict.fromkeys(range(70, 80), 64)}


@dataclass(frozen=True, slots=True)
class Voicing:
    """What one region plays for one key and velocity, in physical units.

    Attributes:
        cents: how far above its recorded pitch the sample sounds.
        gain: linear amplitude from velocity and attenuation.
        pan: -1 left to 1 right.
        cutoff_hz, resonance_db: the low-pass filter; infinite where there is none.
        delay_seconds, attack_seconds, hold_seconds: the volume envelope's first stages; the attack rises linearly.
        decay_seconds, release_seconds: time that a fall of 100 dB takes.
        sustain_db: how far the decay falls.
    """

    cents: float
    gain: float
    pan: float
    cutoff_hz: float
    resonance_db: float
    delay_seconds: float
    attack_seconds: float
    hold_seconds: float
    decay_seconds: float
    sustain_db: float
    release_seconds: float


@dataclass(frozen=True, slots=True)
class SampleHeader:
    """Where a sample lies and how it was recorded.

    Attributes:
        name: as the font's author called it.
        start, end: frames of the sample chunk, or bytes of it where `is_compressed`.
        loop_start, loop_end: frames from the sample's own start.
        rate_hz: at which it sounds at `root_key`.
        root_key: the MIDI key it was recorded at, 60 where the font says none.
        correction_cents: to add to its pitch.
        is_compressed: whether the bytes are a Vorbis stream.
    """

    name: str
    start: int
    end: int
    loop_start: int
    loop_end: int
    rate_hz: int
    root_key: int
    correction_cents: int
    is_compressed: bool


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The part of a sample that a region plays; compared by value, since many regions play the same.

    Attributes:
        sample: index into `SoundFont.samples`.
        start_offset, end_offset: frames from the sample's start and from its end.
        loop_start, loop_end: frames from the sample's start.
        is_looped: whether the loop counts.
    """

    sample: int
    start_offset: int
    end_offset: int
    loop_start: int
    loop_end: int
    is_looped: bool

    def bounds(self, sample_frames: int) -> tuple[int, int, int, int]:
        """First frame, frame after the last, first and after-last frame of the loop, all inside the sample.

        The loop is empty (both 0) where there is none or a broken one.
        """
        end = min(max(sample_frames + self.end_offset, 0), sample_frames)
        start = min(max(self.start_offset, 0), end)
        loop_end = min(self.loop_end, sample_frames)
        if not self.is_looped or self.loop_start < 0 or loop_end - self.loop_start < 2:
            return start, end, 0, 0
        return start, end, self.loop_start, loop_end


@dataclass(frozen=True, eq=False, slots=True)
class Region:
    """One sample of a preset with the keys and velocities it answers to; compared and hashed by identity.

    Attributes:
        keys, velocities: inclusive ranges.
        sample: index into `SoundFont.samples`.
        generators: every generator that was set, by number.
        modulators: amounts by key, defaults included.
        header: the sample's header.
    """

    keys: tuple[int, int]
    velocities: tuple[int, int]
    sample: int
    generators: Mapping[int, int]
    modulators: Mapping[ModulatorKey, int]
    header: SampleHeader

    def __getitem__(self, generator: Generator) -> int:
        return self.generators.get(generator, GENERATOR_DEFAULTS.get(generator, 0))

    def sounds(self, key: int, velocity: int) -> bool:
        """Whether a note of this key and velocity plays the region."""
        return self.keys[0] <= key <= self.keys[1] and self.velocities[0] <= velocity <= self.velocities[1]

    @property
    def is_looped(self) -> bool:
        """Whether the sample repeats while the key is held (modes 1 and 3)."""
        return bool(self[Generator.SAMPLE_MODES] & 1)

    @property
    def exclusive_class(self) -> int:
        """Notes of one class cut each other off; 0 means none."""
        return self[Generator.EXCLUSIVE_CLASS]

    @property
    def excerpt(self) -> Excerpt:
        """Which part of the sample sounds."""
        g, coarse = Generator, 15
        return Excerpt(
            sample=self.sample,
            start_offset=self[g.START_OFFSET] + (self[g.START_COARSE_OFFSET] << coarse),
            end_offset=self[g.END_OFFSET] + (self[g.END_COARSE_OFFSET] << coarse),
            loop_start=self.header.loop_start
            + self[g.LOOP_START_OFFSET]
            + (self[g.LOOP_START_COARSE_OFFSET] << coarse),
            loop_end=self.header.loop_end + self[g.LOOP_END_OFFSET] + (self[g.LOOP_END_COARSE_OFFSET] << coarse),
            is_looped=self.is_looped,
        )

    def _frames(self, fine: Generator, coarse: Generator) -> int:
        """An offset that two generators make up, the coarse one in steps of 32768 frames."""
        return self[fine] + (self[coarse] << 15)

    def voicing(self, key: int, velocity: int) -> Voicing:
        """What the region plays for a note."""
        g = Generator
        key = self[g.FIXED_KEY] if self[g.FIXED_KEY] >= 0 else key
        velocity = self[g.FIXED_VELOCITY] if self[g.FIXED_VELOCITY] > 0 else velocity
        moved: dict[int, float] = {}
        for modulator, amount in self.modulators.items():
            destination = modulator[1]
            moved[destination] = moved.get(destination, 0.0) + _modulation(modulator, amount, key, velocity)

        def value(generator: Generator, low: float, high: float) -> float:
            return min(max(self[generator] + moved.get(generator, 0.0), low), high)

        def seconds(generator: Generator, key_generator: Generator | None = None) -> float:
            timecents = value(generator, -12_000, 8_000)
            if key_generator is not None:
                timecents += self[key_generator] * (60 - key)
            return 0.0 if timecents <= -12_000 else 2.0 ** (min(timecents, 8_000) / 1200)

        root = self[g.ROOT_KEY] if 0 <= self[g.ROOT_KEY] <= 127 else self.header.root_key
        modulation_sustain = 1 - value(g.MODULATION_SUSTAIN, 0, 1000) / 1000
        cents = (
            (key - root) * self[g.SCALE_TUNING]
            + self.header.correction_cents
            + 100 * value(g.COARSE_TUNE, -120, 120)
            + value(g.FINE_TUNE, -9_900, 9_900)
            + value(g.MODULATION_TO_PITCH, -12_000, 12_000) * modulation_sustain
        )
        # The filter stands still, where its envelope has it shortly after the onset.
        since_peak = FILTER_MOMENT_SECONDS - seconds(g.MODULATION_DELAY) - seconds(g.MODULATION_ATTACK)
        since_peak -= seconds(g.MODULATION_HOLD)
        fallen = max(since_peak, 0.0) / max(seconds(g.MODULATION_DECAY), FILTER_MOMENT_SECONDS)
        cutoff_cents = value(g.FILTER_CUTOFF, 1_500, 13_500)
        cutoff_cents += value(g.MODULATION_TO_CUTOFF, -12_000, 12_000) * max(1 - fallen, modulation_sustain)
        attenuation_cb = _ATTENUATION_SCALE * min(max(self[g.ATTENUATION], 0), 1440) + moved.get(g.ATTENUATION, 0.0)
        return Voicing(
            cents=min(max(cents, -MAX_CENTS), MAX_CENTS),
            gain=10 ** (-max(attenuation_cb, 0.0) / 200),
            pan=value(g.PAN, -500, 500) / 500,
            cutoff_hz=math.inf if cutoff_cents >= 13_500 else 8.176 * 2 ** (max(cutoff_cents, 1_500) / 1200),
            resonance_db=value(g.FILTER_RESONANCE, 0, 960) / 10,
            delay_seconds=seconds(g.DELAY),
            attack_seconds=seconds(g.ATTACK),
            hold_seconds=seconds(g.HOLD, g.KEY_TO_HOLD),
            decay_seconds=seconds(g.DECAY, g.KEY_TO_DECAY),
            sustain_db=value(g.SUSTAIN, 0, 1440) / 10,
            release_seconds=seconds(g.RELEASE),
        )


def _modulation(modulator: ModulatorKey, amount: int, key: int, velocity: int) -> float:
    """What a modulator adds to its destination at note-on."""
    source, _, amount_source, transform = modulator
    if source == 0:
        return 0.0
    factor = 1.0 if amount_source == 0 else _source(amount_source, key, velocity)
    value = amount * _source(source, key, velocity) * factor
    return abs(value) if transform == 2 else value


def _source(word: int, key: int, velocity: int) -> float:
    """A modulator's source through its curve: 0..1, or -1..1 where it is bipolar (section 8.2)."""
    index, is_controller = word & 0x7F, word & 0x80
    if is_controller:
        raw = _CONTROLLER_DEFAULTS.get(index, 0)
    else:  # 14 is the pitch wheel, at rest in its middle; 16 its sensitivity, of no use at rest
        raw = {2: velocity, 3: key, 14: 64}.get(index, 0)
        if index == 14:
            return 0.0
    is_negative, is_bipolar, curve = word & 0x100, word & 0x200, word >> 10
    x = raw / 127
    if is_negative:
        x = 1 - x
    if is_bipolar:
        x = 2 * raw / 128 - 1 if not is_negative else 1 - 2 * raw / 128
        return math.copysign(_curve(curve, abs(x)), x)
    return _curve(curve, x)


def _curve(kind: int, x: float) -> float:
    """Linear, concave, convex or switch, 0..1 -> 0..1; concave and convex span 96 dB."""
    if kind == 1:
        return 1.0 if x >= 1 else min(-40 / 96 * math.log10(1 - x), 1.0)
    if kind == 2:
        return 0.0 if x <= 0 else max(1 + 40 / 96 * math.log10(x), 0.0)
    if kind == 3:
        return float(x >= 0.5)
    return x
