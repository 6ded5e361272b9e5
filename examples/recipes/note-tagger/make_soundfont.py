"""Make a SoundFont of recorded notes, for training audio that sounds of real instruments.

    python make_soundfont.py SAMPLES grand.sf2 --program 0 --name "Grand piano" \
        --layer v4:1-42 --layer v8:43-84 --layer v12:85-127

SAMPLES holds one file for each recorded note, named by it: A4.ogg, Ds3.mp3, C#4.wav, "F2 v2.mp3"; C4 is key 60. With
layers, each is a folder in SAMPLES and the velocities that it plays. Every sample is mixed to mono, cut to begin with
its attack, measured and tuned to its name; one that is more than a semitone off is refused. The layers of a key are
brought to one loudness, so that they differ in tone alone: the level follows from the velocity, as the player of
SoundFonts has it. Knows nothing of stereo, release samples or drums, and does not notice a name that is octaves off.
Needs numpy and soundfile.
"""

from __future__ import annotations

import argparse
import math
import re
import struct
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"}
NOTE_NAME = re.compile(r"([A-Ga-g])(#|s|b)?(-?\d)(?![0-9])")
SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
BEFORE_ATTACK_SECONDS = 0.001
ATTACK_WINDOW_SECONDS = 0.3  # whose peak the beginning is measured against
LEVEL_SECONDS = 0.5  # from the attack on, over which loudness is measured
FADE_SECONDS = 0.25  # at the end of what is cut
PITCH_FROM_SECONDS = 0.05  # after the attack
PITCH_PERIODS = 100  # over which pitch is measured
PITCH_SECONDS = (0.3, 2.0)  # at least and at most
PARTIALS = 8
COMPRESSION = 0.4  # of the partials' magnitudes, where it matters that they are there
RIVAL_LIKENESS = 1.15  # that another pitch needs to be believed before the named one
MOST_CENTS = 100  # off its name before a sample is refused
MOST_STRETCH_CENTS = 60  # the same where the tuning is kept
LOOP_SECONDS = (0.6, 1.6)
LOOP_FADE_SECONDS = 0.2
LOOP_BLOCK_SECONDS = 0.05  # in which a sound's level is measured, to find where it still is steady
LOOP_MATCH_SECONDS = 0.025
UNDAMPED_RELEASE_SECONDS = 40.0
SILENT_FRAMES = 64  # after each sample: the specification wants 46
# Players count initialAttenuation 0.4-fold, as the sound cards did that fonts were made for.
CENTIBELS_PER_DB = 10 / 0.4

# Generators and sample flags, numbered as in sections 8.1.2 and 7.10 of the SoundFont 2.04 specification.
RELEASE, INSTRUMENT, KEY_RANGE, VELOCITY_RANGE = 38, 41, 43, 44
ATTENUATION, SAMPLE, SAMPLE_MODES, ROOT_KEY = 48, 53, 54, 58
MONO_SAMPLE = 1


class UnusableSampleError(Exception):
    """A recording that does not hold the note that its name says."""


@dataclass(frozen=True)
class Sample:
    """A recorded note, ready to be written.

    Attributes:
        name: of its file.
        key: that it was recorded at, by its name.
        rate_hz: of the frames.
        frames: float32 [n], from the attack on, peak 0.95.
        correction_cents: what the player adds to its pitch.
        level_db: of the recording's first moments, as recorded.
        gain_db: that brought its peak to 0.95.
        loop: first and after-last frame; none where it plays to its end.
    """

    name: str
    key: int
    rate_hz: int
    frames: NDArray[np.float32]
    correction_cents: int
    level_db: float
    gain_db: float
    loop: tuple[int, int] | None = None


@dataclass
class Zone:
    """A sample and what plays it; both ranges hold their ends."""

    sample: Sample
    keys: tuple[int, int]
    velocities: tuple[int, int]
    generators: dict[int, int] = field(default_factory=dict)


def key_of(stem: str) -> int | None:
    """The MIDI key that a file's name says, C4 = 60; None where it says none."""
    match = NOTE_NAME.match(stem)
    if not match:
        return None
    letter, accidental, octave = match.groups()
    return 12 * (int(octave) + 1) + SEMITONES[letter.lower()] + {None: 0, "b": -1}.get(accidental, 1)


def pitch_hz(key: int) -> float:
    return 440 * 2 ** ((key - 69) / 12)


def attack_frame(frames: NDArray[np.float32], rate_hz: int, level: float) -> int:
    """Where a sound begins: just before it first reaches `level` of its attack's peak."""
    loudest = np.abs(frames)
    start = int((loudest > 0.01 * loudest.max()).argmax())
    window = loudest[start : start + round(ATTACK_WINDOW_SECONDS * rate_hz)]
    first = start + int((window > level * window.max()).argmax())
    return max(first - round(BEFORE_ATTACK_SECONDS * rate_hz), 0)


def cents_off(frames: NDArray[np.float32], rate_hz: int, key: int) -> float:
    """How far above `key` a sound lies, in cents, by its partials.

    Raises:
        UnusableSampleError: another semitone of the octaves around fits its partials better.
    """
    named_hz = pitch_hz(key)
    length = round(np.clip(PITCH_PERIODS / named_hz, *PITCH_SECONDS) * rate_hz)
    first = round(PITCH_FROM_SECONDS * rate_hz)
    sound = frames[first : first + length]
    size = 1 << math.ceil(math.log2(4 * len(sound)))
    magnitude = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), size))
    bin_hz, width_hz = rate_hz / size, 2 * rate_hz / len(sound)

    def peak(frequency_hz: float, cents: float) -> tuple[float, float]:
        """(frequency, magnitude) of what is loudest within some cents: the power's centre, so that vibrato averages."""
        near = max(frequency_hz * (2 ** (cents / 1200) - 1), bin_hz)
        low, high = int((frequency_hz - near) / bin_hz), int((frequency_hz + near) / bin_hz) + 2
        if high >= len(magnitude):
            return frequency_hz, 0.0
        top = low + int(magnitude[low:high].argmax())
        around = round(max(top * bin_hz * (2 ** (30 / 1200) - 1), width_hz) / bin_hz)
        bins = np.arange(max(top - around, 0), min(top + around + 1, len(magnitude)))
        return float(np.average(bins, weights=magnitude[bins] ** 2 + 1e-20)) * bin_hz, float(magnitude[top])

    count = int(np.clip(0.4 * rate_hz / named_hz, 1, PARTIALS))
    likeness = {
        step: sum(0.8**n * peak((n + 1) * pitch_hz(key + step), 50)[1] ** COMPRESSION for n in range(count))
        for step in range(-11, 12)
    }
    best = max((-1, 0, 1), key=lambda step: likeness[step])
    rival = max(likeness, key=lambda step: likeness[step])
    if likeness[rival] > RIVAL_LIKENESS * likeness[best]:
        raise UnusableSampleError(f"sounds {rival:+d} semitones above its name")
    partials = [(n, *peak(n * pitch_hz(key + best), 60)) for n in range(1, count + 1)]
    cents = [1200 * math.log2(frequency / (n * named_hz)) for n, frequency, _ in partials]
    return float(np.average(cents, weights=[magnitude**2 / n for n, _, magnitude in partials]))


def add_loop(sample: Sample) -> Sample:
    """Loop the end of a sustained sound, cross-faded, from the place that looks most like it; not where it is short."""
    rate, frames = sample.rate_hz, sample.frames.copy()
    block = round(LOOP_BLOCK_SECONDS * rate)
    level = frames[: len(frames) // block * block].reshape(-1, block).std(1)
    end = int(np.flatnonzero(level > 0.5 * np.median(level))[-1]) * block
    fade, width = round(LOOP_FADE_SECONDS * rate), round(LOOP_MATCH_SECONDS * rate)
    shortest, longest = (round(seconds * rate) for seconds in LOOP_SECONDS)
    longest = min(longest, end - fade - width)
    if longest <= shortest:
        return sample
    windows = np.lib.stride_tricks.sliding_window_view(frames[end - longest - width : end - shortest], width)
    likeness = windows @ frames[end - width : end] / np.sqrt(np.einsum("nw,nw->n", windows, windows) + 1e-9)
    start = end - longest + int(likeness.argmax())
    before = np.sin(0.5 * np.pi * (np.arange(fade, dtype=np.float32) + 0.5) / fade)
    mixed = frames[end - fade : end] * np.sqrt(1 - before**2) + frames[start - fade : start] * before
    loudness = np.sqrt((frames[end - fade : end] ** 2).mean() / ((mixed**2).mean() + 1e-12))
    ramp = 1 + (loudness - 1) * np.sin(np.pi * (np.arange(fade, dtype=np.float32) + 0.5) / fade)
    frames[end - fade : end] = mixed * ramp
    after = frames[start : start + SILENT_FRAMES]  # what follows the end, for the player's interpolation
    return replace(sample, frames=np.concatenate([frames[:end], after]), loop=(start, end))


def read_sample(path: Path, key: int, attack_level: float, longest_seconds: float, is_as_tuned: bool) -> Sample:
    """Read a recording, cut it to its attack and measure it.

    Raises:
        UnusableSampleError: it cannot be read, is silent or sounds another note.
    """
    try:
        sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UnusableSampleError(f"cannot be read: {error}") from error
    frames = sound.mean(1)
    if len(frames) < rate_hz // 4 or np.abs(frames).max() < 1e-4:
        raise UnusableSampleError("silent, or shorter than a quarter of a second")
    frames = frames[attack_frame(frames, rate_hz, attack_level) :]
    cents = cents_off(frames, rate_hz, key)
    if abs(cents) > (MOST_STRETCH_CENTS if is_as_tuned else MOST_CENTS):
        raise UnusableSampleError(f"sounds {cents:+.0f} cents above its name")
    longest = round(longest_seconds * rate_hz)
    if len(frames) > longest:
        fade = round(FADE_SECONDS * rate_hz)
        frames = frames[:longest] * np.minimum(np.arange(longest, 0, -1) / fade, 1).astype(np.float32)
    rise = round(BEFORE_ATTACK_SECONDS * rate_hz)
    frames[:rise] *= np.arange(1, rise + 1, dtype=np.float32) / rise
    level = float(np.sqrt((frames[: round(LEVEL_SECONDS * rate_hz)] ** 2).mean()))
    gain = 0.95 / float(np.abs(frames).max())
    correction = 0 if is_as_tuned else -round(cents)
    return Sample(path.stem, key, rate_hz, frames * gain, correction, 20 * math.log10(level), 20 * math.log10(gain))


def spread(samples: list[Sample], velocities: tuple[int, int]) -> list[Zone]:
    """Give each key the nearest sample, so that none is silent."""
    by_key = sorted({sample.key: sample for sample in samples}.values(), key=lambda sample: sample.key)
    borders = [-1, *((a.key + b.key) // 2 for a, b in pairwise(by_key)), 127]
    return [
        Zone(sample, (low + 1, high), velocities) for sample, (low, high) in zip(by_key, pairwise(borders), strict=True)
    ]


def level_layers(layers: list[list[Zone]]) -> None:
    """Attenuate every zone to what its key sounds like in the loudest layer, which is the last."""
    keys = [zone.sample.key for zone in layers[-1]]
    wanted = [zone.sample.level_db for zone in layers[-1]]
    zones = [zone for layer in layers for zone in layer]
    gains = [np.interp(z.sample.key, keys, wanted) - z.sample.level_db - z.sample.gain_db for z in zones]
    for zone, gain in zip(zones, gains, strict=True):
        zone.generators[ATTENUATION] = round((max(gains) - gain) * CENTIBELS_PER_DB)


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def text(name: bytes, content: str) -> bytes:
    return chunk(name, content.encode("ascii", "replace") + b"\0" * (2 - len(content) % 2))


def fixed(content: str) -> bytes:
    return content.encode("ascii", "replace")[:19].ljust(20, b"\0")


def generators_of(zone: Zone, index: int) -> bytes:
    """A zone's generators in the order that the specification wants: ranges first, the sample last."""
    low, high = zone.keys, zone.velocities
    rows = [(KEY_RANGE, low[0] | low[1] << 8), (VELOCITY_RANGE, high[0] | high[1] << 8)]
    rows += sorted(zone.generators.items())
    rows += [(SAMPLE_MODES, 1 if zone.sample.loop else 0), (ROOT_KEY, zone.sample.key), (SAMPLE, index)]
    return b"".join(struct.pack("<HH", number, amount & 0xFFFF) for number, amount in rows)


def write_font(path: Path, name: str, program: int, comment: str, zones: list[Zone]) -> None:
    """Write a SoundFont with one preset: one instrument of these zones."""
    information = [
        chunk(b"ifil", struct.pack("<HH", 2, 4)),
        text(b"isng", "EMU8000"),
        text(b"INAM", name),
        text(b"ICMT", comment),
    ]
    headers, sounds, bags, generators, place = b"", [], b"", b"", 0
    for index, zone in enumerate(zones):
        sample = zone.sample
        start, end = place, place + len(sample.frames)
        loop = sample.loop or (0, len(sample.frames))
        headers += fixed(sample.name) + struct.pack("<5I", start, end, start + loop[0], start + loop[1], sample.rate_hz)
        headers += struct.pack("<BbHH", sample.key, sample.correction_cents, 0, MONO_SAMPLE)
        sounds += [np.rint(sample.frames * 32_767).astype("<i2"), np.zeros(SILENT_FRAMES, "<i2")]
        place = end + SILENT_FRAMES
        bags += struct.pack("<HH", len(generators) // 4, 0)
        generators += generators_of(zone, index)
    bags += struct.pack("<HH", len(generators) // 4, 0)
    no_modulator, no_generator = bytes(10), bytes(4)
    tables = [
        chunk(b"phdr", _preset(name, program, 0) + _preset("EOP", 0, 1)),
        chunk(b"pbag", struct.pack("<4H", 0, 0, 1, 0)),
        chunk(b"pmod", no_modulator),
        chunk(b"pgen", struct.pack("<HH", INSTRUMENT, 0) + no_generator),
        chunk(b"inst", fixed(name) + struct.pack("<H", 0) + fixed("EOI") + struct.pack("<H", len(zones))),
        chunk(b"ibag", bags),
        chunk(b"imod", no_modulator),
        chunk(b"igen", generators + no_generator),
        chunk(b"shdr", headers + fixed("EOS") + bytes(26)),
    ]
    lists = [
        chunk(b"LIST", b"INFO" + b"".join(information)),
        chunk(b"LIST", b"sdta" + chunk(b"smpl", np.concatenate(sounds).tobytes())),
        chunk(b"LIST", b"pdta" + b"".join(tables)),
    ]
    path.write_bytes(chunk(b"RIFF", b"sfbk" + b"".join(lists)))


def _preset(name: str, program: int, bag: int) -> bytes:
    return fixed(name) + struct.pack("<HHH3I", program, 0, bag, 0, 0, 0)


def timecents(seconds: float) -> int:
    return round(1200 * math.log2(seconds))


def read_layer(folder: Path, options: argparse.Namespace) -> list[Sample]:
    """The usable samples of a folder; tells of the others."""
    samples = []
    for path in sorted(folder.iterdir()):
        key = key_of(path.stem)
        if key is None or path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        try:
            sample = read_sample(path, key, options.attack_level, options.longest, options.as_tuned)
        except UnusableSampleError as error:
            print(f"left out: {path}: {error}")
            continue
        samples.append(add_loop(sample) if options.loop else sample)
    if not samples:
        raise SystemExit(f"no usable sample in {folder}")
    return samples


def parse_layer(value: str) -> tuple[str, tuple[int, int]]:
    """FOLDER:LOW-HIGH."""
    match = re.fullmatch(r"(.+):(\d+)-(\d+)", value)
    if not match or not 1 <= int(match[2]) <= int(match[3]) <= 127:
        raise argparse.ArgumentTypeError("give FOLDER:LOW-HIGH, velocities of 1 to 127")
    return match[1], (int(match[2]), int(match[3]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("samples", type=Path, help="folder of recorded notes, or of the layers' folders")
    add("out", type=Path, help="the SF2 file")
    add("--program", type=int, default=0, help="General MIDI program, 0 to 127")
    add("--name", required=True, help="of the instrument")
    add("--comment", default="", help="where the samples are from, and their licence; kept in the file")
    add("--layer", type=parse_layer, action="append", metavar="FOLDER:LOW-HIGH", help="softest first")
    add("--release", type=float, default=0.5, help="seconds in which a key that is let go falls by 100 dB")
    add("--undamped-from", type=int, default=128, metavar="KEY", help="from this key on, notes ring on")
    add("--attack-level", type=float, default=0.03, help="of the peak, that ends the silence before a note")
    add("--longest", type=float, default=20.0, help="seconds of a sample that are kept")
    add("--as-tuned", action="store_true", help="keep the recorded tuning: a piano's octaves are stretched")
    add("--loop", action="store_true", help="loop the ends of sustained sounds")
    options = parser.parse_args()

    layers = [
        spread(read_layer(options.samples / folder, options), velocities)
        for folder, velocities in options.layer or [("", (1, 127))]
    ]
    level_layers(layers)
    zones = [zone for layer in layers for zone in layer]
    for zone in zones:
        is_damped = zone.sample.key < options.undamped_from
        zone.generators[RELEASE] = timecents(options.release if is_damped else UNDAMPED_RELEASE_SECONDS)
    write_font(options.out, options.name, options.program, options.comment, zones)
    print(f"{options.out}: {len(zones)} samples, {options.out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
