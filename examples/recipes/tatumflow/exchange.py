"""Exchange one factor of theory between two pieces, and measure what moved.

    python exchange.py MODEL STYLES [--pairs 100] [--seconds 16] [--side test] [--jobs 4] [--output FOLDER]

Pairs of pieces are drawn from one side of STYLES, each of another title. The first is played anew with one factor
borrowed from the second and the other three kept, with no style. A factor's features are its theory frame by frame. By
how much they moved is told as a share of the way to the donor, (result - source) . (donor - source) over
|donor - source|^2 of all frames: 0 at the source, 1 at the donor. How far they are from the source is told as
|result - source| / |donor - source|, which counts what was changed without leading anywhere, too. The first row of the
table is played anew with nothing exchanged: what the model changes by itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from musictool.inference.style_transfer import StyleTransfer, Transfer, TransferModel, load_transfer_model
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Score
from musictool.symbolic.piano_ids import FRAME_SECONDS, TICKS_PER_SECOND, Piano
from musictool.symbolic.theory import FACTORS, theory_frames

NOTHING = "nothing"
LEAST_NOTES = 16
TOLERANCE = 0.1


class Job(NamedTuple):
    """A pair, which factor to exchange, and how."""

    model: str
    source: Path
    donor: Path
    factor: str
    seconds: float
    options: Transfer


class Moved(NamedTuple):
    """By how much each factor moved towards the donor and away from the source, as shares of their distance."""

    exchanged: str
    towards: dict[str, float]
    away: dict[str, float]


def exchange(job: Job) -> Moved:
    """Play a source anew with a factor of its donor, and measure."""
    torch.set_num_threads(1)
    source, donor = (beginning(path, job.seconds) for path in (job.source, job.donor))
    carrier = StyleTransfer(_model(job.model).model, job.options)
    donors = {} if job.factor == NOTHING else {job.factor: donor}
    result = carrier.run(source, carrier.no_style(), donors=donors)
    frames = round(job.seconds / FRAME_SECONDS)
    before, after, other = (theory_frames(score.notes, frames) for score in (source, result, donor))
    towards, away = {}, {}
    for name, b, a, o in zip(FACTORS, before, after, other, strict=True):
        towards[name], away[name] = movement(b, a, o)
    return Moved(job.factor, towards, away)


def movement(source: NDArray, result: NDArray, donor: NDArray) -> tuple[float, float]:
    """How far features, [F, D] each, moved towards the donor and away from the source; nan where those two agree."""
    way, moved = (donor - source).astype(float), (result - source).astype(float)
    square = (way**2).sum()
    if not square:
        return float("nan"), float("nan")
    return float((moved * way).sum() / square), float(np.sqrt((moved**2).sum() / square))


def beginning(path: Path, seconds: float) -> Score:
    """The beginning of a piece, from its first note on, as one piano."""
    score = read_midi(path)
    piano = Piano.of(score.notes, score.pedals)
    first = int(piano.onset[0]) // 25 * 25
    cut = piano.between(first, first + round(seconds * TICKS_PER_SECOND))
    return Score(cut.notes(), pedals=cut.pedals())


def pairs_of(folder: Path, count: int, seconds: float) -> Iterator[tuple[Path, Path]]:
    """Pairs of different pieces below a folder, drawn by a fixed seed, as long as there are enough notes in both."""
    files = sorted(folder.rglob("*.mid"))
    generator = np.random.default_rng(0)
    found = 0
    while found < count:
        source, donor = (files[index] for index in generator.choice(len(files), 2, replace=False))
        if all(len(beginning(path, seconds).notes) >= LEAST_NOTES for path in (source, donor)):
            found += 1
            yield source, donor


def table(moves: list[Moved]) -> str:
    """Means of both measures; a star where a factor did what it should."""
    lines = [
        f"{'exchanged':12}{'pairs':>6}   " + "".join(f"{name:>12}" for name in FACTORS) + "   mean shares of the way"
    ]
    for exchanged in (NOTHING, *FACTORS):
        ours = [moved for moved in moves if moved.exchanged == exchanged]
        for title, measure in (("towards", "towards"), ("away", "away")):
            cells = []
            for name in FACTORS:
                values = [value for moved in ours if not np.isnan(value := getattr(moved, measure)[name])]
                mean = float(np.mean(values)) if values else float("nan")
                is_good = measure == "towards" and (mean > TOLERANCE if name == exchanged else abs(mean) <= TOLERANCE)
                cells.append(f"{mean:11.3f}{'*' if is_good else ' '}")
            lines.append(f"{exchanged if measure == 'towards' else '':12}{len(ours):6}   {''.join(cells)}   {title}")
    return "\n".join(lines)


@cache
def _model(name: str) -> TransferModel:
    return load_transfer_model(name, "cpu")


def run(
    model: str, styles: Path, side: str, count: int, seconds: float, options: Transfer, processes: int
) -> dict[tuple[Path, Path], list[Moved]]:
    """Exchange nothing, and each factor, between pairs of pieces."""
    pairs = list(pairs_of(styles / side, count, seconds))
    jobs = [Job(model, *pair, factor, seconds, options) for pair in pairs for factor in (NOTHING, *FACTORS)]
    if processes == 1:
        moves = [exchange(job) for job in jobs]
    else:
        with get_context("spawn").Pool(processes) as pool:
            moves = pool.map(exchange, jobs, chunksize=5)
    each = 1 + len(FACTORS)
    return {pair: moves[each * index : each * (index + 1)] for index, pair in enumerate(pairs)}


def main() -> None:
    """Read the command line, exchange, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("styles", type=Path)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=16.0)
    parser.add_argument("--side", default="test")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--strength", type=float, default=Transfer.strength)
    parser.add_argument("--theory-guidance", type=float, default=Transfer.theory_guidance)
    parser.add_argument("--output", type=Path, help="a folder for exchange.json")
    given = parser.parse_args()
    options = Transfer(given.strength, frozenset(FACTORS), theory_guidance=given.theory_guidance, temperature=0.0)
    found = run(given.model, given.styles, given.side, given.pairs, given.seconds, options, given.jobs)
    print(table([moved for moves in found.values() for moved in moves]))
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        rows = [
            {"source": source.stem, "donor": donor.stem, **moved._asdict()}
            for (source, donor), moves in found.items()
            for moved in moves
        ]
        (given.output / "exchange.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
