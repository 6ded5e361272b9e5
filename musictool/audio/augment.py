"""Waveforms as other rooms, microphones and recorders would have them, so that a model learns what stays the same.

Every function is pure: samples and what was drawn in, samples out. Onsets stay where they are, but for `detuned`, which
says by how much time was stretched, and within what a codec smears. Rooms are noise that decays exponentially, after a
few single reflections; filters, room and noise are applied in one pass over the spectrum. Knows no notes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Range = tuple[float, float]

CODECS = {  # libsndfile's container, its coding, and its compression levels from hardly to clearly heard at 16 kHz
    "mp3": ("MP3", "MPEG_LAYER_III", (0.5, 0.99)),  # 27 to 17 kbit/s
    "vorbis": ("OGG", "VORBIS", (0.5, 1.0)),  # 42 to 30 kbit/s
    "opus": ("OGG", "OPUS", (0.85, 0.98)),  # 40 to 10 kbit/s
}
MAX_CODEC_DELAY_SECONDS = 0.15
_EQ_POINTS_AN_OCTAVE = 0.75
_LOWEST_HZ = 30.0
_ROLL_OFF_ORDER = 6
_REFLECTIONS = 7
_HUM_HARMONICS = 6
_COMPRESSOR_HOP_SECONDS = 0.01
_TINY = 1e-12


@dataclass(frozen=True)
class AugmentConfig:
    """How often each change is made, and within what.

    Attributes:
        detune_share: of sounds that are played faster or slower, pitch with time.
        detune_cents: by so much at most; a note should not become its neighbour.
        equalise_share: of sounds that get a smooth random frequency response.
        equalise_decibels: its standard deviation, lowest and highest.
        room_share: of sounds that get a room.
        room_decay_seconds: until it has lost 60 dB.
        room_decibels: the room's energy over that of the direct sound.
        noise_share: of sounds that get noise.
        noise_snr_decibels: of the sound over it.
        noise_slope: exponents of its spectral power over frequency: 0 is white, -1 pink, -2 brown.
        band_share: of sounds whose band is limited.
        low_pass_hz: where the band ends, drawn evenly in pitch.
        high_pass_hz: where it begins; half of the limited ones keep their lows.
        hum_share: of sounds with mains hum.
        hum_decibels: of the sound over it.
        compress_share: of sounds whose dynamics are evened out.
        compress_ratio: by how much.
        clip_share: of sounds that are softly overdriven.
        clip_drive: the peak over where the curve bends.
        codec_share: of sounds that go through a lossy codec.
        codec_loss: 0 is hardly heard and 1 clearly.
        gain_decibels: of all sounds, at the end.
    """

    detune_share: float = 0.3
    detune_cents: float = 20.0
    equalise_share: float = 0.6
    equalise_decibels: Range = (1.0, 5.0)
    room_share: float = 0.6
    room_decay_seconds: Range = (0.15, 1.2)
    room_decibels: Range = (-22.0, -3.0)
    noise_share: float = 0.5
    noise_snr_decibels: Range = (12.0, 50.0)
    noise_slope: Range = (-2.0, 0.3)
    band_share: float = 0.2
    low_pass_hz: Range = (3_400.0, 8_000.0)
    high_pass_hz: Range = (40.0, 300.0)
    hum_share: float = 0.05
    hum_decibels: Range = (20.0, 45.0)
    compress_share: float = 0.2
    compress_ratio: Range = (1.3, 4.0)
    clip_share: float = 0.1
    clip_drive: Range = (0.5, 2.0)
    codec_share: float = 0.04
    codec_loss: Range = (0.0, 1.0)
    gain_decibels: Range = (-15.0, 3.0)


@dataclass(frozen=True, eq=False, slots=True)
class Augmented:
    """A changed sound.

    Attributes:
        samples: float32 [N'], as many as before unless it was detuned.
        time_ratio: a moment t of the sound before is now at t * time_ratio.
        applied: the names of the changes, in their order.
    """

    samples: Samples
    time_ratio: float
    applied: tuple[str, ...]


@dataclass(eq=False, slots=True)
class _Chain:
    """What is done to a spectrum, in this order; None leaves a link out.

    Attributes:
        room: float32 [M], as from `room_response`.
        noise: signal-to-noise ratio in decibels, and spectral slope.
        equaliser_decibels: as `equaliser` takes them.
        band_hz: where the band begins and ends, as `band` takes them.
    """

    room: Samples | None = None
    noise: tuple[float, float] | None = None
    equaliser_decibels: NDArray[np.float64] | None = None
    band_hz: tuple[float, float] | None = None

    @property
    def is_empty(self) -> bool:
        links = (self.room, self.noise, self.equaliser_decibels, self.band_hz)
        return all(link is None for link in links)


def augment(samples: Samples, rate_hz: int, config: AugmentConfig, generator: np.random.Generator) -> Augmented:
    """Draw changes and make them.

    Args:
        samples: float32 [N], mono.
        rate_hz: of the samples.
        config: how often and how much.
        generator: all that is drawn comes from it, so that its state decides the result.

    Returns:
        The sound within -1..1, the ratio by which its time was stretched, and what was done.
    """
    if not len(samples):
        return Augmented(samples, 1.0, ())
    applied: list[str] = []

    def happens(name: str, share: float) -> bool:
        """Draw whether a change is made; one number is drawn for each, whatever its share."""
        is_drawn = bool(generator.random() < share)
        if is_drawn:
            applied.append(name)
        return is_drawn

    ratio = 1.0
    if happens("detune", config.detune_share):
        samples, ratio = detuned(samples, rate_hz, generator.uniform(-config.detune_cents, config.detune_cents))
    if happens("compress", config.compress_share):
        samples = compressed(samples, rate_hz, generator.uniform(*config.compress_ratio))
    if happens("clip", config.clip_share):
        samples = softly_clipped(samples, generator.uniform(*config.clip_drive))
    chain = _Chain()
    if happens("room", config.room_share):
        decay, decibels = generator.uniform(*config.room_decay_seconds), generator.uniform(*config.room_decibels)
        chain.room = room_response(rate_hz, decay, decibels, generator)
    if happens("equalise", config.equalise_share):
        points = 1 + max(round(_EQ_POINTS_AN_OCTAVE * np.log2(rate_hz / 2 / _LOWEST_HZ)), 1)
        chain.equaliser_decibels = generator.normal(0, generator.uniform(*config.equalise_decibels), points)
    if happens("band", config.band_share):
        low_pass_hz = float(np.exp(generator.uniform(*np.log(config.low_pass_hz))))
        chain.band_hz = generator.uniform(*config.high_pass_hz) * float(generator.integers(2)), low_pass_hz
    if happens("noise", config.noise_share):
        chain.noise = generator.uniform(*config.noise_snr_decibels), generator.uniform(*config.noise_slope)
    samples = _filtered(samples, rate_hz, chain, generator)
    if happens("hum", config.hum_share):
        samples = with_hum(samples, rate_hz, generator.uniform(*config.hum_decibels), generator)
    if happens("codec", config.codec_share):
        codec = list(CODECS)[generator.integers(len(CODECS))]
        samples = coded(samples, rate_hz, codec, generator.uniform(*config.codec_loss))
    gain = 10 ** (generator.uniform(*config.gain_decibels) / 20)
    peak = float(np.abs(samples).max(initial=0.0))
    scale = min(gain, 0.99 / peak) if peak > 0 else 1.0
    return Augmented(samples * np.float32(scale), ratio, tuple(applied))


def mixed(samples: Samples, other: Samples, decibels: float) -> Samples:
    """Add another sound, repeated or cut to the same length, so many decibels softer in root mean square.

    Returns:
        float32 [N], lowered where it would leave -1..1.
    """
    if not len(samples) or not np.any(other):
        return samples
    background = np.resize(other, len(samples))
    level = _rms(samples) / max(_rms(background), _TINY) * 10 ** (-decibels / 20)
    total = samples + background * np.float32(level)
    peak = float(np.abs(total).max())
    return total if peak <= 1 else total / np.float32(peak)


def detuned(samples: Samples, rate_hz: int, cents: float) -> tuple[Samples, float]:
    """Play a sound at another speed: float32 [about N * ratio], and the ratio by which it is longer."""
    ratio = 2 ** (-cents / 1200)
    # soxr resamples between any two rates; the new samples are then taken for samples of the old rate.
    resampled = soxr.resample(samples, float(rate_hz), rate_hz * ratio, quality="MQ")
    return np.asarray(resampled, np.float32), ratio


def compressed(samples: Samples, rate_hz: int, ratio: float) -> Samples:
    """Even out loudness: over short spans, level above the mean is divided by the ratio, and as much below raised.

    Raises no more than 20 dB, so that a pause stays one.
    """
    hop = max(round(rate_hz * _COMPRESSOR_HOP_SECONDS), 1)
    spans = np.pad(samples, (0, -len(samples) % hop)).reshape(-1, hop)
    power = np.square(spans).mean(axis=1, dtype=np.float64)
    # Loudness is known a little ahead and falls off slowly, as a compressor's release lets it.
    smooth = np.convolve(power, np.r_[np.full(3, 1.0), np.exp(-np.arange(40) / 12)], mode="full")[2:][: len(power)]
    mean = smooth.mean()
    if mean < _TINY:
        return samples
    gain = np.clip(smooth / mean, 1e-2, 1e2) ** (0.5 * (1 / ratio - 1))
    centers = (np.arange(len(gain)) + 0.5) * hop
    return samples * np.interp(np.arange(len(samples)), centers, gain).astype(np.float32)


def softly_clipped(samples: Samples, drive: float) -> Samples:
    """Bend the peaks of a sound down by a hyperbolic tangent; its peak stays as it is."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < _TINY:
        return samples
    return np.tanh(samples * np.float32(drive / peak)) * np.float32(peak / np.tanh(drive))


def room_response(rate_hz: int, decay_seconds: float, decibels: float, generator: np.random.Generator) -> Samples:
    """The impulse response of a made-up room.

    Args:
        rate_hz: of the response.
        decay_seconds: until the tail has lost 60 dB; it is cut off where it has lost 40.
        decibels: energy of reflections and tail over that of the direct sound.
        generator: draws them.

    Returns:
        float32 [M]; the direct sound is its first sample and 1.
    """
    count = max(round(decay_seconds * rate_hz * 2 / 3), 2)
    time = np.arange(count, dtype=np.float32) / rate_hz
    envelope = np.exp(np.float32(-6.9 / decay_seconds) * time)
    tail = generator.standard_normal(count, dtype=np.float32) * envelope
    tail *= 1 - np.exp(-time / np.float32(0.01))  # builds up within some milliseconds
    places = generator.integers(round(0.002 * rate_hz), max(round(0.04 * rate_hz), 2), _REFLECTIONS) % count
    strength = float(np.sqrt(np.square(tail).sum() / _REFLECTIONS))
    signs = generator.choice(np.array([-1.0, 1.0], np.float32), _REFLECTIONS)
    np.add.at(tail, places, signs * np.float32(strength) * envelope[places] * generator.uniform(0.2, 1, _REFLECTIONS))
    tail[0] = 0
    tail *= np.float32(10 ** (decibels / 20) / max(np.sqrt(np.square(tail).sum()), _TINY))
    tail[0] = 1
    return tail


def equaliser(hz: NDArray[np.float32], decibels: NDArray[np.float64], rate_hz: int) -> NDArray[np.float32]:
    """Gains, float32 [F], of a smooth curve through points spaced evenly in pitch from 30 Hz to the highest frequency.

    Args:
        hz: float32 [F], rising.
        decibels: of each point; the curve is straight in between, smoothed by a raised cosine.
        rate_hz: twice the highest frequency.
    """
    octaves = np.log2(np.maximum(hz, _LOWEST_HZ) / _LOWEST_HZ)
    place = octaves * ((len(decibels) - 1) / np.log2(rate_hz / 2 / _LOWEST_HZ))
    left = np.minimum(place.astype(np.int64), max(len(decibels) - 2, 0))
    share = 0.5 - 0.5 * np.cos(np.pi * np.clip(place - left, 0, 1))
    right = np.minimum(left + 1, len(decibels) - 1)
    curve = decibels[left] * (1 - share) + decibels[right] * share
    return np.exp(curve * (np.log(10) / 20)).astype(np.float32)


def band(hz: NDArray[np.float32], high_pass_hz: float, low_pass_hz: float) -> NDArray[np.float32]:
    """Gains, float32 [F], of a band that falls off as a Butterworth filter does, with order 6 above and 3 below.

    A high pass of 0 Hz leaves the lows as they are.
    """
    power = 2 * _ROLL_OFF_ORDER
    gains = 1 / np.sqrt(1 + (hz / np.float32(low_pass_hz)) ** power)
    if high_pass_hz > 0:
        gains = gains / np.sqrt(1 + (np.float32(high_pass_hz) / np.maximum(hz, 1)) ** (power // 2))
    return gains.astype(np.float32)


def with_hum(samples: Samples, rate_hz: int, decibels: float, generator: np.random.Generator) -> Samples:
    """Add the hum of the mains, 50 or 60 Hz and drawn harmonics, so many decibels under the sound."""
    base = float(generator.choice([50.0, 60.0]))
    phase = 2 * np.pi * base * np.arange(len(samples), dtype=np.float64) / rate_hz
    hum = np.zeros(len(samples), np.float32)
    for harmonic in range(1, _HUM_HARMONICS + 1):
        strength = generator.random() / harmonic
        hum += (strength * np.sin(harmonic * phase + generator.uniform(0, 2 * np.pi))).astype(np.float32)
    return samples + hum * np.float32(_rms(samples) / max(_rms(hum), _TINY) * 10 ** (-decibels / 20))


def coded(samples: Samples, rate_hz: int, codec: str, loss: float) -> Samples:
    """Send a sound through a lossy codec and back, the codec's delay taken off.

    Args:
        samples: float32 [N].
        rate_hz: one that the codec knows; at others the sound comes back as it went.
        codec: `mp3`, `vorbis` or `opus`.
        loss: 0..1, from hardly to clearly heard.

    Returns:
        float32 [N].
    """
    container, subtype, (least, most) = CODECS[codec]
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < _TINY:
        return samples
    file = io.BytesIO()
    try:
        soundfile.write(
            file,
            samples * np.float32(0.7 / peak),  # a codec overshoots
            rate_hz,
            format=container,
            subtype=subtype,
            compression_level=least + (most - least) * loss,
        )
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32")
    except (soundfile.LibsndfileError, ValueError):  # an older libsndfile has fewer codecs
        return samples
    decoded *= np.float32(peak / 0.7)
    delay = _delay(samples, decoded, round(MAX_CODEC_DELAY_SECONDS * rate_hz))
    shifted = decoded[delay:] if delay >= 0 else np.pad(decoded, (-delay, 0))
    return np.pad(shifted, (0, max(len(samples) - len(shifted), 0)))[: len(samples)]


def _delay(before: Samples, after: Samples, widest: int) -> int:
    """By how many samples `after` comes later, where their cross-correlation is highest."""
    count = min(len(before), len(after), 1 << 17)
    size = _fast_length(count + widest + 1)
    product = np.conj(np.fft.rfft(before[:count], size)) * np.fft.rfft(after[:count], size)
    correlation = np.fft.irfft(product, size)
    around = np.concatenate([correlation[-widest:], correlation[: widest + 1]])
    return int(np.argmax(around)) - widest


def _filtered(samples: Samples, rate_hz: int, chain: _Chain, generator: np.random.Generator) -> Samples:
    """Apply a chain in one pass over the spectrum, float32 [N]."""
    if chain.is_empty:
        return samples
    count = len(samples)
    # Room enough behind the sound that nothing comes round to its start.
    size = _fast_length(count + max(rate_hz // 10, 0 if chain.room is None else len(chain.room)))
    hz = np.fft.rfftfreq(size, 1 / rate_hz).astype(np.float32)
    spectrum = np.fft.rfft(samples, size).astype(np.complex64)
    if chain.room is not None:
        spectrum *= np.fft.rfft(chain.room, size).astype(np.complex64)
    if chain.noise is not None:
        decibels, slope = chain.noise
        parts = generator.standard_normal((2, len(spectrum)), dtype=np.float32)
        noise = (parts[0] + np.complex64(1j) * parts[1]) * np.maximum(hz, _LOWEST_HZ) ** np.float32(slope / 2)
        ratio = _energy(spectrum) / count / max(_energy(noise) / size, _TINY)  # noise fills all of the transform
        spectrum += noise * np.float32(np.sqrt(ratio) * 10 ** (-decibels / 20))
    if chain.equaliser_decibels is not None:
        spectrum *= equaliser(hz, chain.equaliser_decibels, rate_hz)
    if chain.band_hz is not None:
        spectrum *= band(hz, *chain.band_hz)
    return np.ascontiguousarray(np.fft.irfft(spectrum, size)[:count], np.float32)


def _energy(spectrum: NDArray[np.complex64]) -> float:
    return float(np.sum(np.square(np.abs(spectrum)), dtype=np.float64))


def _fast_length(count: int) -> int:
    """The shortest length of at least `count` that has no prime factor over 5."""
    best = 1 << max(count - 1, 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            quotient = -(-count // three)
            length = three << max(quotient - 1, 0).bit_length()
            best = min(best, length)
            three *= 3
        five *= 5
    return best


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.square(samples).mean(dtype=np.float64))) if len(samples) else 0.0
