"""Learning rates over a run."""

from __future__ import annotations

import pytest

from musictool.training.recipe import Run, Schedule
from musictool.training.run_state import RunState
from musictool.training.schedules import scheduled_factor

KINDS = ("constant", "linear", "cosine", "step", "plateau")


def factors(steps: int, **values) -> list[float]:
    return [scheduled_factor(Schedule(**values), step, steps) for step in range(steps)]


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_rises_on_a_line_to_the_whole_rate(kind):
    rising = factors(20, kind=kind, warmup_steps=10)
    assert rising[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])


@pytest.mark.parametrize(("kind", "half"), [("linear", 0.6), ("cosine", 0.6)])
def test_falling_schedules_end_at_their_final_factor(kind, half):
    schedule = Schedule(kind=kind, warmup_steps=10, final_factor=0.2)
    assert scheduled_factor(schedule, 60, 110) == pytest.approx(half)
    assert scheduled_factor(schedule, 110, 110) == pytest.approx(0.2)
    falling = factors(110, kind=kind, warmup_steps=10, final_factor=0.2)[10:]
    assert falling == sorted(falling, reverse=True)


def test_cosine_is_flat_at_both_ends():
    falling = factors(100, kind="cosine")
    assert falling[0] - falling[1] < 0.001 < falling[50] - falling[51]


def test_steps_and_constant():
    assert factors(7, kind="step", step_every=3, step_factor=0.5) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert set(factors(7, kind="constant")) == {1.0}


def test_plateau_falls_after_evaluations_without_gain_and_counts_anew():
    schedule, run, state = Schedule(kind="plateau", patience=2, factor=0.1), Run(best_is="max"), RunState()
    seen = []
    for figure in (0.5, 0.5, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6):
        state.evaluated(figure, run, schedule)
        seen.append(state.plateau_factor)
    assert seen == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])
