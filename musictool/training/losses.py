"""Losses that tasks share: plain functions of tensors, in float32 whatever the model computes in."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class TokenLoss(NamedTuple):
    """What `token_loss` gives, scalars all; the gradient is the total's.

    Attributes:
        total: what to minimise.
        cross_entropy: mean over tokens, in nats, without smoothing: its exponential is the perplexity.
        z_loss: its part of the total.
        accuracy: the share of tokens that score highest.
    """

    total: Tensor
    cross_entropy: Tensor
    z_loss: Tensor
    accuracy: Tensor


def token_loss(
    logits: Tensor, targets: Tensor, is_counted: Tensor, *, z_loss: float = 0.0, label_smoothing: float = 0.0
) -> TokenLoss:
    """Cross-entropy of tokens as T5X has it, the mean over those that count.

    The z-loss is z_loss * log(Z)^2, with Z the softmax's denominator: it keeps logits near log-probabilities. Smoothing
    shares `label_smoothing` out among the other V - 1 tokens; what the best prediction would then still cost is taken
    off, so that the least loss stays 0 (Roberts et al., 2022).

    Args:
        logits: float [..., V].
        targets: int64 [...].
        is_counted: bool [...], False at padding; at least one token counts.
        z_loss, label_smoothing: the weights; 0 turns each off.
    """
    logits = logits.float()

    def mean(values: Tensor) -> Tensor:
        """Over what counts; padding is weighed with 0 and not cut out, for which a GPU would have to wait."""
        return (values * is_counted).sum() / is_counted.sum()

    log_z = logits.logsumexp(dim=-1)
    cross_entropy = mean(log_z - logits.gather(-1, targets[..., None]).squeeze(-1))
    fit = cross_entropy
    if label_smoothing:
        others = logits.shape[-1] - 1
        sure, each = 1 - label_smoothing, label_smoothing / others
        of_all = mean(log_z * (others + 1) - logits.sum(dim=-1))  # the cross-entropies of all V tokens together
        least = -(sure * math.log(sure) + others * each * math.log(each))
        fit = (sure - each) * cross_entropy + each * of_all - least
    drift = z_loss * mean(log_z.square())
    accuracy = mean((logits.detach().argmax(dim=-1) == targets).float())
    return TokenLoss(fit + drift, cross_entropy.detach(), drift.detach(), accuracy)
