"""Stretches of the past that a model of codes does not get to read in training, and writes all the same.

What a lead has played tells most of what it goes on with, the chord included, and a model that can read it learns to
listen to nothing else. Where it is hidden, what sounds beside it is all there is to go by. As words are dropped from
the decoder's input of a variational autoencoder (Bowman et al., 2016; arXiv:1511.06349, section 3), but in stretches:
a single step can be guessed from those beside it. Knows no particular model of codes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hide_stretches(
    ids: Tensor, *, special_id: int, share: float, steps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Hide stretches of equal length, each with the same probability; where they begin is drawn for each row.

    Args:
        ids: int64 [B, K, T], what is to be read.
        special_id: comes to stand for what is hidden.
        share: that probability.
        steps: of a stretch.
        generator: draws, on the device of ids; torch's own by default.

    Returns:
        int64 [B, K, T]; the ids themselves where the share is 0.
    """
    if share <= 0:
        return ids
    rows, _, count = ids.shape
    shift = torch.randint(steps, (rows, 1), device=ids.device, generator=generator)
    stretch = (torch.arange(count, device=ids.device) + shift) // steps
    is_hidden = torch.rand(rows, count // steps + 2, device=ids.device, generator=generator) < share
    return ids.masked_fill(is_hidden.gather(1, stretch).unsqueeze(1), special_id)
