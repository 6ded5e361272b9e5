"""Notes -> sound with the samples of a SoundFont, block by block.

A note plays one voice for each region of its preset that answers to its key and velocity. A voice's waveform (the
sample resampled to its pitch with a windowed sinc, its loop unrolled, its low-pass filter applied) is made in chunks
that lie on a grid from the note's onset and is shared by all notes of that pitch; its envelope and gain are its own.
Left out, since a player of notes has no controllers to move them: vibrato and tremolo oscillators, sweeping filters,
chorus and reverb. Knows SoundFonts and frames; knows nothing of pedals, files or tokens.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes
from musictool.symbolic.soundfont import SoundFont
from musictool.symbolic.soundfont_regions import Excerpt, Region, Voicing

BLOCK_FRAMES = 16_384
CHUNK_FRAMES = 16_384
CHUNK_CACHE_BYTES = 96 << 20
SAMPLE_CACHE_BYTES = 128 << 20
TONE_CACHE_NOTES = 1 << 14

SILENCE_DB = 96.0
MIN_RELEASE_SECONDS = 0.016  # a shorter one clicks
CHOKE_SECONDS = 0.05  # time that a fall of 100 dB takes when an exclusive class cuts a voice off

_TAPS = 16
_HALF = _TAPS // 2
_PHASE_BITS = 9
_KAISER_BETA = 8.0
_FILTER_TAPS = 4097
_FILTER_STEP_CENTS = 100

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Tone:
    """A waveform that voices share: an excerpt of a sample at a pitch, behind a filter.

    Attributes:
        excerpt: what is played.
        step: frames of the sample per frame of sound.
        cutoff_hz, resonance_db: of the low-pass filter; infinite where there is none.
    """

    excerpt: Excerpt
    step: float
    cutoff_hz: float
    resonance_db: float


class _Stage(NamedTuple):
    """A stretch of an envelope: `level + slope * n`, or `level * exp(slope * n)`, n frames after its start."""

    start: int
    stop: int
    level: float
    slope: float
    is_exponential: bool

    def at(self, frame: int) -> float:
        """The envelope at a frame of the voice."""
        n = frame - self.start
        return self.level * math.exp(self.slope * n) if self.is_exponential else self.level + self.slope * n


@dataclass(eq=False, slots=True)
class _Voice:
    """A sounding region: its waveform, and the envelope and gains that are its own.

    Attributes:
        start_frame: of the whole sound.
        tone: the shared waveform.
        stages: the envelope, in frames of the voice.
        left, right: gains.
        group: voices of one group with one non-zero `exclusive_class` cut each other off.
    """

    start_frame: int
    tone: _Tone
    stages: list[_Stage]
    left: float
    right: float
    group: tuple[int, bool]
    exclusive_class: int

    @property
    def stop_frame(self) -> int:
        """The frame of the whole sound after its last."""
        return self.start_frame + (self.stages[-1].stop if self.stages else 0)

    def choke(self, frame: int, rate_hz: int) -> None:
        """Fade the voice out fast from a frame of the whole sound on."""
        self.stages = _released(self.stages, frame - self.start_frame, CHOKE_SECONDS * rate_hz)

    def envelope(self, first: int, last: int) -> NDArray[np.float32]:
        """The envelope of the voice's frames first..last-1, float32 [n]."""
        out = np.zeros(last - first, np.float32)
        for stage in self.stages:
            a, b = max(first, stage.start), min(last, stage.stop)
            if a >= b:
                continue
            if stage.slope == 0:
                out[a - first : b - first] = stage.level
                continue
            slope = stage.slope * np.arange(a - stage.start, b - stage.start)
            out[a - first : b - first] = (
                stage.level * np.exp(slope) if stage.is_exponential else stage.level + slope  # one formula a frame
            )
        return out


class _Cache(Generic[_Key]):
    """The arrays used last, up to a number of bytes."""

    def __init__(self, make: Callable[[_Key], NDArray[np.float32]], max_bytes: int) -> None:
        self._make = make
        self._max_bytes = max_bytes
        self._bytes = 0
        self._arrays: OrderedDict[_Key, NDArray[np.float32]] = OrderedDict()

    def __getitem__(self, key: _Key) -> NDArray[np.float32]:
        """The array of a key, made where it is not there."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = self._make(key)
        self._arrays[key] = array
        self._bytes += array.nbytes
        while self._bytes > self._max_bytes and len(self._arrays) > 1:
            self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        return array


class Sampler:
    """Plays notes with a font; keeps what it decoded and resampled for the next notes, in bounded memory.

    Args:
        font: the SoundFont.
        rate_hz: of the sound.
    """

    def __init__(self, font: SoundFont, rate_hz: int) -> None:
        self.font = font
        self.rate_hz = rate_hz
        self._bounds: dict[Excerpt, tuple[int, int, int, int]] = {}
        self._samples = _Cache(self._make_sample, SAMPLE_CACHE_BYTES)
        self._chunks = _Cache(self._make_chunk, CHUNK_CACHE_BYTES)
        self._tones = lru_cache(maxsize=TONE_CACHE_NOTES)(self._find_tones)

    def play(
        self, notes: Notes, stop_seconds: NDArray[np.float64], total_frames: int, block_frames: int = BLOCK_FRAMES
    ) -> Iterator[NDArray[np.float32]]:
        """Mix notes.

        Args:
            notes: by rising onset.
            stop_seconds: float64 [n], when each note is let go.
            total_frames: how much to render; what sounds after that is cut.
            block_frames: how much to render at a time; the sound does not depend on it.

        Yields:
            float32 [2, frames], left and right.

        Raises:
            InputError: a preset or sample of the font that a note needs is broken.
        """
        starts = np.rint(notes.onset_seconds * self.rate_hz).astype(np.int64)
        stops = np.maximum(np.rint(stop_seconds * self.rate_hz).astype(np.int64), starts + 1)
        active: list[_Voice] = []
        next_note = 0
        for first in range(0, total_frames, block_frames):
            last = min(first + block_frames, total_frames)
            end = int(np.searchsorted(starts, last))
            for row in range(next_note, end):
                started = self._voices(notes, row, int(starts[row]), int(stops[row]))
                _choke(active, started, self.rate_hz)
                active += started
            next_note = max(next_note, end)
            mix = np.zeros((2, last - first), np.float32)
            for voice in active:
                self._add(voice, mix, first, last)
            active = [voice for voice in active if voice.stop_frame > last]
            yield mix

    def _voices(self, notes: Notes, row: int, start: int, stop: int) -> list[_Voice]:
        program, pitch, is_drum = int(notes.program[row]), int(notes.pitch[row]), bool(notes.is_drum[row])
        velocity = int(notes.velocity[row])
        group = (program, is_drum)
        voices = []
        for tone, voicing, exclusive_class in self._tones(program, pitch, is_drum, velocity):
            stages = _envelope(voicing, stop - start, self.rate_hz)
            end = self._tone_frames(tone)
            if end is not None and stages[-1].stop > end:
                stages = [stage._replace(stop=min(stage.stop, end)) for stage in stages if stage.start < end]
            if not stages:
                continue
            angle = (voicing.pan + 1) * math.pi / 4
            left, right = voicing.gain * math.cos(angle), voicing.gain * math.sin(angle)
            voices.append(_Voice(start, tone, stages, left, right, group, exclusive_class))
        return voices

    def _find_tones(
        self, program: int, pitch: int, is_drum: bool, velocity: int
    ) -> tuple[tuple[_Tone, Voicing, int], ...]:
        """The tones of a note, each with its voicing and exclusive class."""
        found = []
        regions = self.font.regions(*self.font.find(program, is_drum))
        for region in _answering(regions, pitch, velocity, is_drum):
            voicing = region.voicing(pitch, velocity)
            step = 2 ** (voicing.cents / 1200) * region.header.rate_hz / self.rate_hz
            cutoff_hz, resonance_db = voicing.cutoff_hz, round(voicing.resonance_db)
            if cutoff_hz < 0.45 * self.rate_hz:
                steps = round(math.log2(cutoff_hz) * 1200 / _FILTER_STEP_CENTS)
                cutoff_hz = 2 ** (steps * _FILTER_STEP_CENTS / 1200)
            else:
                cutoff_hz, resonance_db = math.inf, 0
            found.append((_Tone(region.excerpt, step, cutoff_hz, resonance_db), voicing, region.exclusive_class))
        return tuple(found)

    def _add(self, voice: _Voice, mix: NDArray[np.float32], first: int, last: int) -> None:
        """Add to the mix of frames first..last-1 what a voice has there."""
        a, b = max(first, voice.start_frame), min(last, voice.stop_frame)
        while a < b:
            frame = a - voice.start_frame
            chunk, offset = divmod(frame, CHUNK_FRAMES)
            n = min(b - a, CHUNK_FRAMES - offset)
            wave = self._chunks[voice.tone, chunk][offset : offset + n] * voice.envelope(frame, frame + n)
            mix[0, a - first : a - first + n] += wave * np.float32(voice.left)
            mix[1, a - first : a - first + n] += wave * np.float32(voice.right)
            a += n

    def _make_sample(self, excerpt: Excerpt) -> NDArray[np.float32]:
        """An excerpt's sample up to its end, silence before it, and its loop's next turn (or silence) after it."""
        frames = self.font.frames(excerpt.sample)
        self._bounds[excerpt] = _, end, loop_start, loop_end = excerpt.bounds(len(frames))
        if not loop_end:
            return np.pad(frames[:end], _TAPS)
        turn = frames[loop_start + np.arange(_TAPS + 1) % (loop_end - loop_start)]
        return np.concatenate([np.zeros(_TAPS, np.float32), frames[:loop_end], turn])

    def _tone_frames(self, tone: _Tone) -> int | None:
        """How many frames a waveform lasts; None where it loops."""
        if tone.excerpt not in self._bounds:
            self._samples[tone.excerpt]
        start, end, _, loop_end = self._bounds[tone.excerpt]
        return None if loop_end else math.ceil((end - start) / tone.step)

    def _make_chunk(self, key: tuple[_Tone, int]) -> NDArray[np.float32]:
        """Frames index * CHUNK_FRAMES.. of a waveform, float32 [CHUNK_FRAMES]."""
        tone, index = key
        first = index * CHUNK_FRAMES
        if math.isinf(tone.cutoff_hz):
            return self._resample(tone, first, first + CHUNK_FRAMES)
        wave = self._resample(tone, first - _FILTER_TAPS + 1, first + CHUNK_FRAMES)
        response = _filter_response(tone.cutoff_hz, tone.resonance_db, self.rate_hz, len(wave))
        filtered = np.fft.irfft(np.fft.rfft(wave) * response, len(wave))
        return filtered[_FILTER_TAPS - 1 :].astype(np.float32)

    def _resample(self, tone: _Tone, first: int, last: int) -> NDArray[np.float32]:
        """Frames first..last-1 of a waveform before its filter, float32 [n]; silence before frame 0."""
        padded = self._samples[tone.excerpt]
        start, end, loop_start, loop_end = self._bounds[tone.excerpt]
        place = start + np.arange(max(first, 0), last) * tone.step
        if loop_end:
            # The loop turns a little late, where the frames on both sides of a place are the loop's own.
            turn = loop_start + _HALF
            looped = place >= turn + (loop_end - loop_start)
            place[looped] = turn + (place[looped] - turn) % (loop_end - loop_start)
        else:
            np.minimum(place, end + _HALF - 1, out=place)
        fine = np.rint(place * (1 << _PHASE_BITS)).astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, _TAPS)
        near = windows[(fine >> _PHASE_BITS) + (_TAPS - _HALF + 1)]
        kernel = _kernel(round(min(1.0, 1 / tone.step), 3))[fine & ((1 << _PHASE_BITS) - 1)]
        wave: NDArray[np.float32] = np.einsum("nt,nt->n", near, kernel)
        return np.pad(wave, (last - first - len(wave), 0)) if first < 0 else wave


def _answering(regions: Sequence[Region], key: int, velocity: int, is_drum: bool) -> list[Region]:
    """The regions that a note plays; where a melodic preset has none for it, those that come nearest."""
    found = [region for region in regions if region.sounds(key, velocity)]
    if found or not regions:
        return found

    def distance(region: Region) -> tuple[int, int]:
        return _outside(key, region.keys), _outside(velocity, region.velocities)

    nearest = min(map(distance, regions))
    return [] if is_drum and nearest[0] else [region for region in regions if distance(region) == nearest]


def _outside(value: int, span: tuple[int, int]) -> int:
    return max(span[0] - value, value - span[1], 0)


def _choke(active: Sequence[_Voice], started: Sequence[_Voice], rate_hz: int) -> None:
    """Let the voices of a new note cut off older ones of their exclusive class."""
    for new in started:
        if not new.exclusive_class:
            continue
        for old in active:
            is_rival = old.exclusive_class == new.exclusive_class and old.group == new.group
            if is_rival and old.start_frame < new.start_frame:
                old.choke(new.start_frame, rate_hz)


def _envelope(voicing: Voicing, held_frames: int, rate_hz: int) -> list[_Stage]:
    """The volume envelope of a note held for a number of frames; its first stage starts at or after frame 0."""
    delay = round(voicing.delay_seconds * rate_hz)
    attack = round(voicing.attack_seconds * rate_hz)
    hold = round(voicing.hold_seconds * rate_hz)
    stages = [_Stage(0, delay, 0.0, 0.0, False), _Stage(delay, delay + attack, 0.0, 1 / max(attack, 1), False)]
    decayed = delay + attack + hold
    stages.append(_Stage(delay + attack, decayed, 1.0, 0.0, False))
    sustain_db = min(voicing.sustain_db, SILENCE_DB)
    decay_frames = voicing.decay_seconds * rate_hz
    if sustain_db > 0 and decay_frames >= 1:
        stop = decayed + math.ceil(decay_frames * sustain_db / 100)
        stages.append(_Stage(decayed, stop, 1.0, -math.log(10) * 5 / decay_frames, True))
        decayed = stop
    if sustain_db < SILENCE_DB:
        stages.append(_Stage(decayed, max(held_frames, decayed + 1), 10 ** (-sustain_db / 20), 0.0, False))
    stages = [stage for stage in stages if stage.stop > stage.start]
    return _released(stages, held_frames, max(voicing.release_seconds, MIN_RELEASE_SECONDS) * rate_hz)


def _released(stages: Sequence[_Stage], frame: int, fall_frames: float) -> list[_Stage]:
    """An envelope that from a frame on falls by 100 dB in `fall_frames`, to silence."""
    if not stages or stages[-1].stop < frame:
        return list(stages)
    kept = [stage._replace(stop=min(stage.stop, frame)) for stage in stages if stage.start < frame]
    level = min(kept[-1].at(frame), 1.0) if kept else 0.0
    audible_db = SILENCE_DB + 20 * math.log10(level) if level > 0 else 0.0
    if audible_db > 0:
        stop = frame + math.ceil(fall_frames * audible_db / 100)
        kept.append(_Stage(frame, stop, level, -math.log(10) * 5 / fall_frames, True))
    return kept


@lru_cache(maxsize=256)
def _kernel(bandwidth: float) -> NDArray[np.float32]:
    """A windowed sinc at every phase, float32 [phases, taps], that passes `bandwidth` of the sample's band."""
    phases = np.arange(1 << _PHASE_BITS) / (1 << _PHASE_BITS)
    x = np.arange(_TAPS) - (_HALF - 1) - phases[:, None]
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(1 - (x / _HALF) ** 2, 0))) / np.i0(_KAISER_BETA)
    kernel: NDArray[np.float64] = np.sinc(x * bandwidth) * window
    return (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=256)
def _filter_response(cutoff_hz: float, resonance_db: float, rate_hz: int, frames: int) -> NDArray[np.complex128]:
    """The spectrum of a two-pole low-pass filter's first taps, for real frames; resonance as section 8.1.3 has it."""
    omega = 2 * math.pi * cutoff_hz / rate_hz
    quality = 10 ** ((resonance_db - 3.01) / 20)
    alpha = math.sin(omega) / (2 * quality)
    z = np.exp(-1j * np.linspace(0, np.pi, 1 << 16))
    top = (1 - math.cos(omega)) / 2 * (1 + z) ** 2 * min(quality**-0.5, 1.0)
    impulse = np.fft.irfft(top / (1 + alpha - 2 * math.cos(omega) * z + (1 - alpha) * z**2))
    return np.fft.rfft(impulse[:_FILTER_TAPS], frames)
