"""What a sound file is like, read to its end block by block, and what is wrong with that.

Facts come from one pass in bounded memory; `judge` holds them against rules. A window is silent if its root mean
square over all channels lies under a threshold.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from musictool.errors import MissingError
from musictool.findings import Finding, Limit, Measure, judge_measures

_SNDFILE_SUFFIXES = ".wav .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .caf .w64 .rf64"
_FFMPEG_SUFFIXES = ".m4a .aac .wma .mka .mp4 .webm"
AUDIO_SUFFIXES = (*_SNDFILE_SUFFIXES.split(), *_FFMPEG_SUFFIXES.split())
WINDOW_SECONDS = 0.05
BLOCK_SAMPLES = 1 << 18
FULL_SCALE = 32767 / 32768  # the highest sample of 16 bits


@dataclass(frozen=True)
class AudioRules:
    """What sound has to be like.

    Attributes:
        duration: seconds.
        rate: samples a second.
        channels: how many.
        silence: share of the file, 0..1, in windows of 50 ms under `silence_db`.
        leading_silence: seconds before the first window that is not silent.
        clipping: share of samples, 0..1, at or over full scale.
        unusable_samples: samples that are no numbers, or infinite.
        silence_db: decibels below full scale.
    """

    duration: Limit = Limit(min=0.01)
    rate: Limit = Limit(min=1)
    channels: Limit = Limit(min=1)
    silence: Limit = Limit(max=0.99)
    leading_silence: Limit = Limit(max=30, severity="warning")
    clipping: Limit = Limit(max=0.001, severity="warning")
    unusable_samples: Limit = Limit(max=0)
    silence_db: float = -60.0


_MEASURES = (
    Measure("duration", "duration_seconds", "duration", " s"),
    Measure("rate", "rate_hz", "sample rate", " Hz"),
    Measure("channels", "channels", "channels"),
    Measure("silence", "silence_share", "silent share"),
    Measure("leading_silence", "leading_silence_seconds", "leading silence", " s"),
    Measure("clipping", "clipped_share", "clipped share"),
    Measure("unusable_samples", "unusable_samples", "samples that are no finite number"),
)


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """What a sound file is like.

    Attributes:
        container, encoding: as `AudioReader` names them.
        rate_hz, channels: of the file.
        frames: samples of each channel that could be read.
        duration_seconds: of them.
        silence_share: share of windows that are silent.
        leading_silence_seconds: before the first that is not; all of a silent file.
        peak: the highest magnitude of a sample.
        clipped_share: share of samples at or over full scale.
        unusable_samples: samples that are no numbers, or infinite.
        is_truncated: whether the container promises more, or the decoder broke off.
        digest: sha256 of rate, channels and samples; two files with one digest sound the same.
    """

    container: str
    encoding: str
    rate_hz: int
    channels: int
    frames: int
    duration_seconds: float
    silence_share: float
    leading_silence_seconds: float
    peak: float
    clipped_share: float
    unusable_samples: int
    is_truncated: bool
    digest: str


def inspect_audio(file: Path | BinaryIO, silence_db: float = AudioRules.silence_db) -> AudioFacts:
    """Read a sound file to its end.

    Args:
        file: where it is, or a binary file.
        silence_db: what counts as silent.

    Raises:
        InputError: it cannot be read, or is no sound that can be decoded here.
        MissingError: soundfile is not installed.
    """
    try:
        from musictool.audio.reading import open_audio
    except (ImportError, OSError) as error:  # the latter where libsndfile itself is not there
        raise MissingError(
            "sound files need soundfile and soxr", hint="pip install soundfile soxr", code="missing-dependency"
        ) from error
    with open_audio(file) as reader:
        tally = _Tally(reader.rate_hz, reader.channels, silence_db)
        windows = max(1, BLOCK_SAMPLES // reader.channels // tally.window_samples)
        for block in reader.blocks(windows * tally.window_samples, strict=False):
            tally.add(block)
        return tally.facts(reader.container, reader.encoding, reader.is_truncated)


def judge_audio(facts: AudioFacts, rules: AudioRules, section: str = "audio.") -> list[Finding]:
    """What is wrong with a sound file.

    Args:
        facts: as from `inspect_audio`.
        rules: what it is held against.
        section: goes before the names of the rules.
    """
    findings = []
    if facts.is_truncated:
        findings.append(Finding(section + "truncated", "error", "the file ends before the sound does", facts.frames))
    return findings + list(judge_measures(_MEASURES, rules, facts, section))


class _Tally:
    """Running figures of a sound."""

    def __init__(self, rate_hz: int, channels: int, silence_db: float) -> None:
        self.frames = 0
        self.window_samples = max(1, round(rate_hz * WINDOW_SECONDS))
        self._rate_hz, self._channels = rate_hz, channels
        self._threshold = 10 ** (silence_db / 10)
        self._windows = self._silent = self._clipped = self._unusable = 0
        self._leading: int | None = None  # windows; None while there was nothing else
        self._peak = 0.0
        self._digest = hashlib.sha256(f"{rate_hz} {channels}\n".encode())

    def add(self, block: NDArray[np.float32]) -> None:
        """Take in whole windows, float32 [n, C]; only the last block may end inside one."""
        self._digest.update(np.ascontiguousarray(block, "<f4").data)
        is_finite = np.isfinite(block)
        if not is_finite.all():
            self._unusable += int(np.count_nonzero(~is_finite))
            block = np.where(is_finite, block, np.float32(0))
        magnitude = np.abs(block)
        self._peak = max(self._peak, float(magnitude.max()))
        self._clipped += int(np.count_nonzero(magnitude >= FULL_SCALE))
        starts = np.arange(0, len(block), self.window_samples)
        power = np.add.reduceat(np.square(block, dtype=np.float64).mean(axis=1), starts)
        is_silent = power / np.diff(starts, append=len(block)) < self._threshold
        if self._leading is None and not is_silent.all():
            self._leading = self._windows + int(np.argmin(is_silent))
        self._windows += len(starts)
        self._silent += int(np.count_nonzero(is_silent))
        self.frames += len(block)

    def facts(self, container: str, encoding: str, is_truncated: bool) -> AudioFacts:
        """The figures as of now."""
        duration = self.frames / self._rate_hz
        leading = duration if self._leading is None else self._leading * self.window_samples / self._rate_hz
        return AudioFacts(
            container,
            encoding,
            self._rate_hz,
            self._channels,
            self.frames,
            duration,
            self._silent / max(1, self._windows),
            leading,
            self._peak,
            self._clipped / max(1, self.frames * self._channels),
            self._unusable,
            is_truncated,
            self._digest.hexdigest(),
        )
