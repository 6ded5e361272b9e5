"""What `mtk decode` makes of an item: MIDI or sound of notes, sound of codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musictool.inference.codec_choice import Codecs
    from musictool.inference.coded_sound import CodedSound
    from musictool.symbolic.notes import Score
    from musictool.symbolic.synthesis import SynthesizerName

MIDI_FORMATS = ("mid", "midi")
AUDIO_FORMATS = ("wav", "flac", "ogg", "mp3")
RAW = "raw"
NOTES_RATE_HZ = 44_100


@dataclass(frozen=True)
class SoundFormat:
    """How sound is written.

    Attributes:
        container: one of `AUDIO_FORMATS`, or `RAW`.
        bits: of a sample; of raw sound, `encoding` says.
        encoding: of raw samples.
    """

    container: str
    bits: int
    encoding: str

    def check(self) -> None:
        """Refuse what there is not.

        Raises:
            UsageError: the container has no such samples, or there is no such encoding.
        """
        from musictool.audio.files import sample_format
        from musictool.audio.raw import RawFormat

        if self.container == RAW:
            RawFormat(1, 1, self.encoding)
        else:
            sample_format(self.container, self.bits)

    def write(self, file: BinaryIO, blocks: Iterable[NDArray[np.float32]], rate_hz: int, channels: int) -> int:
        """Write sound; how many samples were clipped."""
        from musictool.audio.files import write_audio, write_raw
        from musictool.audio.raw import RawFormat

        if self.container == RAW:
            return write_raw(file, blocks, RawFormat(rate_hz, channels, self.encoding))
        return write_audio(file, blocks, rate_hz, channels, container=self.container, bits=self.bits)


@dataclass(frozen=True)
class ScoreForm:
    """What notes are turned into.

    Attributes:
        sound: how sound is written; None for MIDI.
        soundfont: other than the one that ships.
        synthesizer: what plays it.
        rate_hz: of the sound.
    """

    sound: SoundFormat | None
    soundfont: Path | None
    synthesizer: SynthesizerName
    rate_hz: int

    def check(self) -> None:
        """Refuse what can't be made before any input is read."""
        if self.sound is not None:
            from musictool.symbolic.synthesis import describe_synthesizer

            self.sound.check()
            describe_synthesizer(self.soundfont, self.synthesizer)

    def write(self, score: Score, file: BinaryIO) -> int:
        """Write a score; how many samples were clipped."""
        if self.sound is not None:
            from musictool.symbolic.synthesis import render

            blocks = render(
                score.notes,
                score.pedals,
                rate_hz=self.rate_hz,
                soundfont=self.soundfont,
                synthesizer=self.synthesizer,
            )
            return self.sound.write(file, blocks, self.rate_hz, 2)
        from musictool.symbolic.midi import write_midi

        file.write(write_midi(score))
        return 0


@dataclass(frozen=True)
class Coded:
    """Codes, and what their item says of them.

    Attributes:
        sound: the codes.
        vocab, vocab_sha: which codec's; the fingerprint None where only its name is known.
        source_rate_hz: of the sound that they are made from, where that is known.
        meta: what their head says beside.
    """

    sound: CodedSound
    vocab: str
    vocab_sha: str | None
    source_rate_hz: int | None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CodesForm:
    """What codes are turned into.

    Attributes:
        sound: how sound is written; None if MIDI is asked for, which codes hold none of.
        codecs: where to find what decodes them.
        rate_hz: of the sound; None for what it was before it was encoded.
        levels: codebooks to use; None for all there are.
        latency_seconds: for how much sound codes may be waited for; None for what is fastest.
    """

    sound: SoundFormat | None
    codecs: Codecs
    rate_hz: int | None
    levels: int | None
    latency_seconds: float | None

    def check(self) -> None:
        """Refuse what can't be made before any input is read."""
        from musictool.audio.reading import MAX_RATE_HZ, MIN_RATE_HZ

        if self.sound is not None:
            self.sound.check()
        if self.rate_hz is not None and not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError(f"no sound has a rate of {self.rate_hz} Hz", context="--rate")

    def write(self, coded: Coded, file: BinaryIO) -> int:
        """Write what codes stand for; how many samples were clipped.

        Raises:
            InputError: they make no sense, or no sound is asked for.
            MissingError: their codec is not here.
        """
        from musictool.inference.coded_sound import channels_of, decoded

        if self.sound is None:
            raise InputError("codes are sound, and MIDI holds none", hint="write wav, flac, ogg or mp3")
        codec = self.codecs.load(coded.vocab, coded.vocab_sha)
        config = codec.model.config
        rate_hz = self.rate_hz or coded.source_rate_hz or config.rate_hz
        channels = channels_of(coded.meta, config)
        blocks = decoded(
            coded.sound,
            codec,
            rate_hz,
            channels=channels,
            source_rate_hz=coded.source_rate_hz,
            levels=self.levels,
            latency_seconds=self.latency_seconds,
        )
        return self.sound.write(file, blocks, rate_hz, channels)
