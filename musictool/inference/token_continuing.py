"""What becomes of real pieces when a model goes on from their beginnings: autoregressive against teacher-forced.

Every piece is continued as often as there are ways to choose tokens, and once more scored with the real tokens before
each. Greedily, the first token that differs from the real one is the first that the model would have guessed wrong
anyway; what comes after it shows how far a model goes astray that reads what it has written itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from musictool.inference.sampling import Sampling
from musictool.inference.token_scoring import PieceRead, Predictor, Window, score
from musictool.metrics.tokens import (
    Agreement,
    count_tokens,
    coverage,
    divergence_figures,
    entropy_bits,
    first_divergence,
    kl_bits,
    usage,
)

POSITION_BINS = 20

Piece = TypeVar("Piece")


class Continuer(Predictor[PieceRead], Protocol[PieceRead]):
    """A predictor that also goes on from the beginnings of pieces."""

    def real(self, piece: PieceRead, prompt: int, length: int) -> NDArray[np.int64]: ...

    def stretch(self, piece: PieceRead, prompt: int, length: int) -> Window: ...

    def go_on(
        self, pieces: Sequence[PieceRead], prompt: int, length: int, sampling: Sampling, first: int
    ) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Continuing:
    """How pieces are continued.

    Attributes:
        prompt: frames of codes, or ids of events, that the model goes on from; 1 at least.
        length: how many it makes.
        temperatures: of the ways to choose tokens; 0 takes the likeliest.
        seed: of what is drawn.
    """

    prompt: int
    length: int
    temperatures: tuple[float, ...] = (0.0,)
    seed: int = 0


class Continuation(Generic[Piece]):
    """What becomes of pieces.

    Args:
        predictor: in evaluation mode.
        plan: how they are continued.
    """

    def __init__(self, predictor: Continuer[Piece], plan: Continuing) -> None:
        self._predictor = predictor
        self._plan = plan
        self._codebooks = len(predictor.parts) if predictor.kind == "codes" else 1
        self._forced = _Likeness(self._codebooks, plan.length)
        self._real = np.zeros((self._codebooks, predictor.size), np.int64)
        self._ways = [_Way(self._codebooks, predictor.size, plan.length) for _ in plan.temperatures]
        self._pieces = self._left_out = 0

    def add(self, pieces: Sequence[Piece]) -> None:
        """Go on from the beginnings of pieces, side by side; those that end with the prompt are left out.

        Raises:
            InputError: the model's logits are no numbers.
        """
        plan, predictor = self._plan, self._predictor
        long = [piece for piece in pieces if predictor.real(piece, plan.prompt, 1).shape[1]]
        self._left_out += len(pieces) - len(long)
        if not long:
            return
        real = [predictor.real(piece, plan.prompt, plan.length) for piece in long]
        for tokens in real:
            self._real += count_tokens(tokens, predictor.size)
        windows = [predictor.stretch(piece, plan.prompt, plan.length) for piece in long]
        for scored in score(predictor, windows, rows=len(long)):
            self._forced.add(scored.ranks == 0)
        for temperature, way in zip(plan.temperatures, self._ways, strict=True):
            sampling = Sampling(temperature=temperature, seed=plan.seed)
            made = predictor.go_on(long, plan.prompt, plan.length, sampling, self._pieces)
            for ours, theirs in zip(made, real, strict=True):
                way.add(ours[:, : theirs.shape[1]], theirs)
        self._pieces += len(long)

    def to_json(self) -> dict[str, Any]:
        """What was found, as plain JSON values.

        Returns:
            `pieces`, how many, and `left_out`; `real`: `usage` and `entropy_bits` of what they really go on with;
            `teacher_forced`: where the model would have guessed something else; `made`: for each of the temperatures
            where that parts from the real, its `usage`, `coverage`, `entropy_bits` and `kl_bits`. What is made is
            looked at as far as the real piece goes.
        """
        plan = self._plan
        return {
            "pieces": self._pieces,
            "left_out": self._left_out,
            "prompt": plan.prompt,
            "length": plan.length,
            "seed": plan.seed,
            "real": {"usage": usage(self._real), "entropy_bits": entropy_bits(self._real)},
            "teacher_forced": self._forced.to_json(),
            "made": [
                {"temperature": temperature, **way.to_json(self._real)}
                for temperature, way in zip(plan.temperatures, self._ways, strict=True)
            ],
        }


class _Way:
    """What was made in one way of choosing; K codebooks of V, so many positions."""

    def __init__(self, codebooks: int, size: int, length: int) -> None:
        self._likeness = _Likeness(codebooks, length)
        self._counts = np.zeros((codebooks, size), np.int64)

    def add(self, made: NDArray[np.int64], real: NDArray[np.int64]) -> None:
        """Take in what was made of a piece, int [K, n] with -1 where it had ended, and what really comes there."""
        self._likeness.add(made == real)
        self._counts += count_tokens(made[:, (made >= 0).all(0)], self._counts.shape[1])

    def to_json(self, real: NDArray[np.int64]) -> dict[str, Any]:
        """As plain JSON values, beside the counts of real tokens [K, V]."""
        return {
            **self._likeness.to_json(),
            "usage": usage(self._counts),
            "coverage": coverage(self._counts, real),
            "entropy_bits": entropy_bits(self._counts),
            "kl_bits": kl_bits(self._counts, real),
        }


class _Likeness:
    """Where tokens are the real ones, in K codebooks over so many positions."""

    def __init__(self, codebooks: int, length: int) -> None:
        self._firsts: list[list[int]] = [[] for _ in range(codebooks + 1)]  # of each codebook, and of all together
        self._lengths: list[int] = []
        self._agreement = Agreement(length)

    def add(self, is_same: NDArray[np.bool_]) -> None:
        """Take in a piece, bool [K, n]."""
        for firsts, row in zip(self._firsts, [*is_same, is_same.all(0)], strict=True):
            firsts.append(int(first_divergence(row)))
        self._lengths.append(is_same.shape[1])
        self._agreement.add(is_same)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        *each, of_all = (divergence_figures(firsts, self._lengths) for firsts in self._firsts)
        return {
            "first_divergence": of_all,
            **({"codebooks": each} if len(each) > 1 else {}),
            "agreement": self._agreement.share,
            "agreement_by_position": self._agreement.by_position(POSITION_BINS),
        }
