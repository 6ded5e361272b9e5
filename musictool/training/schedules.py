"""Learning-rate schedules: what the recipe's rate is multiplied with at a step. Pure functions of the step.

Only `plateau` depends on how training goes: its factor is a part of the run's state, and `scheduled_factor` gives the
warm-up alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musictool.training.recipe import Schedule


def scheduled_factor(schedule: Schedule, step: int, steps: int) -> float:
    """The factor of the learning rate at a step.

    Args:
        schedule: its numbers.
        step: the step that is about to be taken, from 0.
        steps: how many the run has.

    Returns:
        Above 0 at the first step; `linear` and `cosine` come to `final_factor` when all steps are done.
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    if schedule.kind == "step":
        return float(schedule.step_factor ** ((step - warmup) // schedule.step_every))
    if schedule.kind not in ("linear", "cosine"):
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    fall = done if schedule.kind == "linear" else (1.0 - math.cos(math.pi * done)) / 2.0
    return 1.0 - (1.0 - schedule.final_factor) * fall
