"""Pieces of codes by MusicGen: of words, and of a melody where the model follows one.

Longer pieces are made in windows of thirty seconds, and a melody goes round as often as it takes. Knows no command
line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musictool.inference.code_pieces import CodeWriter, Window, planned
from musictool.inference.generation import GUIDANCE, PROMPT, Chunk, Piece, Planned, Setup
from musictool.inference.generation_options import Drawing, Request
from musictool.inference.melody import FRAME_RATE_HZ, read_melody
from musictool.inference.model_codec import find_model_codec
from musictool.inference.model_files import LoadedModel
from musictool.inference.precision import find_device, make_ready
from musictool.inference.subwords import side_by_side
from musictool.inference.text_reading import TextReader, open_text_reader
from musictool.models.musicgen import Conditions, MusicGen
from musictool.stream.records import Kind

TEXT_IDS_MAX = 512  # what T5 was taught
WINDOW_SECONDS = 30.0
DURATION_SECONDS = 10.0
DRAWING = Drawing(temperature=1.0, top_k=250, guidance=3.0)


class _Given(NamedTuple):
    """What a request comes to: ids of text, and a melody, float32 [F, C]."""

    ids: list[int]
    chroma: Tensor | None


class MusicGenGenerator:
    """A MusicGen ready to make pieces.

    Args:
        loaded: the model.
        setup: where and how it runs.

    Attributes: as of a `Generator`.
    """

    kind: Kind = "codes"
    words_are: Literal["text", "style"] = "text"
    drawing = DRAWING

    def __init__(self, loaded: LoadedModel, setup: Setup) -> None:
        model = loaded.model
        assert isinstance(model, MusicGen)
        self.name, self.sha256 = loaded.name, loaded.sha256
        self._codec = find_model_codec(loaded, setup, channels=model.config.channels)
        self.vocab, self.vocab_sha = self._codec.name, self._codec.sha256
        self.takes = frozenset({"text", "duration_seconds", PROMPT, GUIDANCE})
        if model.config.has_melody:
            self.takes |= {"melody"}
        self._folder = loaded.path
        self._reader: TextReader | None = None
        self._warn = setup.warn
        self._device = find_device(setup.device)
        self._model = model
        make_ready(model, self._device, setup.precision, says_steps=True)
        rate_hz = self._codec.config.frame_rate_hz
        window = Window.of(round(WINDOW_SECONDS * rate_hz))
        self._writer = CodeWriter(model, window, self._conditions, rate_hz, self._device)

    def plan(self, request: Request, prompt: NDArray[np.int32] | None) -> Planned:
        """As of a `Generator`."""
        codec = self._codec
        if prompt is not None:
            prompt = codec.checked_prompt(prompt)
        samples = codec.samples(request.duration_seconds or DURATION_SECONDS)
        chroma, made = None, {}
        if request.melody is not None:
            chroma, sha256 = read_melody(Path(request.melody))
            made = {"melody": Path(request.melody).name, "melody_sha256": sha256}
        given = _Given(self._ids(request.text or ""), chroma)
        return planned(codec, request, prompt, samples, given, made)

    def generate(self, pieces: Sequence[Piece], drawing: Drawing) -> Iterator[Chunk]:
        """As of a `Generator`."""
        return self._writer.write(pieces, drawing)

    def _ids(self, text: str) -> list[int]:
        """The ids of a text; none of an empty one, for which nothing needs to be there to read it."""
        if not text.strip():
            return []
        if self._reader is None:
            self._reader = open_text_reader(self._folder, TEXT_IDS_MAX)
        ids, is_cut = self._reader.read(text)
        if is_cut:
            start = " ".join(text.split())[:40]
            message = f"the text is cut: the model reads {TEXT_IDS_MAX} ids of it"
            self._warn(message, context=f"{start}…", hint="say less", code="text-cut")
        return ids

    def _conditions(self, given: Sequence[_Given], first_frame: int) -> Conditions:
        """The conditions of pieces, for a window that begins at a frame."""
        ids, visible = side_by_side([one.ids for one in given])
        chroma = self._chroma(given, first_frame)
        return self._encode(ids, visible, chroma)

    @torch.inference_mode()
    def _encode(self, ids: Tensor, visible: Tensor, chroma: Tensor | None) -> Conditions:
        chroma = None if chroma is None else chroma.to(self._device)
        return self._model.encode_text(ids.to(self._device), visible.to(self._device), chroma)

    def _chroma(self, given: Sequence[_Given], first_frame: int) -> Tensor | None:
        """The melodies under a window, float32 [B, F, C], which begin again where they end; None for none."""
        if all(one.chroma is None for one in given):
            return None
        config = self._model.config
        first = round(first_frame / self._codec.config.frame_rate_hz * FRAME_RATE_HZ)
        places = first + torch.arange(config.chroma_frames)
        none = torch.zeros(1, config.chroma_bins)
        none[:, 0] = 1  # what the model takes for no melody
        melodies = (none if one.chroma is None else one.chroma for one in given)
        return torch.stack([melody[places % len(melody)] for melody in melodies])


def open_generator(loaded: LoadedModel, setup: Setup) -> MusicGenGenerator:
    """A MusicGen ready to make pieces.

    Raises:
        MissingError: its codec is not here.
        ResourceError: the device is not there.
    """
    return MusicGenGenerator(loaded, setup)
