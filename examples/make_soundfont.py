"""Make the General MIDI font that ships (one long file, so that it runs as it stands with musictool alone).

    python examples/make_soundfont.py /usr/share/sounds/sf3/MuseScore_General_Lite.sf3 \
        musictool/assets/soundfonts/general-midi-small.sf3

The source is MuseScore_General_Lite.sf3. Keeps for each program a few key zones of one velocity layer, in mono. A long
sample is cut and looped anew: where it decays, its fall is moved from the sample into the envelope, so that a short
loop rings as long as the original. Samples are resampled to the lowest rate that holds their spectrum, so that a loop
is a whole number of frames: the rate follows from the loop's length and the tuning stays exact. Then each zone is
played, measured and tuned. Modulators are dropped: what they do at the velocity of the kept layer is baked into the
generators. Needs numpy, soundfile and musictool.
"""

from __future__ import annotations

import argparse
import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes
from musictool.symbolic.sampler import Sampler
from musictool.symbolic.soundfont import DRUM_BANK, SoundFont
from musictool.symbolic.soundfont_regions import Excerpt, Generator, Region, SampleHeader

VELOCITY = 96  # of the layer that is kept
DRUM_KEYS = range(27, 88)
ZONE_STEP_KEYS = 12
ZONE_KEYS = (36, 96)
MIDDLE_KEY = 66  # of several keys that one sample plays, the nearest to this is the one it is tuned at
# Programs that deserve more than a zone an octave: their keys and the step between zones.
ZONES = {0: (24, 102, 6), 24: (40, 88, 8), 25: (40, 88, 8), 32: (24, 60, 9), 33: (24, 60, 9), 48: (28, 96, 10)}
BRIGHT_PIANO, HONKY_TONK = 1, 3  # made of the piano's own samples
HONKY_TONK_CENTS = 7
# Semitones that a program sounds above what is written, taken back: the drawbar organ's strongest rank lies an octave
# below, the guitar's harmonics two octaves above.
SOUNDS_HIGHER = {16: -12, 31: 24}
MAX_LAYERS = 2
SUSTAINED_SECONDS = 1.7
DECAYING_SECONDS = 2.2
ONE_SHOT_SECONDS = 2.5
DRUM_SECONDS = 2.0
STROKE_LEVEL = 0.03  # of the attack's peak: what comes earlier is the finger on the string
BEFORE_STROKE_SECONDS = 0.001
SUSTAINED_LOOP_SECONDS = (0.35, 0.9)
DECAYING_LOOP_SECONDS = (0.1, 0.4)
RATES_HZ = (11_025, 16_000, 22_050, 32_000, 44_100)
INAUDIBLE_SHARE = 1e-4  # of the energy may be lost above the band of a lower rate
COMPRESSION_LEVEL = 0.75  # 1.0 is the smallest file that Vorbis makes
GUARD_FRAMES = 1200  # of the loop's next turn that are kept after its end
LOOP_MATCH_FRAMES = 12  # on either side of a border, that should look alike
UNTUNED = frozenset({47, 55, 113, *range(115, 128)})  # no definite pitch
# The partial that names the note of a bell, whose other partials are no multiples of it. A tubular bell is heard an
# octave below its partial of twice the written pitch.
NAMING_PARTIAL = {9: 1, 13: 1, 14: 2, 98: 1, 112: 1}
SHORTEST_LAG_FRAMES = 500  # over which a period is measured, in as many periods as it takes
QUIETER_CENTIBELS = 16  # than the source, so that no zone needs a negative attenuation
VELOCITY_CENTIBELS = 400 * math.log10(127 / VELOCITY)

COPYRIGHT = "MIT licence. S. Christian Collins, Frank Wen, Michael Cowgill, Ethan Winer, Michael Schorsch and others"
COMMENT = (
    "Made from MuseScore_General_Lite.sf3 v0.2 by musictool's examples/make_soundfont.py; see README.md beside it."
)


@dataclass(frozen=True)
class Recording:
    """A sample to be written.

    Attributes:
        header: of the source; name and root key live on.
        frames: float32 [n], peak 0.9.
        rate_hz: of the frames.
        loop: first and after-last frame; none where it does not repeat.
        scale: what the frames were multiplied by.
        fall_seconds_per_100_db: what was taken out of a decaying sample from its loop on; infinite where nothing was.
        is_moved_loop: whether the loop is ours.
    """

    header: SampleHeader
    frames: NDArray[np.float32]
    rate_hz: int
    loop: tuple[int, int] | None
    scale: float
    fall_seconds_per_100_db: float
    is_moved_loop: bool


Generators = dict[Generator, int]


@dataclass
class Zone:
    """A zone of an instrument: a recording and its generators; `key` is the one it was chosen for."""

    key: int
    keys: tuple[int, int]
    recording: Recording
    generators: Generators = field(default_factory=dict)


def decibels_per_second(frames: NDArray[np.float32], rate_hz: int) -> float:
    """How fast a stretch of sound falls, by a straight line through its levels in 30 ms windows."""
    width = max(int(0.03 * rate_hz), 1)
    count = len(frames) // width
    level = 10 * np.log10(np.mean(frames[: count * width].reshape(count, width) ** 2, axis=1) + 1e-12)
    return -float(np.polyfit(np.arange(count) * width / rate_hz, level, 1)[0])


def find_loop(frames: NDArray[np.float32], end: int, shortest: int, longest: int, width: int) -> int:
    """Where a loop that ends at `end` starts so that its two borders look most alike."""
    shortest, longest = min(shortest, end // 3), min(longest, end - width - 1)
    template = frames[end - width : end].astype(np.float64)
    field_ = frames[end - longest - width : end - shortest].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(field_, width)
    likeness = windows @ template / np.sqrt(np.einsum("nw,nw->n", windows, windows) + 1e-9)
    return end - longest + int(likeness.argmax())


def make_loop(
    frames: NDArray[np.float32], rate_hz: int, seconds: float, is_decaying: bool
) -> tuple[NDArray[np.float32], tuple[int, int], float]:
    """Cut a sample and loop it; gives frames, loop and the seconds in which what was flattened would fall by 100 dB."""
    shortest, longest = (round(s * rate_hz) for s in (DECAYING_LOOP_SECONDS if is_decaying else SUSTAINED_LOOP_SECONDS))
    end = round(seconds * rate_hz)
    width = round(0.025 * rate_hz)
    frames = frames[: end + 1].astype(np.float32).copy()
    fall_seconds = math.inf
    start = find_loop(frames, end, shortest, longest, width)
    if is_decaying:
        fall = max(decibels_per_second(frames[max(end - 2 * longest, 0) : end], rate_hz), 3.0)
        fall_seconds = 100 / fall
        start_of_fall = start
        after = np.arange(len(frames) - start_of_fall) / rate_hz
        frames[start_of_fall:] *= 10 ** (fall * after / 20)
    fade = min((end - start) // 2, round(0.12 * rate_hz), start)
    weight = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).astype(np.float32)
    before = frames[start - fade : start].copy()
    if is_decaying:  # the loop's content is flat; what leads up to it is not
        before *= (10 ** (-fall * np.arange(fade, 0, -1) / rate_hz / 20)).astype(np.float32)
    tail = frames[end - fade : end]
    likeness = float(np.clip(np.dot(before, tail) / (np.linalg.norm(before) * np.linalg.norm(tail) + 1e-9), 0, 1))
    power = 1 / np.sqrt(weight**2 + (1 - weight) ** 2 + 2 * likeness * weight * (1 - weight))
    frames[end - fade : end] = (tail * (1 - weight) + before * weight) * power
    return frames[:end], (start, end), fall_seconds


def resample(frames: NDArray[np.float32], places: NDArray[np.float64], band: float) -> NDArray[np.float32]:
    """Frames at fractional places, keeping `band` (of the source's band) with a windowed sinc."""
    half = math.ceil(24 / band)
    padded = np.pad(frames, half)
    whole = np.floor(places).astype(np.int64)
    offsets = np.arange(-half + 1, half + 1)
    out = np.empty(len(places), np.float32)
    for first in range(0, len(places), 8192):
        part = slice(first, first + 8192)
        x = offsets - (places[part] - whole[part])[:, None]
        window = 0.5 + 0.5 * np.cos(np.pi * np.clip(x / half, -1, 1))
        kernel = band * np.sinc(x * band) * window
        near = padded[np.clip(whole[part, None] + offsets + half, 0, len(padded) - 1)]
        out[part] = (kernel * near).sum(1)
    return out


def silent_frames(frames: NDArray[np.float32], rate_hz: int) -> int:
    """How much of a struck sound's beginning comes before the stroke."""
    stroke = np.abs(frames[: round(0.3 * rate_hz)])
    return max(int((stroke > STROKE_LEVEL * stroke.max()).argmax()) - round(BEFORE_STROKE_SECONDS * rate_hz), 0)


def lowest_rate(frames: NDArray[np.float32], rate_hz: int) -> int:
    """The lowest rate whose band holds all but an inaudible share of the sound."""
    power = np.abs(np.fft.rfft(frames)) ** 2
    frequency = np.linspace(0, rate_hz / 2, len(power))
    for candidate in RATES_HZ:
        if candidate >= rate_hz or power[frequency > 0.46 * candidate].sum() < INAUDIBLE_SHARE * power.sum():
            return min(candidate, rate_hz)
    return rate_hz


def record(font: SoundFont, region: Region, is_decaying: bool, is_drum: bool) -> Recording:
    """Make the recording of a region's sample."""
    header, source = region.header, font.frames(region.sample)
    start, end, loop_start, loop_end = region.excerpt.bounds(len(source))
    if is_decaying or is_drum or not loop_end:
        start = min(start + silent_frames(source[start:end], header.rate_hz), loop_start or end)
    fall_seconds, is_moved_loop = math.inf, False
    seconds = DRUM_SECONDS if is_drum else DECAYING_SECONDS if is_decaying else SUSTAINED_SECONDS
    loop: tuple[int, int] | None = None
    rate_hz = header.rate_hz
    if loop_end and not is_drum:
        source, loop = source[start:loop_end], (max(loop_start - start, 0), loop_end - start)
        if loop[1] > 1.15 * seconds * rate_hz:
            source, loop, fall_seconds = make_loop(source, rate_hz, seconds, is_decaying)
            is_moved_loop = True
    else:
        length = round((DRUM_SECONDS if is_drum else ONE_SHOT_SECONDS) * rate_hz)
        source = source[start:end]
        if len(source) > length:
            fade = length // 2
            source = source[:length] * np.concatenate(
                [np.ones(length - fade), 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, fade))]
            )
    target = lowest_rate(source, rate_hz)
    if loop:
        turns = max(round((loop[1] - loop[0]) * target / rate_hz), 1)
        factor = turns / (loop[1] - loop[0])
        if abs(1200 * math.log2(round(rate_hz * factor) / (rate_hz * factor))) > 0.5:
            raise SystemExit(f"no whole rate for the loop of {header.name}")
        new_start = round(loop[0] * factor)
        count = new_start + turns + GUARD_FRAMES
        places = loop[0] + (np.arange(count) - new_start) / factor
        unrolled = np.arange(math.ceil(places[-1]) + 64)
        late = unrolled >= loop[1]
        unrolled[late] = loop[0] + (unrolled[late] - loop[0]) % (loop[1] - loop[0])
        source, loop = source[unrolled], (new_start, new_start + turns)
    else:
        factor = target / rate_hz
        places = np.arange(math.ceil(len(source) * factor)) / factor
    frames = resample(np.asarray(source, np.float32), places, min(factor * 0.97, 1.0)) if factor != 1 else source
    frames = np.asarray(frames[: len(places)], np.float32)
    scale = 0.9 / max(float(np.abs(frames).max()), 1e-6)
    return Recording(header, frames * scale, round(rate_hz * factor), loop, scale, fall_seconds, is_moved_loop)


def timecents(seconds: float) -> int:
    return -12_000 if seconds < 0.001 else round(1200 * math.log2(min(seconds, 90)))


class Maker:
    """Collects instruments, sharing recordings between them."""

    def __init__(self, font: SoundFont) -> None:
        self.font = font
        self.recordings: dict[tuple[Excerpt, bool, bool], Recording] = {}

    def recording(self, region: Region, is_decaying: bool, is_drum: bool) -> Recording:
        key = (region.excerpt, is_decaying, is_drum)
        if key not in self.recordings:
            self.recordings[key] = record(self.font, region, is_decaying, is_drum)
        return self.recordings[key]

    def zone(self, region: Region, keys: tuple[int, int], key: int, gain: float, is_drum: bool = False) -> Zone:
        """One zone that plays a region as it sounds at `key`; `gain` makes up for layers that were left out."""
        g = Generator
        voicing, at_middle = region.voicing(key, VELOCITY), region.voicing(60, VELOCITY)
        is_decaying = voicing.sustain_db > 10
        recording = self.recording(region, is_decaying, is_drum)
        header = recording.header
        root = region[g.ROOT_KEY] if region[g.ROOT_KEY] >= 0 else header.root_key
        tune = round(voicing.cents - (key - root) * region[g.SCALE_TUNING])
        hold, decay = at_middle.hold_seconds, at_middle.decay_seconds
        zone = Zone(key, keys, recording)
        if recording.loop and recording.is_moved_loop and is_decaying:
            own_fall = 100 / decay if decay > 0.001 else 0.0
            hold = recording.loop[0] / recording.rate_hz
            decay = 100 / min(own_fall * 0.5 + 100 / recording.fall_seconds_per_100_db, 400)
        centibels = (
            -200 * math.log10(voicing.gain * gain / recording.scale) - VELOCITY_CENTIBELS + QUIETER_CENTIBELS
        ) / 0.4
        zone.generators = {
            g.PAN: round(voicing.pan * 500) if not is_drum else region[g.PAN],
            g.DELAY: timecents(at_middle.delay_seconds),
            g.ATTACK: timecents(at_middle.attack_seconds),
            g.HOLD: timecents(hold),
            g.DECAY: timecents(decay),
            g.SUSTAIN: round(voicing.sustain_db * 10),
            g.RELEASE: timecents(min(at_middle.release_seconds, 12.0)),
            g.KEY_TO_HOLD: 0 if recording.is_moved_loop else region[g.KEY_TO_HOLD],
            g.KEY_TO_DECAY: region[g.KEY_TO_DECAY],
            g.ATTENUATION: max(round(centibels), 0),
            g.COARSE_TUNE: int(tune / 100),
            g.FINE_TUNE: tune - 100 * int(tune / 100),
            g.SCALE_TUNING: region[g.SCALE_TUNING],
            g.EXCLUSIVE_CLASS: region.exclusive_class,
            g.ROOT_KEY: root,
            g.SAMPLE_MODES: 1 if recording.loop else 0,
        }
        if voicing.cutoff_hz < 0.4 * recording.rate_hz:
            zone.generators[g.FILTER_CUTOFF] = round(1200 * math.log2(voicing.cutoff_hz / 8.176))
            zone.generators[g.FILTER_RESONANCE] = round(voicing.resonance_db * 10)
        return zone

    def layers(self, regions: tuple[Region, ...], key: int) -> list[tuple[Region, float]]:
        """What sounds at a key, in mono: one side of each stereo pair, the loudest layers, each with a gain."""
        found = [(region, region.voicing(key, VELOCITY)) for region in regions if region.sounds(key, VELOCITY)]
        kept: list[tuple[Region, float]] = []
        taken: set[int] = set()
        for i, (left, a) in enumerate(found):
            if i in taken:
                continue
            gain = 1.0
            for j in range(i + 1, len(found)):
                b = found[j][1]
                is_pair = a.pan * b.pan < -0.1 and abs(a.cents % 1200 - b.cents % 1200) < 2 and j not in taken
                if is_pair and abs(math.log2(b.gain / a.gain)) < 0.5:
                    taken.add(j)
                    gain = math.sqrt(2)
                    left = replace(left, generators={**left.generators, Generator.PAN: 0})
                    break
            kept.append((left, gain))
        kept.sort(key=lambda item: -item[0].voicing(key, VELOCITY).gain * item[1])
        return kept[:MAX_LAYERS]

    def program(self, program: int) -> list[Zone]:
        regions = self.font.regions(0, program)
        shift = SOUNDS_HIGHER.get(program, 0)
        low, high, step = ZONES.get(program, (*ZONE_KEYS, ZONE_STEP_KEYS))
        wanted = [key for key in range(low, high + 1, step) if any(r.sounds(key - shift, VELOCITY) for r in regions)]
        stacks: list[tuple[int, list[tuple[Region, float]]]] = []
        for key in wanted:
            stack = self.layers(regions, key - shift)[: 1 if program == 0 else MAX_LAYERS]
            if not stacks or {r.excerpt for r, _ in stack} != {r.excerpt for r, _ in stacks[-1][1]}:
                stacks.append((key, stack))
            elif abs(key - MIDDLE_KEY) < abs(stacks[-1][0] - MIDDLE_KEY):
                stacks[-1] = (key, stack)
        zones = []
        for i, (key, stack) in enumerate(stacks):
            first = 0 if i == 0 else (stacks[i - 1][0] + key) // 2 + 1
            last = 127 if i == len(stacks) - 1 else (key + stacks[i + 1][0]) // 2
            for region, gain in stack:
                zone = self.zone(region, (first, last), key - shift, gain)
                zone.generators[Generator.ROOT_KEY] += shift
                zone.key = key
                zones.append(zone)
        return zones

    def kit(self) -> list[Zone]:
        regions = self.font.regions(DRUM_BANK, 0)
        zones = []
        for key in DRUM_KEYS:
            for region, gain in self.layers(regions, key)[:1]:
                zones.append(self.zone(region, (key, key), key, gain, is_drum=True))
        return zones


def piano_variants(piano: list[Zone]) -> tuple[list[Zone], list[Zone]]:
    """The bright piano (each zone plays the recording above, shifted down) and the honky-tonk (two, out of tune)."""
    bright, filtering = [], (Generator.FILTER_CUTOFF, Generator.FILTER_RESONANCE)
    for zone, above in zip(piano, [*piano[1:], piano[-1]], strict=True):
        generators: Generators = {g: amount for g, amount in above.generators.items() if g not in filtering}
        bright.append(Zone(zone.key, zone.keys, above.recording, generators))
    honky = []
    for cents in (-HONKY_TONK_CENTS, HONKY_TONK_CENTS):
        for zone in piano:
            generators = dict(zone.generators)
            generators[Generator.FINE_TUNE] += cents
            generators[Generator.ATTENUATION] += 75
            honky.append(Zone(zone.key, zone.keys, zone.recording, generators))
    return bright, honky


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def listed(name: bytes, *chunks: bytes) -> bytes:
    return chunk(b"LIST", name + b"".join(chunks))


def string(text: str) -> bytes:
    raw = text.encode("ascii") + b"\0"
    return raw + b"\0" * (len(raw) % 2)


def fixed(text: str) -> bytes:
    return text.encode("ascii", "replace")[:19].ljust(20, b"\0")


def encode(recording: Recording) -> tuple[bytes, tuple[int, int]]:
    """The recording as a Vorbis stream, and its loop, moved to where the decoded sound meets itself best."""
    stream = io.BytesIO()
    options = {"format": "OGG", "subtype": "VORBIS", "compression_level": COMPRESSION_LEVEL}
    soundfile.write(stream, recording.frames, recording.rate_hz, **options)
    data = renumbered(stream.getvalue())
    if recording.loop is None:
        return data, (0, 0)
    decoded = soundfile.read(io.BytesIO(data), dtype="float32")[0].astype(np.float64)
    start, end = recording.loop
    reach = np.arange(-LOOP_MATCH_FRAMES, len(decoded) - end)
    if start < LOOP_MATCH_FRAMES:
        return data, recording.loop
    jump = decoded[end + reach] - decoded[start + reach]
    error = np.convolve(jump**2, np.hanning(2 * LOOP_MATCH_FRAMES + 1), "valid")
    shift = int(error[: GUARD_FRAMES - 2 * LOOP_MATCH_FRAMES].argmin())
    return data, (start + shift, end + shift)


def ogg_checksum_table() -> list[int]:
    table = []
    for i in range(256):
        value = i << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(value)
    return table


OGG_CHECKSUMS = ogg_checksum_table()


def renumbered(stream: bytes) -> bytes:
    """An Ogg stream with serial number 1: the encoder draws one at random, and two runs shall write the same bytes."""
    out, place = bytearray(stream), 0
    while place < len(out):
        segments = out[place + 26]
        stop = place + 27 + segments + sum(out[place + 27 : place + 27 + segments])
        out[place + 14 : place + 18] = struct.pack("<I", 1)
        out[place + 22 : place + 26] = bytes(4)
        value = 0
        for byte in out[place:stop]:
            value = (value << 8 & 0xFFFFFFFF) ^ OGG_CHECKSUMS[value >> 24 ^ byte]
        out[place + 22 : place + 26] = struct.pack("<I", value)
        place = stop
    return bytes(out)


DEFAULTS = {
    Generator.DELAY: -12_000,
    Generator.ATTACK: -12_000,
    Generator.HOLD: -12_000,
    Generator.DECAY: -12_000,
    Generator.RELEASE: -12_000,
    Generator.SCALE_TUNING: 100,
}


def zone_generators(zone: Zone, sample: int) -> Iterator[tuple[int, int]]:
    """A zone's generators in the order that the specification asks for, without those at their default."""
    low, high = zone.keys
    yield Generator.KEY_RANGE, low | high << 8
    for generator, amount in sorted(zone.generators.items()):
        if amount != DEFAULTS.get(generator, 0) or generator == Generator.ROOT_KEY:
            yield generator, amount
    yield Generator.SAMPLE, sample


Streams = dict[int, tuple[bytes, tuple[int, int]]]
"""Encoded recordings by the recording's id."""


def font_bytes(presets: list[tuple[str, int, int, list[Zone]]], streams: Streams) -> bytes:
    """A whole SF3 file; what is encoded is kept in `streams` for the next call."""
    order: dict[int, int] = {}
    sample_data, headers = bytearray(), bytearray()
    bags, generators, instruments, preset_headers, preset_bags, preset_generators = (bytearray() for _ in range(6))
    for number, (name, bank, program, zones) in enumerate(presets):
        preset_headers += fixed(name) + struct.pack("<HHHIII", program, bank, number, 0, 0, 0)
        preset_bags += struct.pack("<HH", number, 0)
        preset_generators += struct.pack("<HH", Generator.INSTRUMENT, number)
        instruments += fixed(name) + struct.pack("<H", len(bags) // 4)
        for zone in zones:
            recording = zone.recording
            if id(recording) not in order:
                order[id(recording)] = len(order)
                if id(recording) not in streams:
                    streams[id(recording)] = encode(recording)
                stream, loop = streams[id(recording)]
                start = len(sample_data)
                sample_data += stream
                headers += fixed(recording.header.name) + struct.pack(
                    "<IIIIIBbHH",
                    start,
                    len(sample_data),
                    *loop,
                    recording.rate_hz,
                    recording.header.root_key,
                    0,
                    0,
                    0x11,
                )
            bags += struct.pack("<HH", len(generators) // 4, 0)
            for generator, amount in zone_generators(zone, order[id(recording)]):
                generators += struct.pack("<HH", generator, amount & 0xFFFF)
    count = len(presets)
    info = listed(
        b"INFO",
        chunk(b"ifil", struct.pack("<HH", 3, 0)),
        chunk(b"isng", string("EMU8000")),
        chunk(b"INAM", string("General MIDI, small")),
        chunk(b"ICOP", string(COPYRIGHT)),
        chunk(b"ICMT", string(COMMENT)),
    )
    tables = listed(
        b"pdta",
        chunk(b"phdr", bytes(preset_headers) + fixed("EOP") + struct.pack("<HHHIII", 0, 0, count, 0, 0, 0)),
        chunk(b"pbag", bytes(preset_bags) + struct.pack("<HH", count, 0)),
        chunk(b"pmod", bytes(10)),
        chunk(b"pgen", bytes(preset_generators) + bytes(4)),
        chunk(b"inst", bytes(instruments) + fixed("EOI") + struct.pack("<H", len(bags) // 4)),
        chunk(b"ibag", bytes(bags) + struct.pack("<HH", len(generators) // 4, 0)),
        chunk(b"imod", bytes(10)),
        chunk(b"igen", bytes(generators) + bytes(4)),
        chunk(b"shdr", bytes(headers) + fixed("EOS") + bytes(26)),
    )
    return chunk(b"RIFF", b"sfbk" + info + listed(b"sdta", chunk(b"smpl", bytes(sample_data))) + tables)


def period_cents(sound: NDArray[np.float32], rate_hz: int, expected_hz: float) -> float | None:
    """How far the period that a sound repeats with lies from a pitch; None where it hardly repeats."""
    frames = len(sound)
    sound = (sound - sound.mean()).astype(np.float64)
    power = np.fft.irfft(np.abs(np.fft.rfft(sound, 2 * frames)) ** 2)
    energy = np.concatenate([[0.0], np.cumsum(sound**2)])
    period = rate_hz / expected_hz
    periods = min(max(math.ceil(SHORTEST_LAG_FRAMES / period), 1), 8)
    reach = 0.03 if periods < 8 else 0.02
    lags = np.arange(math.floor(periods * period * (1 - reach)), math.ceil(periods * period * (1 + reach)) + 1)
    likeness = power[lags] / np.sqrt(energy[frames - lags] * (energy[frames] - energy[lags]) + 1e-12)
    best = int(likeness.argmax())
    if likeness[best] < 0.9 or not 0 < best < len(lags) - 1:
        return None
    a, b, c = likeness[best - 1 : best + 2]
    return 1200 * math.log2(periods * period / (lags[best] + 0.5 * (a - c) / (a - 2 * b + c)))


def partials_cents(sound: NDArray[np.float32], rate_hz: int, expected_hz: float, partials: tuple[int, ...]) -> float:
    """How far the centres of a sound's partials lie from multiples of a pitch, weighted by their strength."""
    frames = len(sound)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(frames), 4 * frames)) ** 2
    bin_hz = rate_hz / (4 * frames)
    total = weight = 0.0
    for partial in partials:
        low, high = (round(partial * expected_hz * 2 ** (c / 1200) / bin_hz) for c in (-45, 45))
        near = spectrum[low : high + 1]
        if high < len(spectrum) and near.sum() > 0:
            centre = float((near * np.arange(low, high + 1)).sum() / near.sum()) * bin_hz
            total += float(near.sum()) * 1200 * math.log2(centre / (partial * expected_hz))
            weight += float(near.sum())
    return total / weight if weight else 0.0


def out_of_tune_cents(program: int, sound: NDArray[np.float32], rate_hz: int, expected_hz: float) -> float:
    """How far a sound lies from a pitch that it is known to be near."""
    if program in NAMING_PARTIAL:
        return partials_cents(sound, rate_hz, expected_hz, (NAMING_PARTIAL[program],))
    cents = period_cents(sound, rate_hz, expected_hz)
    return partials_cents(sound, rate_hz, expected_hz, (1, 2, 3, 4)) if cents is None else cents


def tune(presets: list[tuple[str, int, int, list[Zone]]], streams: Streams, path: Path) -> None:
    """Play every zone of the pitched programs at the key it was chosen for and take out what it is off."""
    rate_hz = 44_100
    for _ in range(3):
        path.write_bytes(font_bytes(presets, streams))
        sampler = Sampler(SoundFont.read(path), rate_hz)
        for _, bank, program, zones in presets:
            if bank == DRUM_BANK or program in UNTUNED:
                continue
            for keys in sorted({zone.keys for zone in zones}):
                own = [zone for zone in zones if zone.keys == keys]
                key = own[0].key
                note = Notes.of(0.0, 2.0, key, VELOCITY, program)
                blocks = sampler.play(note, note.offset_seconds, 2 * rate_hz)
                sound = np.concatenate(list(blocks), axis=1).mean(0)[rate_hz // 10 : rate_hz // 10 + 32_768]
                cents = round(out_of_tune_cents(program, sound, rate_hz, 440 * 2 ** ((key - 69) / 12)))
                for zone in own:
                    zone.generators[Generator.FINE_TUNE] -= cents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    font = SoundFont.read(arguments.source)
    names = {key: str(font.preset_name(*key)) for key in font.presets}
    maker = Maker(font)
    presets: list[tuple[str, int, int, list[Zone]]] = []
    piano = maker.program(0)
    bright, honky = piano_variants(piano)
    for program in range(128):
        zones = {0: piano, BRIGHT_PIANO: bright, HONKY_TONK: honky}.get(program)
        presets.append((names[0, program], 0, program, zones if zones is not None else maker.program(program)))
    presets.append(("Standard Kit", DRUM_BANK, 0, maker.kit()))
    streams: Streams = {}
    tune(presets, streams, arguments.target)
    arguments.target.write_bytes(font_bytes(presets, streams))
    size = arguments.target.stat().st_size
    print(f"{arguments.target}: {size} bytes, {len(streams)} samples, sha256 {SoundFont.read(arguments.target).sha256}")


if __name__ == "__main__":
    main()
