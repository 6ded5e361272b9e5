"""Pieces of codes by PersonalJazz: in the style of words or of a sound file, by the style encoder that goes with it.

Knows no command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from musictool.audio.checks import AUDIO_SUFFIXES
from musictool.audio.reading import open_audio
from musictool.audio.resampling import Resampler, remixed
from musictool.errors import MissingError
from musictool.inference.code_pieces import CodeWriter, Window, planned
from musictool.inference.generation import GUIDANCE, PROMPT, Chunk, Piece, Planned, Setup
from musictool.inference.generation_options import Drawing, Request
from musictool.inference.model_codec import find_model_codec
from musictool.inference.model_files import LoadedModel
from musictool.inference.precision import find_device, make_ready
from musictool.inference.style_reading import StyleReader, open_style_reader
from musictool.models.personaljazz import PersonalJazz
from musictool.stream.records import Kind

DURATION_SECONDS = 10.0
DRAWING = Drawing(temperature=1.0, top_k=250)


class PersonalJazzGenerator:
    """A PersonalJazz ready to make pieces.

    Args:
        loaded: the model.
        setup: where and how it runs.

    Attributes: as of a `Generator`.
    """

    kind: Kind = "codes"
    words_are: Literal["text", "style"] = "style"
    takes = frozenset({"text", "style", "duration_seconds", PROMPT, GUIDANCE})
    drawing = DRAWING

    def __init__(self, loaded: LoadedModel, setup: Setup) -> None:
        model = loaded.model
        assert isinstance(model, PersonalJazz)
        self.name, self.sha256 = loaded.name, loaded.sha256
        self._codec = find_model_codec(loaded, setup)
        self.vocab, self.vocab_sha = self._codec.name, self._codec.sha256
        self._setup = setup
        self._config = model.config
        self._reader: StyleReader | None = None
        self._device = find_device(setup.device)
        make_ready(model, self._device, setup.precision, says_steps=True)
        rate_hz = self._codec.config.frame_rate_hz
        self._writer = CodeWriter(model, Window.of(model.config.frames_max), self._styles, rate_hz, self._device)

    def plan(self, request: Request, prompt: NDArray[np.int32] | None) -> Planned:
        """As of a `Generator`."""
        codec = self._codec
        if prompt is not None:
            prompt = codec.checked_prompt(prompt)
        style, made = self._style(request)
        samples = codec.samples(request.duration_seconds or DURATION_SECONDS)
        return planned(codec, request, prompt, samples, style, made)

    def generate(self, pieces: Sequence[Piece], drawing: Drawing) -> Iterator[Chunk]:
        """As of a `Generator`."""
        return self._writer.write(pieces, drawing)

    def _style(self, request: Request) -> tuple[Tensor, dict[str, Any]]:
        """The style that is asked for, float32 [S], and what to say of it in an item's `made`.

        Raises:
            MissingError: the style encoder is not here.
            InputError: the file can't be read.
        """
        words = " ".join(filter(None, (request.text, request.style)))
        if not words.strip():
            return torch.zeros(self._config.style_width), {}
        reader = self._style_reader()
        made = {"style_encoder": reader.name, "style_encoder_sha256": reader.sha256}
        if request.style is None or not _means_file(request.style):
            return reader.of_text(words), made
        vector, sha256 = _style_of_file(reader, Path(request.style))
        made |= {"style": Path(request.style).name, "style_sha256": sha256}
        if request.text:
            vector = functional.normalize(vector + reader.of_text(request.text), dim=-1)
        return vector, made

    def _style_reader(self) -> StyleReader:
        if self._reader is None:
            name = self._config.style_encoder
            if not name:
                raise MissingError("the model has no style encoder, and a style can't be said", context=self.name)
            setup = self._setup
            self._reader = open_style_reader(name, store=setup.store, device=setup.device, precision=setup.precision)
        return self._reader

    def _styles(self, styles: Sequence[Tensor], first_frame: int) -> Tensor:
        """The styles of pieces, float [B, S], the same in all windows."""
        return torch.stack(list(styles)).to(self._device)


def open_generator(loaded: LoadedModel, setup: Setup) -> PersonalJazzGenerator:
    """A PersonalJazz ready to make pieces.

    Raises:
        MissingError: its codec is not here.
        ResourceError: the device is not there.
    """
    return PersonalJazzGenerator(loaded, setup)


def _means_file(style: str) -> bool:
    """Whether a style is the path of a sound file, and no words."""
    return os.sep in style or style.lower().endswith(AUDIO_SUFFIXES) or Path(style).is_file()


def _style_of_file(reader: StyleReader, path: Path) -> tuple[Tensor, str]:
    """The style of a sound file, float32 [S], and the file's sha256."""
    with open_audio(path, str(path)) as audio:
        resampler = Resampler(audio.rate_hz, reader.rate_hz, 1)

        def blocks() -> Iterable[NDArray[np.float32]]:
            for block in audio.blocks():
                yield resampler.push(remixed(block, 1))[:, 0]
            yield resampler.finish()[:, 0]

        return reader.of_sound(blocks()), audio.source_sha256
