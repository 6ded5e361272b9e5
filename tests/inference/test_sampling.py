"""Draws against the distributions they come from."""

from __future__ import annotations

import pytest
import torch

from musictool.inference.sampling import Sampling

LOGITS = torch.tensor([[2.0, 0.0, 1.0, -1.0, 0.5]])


def frequencies(sampling: Sampling, draws: int = 4000) -> torch.Tensor:
    generator = sampling.generator(0)
    chosen = sampling.choose(LOGITS.expand(draws, -1), [generator] * draws)
    return torch.bincount(chosen, minlength=5) / draws


def test_greedy_takes_the_likeliest():
    assert Sampling().choose(LOGITS, []).tolist() == [0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_softmax(temperature):
    expected = (LOGITS[0] / temperature).softmax(-1)
    torch.testing.assert_close(frequencies(Sampling(temperature)), expected, atol=0.03, rtol=0)


def test_top_k_leaves_k():
    seen = frequencies(Sampling(1.0, top_k=2))
    assert seen[[1, 3, 4]].sum() == 0
    assert seen[0] == pytest.approx(float(LOGITS[0, [0, 2]].softmax(-1)[0]), abs=0.03)


def test_top_p_leaves_the_fewest_that_reach_it():
    probability = LOGITS[0].softmax(-1)
    narrowed = Sampling(1.0, top_p=float(probability[0] + 0.01)).narrow(LOGITS)
    assert narrowed.isfinite().tolist() == [[True, False, True, False, False]]
    assert Sampling(1.0, top_p=0.01).narrow(LOGITS).isfinite().sum() == 1


def test_what_is_impossible_is_never_drawn():
    logits = LOGITS.clone()
    logits[0, 0] = -torch.inf
    generator = Sampling(5.0).generator(3)
    assert (Sampling(5.0).choose(logits.expand(500, -1), [generator] * 500) != 0).all()


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match="not"):
        Sampling(**values)
