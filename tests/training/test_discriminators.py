"""Discriminators learn to tell, and their verdicts are weighed as the hinge losses say."""

from __future__ import annotations

import pytest
import torch

from musictool.training.discriminators import (
    DiscriminatorConfig,
    Discriminators,
    Verdict,
    feature_loss,
    fooling_loss,
    telling_loss,
)

SMALL = DiscriminatorConfig(windows=(128, 64), filters=4, dilations=(1, 2))


def verdict(logit: float, *features: float) -> Verdict:
    return Verdict(torch.full((2, 1, 3, 3), logit), [torch.full((2, 4, 3, 3), feature) for feature in features])


def test_hinge_losses_are_their_closed_forms():
    assert float(telling_loss([verdict(0.0)], [verdict(0.0)])) == 2
    assert float(telling_loss([verdict(1.5)], [verdict(-1.5)])) == 0
    assert float(telling_loss([verdict(-1.0), verdict(2.0)], [verdict(0.5), verdict(-2.0)])) == pytest.approx(1.75)
    assert float(fooling_loss([verdict(-1.0), verdict(3.0)])) == 1.0


def test_feature_loss_is_relative_to_the_real_features():
    real, coded = [verdict(0, 2.0, 10.0)], [verdict(0, 3.0, 5.0)]
    assert float(feature_loss(real, coded)) == pytest.approx((0.5 + 0.5) / 2)
    assert float(feature_loss(real, real)) == 0


def test_there_is_a_verdict_for_each_window_frame_by_frame():
    with torch.no_grad():
        verdicts = Discriminators(2, SMALL)(torch.randn(3, 2, 960))
    assert len(verdicts) == 2
    for window, said in zip(SMALL.windows, verdicts, strict=True):
        frames, bins = 960 // (window // 4) + 1, window // 2 + 1
        assert said.features[0].shape == (3, 4, frames, bins)
        assert said.logits.shape[:3] == (3, 1, frames)
        assert len(said.features) == len(SMALL.dilations) + 2


def test_sounds_that_differ_are_told_apart_after_some_steps():
    torch.manual_seed(0)
    discriminators = Discriminators(1, SMALL)
    optimiser = torch.optim.Adam(discriminators.parameters(), lr=1e-2)
    time = torch.arange(960) / 24_000
    losses = []
    for _ in range(40):
        real = 0.3 * torch.sin(2 * torch.pi * torch.rand(4, 1, 1) * 4000 * time)
        loss = telling_loss(discriminators(real), discriminators(real + 0.1 * torch.randn_like(real)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1.8
    assert losses[-1] < 0.6


def test_each_part_of_the_sound_and_both_channels_count():
    torch.manual_seed(0)
    discriminators = Discriminators(2, SMALL)
    audio = torch.randn(1, 2, 960, requires_grad=True)
    fooling_loss(discriminators(audio)).backward()
    assert (audio.grad.unflatten(-1, (20, 48)).abs().amax(-1) > 0).all()
