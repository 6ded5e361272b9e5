"""Sound to ids of scheme `mt3`, of many pieces at once.

Pieces are read one after the other, cut into segments, and decoded in batches that hold segments of several of them;
each piece gives its segments in order as they are done. What a piece is read from, and what becomes of its ids, is the
caller's. With two readings a piece is decoded twice, in segments half a segment apart (see `steadying`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from musictool.audio.chunks import padded_to_hop, stretches
from musictool.audio.reading import AudioReader, mono_blocks
from musictool.audio.spectrogram import LogMel
from musictool.checkpoints.store import Store
from musictool.errors import InputError, UsageError
from musictool.inference.engine import Engine, Requests
from musictool.inference.grammar import Grammar
from musictool.inference.model_files import load_model
from musictool.inference.precision import PrecisionName, find_device, make_ready
from musictool.inference.steadying import agree, read_segments, without_flips
from musictool.models.mt3 import MT3
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.schemes.mt3 import END
from musictool.symbolic.schemes.mt3_grammar import tables
from musictool.symbolic.vocabulary import Ids

ENCODED_AT_ONCE = 4  # segments; more at once run no faster, and take more memory
ROWS_ON_CPU, ROWS_ON_GPU = 24, 128


@dataclass(frozen=True)
class Sound:
    """A piece to transcribe.

    Attributes:
        name: what it is called.
        open: begins to read it.
    """

    name: str
    open: Callable[[], AbstractContextManager[AudioReader]]


@dataclass(frozen=True)
class Transcription:
    """How sound is transcribed.

    Attributes:
        model: a preset, a model of the store, or a path.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of the model's numbers.
        rows: segments decoded side by side; None for what suits the device.
        programs: the only instruments there are; None for any.
        has_drums: whether drums are among them.
        is_steady: read each piece twice and make the notes of both agree.
    """

    model: str = "mt3"
    device: str = "auto"
    precision: PrecisionName = "fp32"
    rows: int | None = None
    programs: frozenset[int] | None = None
    has_drums: bool = True
    is_steady: bool = False


class _Place(NamedTuple):
    """Where a segment belongs: a piece, one of its readings, a number in it; and how much sound it is."""

    piece: Piece
    reading: int
    number: int
    seconds: float


@dataclass(eq=False)
class Piece:
    """A piece on its way: what is known of it, and its segments.

    Attributes:
        name: as its sound's.
        rate_hz, channels, duration_seconds: of the sound, once it is open; the duration None where nobody knows.
        source_sha256: of the bytes it was read from, once all is read.
        is_truncated: whether the sound broke off before its end, once all is read.
    """

    name: str
    rate_hz: int = 0
    channels: int = 0
    duration_seconds: float | None = None
    source_sha256: str = ""
    is_truncated: bool = False
    _go_on: Callable[[], bool] = lambda: False
    _is_open: bool = False
    _is_read: bool = False
    _error: InputError | None = None
    _counts: list[int] = field(default_factory=lambda: [0, 0])
    _done: dict[tuple[int, int], Ids] = field(default_factory=dict)

    def wait(self) -> None:
        """Wait until the sound is open.

        Raises:
            InputError: it can't be read.
        """
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

    def score(self, segment_seconds: float, is_steady: bool) -> Score:
        """All notes.

        Args:
            segment_seconds: length of a segment.
            is_steady: make two readings agree; else the published decoder reads the only one.

        Raises:
            InputError: the sound can't be read to its end.
        """
        if not is_steady:
            return find_scheme("mt3").decode(self.segments())
        first = read_segments(self.segments(0))
        second = read_segments(self.segments(1), -segment_seconds / 2)
        return Score(without_flips(agree(first, second, segment_seconds), segment_seconds))


class Transcriber:
    """A model ready to transcribe.

    Args:
        options: which, and how.
        store: where models are; the process's own store by default.

    Attributes:
        model_name, model_sha256: of the model in use.
        segment_seconds: length of a segment.

    Raises:
        MissingError: the model is not there.
        ResourceError: the device is not there.
        UsageError: the model is none that transcribes.
    """

    def __init__(self, options: Transcription, store: Store | None = None) -> None:
        device = find_device(options.device)
        loaded = load_model(options.model, store=store)
        if not isinstance(loaded.model, MT3):
            raise UsageError(f"{options.model} is no model that transcribes", hint="use --model mt3")
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

    @property
    def segment_seconds(self) -> float:
        return self._config.segment_samples / self._config.front_end.rate_hz

    def run(
        self, sounds: Iterable[Sound], advance: Callable[[float], None] = lambda seconds: None
    ) -> Generator[Piece, None, None]:
        """Transcribe pieces; each must be taken to its end before the next.

        Args:
            sounds: what to read, in order.
            advance: told how many seconds of sound are done, as they are.

        Yields:
            A piece for each sound, in order, before it is read.
        """
        pieces = [(Piece(sound.name), sound) for sound in sounds]
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

    def _requests(self, pieces: Iterable[tuple[Piece, Sound]]) -> Iterator[Requests[_Place]]:
        """Segments of all pieces, encoded, some at once."""
        segments = (segment for piece, sound in pieces for segment in self._segments(piece, sound))
        while batch := list(islice(segments, min(ENCODED_AT_ONCE, self._rows))):
            memory = self._model.remember(self._features([samples for _, samples in batch]))
            yield Requests([place for place, _ in batch], memory, [[self._config.start_id]] * len(batch))

    def _segments(self, piece: Piece, sound: Sound) -> Iterator[tuple[_Place, NDArray[np.float32]]]:
        """The segments of one piece, float32 [n] each; an error ends them and is kept for who takes the piece."""
        front_end = self._config.front_end
        try:
            with sound.open() as reader:
                piece.rate_hz, piece.channels = reader.rate_hz, reader.channels
                piece.duration_seconds = reader.duration_seconds
                piece._is_open = True
                blocks = padded_to_hop(mono_blocks(reader, front_end.rate_hz), front_end.hop_samples)
                for reading, samples in _readings(blocks, self._config.segment_samples, self._readings):
                    seconds = len(samples) / front_end.rate_hz
                    yield _Place(piece, reading, piece._counts[reading], seconds), samples
                    piece._counts[reading] += 1
                piece.source_sha256, piece.is_truncated = reader.source_sha256, reader.is_truncated
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
