"""How fast pairs are made and read: `mtk data synth` beside real time, augmentation, and stretches of pairs.

Rendering is the whole command, the check of its voices and the writing of files included, with one process and with
more. What it is held against is libfluidsynth's own program (`fluidsynth`, where it is installed), which renders the
same files whole, one after the other, and writes no notes.

    python -m tests.benchmarks.bench_synth [FOLDER] [--soundfont FILE …] [--items N] [--jobs N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from musictool.audio.augment import AugmentConfig, augment
from musictool.symbolic.midi import read_midi
from musictool.training.data.pairs import Collection, open_collections

EXCERPT_SECONDS = 60
STRETCH_SECONDS = 8.0
RATE_HZ = 16_000
SHARES = [f.name for f in fields(AugmentConfig) if f.name.endswith("share")]
TARGET_REAL_TIME, TARGET_AUGMENT_MS = 50, 1.5


def render(sources: list[Path], fonts: list[str], folder: Path, jobs: int) -> float:
    """Times real time of one run of the command."""
    chosen = [word for font in fonts for word in ("--soundfont", font)]
    options = ["--programs", "0-5:6,24-27:2,40-42,73", "--lag", "0:35", "--transpose", "5", "--draw-pedal", "0.5"]
    command = [sys.executable, "-m", "musictool", "data", "synth", *map(str, sources), "-o", f"{folder}/", *chosen]
    started = time.perf_counter()
    subprocess.run(
        [*command, *options, "--excerpt", str(EXCERPT_SECONDS), "--jobs", str(jobs), "--quiet"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - started
    return open_collections([folder]).duration_seconds / wall


def fluidsynth(sources: list[Path], font: str, folder: Path) -> float:
    """Times real time of libfluidsynth's program, without reverb and chorus."""
    seconds = sum(read_midi(source).duration_seconds for source in sources)
    started = time.perf_counter()
    for source in sources:
        target = str(folder / "out.wav")
        flags = ["-niq", "-R", "0", "-C", "0", "-r", "32000", "-F", target]
        subprocess.run(["fluidsynth", *flags, font, str(source)], check=True, capture_output=True)
    return seconds / (time.perf_counter() - started)


def milliseconds(action: Callable[[int], object], count: int) -> float:
    """The mean time of an action that is given its number."""
    action(0)
    started = time.perf_counter()
    for number in range(count):
        action(number)
    return (time.perf_counter() - started) / count * 1e3


def augmentation(collection: Collection) -> None:
    """Print what augmentation costs, all together and each change alone."""
    samples = collection.excerpt(0, 10.0, STRETCH_SECONDS, RATE_HZ).samples
    generator = np.random.default_rng(0)

    def cost(config: AugmentConfig, count: int) -> float:
        return milliseconds(lambda _: augment(samples, RATE_HZ, config, generator), count) / STRETCH_SECONDS

    mean = cost(AugmentConfig(), 300)
    verdict = "ok" if mean <= TARGET_AUGMENT_MS else "OVER"
    print(f"augment, as drawn: {mean:.2f} ms a second of sound, target {TARGET_AUGMENT_MS}: {verdict}")
    never = replace(AugmentConfig(), **dict.fromkeys(SHARES, 0.0))
    for share in SHARES:
        print(f"  {share.removesuffix('_share'):<9} {cost(replace(never, **{share: 1.0}), 30):6.2f} ms")


def reading(collection: Collection) -> None:
    """Print what a stretch of a pair costs, its notes parsed before."""
    for index in range(len(collection)):
        collection.notes(index)
    draws = np.random.default_rng(0)

    def read(rate_hz: int) -> float:
        places = [(int(draws.integers(len(collection))), draws.uniform(0, 50)) for _ in range(200)]
        return milliseconds(lambda i: collection.excerpt(*places[i], STRETCH_SECONDS, rate_hz), len(places))

    print(f"a stretch of {STRETCH_SECONDS:.0f} s: {read(RATE_HZ):.2f} ms, resampled {read(22_050):.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus = Path(os.environ.get("MTK_TEST_DATA", "."), "pianomidi")
    parser.add_argument("folder", type=Path, nargs="?", default=corpus)
    parser.add_argument("--soundfont", action="append", default=[], help="the font that ships, where none is named")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    found = sorted(options.folder.rglob("*.mid"))
    sources = found[:: max(len(found) // options.items, 1)][: options.items]
    if not sources:
        parser.error(f"no .mid file in {options.folder}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for jobs in dict.fromkeys((1, options.jobs)):
            speed = render(sources, options.soundfont, folder / str(jobs), jobs)
            target = TARGET_REAL_TIME * jobs
            verdict = "ok" if speed >= target else "UNDER"
            print(f"mtk data synth --jobs {jobs}: {speed:.0f} times real time, target {target}: {verdict}")
        if shutil.which("fluidsynth") and options.soundfont:
            print(f"fluidsynth: {fluidsynth(sources[:5], options.soundfont[0], folder):.0f} times real time")
        collection = open_collections([folder / "1"])
        augmentation(collection)
        reading(collection)


if __name__ == "__main__":
    main()
