"""Scheduled sampling: in training a model reads some of its own words, as it does when it generates.

Bengio et al. (2015; arXiv:1506.03099), in two passes over all steps at once, as is done where steps do not wait for
each other (Mihaylova and Martins, 2019; arXiv:1906.07651): the first pass says what the model would have said after
the teacher's steps, the second reads a mixture of both. Knows no particular model of codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Conditions = TypeVar("Conditions")


@torch.no_grad()
def mix_in_predictions(
    model: Callable[[Tensor, Conditions], Tensor],
    ids: Tensor,
    conditions: Conditions,
    *,
    special_id: int,
    probability: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Exchange steps of the teacher's for the model's likeliest ids, each with the same probability.

    All K ids of a step are exchanged together, since a model says them together. Where there is no code, none comes in.

    Args:
        model: gives teacher-forced logits, float [B, K, T, V], of ids and conditions; without gradients here.
        ids: int64 [B, K, T], the teacher's, beginning with step 0.
        conditions: as the model takes them.
        special_id: stands where there is no code.
        probability: that a step is exchanged; at 0 the model is not run.
        generator: draws which, on the device of ids; torch's own by default.

    Returns:
        int64 [B, K, T], what the second pass is to read. The targets stay the teacher's.
    """
    if probability <= 0:
        return ids
    said = model(ids, conditions)[..., :-1, :].argmax(-1)  # [B, K, T - 1], of the steps from 1 on
    taught = ids[..., 1:]
    rows, _, steps = taught.shape
    is_drawn = torch.rand(rows, 1, steps, device=ids.device, generator=generator) < probability
    mixed = torch.where(is_drawn & (taught != special_id), said, taught)
    return torch.cat([ids[..., :1], mixed], dim=-1)
