"""Where a step stands, told to a model in one of five ways.

Added to the input: `sinusoids` (Vaswani et al., 2017, section 3.5, with halves as in T5X), `waves` (the same the other
way round, for any positions) and learned ones (`torch.nn.Embedding`). Turned into queries and keys: `Rotary` (Su et
al., 2021). Added to the scores of attention: `RelativeBias` (Raffel et al., 2020, section 2.1) and `DistanceBias`
(Press et al., 2022, section 3).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


def sinusoids(steps: int, width: int, longest_period: float = 10_000.0) -> Tensor:
    """Fixed positions as T5X and MT3 have them: sines in the first half of the width, cosines in the second.

    Frequencies fall from 1 to exactly 1 / longest_period: the last of the D / 2 is at that end, not one short of it.

    Args:
        steps: T.
        width: D, even and at least 4.
        longest_period: of the slowest wave, in steps over 2 pi.

    Returns:
        float32 [T, D].
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(longest_period) / (half - 1)))
    angle = torch.arange(steps, dtype=torch.float32)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def waves(positions: Tensor, width: int, longest_period: float = 10_000.0) -> Tensor:
    """Fixed positions as MusicGen has them: those of `sinusoids`, but with cosines in the first half of the width.

    Args:
        positions: int [...].
        width: D, even and at least 4.
        longest_period: of the slowest wave, in steps over 2 pi.

    Returns:
        float32 [..., D].
    """
    half = width // 2
    place = torch.arange(half, dtype=torch.float32, device=positions.device)
    angle = positions[..., None].float() * torch.exp(place * (-math.log(longest_period) / (half - 1)))
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class Rotation(NamedTuple):
    """Cosines and sines of the angles that steps are turned by, float, broadcastable to [B, H, T, P / 2] each."""

    cosine: Tensor
    sine: Tensor


class Rotary(nn.Module):
    """Rotary positions: pairs (p, p + P / 2) of a head's width turn with the step, each at a speed of its own.

    Args:
        head_width: P, even.
        longest_period: of the slowest pair, in steps over 2 pi.
    """

    def __init__(self, head_width: int, longest_period: float = 10_000.0) -> None:
        super().__init__()
        self.head_width = head_width
        self.longest_period = longest_period

    def forward(self, positions: Tensor) -> Rotation:
        """The rotation of steps at positions, int [T] or [B, T]."""
        # Frequencies are computed and not kept: in a model that is cast to 16 bits, a buffer would be so, too.
        pair = torch.arange(0, self.head_width, 2, dtype=torch.float32, device=positions.device)
        frequency = self.longest_period ** (-pair / self.head_width)
        angle = positions[..., None].float() * frequency  # [..., T, P / 2]
        if angle.dim() == 3:
            angle = angle.unsqueeze(1)  # [B, 1, T, P / 2]
        return Rotation(angle.cos(), angle.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn queries or keys, float [B, H, T, P], by their positions."""
    first, second = x.float().chunk(2, dim=-1)
    cosine, sine = rotation
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).type_as(x)


class DistanceBias(nn.Module):
    """What is farther away counts for less: scores fall with the distance, in each head at a slope of its own.

    Press et al. (2022), section 3, known as ALiBi; here both ways. In head h of H, counted from 1, that is 2^(-8 h / H)
    a step, so that some look at what is near and others at all. Nothing of it is learned.

    Args:
        heads: H.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """The bias of queries at positions int [B, T], or [T], to keys at int [S]: float [B or 1, H, T, S]."""
        head = torch.arange(1, self.heads + 1, device=key_positions.device)
        slope = torch.exp2(-8 * head / self.heads)[:, None, None]
        distance = (key_positions - query_positions[..., None]).abs()
        bias = -slope * distance.unsqueeze(-3)  # [..., 1, T, S] -> [..., H, T, S]
        return bias if bias.dim() == 4 else bias.unsqueeze(0)


class RelativeBias(nn.Module):
    """A learned number for each head and distance between two steps, added to the scores of every layer.

    Near distances have a bucket each; farther ones share buckets that widen logarithmically up to `distance_max`, and
    all beyond share the last.

    Args:
        heads: H.
        buckets: how many; with `is_bidirectional` half of them look back and half ahead.
        distance_max: from where on distances are told apart no more.
        is_bidirectional: whether steps see those after them.
    """

    def __init__(
        self, heads: int, *, buckets: int = 32, distance_max: int = 128, is_bidirectional: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, heads))
        self.distance_max = distance_max
        self.is_bidirectional = is_bidirectional

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """The bias of queries at positions int [B, T], or [T], to keys at int [S]: float [B or 1, H, T, S]."""
        distance = key_positions - query_positions[..., None]  # [..., T, S]
        bias = self.weight[self._bucket(distance)].movedim(-1, -3)  # [..., T, S, H] -> [..., H, T, S]
        return bias if bias.dim() == 4 else bias.unsqueeze(0)

    def _bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance, key position less query position, int64."""
        buckets = len(self.weight)
        first = torch.zeros_like(distance)
        if self.is_bidirectional:
            buckets //= 2
            first = (distance > 0) * buckets
            back = distance.abs()
        else:
            back = (-distance).clamp(min=0)
        exact = buckets // 2
        ratio = torch.log(back.clamp(min=1).float() / exact) / math.log(self.distance_max / exact)
        wide = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
        return first + torch.where(back < exact, back, wide)
