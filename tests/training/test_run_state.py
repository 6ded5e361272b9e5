"""What a run remembers."""

from __future__ import annotations

import math

import pytest

from musictool.training.recipe import Run, Schedule
from musictool.training.run_state import RunState


@pytest.mark.parametrize(("best_is", "best"), [("min", 0.1), ("max", 0.9)])
def test_the_best_is_the_highest_or_the_lowest_and_never_no_number(best_is, best):
    state = RunState()
    for step, figure in enumerate((math.nan, 0.5, 0.9, 0.1, math.nan, 0.3), 1):
        state.step = step
        state.evaluated(figure, Run(best_is=best_is), Schedule())
    assert state.gains.best == best


def test_a_run_stalls_after_its_patience_and_never_without():
    patient, state = Run(patience=2), RunState()
    stalled = []
    for figure in (1.0, 2.0, 0.5, 0.5, 0.7):
        state.evaluated(figure, patient, Schedule())
        stalled.append(state.has_stalled(patient))
    assert stalled == [False, False, False, False, True]
    assert not state.has_stalled(Run())


def test_state_goes_through_a_checkpoint():
    state = RunState(processes=3)
    state.step = 7
    state.evaluated(0.5, Run(), Schedule(kind="plateau", patience=1))
    state.evaluated(0.6, Run(), Schedule(kind="plateau", patience=1))
    again = RunState()
    again.load_state_dict(state.state_dict())
    assert again == state
    assert (again.gains.best, again.plateau_factor) == (0.5, 0.5)
