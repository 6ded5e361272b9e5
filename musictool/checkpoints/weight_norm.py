"""Weight norm (Salimans and Kingma, 2016; arXiv:1602.07868): a weight kept as a direction and a gain for each row.

Those who train that way publish both; whoever uses the model needs what they multiply out to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from musictool.checkpoints.names import Parts, Shape

if TYPE_CHECKING:
    from torch import Tensor


def _shape(parts: Sequence[Shape]) -> Shape:
    gain, direction = parts
    if not direction or gain != (direction[0], *(1 for _ in direction[1:])):
        raise ValueError(f"no gain of shape {list(gain)} goes with a direction of shape {list(direction)}")
    return direction


def _join(parts: Sequence[Tensor]) -> Tensor:
    import torch

    gain, direction = parts
    return torch._weight_norm(direction, gain, 0)  # what torch's own weight norm calls: the same bits


def _split(weight: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    gain = torch.norm_except_dim(weight.float(), 2, 0).to(weight.dtype)
    return gain, torch.where(gain == 0, 1, weight)  # a direction has a length, even if nothing goes that way


WEIGHT_NORM = Parts(_shape, _join, _split)
"""The gain, one for each index of the first dimension, and the direction, for which the weight itself is written."""
