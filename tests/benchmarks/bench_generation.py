"""Writing codes: milliseconds of a step; `mtk` in three precisions, transformers, and what reading alone takes.

The decoder of MusicGen's small model with random weights, one row without guidance, 20 states of text to attend to, and
a cache of 500 steps. The floor is the sum of as many bytes as a step must read, the weights once and the cache once, by
as many threads, in the same process and in turns with the steps, five of each; the first after a change is not counted,
since OpenMP's threads spin on for some 10 ms when their work is done. Each contender is a process of its own, the
contenders take turns, and the best round of each counts. How far states are from those of fp32 is told beside it.

    python -m tests.benchmarks.bench_generation [--threads 4] [--rounds 3] [--steps 25]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from musictool.inference.codes_generation import generate_codes
from musictool.inference.precision import PrecisionName, make_ready
from musictool.inference.sampling import Sampling
from musictool.models.musicgen import Conditions, MusicGen, MusicGenConfig
from musictool.models.musicgen_parts import TextEncoderConfig

ROOT = Path(__file__).resolve().parents[2]
CONFIG = MusicGenConfig(text=TextEncoderConfig(vocabulary=8, width=1024, heads=1, head_width=8, hidden=8, layers=1))
HELD, STATES, ROOM = 500, 20, 640
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
CACHE_BYTES = {"fp32": 4, "bf16": 2, "int8": 2}
TARGETS = {"fp32": 1.5, "bf16": 1.5}  # times the floor, at most
FRAMES = 20
BLOCK = 5  # of one kind after another


class Contender(NamedTuple):
    """A decoder with 500 steps behind it.

    Attributes:
        step: reads one more; its logits, float [K, V].
        frame: seconds that a frame takes which is drawn, in all; None where that is not measured.
    """

    step: Callable[[], torch.Tensor]
    frame: Callable[[], float] | None = None


def drawn_model() -> MusicGen:
    """Random weights, such that what passes through keeps its strength."""
    torch.manual_seed(0)
    return MusicGen(CONFIG).eval()


def of_mtk(precision: PrecisionName) -> Contender:
    """Ours, made ready as `mtk generate` makes it."""
    model = drawn_model()
    make_ready(model, torch.device("cpu"), precision, says_steps=True)
    conditions = Conditions(torch.randn(1, STATES, CONFIG.width, generator=torch.Generator().manual_seed(1)))
    cache, memory = model.start(conditions, capacity=ROOM)
    codes = torch.randint(0, CONFIG.codebook_size, (1, 4, ROOM), generator=torch.Generator().manual_seed(2))
    read = 0

    def advance(steps: int) -> torch.Tensor:
        nonlocal read
        positions = cache.begin(steps)
        logits = model.decode(codes[..., read : read + steps], memory, cache=cache, positions=positions)
        cache.commit(steps)
        read += steps
        return logits[0, :, -1]

    def frame() -> float:
        sampling = Sampling(temperature=1.0, top_k=250)
        frames = generate_codes(model, conditions, HELD + FRAMES, prompt=codes[..., :HELD], sampling=sampling)
        next(frames)
        begin = time.perf_counter()
        for _ in range(FRAMES):
            next(frames)
        return (time.perf_counter() - begin) / FRAMES

    advance(HELD)
    return Contender(lambda: advance(1), frame)


def of_transformers(precision: PrecisionName) -> Contender:
    """Hugging Face's decoder of the same sizes."""
    from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

    torch.manual_seed(0)
    config = MusicgenDecoderConfig(
        vocab_size=CONFIG.codebook_size,
        num_hidden_layers=CONFIG.layers,
        ffn_dim=CONFIG.hidden,
        num_attention_heads=CONFIG.heads,
        hidden_size=CONFIG.width,
        num_codebooks=CONFIG.codebooks,
        pad_token_id=CONFIG.special_id,
        bos_token_id=CONFIG.special_id,
    )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = MusicgenForCausalLM(config).eval().to(dtype)
    text = {"encoder_hidden_states": torch.randn(1, STATES, CONFIG.width, dtype=dtype), "use_cache": True}
    held = model(torch.randint(0, CONFIG.codebook_size, (4, HELD)), **text).past_key_values
    ids = torch.randint(0, CONFIG.codebook_size, (4, 1))

    def step() -> torch.Tensor:
        logits: torch.Tensor = model(ids, past_key_values=held, **text).logits[:, -1]
        return logits

    return Contender(step)


def floor_of(precision: str) -> Callable[[], object]:
    """Read as many bytes as a step has to: the linear layers' weights, and keys and values."""
    weights = CONFIG.layers * (6 * CONFIG.width**2 + 2 * CONFIG.width * CONFIG.hidden)
    weights += CONFIG.codebooks * CONFIG.codebook_size * CONFIG.width
    cached = 2 * CONFIG.layers * CONFIG.width * HELD
    kept = torch.ones((weights * BYTES[precision] + cached * CACHE_BYTES[precision]) // 4)
    return kept.sum


CONTENDERS: dict[str, tuple[Callable[[PrecisionName], Contender], PrecisionName]] = {
    **{f"mtk {precision}": (of_mtk, precision) for precision in PRECISIONS},
    "transformers fp32": (of_transformers, "fp32"),
    "transformers bf16": (of_transformers, "bf16"),
}


def alone(name: str, steps: int, folder: Path) -> dict[str, float]:
    """Milliseconds of a step, of the floor and of a frame of one contender; its logits go to a file."""
    make, precision = CONTENDERS[name]
    with torch.inference_mode():
        contender, floor = make(precision), floor_of(precision)
        logits = [contender.step() for _ in range(5)]
        taken: dict[str, list[float]] = {"step": [], "floor": []}
        for _ in range(steps // BLOCK):
            for what, do in (("step", contender.step), ("floor", floor)):
                do()
                for _ in range(BLOCK):
                    begin = time.perf_counter()
                    do()
                    taken[what].append((time.perf_counter() - begin) * 1000)
        figures = {what: float(np.median(times)) for what, times in taken.items()}
        if contender.frame is not None:
            figures["frame"] = contender.frame() * 1000
    np.save(folder / f"{name}.npy", torch.stack(logits).float().numpy())
    return figures


def elsewhere(name: str, given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """What `alone` says in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_generation", "--alone", name]
    command += ["--folder", str(folder), "--steps", str(given.steps)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def report(best: dict[str, dict[str, float]], logits: dict[str, Any]) -> None:
    """Print a line for each contender."""
    theirs = best["transformers fp32"]["step"]
    for name, figures in best.items():
        ratio, precision = figures["step"] / figures["floor"], name.split()[1]
        line = (
            f"{name:18} step {figures['step']:7.2f} ms  floor {figures['floor']:6.2f} ms  {ratio:5.2f} times the floor"
        )
        line += f"  transformers fp32 / this {theirs / figures['step']:5.2f}"
        if name.startswith("mtk"):
            exact = logits["mtk fp32"]
            away = float((logits[name] - exact).std() / exact.std())
            line += f"  logits {away:.2%} from fp32  a frame drawn {figures['frame']:7.2f} ms"
            if precision in TARGETS:
                line += f"  target {TARGETS[precision]:g}: {'ok' if ratio <= TARGETS[precision] else 'MISSED'}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(alone(given.alone, given.steps, given.folder)))
        return
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.rounds):
            names = list(CONTENDERS)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                figures = elsewhere(name, given, Path(folder))
                known = best.setdefault(name, figures)
                best[name] = {key: min(known[key], figures[key]) for key in figures}
        logits = {name: np.load(Path(folder) / f"{name}.npy") for name in best}
    report({name: best[name] for name in CONTENDERS}, logits)


if __name__ == "__main__":
    main()
