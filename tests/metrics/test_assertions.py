"""Conditions on scores."""

from __future__ import annotations

import pytest

from musictool.errors import UsageError
from musictool.metrics.assertions import Assertion

METRICS = ("onset_f1", "median_onset_error_ms")


OPERATORS = {  # of 0.4, 0.5 and 0.6, which are so to 0.5
    ">=": [False, True, True],
    ">": [False, False, True],
    "<=": [True, True, False],
    "<": [True, False, False],
    "==": [False, True, False],
}


@pytest.mark.parametrize("symbol", OPERATORS)
def test_every_operator_means_what_it_says(symbol):
    for text in (f"onset_f1{symbol}0.5", f" onset_f1 {symbol} 5e-1 "):
        assertion = Assertion.parse(text, METRICS)
        assert [assertion.holds(value) for value in (0.4, 0.5, 0.6)] == OPERATORS[symbol]


def test_a_bound_may_be_negative_and_a_missing_score_holds_nothing():
    assertion = Assertion.parse("median_onset_error_ms>-12.5", METRICS)
    assert assertion.holds(-12)
    assert not assertion.holds(-13)
    assert not assertion.holds(None)


@pytest.mark.parametrize(
    "text", ["", "onset_f1", "onset_f1=0.5", "onset_f1>=", "0.5<=onset_f1", "onset_f1>=nan", "a b>=1"]
)
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(UsageError, match="no condition"):
        Assertion.parse(text, METRICS)


def test_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="no such metric") as error:
        Assertion.parse("onset_f>=0.5", METRICS)
    assert error.value.hint == "did you mean onset_f1?"
