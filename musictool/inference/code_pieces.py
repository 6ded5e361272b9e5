"""Pieces of codes of any length, side by side, by a model that sees so many frames at once.

A piece longer than that is made in windows, as by audiocraft (https://github.com/facebookresearch/audiocraft): the last
frames that there are are what the next window begins with, and the model goes on from there. Of a piece no more is kept
than its next window needs. Deals in codes and conditions and knows nothing of what either means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musictool.inference.codes_generation import CodeModel, Conditions, generate_codes
from musictool.inference.generation import Chunk, Piece, Planned
from musictool.inference.generation_options import Drawing, Request
from musictool.inference.model_codec import ModelCodec

CHUNK_SECONDS = 0.2
KEPT_SHARE = 0.4  # of a window: 12 seconds of 30, as in audiocraft


@dataclass(frozen=True)
class Window:
    """What a model sees at once.

    Attributes:
        frames: how many.
        kept: of them, those that a new window begins with.

    Raises:
        ValueError: there is no room for a new frame.
    """

    frames: int
    kept: int

    def __post_init__(self) -> None:
        if not 0 <= self.kept < self.frames:
            raise ValueError(f"a window of {self.frames} frames cannot keep {self.kept}")

    @classmethod
    def of(cls, frames: int) -> Window:
        """A window that keeps as much as is usual."""
        return cls(frames, int(frames * KEPT_SHARE))


@dataclass(frozen=True)
class CodePlan:
    """What a request comes to, for a model of codes.

    Attributes:
        frames: how many to make.
        given: what the model's family makes of what was asked for.
    """

    frames: int
    given: Any


def planned(
    codec: ModelCodec,
    request: Request,
    prompt: NDArray[np.int32] | None,
    samples: int,
    given: Any,
    made: Mapping[str, Any],
) -> Planned:
    """A request for codes that is understood.

    Args:
        codec: whose codes.
        request: what was asked for.
        prompt: int32 [K, t], what pieces begin with.
        samples: how long the sound is of what comes after it.
        given: what the model's family makes of the request.
        made: what to say of it in an item's `made`.
    """
    hop = codec.config.hop_samples
    known = frames_of(prompt)
    seconds = samples / codec.config.rate_hz
    total = known * hop + samples
    return Planned(
        request,
        CodePlan(-(-samples // hop), given),
        prompt,
        codec.meta(total),
        {**made, "duration_seconds": round(seconds, 6)},
        seconds,
        total,
    )


def frames_of(prompt: NDArray[np.int32] | None) -> int:
    """How many frames a prompt has."""
    return 0 if prompt is None else prompt.shape[1]


@dataclass(frozen=True)
class CodeWriter(Generic[Conditions]):
    """Makes pieces.

    Attributes:
        model: in evaluation mode, on its device.
        window: what it sees at once.
        conditions: of some pieces, by what is given for each, for a window that begins at a frame.
        frame_rate_hz: of the codes.
        device: of the model.
    """

    model: CodeModel[Conditions]
    window: Window
    conditions: Callable[[Sequence[Any], int], Conditions]
    frame_rate_hz: float
    device: torch.device

    def write(self, pieces: Sequence[Piece], drawing: Drawing) -> Iterator[Chunk]:
        """Make pieces whose conditions are each a `CodePlan`; those of one length go side by side.

        Yields:
            Chunks as they are made.
        """
        alike: dict[tuple[int, int], list[int]] = {}
        for index, piece in enumerate(pieces):
            alike.setdefault((frames_of(piece.plan.prompt), piece.plan.conditions.frames), []).append(index)
        for (_, frames), indices in alike.items():
            group = [pieces[index] for index in indices]
            for index, piece in zip(indices, group, strict=True):
                if piece.plan.prompt is not None:
                    yield Chunk(index, piece.plan.prompt)
            made = 0
            for block in self._blocks(group, frames, drawing):
                made += block.shape[-1]
                seconds = block.shape[-1] / self.frame_rate_hz
                for index, codes in zip(indices, block, strict=True):
                    yield Chunk(index, codes, made == frames, seconds)

    def _blocks(self, pieces: Sequence[Piece], frames: int, drawing: Drawing) -> Iterator[NDArray[np.int32]]:
        """What is new of pieces of one length, int32 [B, K, t] at a time."""
        size = max(1, round(CHUNK_SECONDS * self.frame_rate_hz))
        block: list[Tensor] = []
        for number, frame in enumerate(self._frames(pieces, frames, drawing), 1):
            block.append(frame)
            if len(block) == size or number == frames:
                yield torch.stack(block, dim=-1).cpu().numpy().astype(np.int32)
                block.clear()

    def _frames(self, pieces: Sequence[Piece], frames: int, drawing: Drawing) -> Iterator[Tensor]:
        """The new frames, int64 [B, K], one after the other, window by window."""
        sampling = drawing.sampling()
        draws = [sampling.generator(piece.number) for piece in pieces]
        given = [piece.plan.conditions.given for piece in pieces]
        recent = self._prompts(pieces)
        place = frames_of(pieces[0].plan.prompt)
        end = place + frames
        while place < end:
            known = recent.shape[-1]
            made = []
            for frame in generate_codes(
                self.model,
                self.conditions(given, place - known),
                min(self.window.frames - known, end - place),
                prompt=recent,
                sampling=sampling,
                guidance=drawing.guidance,
                draws=draws,
            ):
                made.append(frame)
                yield frame
            place += len(made)
            recent = self._kept(torch.cat([recent, torch.stack(made, dim=-1)], dim=-1))

    def _prompts(self, pieces: Sequence[Piece]) -> Tensor:
        """What the first window begins with, int64 [B, K, t]."""
        none = np.zeros((self.model.pattern.codebooks, 0), np.int32)
        prompts = [none if piece.plan.prompt is None else piece.plan.prompt for piece in pieces]
        return self._kept(torch.from_numpy(np.stack(prompts)).to(self.device, torch.int64))

    def _kept(self, codes: Tensor) -> Tensor:
        """The last frames, which a window begins with."""
        return codes[..., max(0, codes.shape[-1] - self.window.kept) :]
