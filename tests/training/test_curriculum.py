"""Values that change with the step."""

from __future__ import annotations

import pytest

from musictool.training.curriculum import Curve, section_at
from tests.training.toy import Noise, ToyData, ToyLoss


def values(curve: Curve, *steps: int) -> list:
    return [curve.at(step) for step in steps]


def test_steps_hold_until_the_next_point():
    curve = Curve("data.train", ((10, "a"), (20, "b")))
    assert values(curve, 0, 9, 10, 19, 20, 999) == ["a", "a", "a", "a", "b", "b"]


def test_lines_lead_from_point_to_point_and_hold_outside():
    curve = Curve("data.contrast", ((10, 1.0), (20, 3.0), (30, 2.0)), "linear")
    assert values(curve, 0, 10, 15, 20, 25, 30, 99) == [1.0, 1.0, 2.0, 3.0, 2.5, 2.0, 2.0]


def test_lines_between_whole_numbers_and_between_lists():
    assert values(Curve("data.fail_at", ((0, 1), (4, 2)), "linear"), 1, 3) == [1, 2]
    shares = Curve("data.shares", ((0, (1.0, 0.0)), (10, (0.0, 4.0))), "linear")
    assert shares.at(5) == (0.5, 2.0)
    with pytest.raises(ValueError, match="no line"):
        Curve("data.shares", ((0, (1.0, 0.0)), (10, (0.0,))), "linear")


def test_sections_change_where_a_curve_says_and_nowhere_else():
    curves = (Curve("data.noise.level", ((0, 1.0), (10, 2.0)), "linear"), Curve("loss.smoothing", ((0, 0.5),)))
    assert section_at(ToyData(), "data", curves, 5) == ToyData(noise=Noise(1.5))
    assert section_at(ToyLoss(), "loss", curves, 5) == ToyLoss(0.5)
    same = ToyData()
    assert section_at(same, "data", curves[1:], 5) is same
