"""How well chords and keys are found: two tables over POP909 and piano-midi.de, which `$MTK_TEST_DATA` holds.

Chords are held against POP909's own annotations, with mir_eval's scores, means over pieces. The key of a piece of
piano-midi.de is taken from its signature, where one holds for four fifths of it, and from its last bass note, which
says whether the major or the minor key of that signature is meant; where it says neither, only the signature counts.
Weights and profiles were chosen on the odd pieces (of piano-midi.de: by their places in the list of files, from 0), so
that the even ones' figures are the ones to believe.

    python -m tests.symbolic.theory_table          # a minute
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mir_eval
import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.chords import chords_of
from musictool.symbolic.key import Key, key_of
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Score

DATA = Path(os.environ.get("MTK_TEST_DATA", "."))
CHORD_SCORES = ("majmin", "majmin_inv", "sevenths", "tetrads", "root", "seg")
SIGNATURE_SHARE = 0.8


def beats(score: Score, step: float) -> NDArray[np.float64]:
    """Every `step` quarters."""
    end = float(score.tempo_map.quarters(score.notes.end_seconds))
    return score.tempo_map.seconds(np.arange(0, end + step, step))


GRIDS: dict[str, Callable[[Score], NDArray[np.float64] | None]] = {
    "onsets": lambda score: None,
    "half beats": lambda score: beats(score, 0.5),
    "beats": lambda score: beats(score, 1.0),
    "half seconds": lambda score: np.arange(0, score.notes.end_seconds + 0.5, 0.5),
}


def pop909(numbers: Sequence[int]) -> Iterator[tuple[Score, NDArray[np.float64], list[str]]]:
    """Pieces with the intervals and labels of their chords."""
    for number in numbers:
        path = DATA / "pop909" / f"{number:03}.mid"
        lines = [line.split() for line in path.with_suffix(".chords.txt").read_text().splitlines()]
        intervals = np.array([[float(start), float(end)] for start, end, _ in lines])
        yield read_midi(path), intervals, [label for _, _, label in lines]


def chord_scores(score: Score, intervals: NDArray[np.float64], labels: list[str], grid: str) -> list[float]:
    """`CHORD_SCORES` of one piece."""
    chords = chords_of(score.notes, GRIDS[grid](score))
    found = np.array([[chord.start_seconds, chord.end_seconds] for chord in chords])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mir_eval says what it fills up
        scores = mir_eval.chord.evaluate(intervals, labels, found, [chord.label for chord in chords])
    return [scores[name] for name in CHORD_SCORES]


def piano_midi(first: int, step: int = 2) -> list[tuple[Score, int, bool | None]]:
    """Some pieces with the tonic of their signature's major key, and whether they are in its relative minor."""
    found = []
    for path in sorted((DATA / "pianomidi" / "midis").rglob("*.mid"))[first::step]:
        score = read_midi(path)
        tonic = _signature(score)
        if tonic is not None:
            notes = score.notes
            last = int(notes.pitch[notes.onset_seconds >= notes.onset_seconds.max() - 0.3].min()) % 12
            found.append((score, tonic, {tonic: False, (tonic + 9) % 12: True}.get(last)))
    return found


def _signature(score: Score) -> int | None:
    """The tonic of the major key whose signature holds for most of a piece."""
    edges = [*score.tempo_map.seconds([key.quarter for key in score.key_signatures]), score.notes.end_seconds]
    held: Counter[int] = Counter()
    for key, seconds in zip(score.key_signatures, np.diff(edges), strict=True):
        held[key.sharps * 7 % 12] += max(float(seconds), 0.0)
    tonic, seconds = max(held.items(), key=lambda item: item[1], default=(0, 0.0))
    return tonic if held and seconds >= SIGNATURE_SHARE * sum(held.values()) else None


def key_verdict(key: Key, tonic: int, is_minor: bool | None) -> str:
    """How a key stands to the one that is meant."""
    signature = key.sharps * 7 % 12
    if is_minor is None:
        return "signature" if signature == tonic else "other signature"
    if key.is_minor == is_minor and signature == tonic:
        return "exact"
    if signature == tonic:
        return "relative"
    if key.is_minor == is_minor:
        return "fifth" if (signature - tonic) % 12 in (5, 7) else "other"
    return "parallel" if key.tonic == (tonic + 9 * is_minor) % 12 else "other"


def main() -> None:
    numbers = range(1, 910)
    print(f"{'chords':22}", *(f"{name:>10}" for name in CHORD_SCORES))
    for half, chosen in {"odd": numbers[::2], "even": numbers[1::2]}.items():
        pieces = list(pop909(chosen))
        for grid in GRIDS:
            means = np.mean([chord_scores(*piece, grid) for piece in pieces], axis=0)
            print(f"{f'{half}, {len(pieces)}, {grid}':22}", *(f"{mean:10.4f}" for mean in means), flush=True)
    for half, first in {"odd": 1, "even": 0}.items():
        verdicts: Counter[str] = Counter()
        for score, tonic, is_minor in piano_midi(first):
            key = key_of(score.notes)
            assert key is not None
            verdicts[key_verdict(key, tonic, is_minor)] += 1
        print(f"keys, {half}, {verdicts.total()}:", ", ".join(f"{name} {n}" for name, n in verdicts.most_common()))


if __name__ == "__main__":
    main()
