"""What each stage can be told: the sections of a pipeline's TOML, and the options of the verbs. Imports nothing heavy.

The defaults are those of the SaxGPT pipeline. A field marked with `APART` says how the work is done, not what comes
out, and may change between a run and its resumption.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

APART = {"is_apart": True}

WHOLE, LEAD, BACKING = "mix", "lead", "backing"
"""Names of parts: a sound as it came, and the two that a mix is taken apart into."""


def _check(is_good: bool, message: str) -> None:
    if not is_good:
        raise ValueError(message)


@dataclass(frozen=True)
class IngestSettings:
    """How recordings are brought in.

    Attributes:
        rate_hz, channels: of all sound from here on.
        bits: of a sample, likewise.
    """

    rate_hz: int = 32_000
    channels: int = 1
    bits: Literal[16, 24] = 16

    def __post_init__(self) -> None:
        _check(8_000 <= self.rate_hz <= 192_000, "rate_hz is from 8000 to 192000")
        _check(self.channels in (1, 2), "channels is 1 or 2")


@dataclass(frozen=True)
class PairsSettings:
    """How solos of the Weimar Jazz Database are played.

    Attributes:
        rate_hz, channels: of the sound.
        saxophones_only: leave out solos of other instruments; else a saxophone plays them too.
        on_chords: move each note of a solo to a tone of its chord, so that a model can learn to hear chords.
        transpose: semitones that solo and backing are moved by at most, drawn for each solo.
        soundfont: whose voices play; the one that ships where none is named.
        synthesizer: what plays them.
        seed: of what the rhythm section makes up.
    """

    rate_hz: int = 32_000
    channels: int = 1
    saxophones_only: bool = False
    on_chords: bool = False
    transpose: int = 0
    soundfont: Path | None = None
    synthesizer: Literal["auto", "fluidsynth", "builtin"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(8_000 <= self.rate_hz <= 96_000, "rate_hz is from 8000 to 96000")
        _check(self.channels in (1, 2), "channels is 1 or 2")
        _check(0 <= self.transpose <= 12, "transpose is from 0 to 12")


@dataclass(frozen=True)
class LoudnessSettings:
    """How loud recordings are made.

    Attributes:
        target_lufs: integrated loudness.
        ceiling_dbtp: how high the true peak may be.
        limit_db: by how much peaks may be turned down to that end; a recording stays softer than the target where
            that is not enough. 0 for one gain from the first sample to the last.
    """

    target_lufs: float = -14.0
    ceiling_dbtp: float = -1.0
    limit_db: float = 6.0

    def __post_init__(self) -> None:
        _check(-60 <= self.target_lufs <= 0, "target_lufs is from -60 to 0")
        _check(-20 <= self.ceiling_dbtp <= 0, "ceiling_dbtp is from -20 to 0")
        _check(0 <= self.limit_db <= 40, "limit_db is from 0 to 40")


@dataclass(frozen=True)
class SeparateSettings:
    """How mixes are taken apart.

    Attributes:
        model: of Demucs, or a folder of its models and a name in there.
        stem: the model's source that is the lead; all others together are the backing. A saxophone is in `other`.
        device: where the model runs.
    """

    model: str = "htdemucs_6s"
    stem: str = "other"
    device: str = field(default="auto", metadata=APART)


@dataclass(frozen=True)
class WindowsSettings:
    """Where there is something to learn from.

    Attributes:
        threshold: of a frame's root mean square, full scale being 1.
        frame_seconds, hop_seconds: how long a frame is, and how far the next one moves on.
        least_seconds: how long a window is at least.
        part: which is measured, of items that have several.
    """

    threshold: float = 0.05
    frame_seconds: float = 10.0
    hop_seconds: float = 0.2
    least_seconds: float = 30.0
    part: str = LEAD

    def __post_init__(self) -> None:
        _check(0 <= self.threshold <= 1, "threshold is from 0 to 1")
        _check(0.001 <= self.hop_seconds <= self.frame_seconds, "hop_seconds is from 0.001 to frame_seconds")
        hops = self.frame_seconds / self.hop_seconds
        _check(abs(hops - round(hops)) < 1e-6, "frame_seconds is a multiple of hop_seconds")
        _check(self.least_seconds >= 0, "least_seconds is negative")


@dataclass(frozen=True)
class ClipsSettings:
    """How windows, or whole recordings, are cut into files.

    Attributes:
        seconds: how long a clip is; None leaves each window as it is.
        every_seconds: how far the next one moves on; None for as long as a clip is.
        least_seconds: what is left at the end is a clip too if it is at least as long.
    """

    seconds: float | None = None
    every_seconds: float | None = None
    least_seconds: float = 5.0

    def __post_init__(self) -> None:
        _check(self.seconds is not None or self.every_seconds is None, "every_seconds needs seconds")
        for value in (self.seconds, self.every_seconds):
            _check(value is None or value >= 0.1, "a clip has 0.1 seconds or more, and so has every_seconds")
        _check(self.least_seconds >= 0, "least_seconds is negative")


@dataclass(frozen=True)
class AugmentSettings:
    """Which versions there are of each clip, beside itself.

    Attributes:
        semitones: it is moved by, one version each.
        tempo: it is played at, one version each; 1.1 is faster.
    """

    semitones: tuple[int, ...] = (-2, 2)
    tempo: tuple[float, ...] = (0.9, 1.1)

    def __post_init__(self) -> None:
        _check(all(0 < abs(step) <= 12 for step in self.semitones), "semitones are from -12 to 12, and not 0")
        _check(all(0.5 <= tempo <= 2 and tempo != 1 for tempo in self.tempo), "tempo is from 0.5 to 2, and not 1")
        for versions in (self.semitones, self.tempo):
            _check(len(set(versions)) == len(versions), "a version is named twice")


@dataclass(frozen=True)
class EncodeSettings:
    """What codes sound becomes.

    Attributes:
        model: a codec, by its name or path.
        adapter: the path of one for that codec; None for none.
        codebooks: how many of its codebooks are used; None for all.
        precision: of the codec's numbers.
        device: where it runs.
    """

    model: str = "codec-24khz"
    adapter: str | None = None
    codebooks: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = field(default="auto", metadata=APART)


SETTINGS: dict[str, type[Any]] = {
    "ingest": IngestSettings,
    "pairs": PairsSettings,
    "loudness": LoudnessSettings,
    "separate": SeparateSettings,
    "windows": WindowsSettings,
    "clips": ClipsSettings,
    "augment": AugmentSettings,
    "encode": EncodeSettings,
}
"""The stages by name, in the order in which they make sense."""
