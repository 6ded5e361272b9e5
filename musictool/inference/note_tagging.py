"""Transcription by a note tagger: sound in stretches that overlap, so that their frames are those of the whole.

A frame depends on its neighbours as far as the net and the longest window reach; each stretch is read with so much
sound on both sides, and frames that lack some of it are not asked for. Memory is that of a few stretches and of the
notes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from musictool.audio.chunks import stretches_in_context
from musictool.audio.reading import AudioReader, mono_blocks
from musictool.audio.spectrogram import LogFrequency
from musictool.errors import UsageError
from musictool.inference.model_files import LoadedModel
from musictool.inference.note_decoding import NoteDecoder
from musictool.inference.precision import PrecisionName, dtype_without_linears, find_device
from musictool.inference.transcription import Piece, Sound, Transcription
from musictool.models.note_tagger import NoteTagger
from musictool.symbolic.notes import Score

PIANO = 0  # the program of notes of unknown instruments
STRETCH_FRAMES = 3072  # that are kept of each stretch
FRAMES_AT_ONCE_ON_CPU = 256  # of a stretch: what the net computes of them fits the cache
STRETCHES_AT_ONCE_ON_CPU, STRETCHES_AT_ONCE_ON_GPU = 1, 16


class NoteTagging:
    """A net and its front end, ready to tag sound of any length.

    Args:
        model: float32, in evaluation mode; it is changed.
        device: where it is to run.
        precision: of its products.
        rows: stretches side by side.

    Attributes:
        config: of the model.
    """

    def __init__(self, model: NoteTagger, device: torch.device, precision: PrecisionName, rows: int) -> None:
        self._model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.config = model.config
        self._front_end = LogFrequency(self.config.front_end).to(device)
        self._device = device
        self._is_half = dtype_without_linears(precision) == torch.bfloat16
        self._rows = rows
        window_frames = -(-max(self.config.front_end.windows_samples) // (2 * self.config.front_end.hop_samples))
        self._window = window_frames
        self._around = self.config.context_frames + window_frames
        self._frames_at_once = FRAMES_AT_ONCE_ON_CPU if device.type == "cpu" else STRETCH_FRAMES + 2 * self._around

    def maps(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Tag sound.

        Args:
            blocks: mono at the model's rate, float32 [n] each, of any length.

        Yields:
            float32 [4, T, 88]: the next frames of the onset, frame, offset and velocity map, 0..1. There are as many
            frames as hops that begin in the sound.
        """
        hop = self.config.front_end.hop_samples
        whole = (STRETCH_FRAMES + 2 * self._around) * hop
        batch: list[NDArray[np.float32]] = []
        for stretch in stretches_in_context(_filled(blocks, hop), STRETCH_FRAMES * hop, self._around * hop):
            if len(stretch) == whole:
                batch.append(stretch)
            if batch and (len(batch) == self._rows or len(stretch) < whole):
                yield from self._tag(batch)
                batch = []
            if len(stretch) < whole:
                yield from self._tag([stretch])
        if batch:
            yield from self._tag(batch)

    @torch.inference_mode()
    def _tag(self, batch: list[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """The maps of stretches of equal length, without what lies around each."""
        samples = torch.from_numpy(np.stack(batch)).to(self._device)
        frames = self._front_end(samples)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_half):
            logits = self._model.tag(frames[:, self._window : -self._window], self._frames_at_once)
        maps = torch.stack([logits.onset, logits.frame, logits.offset, logits.velocity], 1).sigmoid()
        yield from maps.cpu().numpy()


def _filled(blocks: Iterable[NDArray[np.float32]], hop_samples: int) -> Iterator[NDArray[np.float32]]:
    """Sound with zeros after its end, up to a whole number of hops."""
    count = 0
    for block in blocks:
        count += len(block)
        yield block
    yield np.zeros(-count % hop_samples, np.float32)


class NoteTaggingPiece(Piece):
    """A piece on its way: nothing is read of it before somebody waits for it."""

    def __init__(self, sound: Sound, tagging: NoteTagging, program: int, advance: Callable[[float], None]) -> None:
        super().__init__(sound.name)
        self._sound = sound
        self._tagging = tagging
        self._program = program
        self._advance = advance
        self._resources = ExitStack()
        self._reader: AudioReader | None = None

    def wait(self) -> None:
        if self._reader is None:
            self._reader = self._resources.enter_context(self._sound.open())
            self.describe(self._reader)

    def score(self) -> Score:
        """All notes, with the same program."""
        self.wait()
        assert self._reader is not None
        with self._resources:
            config = self._tagging.config
            hop_seconds = config.front_end.hop_samples / config.front_end.rate_hz
            decoder = NoteDecoder(config.thresholds, hop_seconds)
            for maps in self._tagging.maps(mono_blocks(self._reader, config.front_end.rate_hz)):
                decoder.feed(maps)
                self._advance(maps.shape[1] * hop_seconds)
            self.conclude(self._reader)
        notes = decoder.notes()
        return Score(replace(notes, program=np.full(len(notes), self._program, np.int16)))

    def close(self) -> None:
        """Close what is open of it."""
        self._resources.close()


class NoteTaggingTranscriber:
    """A note tagger ready to transcribe.

    It hears notes, not who plays them: all of them get the one program that is asked for, a piano's by default.

    Args:
        loaded: the model.
        options: how.

    Attributes:
        model_name, model_sha256: of the model in use.

    Raises:
        ResourceError: the device is not there.
        UsageError: something is asked for that the model can't do.
    """

    scheme_name = "tatum"

    def __init__(self, loaded: LoadedModel, options: Transcription) -> None:
        assert isinstance(loaded.model, NoteTagger)
        if options.is_steady:
            raise UsageError(
                f"{loaded.name} reads no segments that could disagree",
                hint="leave --steady out, or use --model mt3",
            )
        programs = options.programs if options.programs is not None else {PIANO}
        families = {program // 8 for program in programs}  # one of them, such as `piano`, counts as one instrument
        if len(families) != 1 or (options.programs is not None and options.has_drums):
            raise UsageError(
                f"{loaded.name} can't tell instruments apart",
                hint="name one that is no drum, and all notes are given to it; or use --model mt3",
            )
        self._program = min(programs)
        device = find_device(options.device)
        self.model_name, self.model_sha256 = loaded.name, loaded.sha256
        rows = options.rows or (STRETCHES_AT_ONCE_ON_CPU if device.type == "cpu" else STRETCHES_AT_ONCE_ON_GPU)
        self._tagging = NoteTagging(loaded.model, device, options.precision, rows)

    def run(
        self, sounds: Iterable[Sound], advance: Callable[[float], None] = lambda seconds: None
    ) -> Generator[NoteTaggingPiece, None, None]:
        """Transcribe pieces, as `Transcriber.run` says."""
        for sound in sounds:
            with closing(NoteTaggingPiece(sound, self._tagging, self._program, advance)) as piece:
                yield piece
