"""Models of codes as `token_scoring` reads them: MusicGen, PersonalJazz, SaxGPT.

A window begins with the model's step 0, as if the piece began with its first frame; so does a model that makes pieces
longer than its context. What it is told beside the codes is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musictool.core.kv_cache import KVCache, Memory
from musictool.errors import InputError
from musictool.inference.codes_generation import CodeModel, generate_codes
from musictool.inference.sampling import Sampling
from musictool.inference.token_pieces import TokenPiece
from musictool.inference.token_scoring import Span, Window, spans


class Beside(NamedTuple):
    """What there is of a stretch of a piece beside its codes.

    Attributes:
        text: what is said of the piece; empty for nothing.
        codes: int32 [K, F], what sounds at the same time; None where that is not known.
    """

    text: str
    codes: NDArray[np.int32] | None


Told = Callable[[Sequence[Beside]], Any]
"""What a model is told of some pieces, in its own form."""


class CodePredictor:
    """A model of codes.

    Args:
        model: in evaluation mode, on its device.
        size: V, codes of a codebook.
        context: frames that it sees at most.
        told: what it is told beside the codes.
        device: where it is.
        codec_sha: of the codec whose codes it knows; empty where nobody knows.
    """

    kind = "codes"

    def __init__(
        self, model: CodeModel[Any], size: int, context: int, told: Told, device: torch.device, codec_sha: str = ""
    ) -> None:
        self.size = size
        self.context = context
        self.device = device
        self.padding_id = model.special_id
        self.parts = tuple(str(number) for number in range(1, model.pattern.codebooks + 1))
        self._model = model
        self._told = told
        self._codec_sha = codec_sha

    def prepare(self, piece: TokenPiece) -> TokenPiece:
        """A piece of the model's.

        Raises:
            InputError: it is of events, of another codec, has another number of codebooks, or codes that the model does
                not know.
        """
        if piece.head.kind != "codes":
            raise InputError("the item holds notes, and the model predicts codes", code="wrong-kind")
        if self._codec_sha and piece.head.vocab_sha != self._codec_sha:
            message = f"codes of {piece.head.vocab[:40]!r} ({piece.head.vocab_sha[:8]}), and the model knows others"
            raise InputError(f"{message} ({self._codec_sha[:8]})", code="other-codes")
        codebooks, codes = len(self.parts), piece.tokens
        if not codes.size:
            return replace(piece, tokens=np.zeros((codebooks, 0), np.int32))
        if len(codes) != codebooks:
            message = f"{len(codes)} codebooks, and the model has {codebooks}"
            raise InputError(message, hint="mtk encode --codebooks says how many there are", code="other-codes")
        if not 0 <= int(codes.min()) <= (high := int(codes.max())) < self.size:
            message = f"code {high} is out of range: the model's codebooks have {self.size} entries"
            raise InputError(message, code="code-out-of-range")
        return piece

    def real(self, piece: TokenPiece, prompt: int, length: int) -> NDArray[np.int64]:
        """What a piece goes on with after a prompt, int64 [K, n], as far as it goes."""
        return piece.tokens[:, prompt : prompt + length].astype(np.int64)

    def stretch(self, piece: TokenPiece, prompt: int, length: int) -> Window:
        """A piece's beginning as one window, in which what comes after the prompt counts."""
        return self.window(piece, Span(0, prompt, min(len(piece), prompt + length)))

    def notes(self, piece: TokenPiece) -> int | None:
        """How many notes a piece has: nobody knows."""
        return None

    def windows(self, piece: TokenPiece) -> Iterator[Window]:
        """The windows of a piece, in which each of its codes counts once."""
        for span in spans(len(piece), self.context):
            yield self.window(piece, span)

    def window(self, piece: TokenPiece, span: Span) -> Window:
        """A stretch of a piece."""
        pattern = self._model.pattern
        codes = torch.from_numpy(piece.tokens[None, :, span.start : span.stop].astype(np.int64))
        counts = (torch.arange(codes.shape[-1]) >= span.first - span.start).long().expand_as(codes)
        beside = _beside(piece, span.start, span.stop)
        return Window(pattern.spread(codes, self.padding_id)[0], pattern.spread(counts, 0)[0] == 1, beside)

    def part_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The codebook of each code, int64 [K, n]."""
        return np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)

    def start(self, windows: Sequence[Window], capacity: int) -> tuple[KVCache, Memory | None]:
        """A cache of a row a window, and what its steps attend to beside it."""
        return self._model.start(self._told([window.conditions for window in windows]), capacity=capacity)

    def decode(self, ids: Tensor, memory: Memory | None, *, cache: KVCache, positions: Tensor) -> Tensor:
        """Logits [B, K, T, V] of what comes after each of ids [B, K, T] at positions [B, T]."""
        return self._model.decode(ids, memory, cache=cache, positions=positions)

    def go_on(
        self, pieces: Sequence[TokenPiece], prompt: int, length: int, sampling: Sampling, first: int
    ) -> NDArray[np.int64]:
        """Make codes after the beginnings of pieces.

        Args:
            pieces: of `prompt` frames at least.
            prompt: frames of each that the model goes on from.
            length: frames to make.
            sampling: how codes are chosen.
            first: number of the first piece; a piece's number and the seed make its draws.

        Returns:
            int64 [B, K, length].
        """
        told = self._told([_beside(piece, 0, prompt + length) for piece in pieces])
        known = torch.from_numpy(np.stack([piece.tokens[:, :prompt] for piece in pieces]).astype(np.int64))
        draws = [sampling.generator(first + row) for row in range(len(pieces))]
        prompts = known.to(self.device)
        made = list(generate_codes(self._model, told, length, prompt=prompts, sampling=sampling, draws=draws))
        return torch.stack(made, dim=-1).cpu().numpy()


def _beside(piece: TokenPiece, start: int, stop: int) -> Beside:
    return Beside(piece.text, None if piece.beside is None else piece.beside[:, start:stop])
