"""Bits a note of solos, by a model alone and with adapters: a performer's own, and everybody else's.

    python3 compare.py OUT [OUT]…

OUT is what `performer.sh` fills. Each of the performer's solos is judged with the one adapter that did not learn from
it, solos of others with each adapter, of which the mean is taken. Notes count alike; the error is that of drawing other
solos (10,000 bootstraps, both sides of a solo together).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SETS = ("own", "others")
DRAWS = 10_000


class Change(NamedTuple):
    """What adapters do to a set of solos, in bits a note."""

    solos: int
    before: float
    after: float
    error: float

    @property
    def gain(self) -> float:
        return self.before - self.after


def changed(folder: Path, name: str) -> Change:
    """What the reports on a set say."""
    notes: dict[str, int] = {}
    bits: dict[str, list[tuple[float, float]]] = {}
    for fold in sorted(folder.glob("fold-*")):
        before, after = (_items(fold / f"{name}-{how}.json") for how in ("base", "adapter"))
        for item, figures in before.items():
            notes[item] = figures["notes"]
            bits.setdefault(item, []).append((figures["bits_per_note"], after[item]["bits_per_note"]))
    weights = np.array([notes[item] for item in bits], float)
    means: NDArray[np.float64] = np.array([np.mean(pairs, axis=0) for pairs in bits.values()]).T * weights
    drawn = np.random.default_rng(0).integers(0, len(weights), (DRAWS, len(weights)))
    gains = (means[0] - means[1])[drawn].sum(1) / weights[drawn].sum(1)
    base, adapted = means.sum(1) / weights.sum()
    return Change(len(weights), float(base), float(adapted), float(gains.std()))


def _items(path: Path) -> dict[str, dict[str, float]]:
    return {item["item"]: item for item in json.loads(path.read_text())["items"]}


def main(folders: list[str]) -> None:
    print(f"{'':24}{'':8}{'solos':>6}{'base':>9}{'adapter':>9}{'gain':>8}   +/-")
    for folder in map(Path, folders):
        for name in SETS:
            found = changed(folder, name)
            bits = f"{found.before:9.3f}{found.after:9.3f}{found.gain:8.3f} {found.error:6.3f}"
            print(f"{folder.resolve().name:24}{name:8}{found.solos:6}{bits}")


if __name__ == "__main__":
    main(sys.argv[1:])
