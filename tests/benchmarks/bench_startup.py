"""How long `mtk` takes to say something, in units of `python -c 'import typer'`.

Every command runs in a process of its own, in alternation with the yardstick, with its bytecode already compiled. The
ratio is the median of (command / the yardstick right before it). A last run of each command under `-X importtime`
tells which of the heavy packages it imported.

    python tests/benchmarks/bench_startup.py [MIDI_FILE] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 1.5
HEAVY = ("numpy", "symusic", "soundfile", "pyarrow", "torch", "rich", "typer")
YARDSTICK = ["-c", "import typer"]


def seconds(arguments: list[str]) -> float:
    """The wall time of one run of Python."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    elapsed = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return elapsed


def imported(arguments: list[str]) -> list[str]:
    """Which of the heavy packages a run imports."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, check=False)
    modules = {match[1].partition(".")[0] for match in re.finditer(r"\| +([\w.]+)$", done.stderr.decode(), re.M)}
    return [package for package in HEAVY if package in modules]


def default_midi(folder: str) -> Path:
    """A small file of our own."""
    sys.path.insert(0, str(ROOT))
    from musictool.symbolic.midi import write_midi
    from musictool.symbolic.notes import Notes, Score

    path = Path(folder) / "scale.mid"
    onset = [index / 4 for index in range(64)]
    path.write_bytes(write_midi(Score(Notes.of(onset, [t + 0.2 for t in onset], [60 + i % 12 for i in range(64)]))))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("midi", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        midi = options.midi.resolve() if options.midi else default_midi(folder)
        commands = {
            "mtk --version": ["--version"],
            "mtk --help": ["--help"],
            "mtk tokenize --help": ["tokenize", "--help"],
            "mtk tokenize one.mid": ["tokenize", str(midi), "-o", os.devnull, "--force"],
        }
        ratios: dict[str, list[float]] = {name: [] for name in commands}
        base: list[float] = []
        for turn in range(-1, options.rounds):  # the first warms caches
            for name, arguments in commands.items():
                unit = seconds(YARDSTICK)
                ratio = seconds(["-m", "musictool", *arguments]) / unit
                if turn >= 0:
                    base.append(unit)
                    ratios[name].append(ratio)
        print(f"{options.rounds} rounds, import typer {median(base) * 1e3:.0f} ms\n")
        for name, arguments in commands.items():
            packages = ", ".join(imported(["-m", "musictool", *arguments])) or "none"
            verdict = "ok" if median(ratios[name]) <= BUDGET else "over 1.5"
            print(f"{name:22} {median(ratios[name]):5.2f} times import typer  {verdict:8}  imports {packages}")


if __name__ == "__main__":
    main()
