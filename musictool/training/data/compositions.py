"""Pieces of several styles as passages to learn composing from (`symbolic.composing`), each drawn anew.

All pieces are read at once and written in the language, four bytes an id. Every draw comes from the generator that is
passed in. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musictool.symbolic.composing import HEADER_IDS, Composition, compose, shaded, transposed
from musictool.symbolic.vocabulary import Ids
from musictool.training.data.style_pieces import no_piece, read_pieces


@dataclass(frozen=True)
class Renditions:
    """How far a passage may differ from the piece, each as lowest and highest.

    Attributes:
        semitones: moved by.
        velocity_bins: louder by so many bins of four.
        tempo_ratio: so many times as fast, drawn evenly on a log scale.
    """

    semitones: tuple[int, int] = (-5, 6)
    velocity_bins: tuple[int, int] = (-1, 1)
    tempo_ratio: tuple[float, float] = (0.93, 1.07)

    def __post_init__(self) -> None:
        if not all(low <= high for low, high in (self.semitones, self.velocity_bins, self.tempo_ratio)):
            raise ValueError("the lowest value of a rendition is above its highest")
        if self.tempo_ratio[0] <= 0:
            raise ValueError("tempo_ratio is above 0")

    def of(self, ids: Ids, generator: np.random.Generator) -> Ids:
        """Ids, changed by as much as the generator says."""
        semitones = int(generator.integers(self.semitones[0], self.semitones[1] + 1))
        bins = int(generator.integers(self.velocity_bins[0], self.velocity_bins[1] + 1))
        ratio = float(np.exp(generator.uniform(*np.log(self.tempo_ratio))))
        return shaded(transposed(ids, semitones), bins, ratio)


class CompositionCorpus:
    """Pieces by style, in memory. A copy in another process that was forked shares it.

    Attributes:
        styles: names.
        names: of the pieces, those of one style together.
        pieces: the pieces.
        style_of: int64 [pieces].
    """

    def __init__(self, styles: Mapping[str, Sequence[tuple[str, Composition]]]) -> None:
        self.styles = tuple(styles)
        self.names = tuple(name for found in styles.values() for name, _ in found)
        self.pieces = tuple(piece for found in styles.values() for _, piece in found)
        self.style_of = np.repeat(np.arange(len(styles)), [len(found) for found in styles.values()])
        self._ends = np.cumsum([len(piece.ids) for piece in self.pieces])
        self._style_ends = self._ends[np.cumsum([len(found) for found in styles.values()]) - 1]

    def __len__(self) -> int:
        return len(self.pieces)

    def draw_piece(self, generator: np.random.Generator, shares: Sequence[float] | None = None) -> int:
        """Draw a style, then a piece of it in proportion to its length.

        Args:
            generator: its state decides everything.
            shares: how often each style comes, by its number; all alike where nothing is said.
        """
        ends = np.cumsum(np.ones(len(self.styles)) if shares is None else shares)
        style = int(np.searchsorted(ends, generator.random() * ends[-1], "right"))
        first = int(self._style_ends[style - 1]) if style else 0
        return int(np.searchsorted(self._ends, generator.integers(first, self._style_ends[style]), "right"))

    def draw_bar(self, generator: np.random.Generator, piece: int, tokens_max: int) -> int:
        """Draw a bar of a piece to begin a passage with, so late at most that half a passage is left."""
        composition = self.pieces[piece]
        latest = len(composition.ids) - (tokens_max - HEADER_IDS) // 2
        place = int(generator.integers(max(latest, 1)))
        return int(np.searchsorted(composition.bars, place, "right")) - 1


def open_compositions(styles: Mapping[str, Sequence[Path]]) -> CompositionCorpus:
    """Read the pieces of styles; those without a note are left out.

    Args:
        styles: where the pieces of each are, as `read_pieces` takes it.

    Raises:
        InputError: a file cannot be read, or a style has no piece.
        MissingError: a token corpus needs pyarrow.
    """
    found = {
        style: [(piece.name, compose(piece.score)) for piece in read_pieces(paths) if len(piece.score.notes)]
        for style, paths in styles.items()
    }
    for style, pieces in found.items():
        if not pieces:
            raise no_piece(style, styles[style])
    return CompositionCorpus(found)
