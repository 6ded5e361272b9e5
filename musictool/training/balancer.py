"""Losses of one output, weighed by what they do to it and not by their size.

The loss balancer of EnCodec (Défossez et al., 2022; arXiv:2210.13438, section 3.4): the gradient of each loss with
respect to the output is divided by a running mean of its norm and multiplied by the loss's share of all weights. A
weight is thus a share of the gradient, whatever the scale of its loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed, nn


class Balancer(nn.Module):
    """Keeps the running means, which are part of a run's checkpoints and alike in all processes.

    Args:
        names: of all losses that there may be.
        decay: of the running means.
    """

    sums: Tensor
    weights: Tensor

    def __init__(self, names: Sequence[str], decay: float = 0.999) -> None:
        super().__init__()
        self._names = tuple(names)
        self._decay = decay
        self.register_buffer("sums", torch.zeros(len(names)))  # decaying sums of norms, and of ones beside them
        self.register_buffer("weights", torch.zeros(len(names)))

    def forward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float], output: Tensor) -> Tensor:
        """The gradient that an output is to be moved against.

        Args:
            losses: scalars, by name, each a mean over the batch; any of those that there may be, and alike in all
                processes. Their graphs stay.
            weights: of each of them, 0 or more.
            output: float32 [B, ...], which the losses depend on.

        Returns:
            float32 [B, ...]. If all losses pulled the same way with their usual strength, each example's part would
            have the norm 1 / B.
        """
        rows = torch.tensor([self._names.index(name) for name in losses], device=output.device)
        gradients = [torch.autograd.grad(loss, output, retain_graph=True)[0].float() for loss in losses.values()]
        norms = torch.stack([gradient.flatten(1).norm(dim=1).sum() for gradient in gradients])
        usual = self._follow(rows, norms)
        shares = torch.tensor([weights[name] for name in losses], device=output.device)
        scales = shares / shares.sum() / usual.clamp(min=torch.finfo(torch.float32).tiny)
        return torch.stack([scale * gradient for scale, gradient in zip(scales, gradients, strict=True)]).sum(0)

    @torch.no_grad()
    def _follow(self, rows: Tensor, norms: Tensor) -> Tensor:
        """Take norms into the running means, float32 [n], and give those."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(norms)
            norms = norms / distributed.get_world_size()
        self.sums[rows] = self._decay * self.sums[rows] + (1 - self._decay) * norms
        self.weights[rows] = self._decay * self.weights[rows] + (1 - self._decay)
        return self.sums[rows] / self.weights[rows]
