"""How well a model predicts pieces, and what becomes of them when it goes on: all figures of a run, as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from musictool.errors import InputError, MusicToolError, UsageError
from musictool.inference.code_predictor import CodePredictor
from musictool.inference.event_predictor import EventPredictor
from musictool.inference.token_continuing import Continuation, Continuing
from musictool.inference.token_pieces import TokenPiece
from musictool.inference.token_scoring import tally
from musictool.metrics.averages import Scores
from musictool.metrics.tokens import ENTROPIES, FIGURES, Tally

METRICS = (*FIGURES, "bits_per_note", "kbps")


@dataclass(frozen=True)
class Wishes:
    """What is asked for.

    Attributes:
        temperatures: besides 1, and to go on at.
        length: frames of codes, or ids of events, to go on by; 0 for not at all.
        prompt_tokens, prompt_seconds: how much of a piece to go on from; None for a quarter of the context.
        seed: of what is drawn.
        rows: windows, or pieces, side by side.
    """

    temperatures: tuple[float, ...] = (1.0,)
    length: int = 0
    prompt_tokens: int | None = None
    prompt_seconds: float | None = None
    seed: int = 0
    rows: int = 4


class Judge:
    """A model that is judged.

    Args:
        predictor: it.
        wishes: what is asked for.
    """

    def __init__(self, predictor: CodePredictor | EventPredictor, wishes: Wishes) -> None:
        self._predictor: Any = predictor
        self._wishes = wishes
        self._temperatures = tuple(dict.fromkeys((1.0, *wishes.temperatures)))
        self._total = Tally(len(predictor.parts), self._temperatures)
        self._notes = 0
        self._seconds: float | None = 0.0
        self._continuation: Continuation[Any] | None = None

    def add(self, pieces: Sequence[TokenPiece]) -> list[dict[str, Any] | MusicToolError]:
        """Score pieces, side by side, and go on from their beginnings.

        Returns:
            The figures of each, or why the model can't read it.

        Raises:
            UsageError: a prompt and what comes after it are longer than the model's context, or can't be counted so.
            InputError: the model's logits are no numbers.
        """
        prepared = [self._prepare(piece) for piece in pieces]
        ready = [own for own in prepared if not isinstance(own, MusicToolError)]
        if self._wishes.length and ready:
            if self._continuation is None:
                first = next(p for p, own in zip(pieces, prepared) if not isinstance(own, MusicToolError))
                self._continuation = Continuation(self._predictor, self._plan(first))
            self._continuation.add(ready)
        tallies = iter(tally(self._predictor, ready, temperatures=self._temperatures, rows=self._wishes.rows))
        return [
            own if isinstance(own, MusicToolError) else self._include(next(tallies), piece, own)
            for piece, own in zip(pieces, prepared, strict=True)
        ]

    def _prepare(self, piece: TokenPiece) -> Any:
        try:
            return self._predictor.prepare(piece)
        except InputError as error:
            return error

    def _include(self, one: Tally, piece: TokenPiece, own: Any) -> dict[str, Any]:
        """The figures of a piece, which are counted in."""
        notes, seconds = self._predictor.notes(own), _seconds_of(piece)
        self._total.include(one)
        self._notes += notes or 0
        self._seconds = None if self._seconds is None or seconds is None else self._seconds + seconds
        return self._figures(one, notes, seconds)

    def _figures(self, one: Tally, notes: int | None, seconds: float | None) -> dict[str, Any]:
        bits = float(one.nats().sum()) / math.log(2)
        figures = {"tokens": int(one.counts.sum()), **one.figures()}
        if self._predictor.kind == "codes":
            return {**figures, "kbps": bits / seconds / 1000 if seconds else None}
        return {**figures, "notes": notes, "bits_per_note": bits / notes if notes else None}

    def _plan(self, piece: TokenPiece) -> Continuing:
        """How pieces are continued, by what the first says of its frames."""
        wishes, context = self._wishes, self._predictor.context
        is_of_codes = self._predictor.kind == "codes"
        prompt = wishes.prompt_tokens or max(1, context // 4)
        if wishes.prompt_seconds is not None:
            if not is_of_codes:
                raise UsageError("a prompt of notes is counted in tokens", context="--prompt-seconds")
            rate_hz = _frame_rate(piece)
            if rate_hz is None:
                raise InputError("the head's meta does not say what frame_rate_hz is", context=piece.name)
            prompt = max(1, round(wishes.prompt_seconds * rate_hz))
        if prompt + wishes.length > context:
            unit = "frames" if is_of_codes else "tokens"
            message = f"a prompt of {prompt} and {wishes.length} more are too many: the model sees {context} {unit}"
            raise UsageError(message, context="--continue")
        return Continuing(prompt, wishes.length, tuple(dict.fromkeys((0.0, *wishes.temperatures))), wishes.seed)

    @property
    def figures(self) -> dict[str, Any]:
        """Those of all pieces together."""
        return self._figures(self._total, self._notes, self._seconds)

    def to_json(self) -> dict[str, Any]:
        """What was found of all pieces, as plain JSON values."""
        total, parts = self._total, self._predictor.parts
        used = [index for index, count in enumerate(total.counts) if count]
        shares = (total.nats() / max(total.nats().sum(), 1e-300)).tolist()  # of all bits

        def tempered(temperature: float, part: int | None) -> Scores:
            figures = total.figures(part, temperature)
            return {name: figures[name] for name in ENTROPIES}

        return {
            "context": self._predictor.context,
            "all": self.figures,
            "parts": [
                {
                    "part": parts[index],
                    "tokens": int(total.counts[index]),
                    **total.figures(index),
                    "share": shares[index],
                }
                for index in used
            ],
            "temperatures": [
                {
                    "temperature": temperature,
                    **tempered(temperature, None),
                    "parts": [{"part": parts[index], **tempered(temperature, index)} for index in used],
                }
                for temperature in sorted(self._temperatures)
            ],
            "continued": None if self._continuation is None else self._continuation.to_json(),
        }


def _frame_rate(piece: TokenPiece) -> float | None:
    """Frames of codes a second; None where the piece does not say."""
    rate_hz = piece.head.meta.get("frame_rate_hz")
    return float(rate_hz) if isinstance(rate_hz, int | float) and rate_hz > 0 else None


def _seconds_of(piece: TokenPiece) -> float | None:
    rate_hz = _frame_rate(piece)
    return None if rate_hz is None else len(piece) / rate_hz
