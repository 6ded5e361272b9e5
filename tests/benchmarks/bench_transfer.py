"""Style transfer: windows written many at once by a model made ready, and how it would be without either.

    python -m tests.benchmarks.bench_transfer [--model tatumflow] [--seconds 120] [--threads 1] [--rounds 3]

The piece is a waltz figure with a melody, eight notes a second. Contenders take turns; the best of each counts.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from musictool.inference import style_transfer
from musictool.inference.model_files import load_model
from musictool.inference.style_transfer import StyleTransfer, Transfer, load_transfer_model
from musictool.models.tatumflow import TatumFlow
from musictool.symbolic.notes import Notes, Score


def piece(seconds: float) -> Score:
    """Bass, chord, chord, and a tune over them."""
    generator = np.random.default_rng(0)
    onset = np.arange(0, seconds, 0.125)
    place = np.arange(len(onset)) % 12
    root = 36 + np.repeat(generator.choice([0, 5, 7, 9], len(onset) // 12 + 1), 12)[: len(onset)]
    pitch = np.where(
        place % 4 == 0, root, root + np.array([24, 28, 31])[place % 3] + generator.integers(0, 2, len(onset))
    )
    return Score(Notes.of(onset, onset + 0.4, pitch, generator.integers(40, 90, len(onset))).sorted())


def main() -> None:
    """Print seconds a second of music, and how many times as long each takes as what `mtk transfer` does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=style_transfer.DEFAULT_MODEL)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    ready, plain = load_transfer_model(given.model, "cpu").model, load_model(given.model).model
    assert isinstance(plain, TatumFlow)
    ways = {
        "mtk transfer": (ready, style_transfer.WINDOWS_AT_ONCE),
        "one window at a time": (ready, 1),
        "not made ready": (plain.eval(), style_transfer.WINDOWS_AT_ONCE),
    }
    score, best = piece(given.seconds), dict.fromkeys(ways, float("inf"))
    for _ in range(given.rounds):
        for name, (model, style_transfer.WINDOWS_AT_ONCE) in ways.items():
            carrier = StyleTransfer(model, Transfer())
            begin = time.perf_counter()
            carrier.run(score, carrier.style_named({carrier.styles[0]: 1.0}))
            best[name] = min(best[name], time.perf_counter() - begin)
    for name, seconds in best.items():
        print(f"{name:24}{seconds / given.seconds:8.4f} s a second{seconds / best['mtk transfer']:8.2f}")


if __name__ == "__main__":
    main()
