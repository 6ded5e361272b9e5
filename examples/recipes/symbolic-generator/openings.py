"""Write the first bars of real pieces as MIDI files, to hold what a model composes against.

    python openings.py OUT BARS COUNT LIST…

Of each list of pieces, as `mtk data split` writes them, as many of the COUNT are taken as of any other, at even steps.
Pieces of fewer bars are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from musictool.errors import MusicToolError
from musictool.symbolic.composing import BAR, HEADER_IDS, Composition, RemiWriter, compose
from musictool.symbolic.midi import write_midi
from musictool.symbolic.schemes import find_scheme
from musictool.training.data.style_pieces import read_pieces


def opening(piece: Composition, bars: int) -> np.ndarray:
    """The first bars as ids of scheme `remi`, int32 [t]."""
    ids = piece.passage(0, 2 * len(piece.ids) + HEADER_IDS, None, None)
    begins = np.append(np.flatnonzero(ids == BAR), len(ids))
    return np.array(RemiWriter().feed(ids[: begins[bars]].tolist()), np.int32)


def main(target: Path, bars: int, count: int, lists: list[Path]) -> None:
    """Write them."""
    for number, path in enumerate(lists):
        found = [(piece.name, compose(piece.score)) for piece in read_pieces([path])]
        found = [(name, piece) for name, piece in found if len(piece.bars) >= bars]
        share = (number + 1) * count // len(lists) - number * count // len(lists)
        for place in np.linspace(0, len(found) - 1, min(share, len(found))).round().astype(int):
            name, piece = found[place]
            score = find_scheme("remi").decode([opening(piece, bars)])
            out = target / path.parent.name / f"{Path(name).name}.mid"
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(write_midi(score))


if __name__ == "__main__":
    if len(sys.argv) < 5:
        raise SystemExit(__doc__)
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [Path(name) for name in sys.argv[4:]])
    except MusicToolError as error:
        raise SystemExit(f"openings.py: {error}") from error
