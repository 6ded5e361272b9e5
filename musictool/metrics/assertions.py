"""Conditions on scores, as in `onset_f1>=0.77`: what a test run may demand of a mean. Imports nothing heavy."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from musictool.errors import UsageError

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*(\w+)\s*(>=|<=|==|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Assertion:
    """One condition.

    Attributes:
        text: as it was written.
        metric: the score it is about.
        symbol: `>=`, `>`, `<=`, `<` or `==`.
        bound: what the score is held against.
    """

    text: str
    metric: str
    symbol: str
    bound: float

    @classmethod
    def parse(cls, text: str, metrics: Sequence[str]) -> Assertion:
        """Read a condition.

        Args:
            text: a metric, an operator and a number.
            metrics: the names that there are.

        Raises:
            UsageError: it is of another form, or there is no such metric.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise UsageError(
                f"no condition: {text!r:.80}", hint="write a metric, one of >= > <= < == and a number: onset_f1>=0.77"
            )
        if match[1] not in metrics:
            near = get_close_matches(match[1], metrics, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(metrics)}"
            raise UsageError(f"no such metric: {match[1][:40]}", context=text, hint=hint)
        return cls(text, match[1], match[2], float(match[3]))

    def holds(self, value: float | None) -> bool:
        """Whether a score fulfils it; one that there is not does not."""
        return value is not None and _OPERATORS[self.symbol](value, self.bound)
