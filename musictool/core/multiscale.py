"""Self-attention at several scales of time at once, and the diffusion block around it.

At scale f the frames are averaged f by f, attend to each other, and are brought back to every frame by interpolation
between the averages' own places in time. The heads are shared out over the scales, so that all of them together cost
what one scale with all heads would; gates that each frame works out for itself weigh the scales against each other.

Lengths need not be multiples of a scale, and frames that are not there (padding) neither enter an average nor move it.
The block is conditioned by adaptive layer norm (Peebles and Xie, 2023, section 3.2); of what, it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from musictool.core.attention import EVERYTHING, Attention, Sight
from musictool.core.feed_forward import GatedFeedForward
from musictool.core.positions import Rotary, Rotation

SCALES = (1, 2, 4)


class Resampling(NamedTuple):
    """Matrices that take T frames to S averages and back.

    Attributes:
        down: float [B or 1, S, T], each row the mean of the frames there are in an average.
        up: float [B or 1, T, S], each row a frame's weights of the averages near it.
    """

    down: Tensor
    up: Tensor


class TimeScale(NamedTuple):
    """What attention needs to know of one scale.

    Attributes:
        resampling: None at scale 1, where frames stay as they are.
        rotation: of the averages, S of them, at their places counted in frames.
        sight: which averages are there.
    """

    resampling: Resampling | None
    rotation: Rotation
    sight: Sight


class TimeScales(nn.Module):
    """Looks at a batch once and tells the attention of every layer what it needs of every scale.

    Args:
        head_width: P of the attention.
        scales: frames to an average, each.
    """

    def __init__(self, head_width: int, scales: Sequence[int] = SCALES) -> None:
        super().__init__()
        if min(scales) < 1:
            raise ValueError(f"scales are whole numbers from 1 upwards, not {min(scales)}")
        self.scales = tuple(scales)
        self.rotary = Rotary(head_width)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> list[TimeScale]:
        """Each scale of a batch.

        Args:
            x: float [B, T, D].
            visible: which frames are there, bool [B, T], at least one in each row; None for all.

        Returns:
            One for each scale.
        """
        return [self._at(scale, x, visible) for scale in self.scales]

    def _at(self, scale: int, x: Tensor, visible: Tensor | None) -> TimeScale:
        if scale == 1:
            rotation = self.rotary(torch.arange(x.shape[1], device=x.device))
            return TimeScale(None, rotation, _sight(visible))
        present = visible if visible is not None else x.new_ones(1, x.shape[1], dtype=torch.bool)
        counts, places, resampling = _resample(present, scale)
        sight = EVERYTHING if visible is None else _sight(counts > 0)
        return TimeScale(Resampling(*(matrix.to(x.dtype) for matrix in resampling)), self.rotary(places), sight)


class MultiScaleAttention(nn.Module):
    """Multi-head self-attention at several scales of time, 4 D^2 parameters and a gate's.

    Args:
        width: D, in and out.
        heads: H of all scales together; where they don't come out even, the first scales have one more.
        scales: as those of the `TimeScales` that `forward` is given.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, scales: Sequence[int] = SCALES, *, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        if heads < len(scales):
            raise ValueError(f"{heads} heads are too few for {len(scales)} scales")
        each, left = divmod(heads, len(scales))
        self.attentions = nn.ModuleList(
            Attention(width, each + (place < left), width // heads, dropout=dropout) for place in range(len(scales))
        )
        self.gate = nn.Linear(width, len(scales))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, scales: Sequence[TimeScale]) -> Tensor:
        """Attend at every scale and add up what comes of it.

        A gate lies between 0 and 2, and is 1 before training.

        Args:
            x: float [B, T, D].
            scales: of this batch, from `TimeScales`.

        Returns:
            float [B, T, D]; frames that are not there hold numbers without meaning.
        """
        gates = 2 * torch.sigmoid(self.gate(x))  # [B, T, scales]
        total = torch.zeros_like(x)
        for place, (attention, scale) in enumerate(zip(self.attentions, scales, strict=True)):
            total = total + gates[..., place, None] * _attend(attention, x, scale)
        return total


class MultiScaleBlock(nn.Module):
    """Multi-scale attention and a gated feed-forward, each behind a norm that a condition shifts, scales and gates.

    Args:
        width: D.
        heads: H of all scales together.
        hidden: F of the feed-forward.
        scales: as those of the `TimeScales` that `forward` is given.
        dropout: share of attention weights, and of the feed-forward's hidden values, dropped in training.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, scales: Sequence[int] = SCALES, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = MultiScaleAttention(width, heads, scales, dropout=dropout)
        self.feed_forward_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.feed_forward = GatedFeedForward(width, hidden, dropout=dropout)

    def forward(self, x: Tensor, modulation: Tensor, scales: Sequence[TimeScale]) -> Tensor:
        """One block.

        Args:
            x: float [B, T, D].
            modulation: shift, scale and gate of the attention, then of the feed-forward, float [B, 6, D] for all frames
                alike or [B, T, 6, D] for each; with all zeros the block gives x back.
            scales: of this batch, from `TimeScales`.

        Returns:
            float [B, T, D].
        """
        if modulation.dim() == 3:
            modulation = modulation.unsqueeze(1)  # [B, 1, 6, D]
        shift, scale, gate, shift_after, scale_after, gate_after = modulation.unbind(-2)  # [B, T or 1, D] each
        x = x + gate * self.attention(self.attention_norm(x) * (1 + scale) + shift, scales)
        return x + gate_after * self.feed_forward(self.feed_forward_norm(x) * (1 + scale_after) + shift_after)


def _attend(attention: nn.Module, x: Tensor, scale: TimeScale) -> Tensor:
    """One scale's attention over frames, float [B, T, D] to the same."""
    if scale.resampling is None:
        return attention(x, scale.sight, rotation=scale.rotation)
    averages = scale.resampling.down @ x  # [B, S, D]
    return scale.resampling.up @ attention(averages, scale.sight, rotation=scale.rotation)


def _sight(visible: Tensor | None) -> Sight:
    """What every query sees of keys that are there, bool [B, S]."""
    return EVERYTHING if visible is None else Sight(visible[:, None, None, :])


def _resample(visible: Tensor, scale: int) -> tuple[Tensor, Tensor, Resampling]:
    """How frames that are there, bool [B, T], go to averages of `scale` frames and back.

    Returns:
        Frames in each average, float [B, S]; its place, the mean of theirs, float [B, S]; and the matrices. A frame's
        weights fall linearly with its distance from an average's place, to nothing at `scale` frames.
    """
    frames = torch.arange(visible.shape[1], device=visible.device)
    averages = torch.arange(-(-len(frames) // scale), device=visible.device)
    members = (frames // scale == averages[:, None]) & visible[:, None, :]  # [B, S, T]
    counts = members.sum(-1).float()  # [B, S]
    down = members / counts.clamp(min=1)[..., None]
    places = down @ frames.float()  # [B, S]
    nearness = (1 - (frames[:, None] - places[:, None, :]).abs() / scale).clamp(min=0) * (counts > 0)[:, None, :]
    up = nearness / nearness.sum(-1, keepdim=True).clamp(min=1e-6)  # [B, T, S]
    return counts, places, Resampling(down, up)
