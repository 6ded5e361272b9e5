"""Sound to notes, by whichever model: what is asked of a transcriber, and the choice of one.

A transcriber takes sounds and gives a piece for each, in order; a piece gives ids of a scheme, as soon as they are
known, or a score. What a piece is read from, and what becomes of its ids, is the caller's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from musictool.audio.reading import AudioReader
from musictool.checkpoints.store import Store
from musictool.errors import UsageError
from musictool.inference.model_files import load_model
from musictool.inference.precision import PrecisionName
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import Scheme
from musictool.symbolic.vocabulary import Ids

DEFAULT_MODEL = "note-tagger"


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
        rows: stretches of sound side by side; None for what suits the model and the device.
        programs: the only instruments there are; None for any.
        has_drums: whether drums are among them.
        is_steady: read each piece twice and make the notes of both agree.
    """

    model: str = DEFAULT_MODEL
    device: str = "auto"
    precision: PrecisionName = "fp32"
    rows: int | None = None
    programs: frozenset[int] | None = None
    has_drums: bool = True
    is_steady: bool = False


class Piece(ABC):
    """A piece on its way: what is known of it, and its notes.

    Attributes:
        name: as its sound's.
        rate_hz, channels, duration_seconds: of the sound, once it is open; the duration None where nobody knows.
        source_sha256: of the bytes it was read from, once all is read.
        is_truncated: whether the sound broke off before its end, once all is read.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rate_hz = 0
        self.channels = 0
        self.duration_seconds: float | None = None
        self.source_sha256 = ""
        self.is_truncated = False

    @abstractmethod
    def wait(self) -> None:
        """Wait until the sound is open.

        Raises:
            InputError: it can't be read.
        """

    @abstractmethod
    def score(self) -> Score:
        """All notes, once.

        Raises:
            InputError: the sound can't be read to its end.
        """

    def ids(self, scheme: Scheme) -> Iterator[Ids]:
        """The piece in ids of a scheme, int32 [t] each, as they are known; once.

        Raises:
            InputError: the sound can't be read to its end; ids before have been given.
        """
        yield scheme.encode(self.score())

    def describe(self, reader: AudioReader) -> None:
        """Note what an open reader knows."""
        self.rate_hz, self.channels, self.duration_seconds = reader.rate_hz, reader.channels, reader.duration_seconds

    def conclude(self, reader: AudioReader) -> None:
        """Note what a reader knows at its end."""
        self.source_sha256, self.is_truncated = reader.source_sha256, reader.is_truncated


class Transcriber(Protocol):
    """A model ready to transcribe.

    Attributes:
        model_name, model_sha256: of the model in use.
        scheme_name: of the scheme that keeps most of what the model hears.
    """

    model_name: str
    model_sha256: str
    scheme_name: str

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
        ...


def open_transcriber(options: Transcription, store: Store | None = None) -> Transcriber:
    """The transcriber of a model.

    Args:
        options: which, and how.
        store: where models are; the process's own store by default.

    Raises:
        MissingError: the model is not there.
        ResourceError: the device is not there.
        UsageError: the model is none that transcribes, or not in the way that is asked for.
    """
    loaded = load_model(options.model, store=store)
    if loaded.config.family == "mt3":
        from musictool.inference.mt3_transcription import MT3Transcriber

        return MT3Transcriber(loaded, options)
    if loaded.config.family == "note-tagger":
        from musictool.inference.note_tagging import NoteTaggingTranscriber

        return NoteTaggingTranscriber(loaded, options)
    raise UsageError(f"{options.model} is no model that transcribes", hint=f"use --model {DEFAULT_MODEL}, or mt3")
