"""What a run remembers beside weights, optimiser and random states: how far it is, and how well it has done.

All of it goes into every checkpoint, through `state_dict` and `load_state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musictool.training.recipe import Run, Schedule


@dataclass
class Gains:
    """Evaluations in a row, and whether they still get better.

    Attributes:
        best: the best figure so far; None before the first.
        best_step: where it was reached.
        since: evaluations after it.
    """

    best: float | None = None
    best_step: int = 0
    since: int = 0

    def take(self, figure: float, step: int, *, is_higher_better: bool) -> bool:
        """Take an evaluation's figure; whether it is the best so far. What is no number never is."""
        if self.best is None:
            is_best = figure == figure
        else:
            is_best = figure > self.best if is_higher_better else figure < self.best
        if is_best:
            self.best, self.best_step, self.since = figure, step, 0
        else:
            self.since += 1
        return is_best


@dataclass
class RunState:
    """How far a run is.

    Attributes:
        processes: how many train together, on which depends which examples a step uses.
        step: steps done.
        evaluated_step: steps done at the last evaluation.
        seconds: of training, over all the times it went on.
        gains: of evaluations, for the best model and the early stop.
        plateau_factor: what the plateau schedule has made of the learning rate.
        plateau_since: evaluations without gain since the schedule last changed it.
    """

    processes: int = 1
    step: int = 0
    evaluated_step: int = 0
    seconds: float = 0.0
    gains: Gains = field(default_factory=Gains)
    plateau_factor: float = 1.0
    plateau_since: int = 0

    def evaluated(self, figure: float, run: Run, schedule: Schedule) -> bool:
        """Take the figure that tells the best model; whether this is the best so far."""
        is_best = self.gains.take(figure, self.step, is_higher_better=run.best_is == "max")
        if schedule.kind == "plateau":
            self.plateau_since = 0 if is_best else self.plateau_since + 1
            if self.plateau_since >= schedule.patience:
                self.plateau_since = 0
                self.plateau_factor *= schedule.factor
        return is_best

    def has_stalled(self, run: Run) -> bool:
        """Whether there has been no gain for as long as the recipe waits."""
        return bool(run.patience) and self.gains.since >= run.patience

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's."""
        values = dict(state)
        self.gains = Gains(**values.pop("gains"))
        for name, value in values.items():
            setattr(self, name, value)
