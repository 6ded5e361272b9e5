"""Averaged weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musictool.training.averaging import AveragedWeights


class Counter(nn.Module):
    """One weight, a running statistic and a count."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("count", torch.tensor(0))

    def become(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.mean.fill_(value)
            self.count += 1


def followed(decay: float, values: list[float]) -> tuple[Counter, AveragedWeights]:
    model = Counter()
    weights = AveragedWeights(model, decay)
    for value in values:
        model.become(value)
        weights.follow()
    return model, weights


def test_the_average_is_exponential_with_a_decay_that_rises():
    values = [1.0, 5.0, 2.0, 8.0, 3.0]
    _, weights = followed(0.25, values)
    expected = values[0]
    for count, value in enumerate(values[1:], 1):
        decay = min(0.25, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * value
    model = weights.current()
    assert float(model.weight) == pytest.approx(expected)
    assert float(model.mean) == pytest.approx(expected)
    assert int(model.count) == 5  # a count is no average


def test_a_short_run_is_not_held_back_by_its_first_weights():
    _, weights = followed(0.999, [100.0] + [1.0] * 99)
    assert float(weights.current().weight) < 1.001


def test_without_decay_it_is_a_copy_brought_up_to_date_when_asked():
    model, weights = followed(0.0, [1.0, 2.0])
    assert float(weights.current().weight) == 2.0
    model.become(3.0)
    current = weights.current()
    assert (float(current.weight), int(current.count)) == (3.0, 3)
    assert current.weight.data_ptr() != model.weight.data_ptr()
    assert not current.training


def test_an_average_goes_on_from_a_checkpoint():
    values = [1.0, 5.0, 2.0, 8.0]
    _, whole = followed(0.5, values)
    model, first = followed(0.5, values[:2])
    second = AveragedWeights(model, 0.5)
    second.load_state_dict(first.state_dict())
    for value in values[2:]:
        model.become(value)
        second.follow()
    assert torch.equal(whole.current().weight, second.current().weight)


def test_buffers_that_are_averages_are_copied():
    model = Counter()
    model.averages_itself = True
    weights = AveragedWeights(model, 0.9)
    for value in (1.0, 5.0):
        model.become(value)
        weights.follow()
    assert float(weights.current().mean) == 5.0
    assert float(weights.current().weight) < 5.0
