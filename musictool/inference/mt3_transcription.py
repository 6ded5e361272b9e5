"""Transcription by MT3: sound to ids of scheme `mt3`, of many pieces at once.

Pieces are read one after the other, cut into segments, and decoded in batches that hold segments of several of them;
each piece gives its segments in order as they are done. With two readings a piece is decoded twice, in segments half a
segment apart (see `steadying`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from musictool.audio.chunks import padded_to_hop, stretches
from musictool.audio.reading import mono_blocks
from musictool.audio.spectrogram import LogMel
from musictool.errors import InputError
from musictool.inference.engine import Engine, Requests
from musictool.inference.grammar import Grammar
from musictool.inference.model_files import LoadedModel
from musictool.inference.precision import find_device, make_ready
from musictool.inference.steadying import agree, read_segments, without_flips
from musictool.inference.transcription import Piece, Sound, Transcription
from musictool.models.mt3 import MT3
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import Scheme, find_scheme
from musictool.symbolic.schemes.mt3 import END
from musictool.symbolic.schemes.mt3_grammar import tables
from musictool.symbolic.vocabulary import Ids

ENCODED_AT_ONCE = 4  # segments; more at once run no faster, and take more memory
ROWS_ON_CPU, ROWS_ON_GPU = 24, 128


class _Place(NamedTuple):
    """Where a segment belongs: a piece, one of its readings, a number in it; and how much sound it is."""

    piece: MT3Piece
    reading: int
    number: int
    seconds: float


class MT3Piece(Piece):
    """A piece on its way through the model."""

    def __init__(self, name: str, segment_seconds: float, *, is_steady: bool) -> None:
        super().__init__(name)
        self._segment_seconds = segment_seconds
        self._is_steady = is_steady
        self._go_on: Callable[[], bool] = lambda: False
        self._is_open = self._is_read = False
        self._error: InputError | None = None
        self._counts = [0, 0]
        self._done: dict[tuple[int, int], Ids] = {}

    def wait(self) -> None:
        while not self._is_open and self._error is None and self._go_on():
            pass
        if not self._is_open and self._error is not None:
            raise self._error

    def segments(self, reading: int = 0) -> Iterator[Ids]:
        """The ids of each segment, int32 [t], `End` last; once.

        Args:
            reading: 0, or 1 for the second, whose segments begin half a segment earlier.

        Raises:
            InputError: the sound can't be read to its end; the segments before have been given.
        """
        number = 0
        while True:
            while (reading, number) not in self._done:
                if (self._is_read and number >= self._counts[reading]) or not self._go_on():
                    if self._error is not None:
                        raise self._error
                    return
            yield self._done.pop((reading, number))
            number += 1

    def ids(self, scheme: Scheme) -> Iterator[Ids]:
        """As ever; of scheme `mt3` and one reading the ids come segment by segment."""
        return self.segments() if scheme.name == "mt3" and not self._is_steady else super().ids(scheme)

    def score(self) -> Score:
        """All notes: what two readings agree on, or what the published decoder reads in the only one."""
        if not self._is_steady:
            return find_scheme("mt3").decode(self.segments())
        first = read_segments(self.segments(0))
        second = read_segments(self.segments(1), -self._segment_seconds / 2)
        return Score(without_flips(agree(first, second, self._segment_seconds), self._segment_seconds))


class MT3Transcriber:
    """An MT3 ready to transcribe.

    Args:
        loaded: the model.
        options: how.

    Attributes:
        model_name, model_sha256: of the model in use.

    Raises:
        ResourceError: the device is not there.
    """

    scheme_name = "mt3"

    def __init__(self, loaded: LoadedModel, options: Transcription) -> None:
        assert isinstance(loaded.model, MT3)
        device = find_device(options.device)
        self.model_name, self.model_sha256 = loaded.name, loaded.sha256
        self._config = loaded.model.config
        self._front_end = LogMel(self._config.front_end).to(device)
        self._model = cast(MT3, make_ready(loaded.model, device, options.precision))
        self._device = device
        self._readings = 2 if options.is_steady else 1
        self._rows = options.rows or (ROWS_ON_CPU if device.type == "cpu" else ROWS_ON_GPU)
        grammar = None
        if options.programs is not None or options.is_steady:
            grammar = Grammar(*tables(options.programs, options.has_drums), device=device)
        self._engine = Engine(
            self._model,
            end_id=self._config.end_id,
            tokens_max=self._config.tokens_max,
            rows=self._rows,
            grammar=grammar,
        )

    def run(
        self, sounds: Iterable[Sound], advance: Callable[[float], None] = lambda seconds: None
    ) -> Generator[MT3Piece, None, None]:
        """Transcribe pieces, as `Transcriber.run` says."""
        seconds = self._config.segment_samples / self._config.front_end.rate_hz
        is_steady = self._readings == 2
        pieces = [(MT3Piece(sound.name, seconds, is_steady=is_steady), sound) for sound in sounds]
        decoded = self._engine.run(self._requests(pieces))

        def go_on() -> bool:
            """Decode until one more segment is done, of whichever piece."""
            done = next(decoded, None)
            if done is None:
                return False
            place = done.key
            ids = np.array(done.ids if not done.is_cut_off else [*done.ids, END], np.int32)
            place.piece._done[place.reading, place.number] = ids
            advance(place.seconds / self._readings)
            return True

        try:
            for piece, _ in pieces:
                piece._go_on = go_on
                yield piece
        finally:
            decoded.close()  # closes what is being read

    def _requests(self, pieces: Iterable[tuple[MT3Piece, Sound]]) -> Iterator[Requests[_Place]]:
        """Segments of all pieces, encoded, some at once."""
        segments = (segment for piece, sound in pieces for segment in self._segments(piece, sound))
        while batch := list(islice(segments, min(ENCODED_AT_ONCE, self._rows))):
            memory = self._model.remember(self._features([samples for _, samples in batch]))
            yield Requests([place for place, _ in batch], memory, [[self._config.start_id]] * len(batch))

    def _segments(self, piece: MT3Piece, sound: Sound) -> Iterator[tuple[_Place, NDArray[np.float32]]]:
        """The segments of one piece, float32 [n] each; an error ends them and is kept for who takes the piece."""
        front_end = self._config.front_end
        try:
            with sound.open() as reader:
                piece.describe(reader)
                piece._is_open = True
                blocks = padded_to_hop(mono_blocks(reader, front_end.rate_hz), front_end.hop_samples)
                for reading, samples in _readings(blocks, self._config.segment_samples, self._readings):
                    seconds = len(samples) / front_end.rate_hz
                    yield _Place(piece, reading, piece._counts[reading], seconds), samples
                    piece._counts[reading] += 1
                piece.conclude(reader)
        except InputError as error:
            piece._error = error
        piece._is_read = True

    def _features(self, segments: list[NDArray[np.float32]]) -> torch.Tensor:
        """Log-mel frames, float [B, T, M]; frames after the end of a short segment are zero."""
        batch = np.zeros((len(segments), self._config.segment_samples), np.float32)
        for row, samples in enumerate(segments):
            batch[row, : len(samples)] = samples
        frames = self._front_end(torch.from_numpy(batch).to(self._device))
        for row, samples in enumerate(segments):
            frames[row, len(samples) // self._config.front_end.hop_samples :] = 0.0
        return frames.to(self._model.token_embedding.weight.dtype)


def _readings(
    blocks: Iterable[NDArray[np.float32]], samples: int, readings: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Sound in segments, and again in segments that begin half a segment earlier, with zeros before the start."""
    if readings == 1:
        yield from ((0, segment) for segment in stretches(blocks, samples))
        return
    before = np.zeros(samples // 2, np.float32)
    reading = 1
    for half in stretches(blocks, samples // 2):
        yield reading, np.concatenate([before, half])
        before, reading = half, 1 - reading
    yield reading, before
