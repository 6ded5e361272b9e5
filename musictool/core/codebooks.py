"""Several codes a frame in one sequence: the step that each stands at, the tables they are read by, and the heads.

A codec gives K codes a frame, and what says one from another depends on the order in which a model says them. A pattern
gives each code its step (Copet et al., 2023; arXiv:2306.05284, section 2.2): all of a frame at once, each codebook a
step after the one before, or one code a step. Step 0 holds no code; where a step has none of a codebook's, it has the
special id. Knows no codec and no meaning of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Pattern:
    """Where codes stand: that of codebook k in frame t at step 1 + t * stride + offsets[k].

    Attributes:
        offsets: of the K codebooks, the least of them 0.
        stride: steps from one frame to the next.

    Raises:
        ValueError: a frame would not begin at its first step, or frames stand still.
    """

    offsets: tuple[int, ...]
    stride: int = 1

    def __post_init__(self) -> None:
        if not self.offsets or min(self.offsets) != 0:
            raise ValueError(f"the least offset of a pattern is 0, not as in {self.offsets}")
        if self.stride < 1:
            raise ValueError(f"a pattern's stride is at least 1, not {self.stride}")

    @property
    def codebooks(self) -> int:
        """K."""
        return len(self.offsets)

    def steps(self, frames: int) -> int:
        """S of that many frames, step 0 counted."""
        return 2 + (frames - 1) * self.stride + max(self.offsets) if frames else 1

    def frames_ready(self, steps: int) -> int:
        """How many frames are whole once that many steps are there."""
        return max(0, (steps - 2 - max(self.offsets)) // self.stride + 1)

    def first_step(self, frame: int) -> int:
        """The first step that holds a code of a frame."""
        return 1 + frame * self.stride

    def frames_at(self, step: int) -> tuple[int, ...]:
        """Whose code each codebook has at a step: the frame, or a negative number where it has none."""
        lags = (step - 1 - offset for offset in self.offsets)
        return tuple(lag // self.stride if lag % self.stride == 0 else -1 for lag in lags)

    def mask(self, frames: int, device: torch.device | None = None) -> Tensor:
        """Which ids are codes of a sequence, bool [K, S]."""
        codes = torch.zeros(1, self.codebooks, frames, dtype=torch.int64, device=device)
        return self.spread(codes, -1)[0] == 0

    def spread(self, codes: Tensor, special_id: int) -> Tensor:
        """Lay frames out as steps.

        Args:
            codes: int64 [B, K, T].
            special_id: for where there is no code.

        Returns:
            int64 [B, K, S].
        """
        frames = codes.shape[-1]
        ids = codes.new_full((*codes.shape[:-1], self.steps(frames)), special_id)
        return ids.scatter(-1, self._places(frames, codes.device).expand_as(codes), codes)

    def gather(self, ids: Tensor) -> Tensor:
        """The frames that are whole in steps, int64 [B, K, S] to [B, K, T]."""
        places = self._places(self.frames_ready(ids.shape[-1]), ids.device)
        return ids.gather(-1, places.expand(len(ids), -1, -1))

    def _places(self, frames: int, device: torch.device) -> Tensor:
        """The step of each code, int64 [K, T]."""
        first = 1 + torch.arange(frames, device=device) * self.stride
        return first + torch.tensor(self.offsets, device=device)[:, None]


def delay_pattern(codebooks: int, channels: int = 1) -> Pattern:
    """Each codebook a step after the one before.

    Args:
        codebooks: K, those of all channels.
        channels: whose codebooks alternate; those of one level stand side by side.
    """
    return Pattern(tuple(number // channels for number in range(codebooks)))


def parallel_pattern(codebooks: int) -> Pattern:
    """All codes of a frame at one step."""
    return Pattern((0,) * codebooks)


def flattened_pattern(codebooks: int) -> Pattern:
    """One code a step, K steps a frame."""
    return Pattern(tuple(range(codebooks)), codebooks)


class CodebookEmbedding(nn.Module):
    """A table for each codebook; what a step is read as is the sum of its ids' entries.

    Args:
        codebooks: K.
        size: ids of a codebook, special ones among them.
        width: D.
    """

    first: Tensor

    def __init__(self, codebooks: int, size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(codebooks * size, width)
        self.register_buffer("first", torch.arange(codebooks)[:, None] * size, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [B, K, T] to float [B, T, D]."""
        return self.table(ids + self.first).sum(1)


class CodebookHeads(nn.Module):
    """A linear layer for each codebook, in one.

    Args:
        width: D.
        codebooks: K.
        size: V, codes of a codebook.
    """

    def __init__(self, width: int, codebooks: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, codebooks * size, bias=False)
        self._shape = (codebooks, size)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float [B, T, D] to [B, K, T, V]."""
        return self.linear(x).unflatten(-1, self._shape).transpose(1, 2)  # [B, T, K * V] -> [B, K, T, V]
