"""A weight is a share of the gradient, whatever the scale of its loss."""

from __future__ import annotations

import pytest
import torch

from musictool.training.balancer import Balancer


def balanced(balancer: Balancer, scales: dict[str, float], weights: dict[str, float], seed: int = 0) -> torch.Tensor:
    """The gradient for losses that are dot products of the output with fixed directions."""
    generator = torch.Generator().manual_seed(seed)
    output = torch.zeros(4, 1, 100, requires_grad=True)
    losses = {}
    for name, scale in scales.items():
        direction = torch.randn(4, 1, 100, generator=generator)
        losses[name] = scale * (output * direction).sum() / len(output)
    return balancer(losses, weights, output)


def test_scales_of_losses_make_no_difference():
    weights = {"a": 1.0, "b": 3.0}
    plain = balanced(Balancer(("a", "b")), {"a": 1.0, "b": 1.0}, weights)
    scaled = balanced(Balancer(("a", "b")), {"a": 1e-3, "b": 50.0}, weights)
    assert torch.allclose(plain, scaled, rtol=1e-4)


def test_a_single_loss_gives_each_example_its_part_of_a_norm_of_one():
    gradient = balanced(Balancer(("a", "b")), {"a": 7.0}, {"a": 0.1, "b": 5.0})
    assert float(gradient.flatten(1).norm(dim=1).sum()) == pytest.approx(1.0, rel=1e-4)


def test_weights_are_shares():
    both = balanced(Balancer(("a", "b")), {"a": 1.0, "b": 9.0}, {"a": 1.0, "b": 3.0})
    first = balanced(Balancer(("a", "b")), {"a": 1.0}, {"a": 1.0})
    share = (both * first).sum() / first.square().sum()  # the directions are all but at right angles
    assert float(share) == pytest.approx(0.25, abs=0.08)


def test_norms_are_followed_slowly():
    balancer = Balancer(("a",), decay=0.9)
    for _ in range(50):
        balanced(balancer, {"a": 1.0}, {"a": 1.0})
    before = balancer.sums / balancer.weights
    gradient = balanced(balancer, {"a": 10.0}, {"a": 1.0})
    # (0.9 * 1 + 0.1 * 10) times the norm from before: a leap is let through but for what it adds to the mean
    assert float(balancer.sums / balancer.weights / before) == pytest.approx(1.9, rel=0.02)
    assert float(gradient.flatten(1).norm(dim=1).sum()) == pytest.approx(10 / 1.9, rel=0.02)


def test_a_loss_that_comes_late_is_weighed_from_its_first_batch_on():
    balancer = Balancer(("a", "b"))
    for _ in range(10):
        balanced(balancer, {"a": 1.0}, {"a": 1.0, "b": 0.0})
    late = balanced(balancer, {"a": 1.0, "b": 1e4}, {"a": 1.0, "b": 1.0})
    fresh = balanced(Balancer(("a", "b")), {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0})
    assert torch.allclose(late, fresh, rtol=1e-3)


def test_it_goes_on_from_its_state():
    first, second = Balancer(("a",), 0.9), Balancer(("a",), 0.9)
    for seed in range(3):
        balanced(first, {"a": 1.0 + seed}, {"a": 1.0}, seed)
    second.load_state_dict(first.state_dict())
    assert torch.equal(balanced(first, {"a": 9.0}, {"a": 1.0}), balanced(second, {"a": 9.0}, {"a": 1.0}))


def test_a_loss_without_gradient_does_no_harm():
    output = torch.zeros(2, 1, 8, requires_grad=True)
    gradient = Balancer(("a",))({"a": (output * 0).sum()}, {"a": 1.0}, output)
    assert torch.equal(gradient, torch.zeros_like(output))
