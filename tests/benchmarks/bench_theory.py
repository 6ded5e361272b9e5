"""How fast the theory factors are: all four of a piece and of its frames, beside pretty_midi's chroma alone.

`theory_of` and `theory_frames` (four frames a second) of whole files; pretty_midi's pitch-class histogram of the file
and its chroma at the same four frames a second (`get_chroma(fs=4)`), which are 12 of our 128 dimensions of harmony.
Notes are in memory on both sides.

    python -m tests.benchmarks.bench_theory [FOLDER] [--files N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pretty_midi

from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Notes
from musictool.symbolic.theory import theory_frames, theory_of

HOP_SECONDS = 0.25
MINUTE_SECONDS, MINUTE_NOTES, TARGET_MS = 60.0, 1000, 5.0


def ours(notes: Notes) -> None:
    theory_of(notes)
    theory_frames(notes, int(np.ceil(notes.end_seconds / HOP_SECONDS)), HOP_SECONDS)


def theirs(score: pretty_midi.PrettyMIDI) -> None:
    score.get_pitch_class_histogram(use_duration=True)
    score.get_chroma(fs=round(1 / HOP_SECONDS))


def milliseconds(action: Callable[[], object], rounds: int = 3) -> float:
    """The best time of a few."""
    action()
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - started)
    return best * 1e3


def dense_minute() -> Notes:
    """Sixteen notes a second, each held for half a second or so."""
    random = np.random.default_rng(0)
    onset = random.uniform(0, MINUTE_SECONDS - 1, MINUTE_NOTES)
    pitch, velocity = random.integers(30, 95, MINUTE_NOTES), random.integers(20, 120, MINUTE_NOTES)
    return Notes.of(onset, onset + random.exponential(0.5, MINUTE_NOTES).clip(0.05, 1), pitch, velocity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(os.environ.get("MTK_TEST_DATA", "."), "pianomidi"))
    parser.add_argument("--files", type=int, default=40)
    options = parser.parse_args()
    found = sorted(options.folder.rglob("*.mid"))
    sources = found[:: max(len(found) // options.files, 1)][: options.files]
    if not sources:
        parser.error(f"no .mid file in {options.folder}")
    minute_notes = dense_minute()
    minute = milliseconds(lambda: ours(minute_notes), 30)
    verdict = "ok" if minute <= TARGET_MS else "OVER"
    print(f"a dense minute, {MINUTE_NOTES} notes and 240 frames: {minute:.2f} ms, target {TARGET_MS}: {verdict}")
    ratios, own, seconds = [], 0.0, 0.0
    for source in sources:
        notes, score = read_midi(source).notes, pretty_midi.PrettyMIDI(str(source))
        mine, other = milliseconds(lambda n=notes: ours(n)), milliseconds(lambda s=score: theirs(s))
        ratios.append(other / mine)
        own, seconds = own + mine, seconds + notes.end_seconds
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{len(sources)} files: {own / seconds * 60:.2f} ms a minute of music")
    print(f"pretty_midi's histogram and chroma / all of ours: {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
