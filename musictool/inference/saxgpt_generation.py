"""Saxophone over a backing track by SaxGPT: as long as the backing, in windows that go along with it.

Knows no command line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musictool.errors import UsageError
from musictool.inference.code_pieces import CodeWriter, Window, frames_of, planned
from musictool.inference.generation import GUIDANCE, PROMPT, Chunk, Piece, Planned, Setup
from musictool.inference.generation_options import Drawing, Request
from musictool.inference.model_codec import CodedFile, find_model_codec
from musictool.inference.model_files import LoadedModel
from musictool.inference.precision import find_device, make_ready
from musictool.models.saxgpt import SaxGPT
from musictool.stream.records import Kind

DURATION_SECONDS = 10.0
DRAWING = Drawing(temperature=1.0, top_k=250, guidance=4.0)


class SaxGPTGenerator:
    """A SaxGPT ready to make pieces.

    Args:
        loaded: the model.
        setup: where and how it runs.

    Attributes: as of a `Generator`.
    """

    kind: Kind = "codes"
    words_are: Literal["text", "style"] = "text"
    takes = frozenset({"backing", "duration_seconds", PROMPT, GUIDANCE})
    drawing = DRAWING

    def __init__(self, loaded: LoadedModel, setup: Setup) -> None:
        model = loaded.model
        assert isinstance(model, SaxGPT)
        self.name, self.sha256 = loaded.name, loaded.sha256
        self._codec = find_model_codec(loaded, setup)
        self.vocab, self.vocab_sha = self._codec.name, self._codec.sha256
        self._model = model
        self._device = find_device(setup.device)
        make_ready(model, self._device, setup.precision, says_steps=True)
        self._window = Window.of(model.config.frames_max)
        rate_hz = self._codec.config.frame_rate_hz
        self._writer = CodeWriter(model, self._window, self._backings, rate_hz, self._device)

    def plan(self, request: Request, prompt: NDArray[np.int32] | None) -> Planned:
        """As of a `Generator`."""
        codec = self._codec
        if prompt is not None:
            prompt = codec.checked_prompt(prompt)
        backing, made = None, {}
        if request.backing is not None:
            backing = codec.encode(Path(request.backing), self._seconds_heard(request, frames_of(prompt)))
            made = {"backing": Path(request.backing).name, "backing_sha256": backing.sha256}
        samples = self._samples(request, backing, frames_of(prompt))
        given = None if backing is None else torch.from_numpy(backing.codes)
        return planned(codec, request, prompt, samples, given, made)

    def generate(self, pieces: Sequence[Piece], drawing: Drawing) -> Iterator[Chunk]:
        """As of a `Generator`."""
        return self._writer.write(pieces, drawing)

    def _seconds_heard(self, request: Request, known: int) -> float:
        """How much of a backing can matter, where so many frames are known: a window beyond what is to be made."""
        if request.duration_seconds is None:
            return math.inf
        return request.duration_seconds + (known + self._window.frames) / self._codec.config.frame_rate_hz

    def _samples(self, request: Request, backing: CodedFile | None, known: int) -> int:
        """How much there is to be made, after so many frames.

        Raises:
            UsageError: the backing ends before it begins.
        """
        if request.duration_seconds is not None:
            return self._codec.samples(request.duration_seconds)
        if backing is None:
            return self._codec.samples(DURATION_SECONDS)
        left = backing.samples - known * self._codec.config.hop_samples
        if left <= 0:
            message = "the backing is no longer than what there is to go on from"
            raise UsageError(message, context="--backing", hint="say how much is to come with --duration")
        return left

    def _backings(self, backings: Sequence[Tensor | None], first_frame: int) -> Tensor:
        """What sounds under a window that begins at a frame, int64 [B, K, F]; special ids where nothing does."""
        parts = [None if one is None else one[:, first_frame : first_frame + self._window.frames] for one in backings]
        frames = max(0 if part is None else part.shape[1] for part in parts)
        shape = (len(parts), self._model.config.codebooks, frames)
        rows = torch.full(shape, self._model.special_id, dtype=torch.int64)
        for row, part in zip(rows, parts, strict=True):
            if part is not None:
                row[:, : part.shape[1]] = part
        return rows.to(self._device)


def open_generator(loaded: LoadedModel, setup: Setup) -> SaxGPTGenerator:
    """A SaxGPT ready to make pieces.

    Raises:
        MissingError: its codec is not here.
        ResourceError: the device is not there.
    """
    return SaxGPTGenerator(loaded, setup)
