"""Losses against the definitions that they follow, written out anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musictool.training.losses import token_loss

VOCABULARY = 11


def random_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [3, 7, V], targets [3, 7], and which count."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 7, VOCABULARY, generator=generator)
    targets = torch.randint(0, VOCABULARY, (3, 7), generator=generator)
    return logits, targets, torch.rand(3, 7, generator=generator) < 0.6


def t5x_loss(logits: np.ndarray, targets: np.ndarray, z_loss: float, label_smoothing: float) -> float:
    """`compute_weighted_cross_entropy` of T5X, one token after the other, per token."""
    confidence, low = 1 - label_smoothing, label_smoothing / (VOCABULARY - 1)
    constant = -(confidence * np.log(confidence) + (VOCABULARY - 1) * low * np.log(low + 1e-20))
    total = 0.0
    for row, target in zip(logits.astype(np.float64), targets, strict=True):
        soft = np.full(VOCABULARY, low)
        soft[target] = confidence
        log_z = np.log(np.exp(row).sum())
        total += -(soft * (row - log_z)).sum() + z_loss * log_z**2 - constant
    return total / len(targets)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 0.3])
def test_loss_is_that_of_t5x_over_the_tokens_that_count(z_loss, label_smoothing):
    logits, targets, counted = random_batch()
    found = token_loss(logits, targets, counted, z_loss=z_loss, label_smoothing=label_smoothing)
    expected = t5x_loss(logits[counted].numpy(), targets[counted].numpy(), z_loss, label_smoothing)
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    plain = t5x_loss(logits[counted].numpy(), targets[counted].numpy(), 0.0, 0.0)
    assert found.cross_entropy.item() == pytest.approx(plain, rel=1e-5)
    if not label_smoothing:
        assert found.z_loss.item() == pytest.approx(expected - plain, rel=1e-4, abs=1e-6)


def test_padding_has_neither_loss_nor_gradient():
    logits, targets, counted = random_batch(1)
    logits.requires_grad_()
    before = token_loss(logits, targets, counted, z_loss=0.1)
    before.total.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=-1) > 0).equal(counted)
    with torch.no_grad():
        logits[~counted] = 50.0
    other = torch.where(counted, targets, 0)
    assert torch.equal(token_loss(logits, other, counted, z_loss=0.1).total, before.total)


def test_smoothing_leaves_0_the_least_loss():
    smoothing = 0.2
    targets = torch.tensor([4])
    best = torch.full((1, VOCABULARY), smoothing / (VOCABULARY - 1)).scatter(1, targets[:, None], 1 - smoothing).log()
    counted = torch.ones(1, dtype=torch.bool)
    assert token_loss(best, targets, counted, label_smoothing=smoothing).total.item() == pytest.approx(0, abs=1e-6)
    surer = best + 0.5 * torch.nn.functional.one_hot(targets, VOCABULARY)
    assert token_loss(surer, targets, counted, label_smoothing=smoothing).total.item() > 1e-3


def test_accuracy_is_the_share_of_counted_tokens_that_score_highest():
    logits, targets, counted = random_batch(2)
    right = counted & (torch.rand(3, 7, generator=torch.Generator().manual_seed(5)) < 0.5)
    logits[right] += 100 * torch.nn.functional.one_hot(targets[right], VOCABULARY)
    logits[~right] -= 100 * torch.nn.functional.one_hot(targets[~right], VOCABULARY)
    assert 0 < right.sum() < counted.sum()
    assert token_loss(logits, targets, counted).accuracy.item() == pytest.approx(
        right.sum().item() / counted.sum().item()
    )


def test_half_precision_logits_lose_nothing_on_the_way():
    logits, targets, counted = random_batch(3)
    half = (logits + 60).bfloat16()  # where bfloat16 itself counts in halves
    found, exact = (token_loss(each, targets, counted, z_loss=0.1).total for each in (half, half.float()))
    assert torch.equal(found, exact)
