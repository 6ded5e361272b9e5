"""Figures of a stretch of steps."""

from __future__ import annotations

import math
import time

import pytest
import torch

from musictool.training.meter import DivergedError, Meter


def alone(figures: torch.Tensor) -> torch.Tensor:
    return figures


def fill(meter: Meter, losses: list[list[float]], norms: list[float]) -> None:
    for step, (batches, norm) in enumerate(zip(losses, norms, strict=True), 1):
        for loss in batches:
            meter.count_batch(torch.tensor(loss), {"half": torch.tensor(loss / 2)}, {"tokens": 3.0})
        meter.count_step(step, torch.tensor(norm))


def test_means_are_over_batches_and_steps_and_begin_anew():
    meter = Meter(alone, processes=2, checks_norms=True)
    fill(meter, [[1.0, 2.0], [3.0, 6.0]], [1.0, 2.0])
    record = meter.take()
    assert (record["loss"], record["loss/half"], record["gradient_norm"]) == (3.0, 1.5, 1.5)
    assert record["tokens_per_second"] / record["steps_per_second"] == pytest.approx(3 * 2 * 2)
    fill(meter, [[5.0]], [1.0])
    meter.settle()  # asked for in between, and still counted
    fill(meter, [[7.0]], [1.0])
    assert meter.take()["loss"] == 6.0


@pytest.mark.parametrize(("bad", "what"), [(([1.0], math.nan), "gradient"), (([math.inf], 1.0), "loss")])
def test_the_step_that_diverged_is_named(bad, what):
    meter = Meter(alone, 1, checks_norms=True)
    losses, norm = bad
    fill(meter, [[1.0], [2.0], losses, [math.nan]], [1.0, 1.0, norm, math.nan])
    with pytest.raises(DivergedError, match=f"the {what} is no number at step 3"):
        meter.settle()


def test_an_overflow_that_scaling_sees_to_is_no_divergence():
    meter = Meter(alone, 1, checks_norms=False)
    fill(meter, [[1.0], [3.0]], [math.inf, 1.0])
    assert meter.take()["loss"] == 2.0


def test_waiting_is_a_share_of_the_time_and_pauses_are_none_of_it():
    meter = Meter(alone, 1, checks_norms=True)
    with meter.paused():
        time.sleep(0.2)
    with meter.waiting():
        time.sleep(0.05)
    time.sleep(0.05)
    fill(meter, [[1.0]], [1.0])
    record = meter.take()
    assert 0.3 < record["data_wait_share"] < 0.7
    assert record["steps_per_second"] > 5
