"""What it takes to finetune a model of codes: all of its weights, LoRA, and QLoRA over weights of 4 bits.

Each contender is `mtk finetune` as a user has it, in a process of its own: run folder, second copy of what is trained
and all. Told are the most memory that the process has held beyond that of the imports, until the first step is done and
after it; what a checkpoint weighs; and seconds of the processor for a step on one thread, the median. Contenders take
turns. Linux.

    python -m tests.benchmarks.bench_finetuning [--width 768] [--layers 12] [--frames 256] [--steps 6] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.peak_memory import peak_memory_bytes

CONTENDERS = ("full", "lora", "qlora")
CODEBOOKS, SIZE = 8, 1024
_MEGABYTE = 1_000_000


def prepare(home: Path, width: int, layers: int) -> int:
    """Write a PersonalJazz with random weights and some codes; how many parameters it has."""
    import torch

    from musictool.checkpoints.native import ModelFacts, write_native
    from musictool.models.personaljazz import PersonalJazz, PersonalJazzConfig
    from tests.code_sets import write_corpus

    config = PersonalJazzConfig(width, width // 64, 4 * width, layers, codebook_size=SIZE, codec="some-codec")
    torch.manual_seed(0)
    model = PersonalJazz(config)
    folder = home / "models" / "base"
    folder.mkdir(parents=True)
    write_native(folder, model.state_dict(), ModelFacts("personaljazz", "personaljazz", asdict(config)), "")
    codes = np.random.default_rng(0).integers(0, SIZE, (4, CODEBOOKS, 4096)).astype(np.int32)
    write_corpus(home / "codes.parquet", list(codes))
    return sum(parameter.numel() for parameter in model.parameters())


def finetune(how: str, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Be one contender."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch

    from musictool.checkpoints.store import Store
    from musictool.training.recipe import build_recipe, load_finetuning_table
    from musictool.training.runs import RunFolder
    from musictool.training.session import Order, train

    table = load_finetuning_table("personaljazz", None if how == "full" else how)  # type: ignore[arg-type]
    table |= {"model": {"from": "base"}, "data": {"train": [str(home / "codes.parquet")]}}
    numbers = {
        "steps": options.steps,
        "workers": 0,
        "threads": 1,
        "log_every": 0,
        "precision": f'"{options.precision}"',
    }
    settings = [f"run.{name}={value}" for name, value in numbers.items()]
    sizes = [f"data.window_frames={options.frames}", "data.hop_frames=128", "data.untold_share=0"]
    sizes += [f"run.batch_size={options.batch}", "run.accumulation=1", "schedule.warmup_steps=0"]
    recipe = build_recipe(table, [*settings, *sizes])
    torch.set_num_threads(1)
    CodesHaveNoText.apply()
    folder = home / f"run-{how}-{os.getpid()}"
    imports = held_memory_bytes()
    times: list[float] = []
    begun: list[int] = []

    @contextmanager
    def watch(steps: Iterator[int], total: int) -> Iterator[Iterator[int]]:
        def timed() -> Iterator[int]:
            before = time.process_time()
            for step in steps:
                times.append(time.process_time() - before)
                if step == 1:
                    begun.append(peak_memory_bytes())
                    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
                yield step
                before = time.process_time()

        yield timed()

    train(Order(recipe, RunFolder(folder)), Store(home), lambda line: None, watch)
    checkpoint = RunFolder(folder).checkpoint(options.steps)
    weight = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    return {
        "begun": begun[0] - imports,
        "steps": peak_memory_bytes() - imports,
        "checkpoint": weight,
        "seconds": median(times[1:]),
    }


class CodesHaveNoText:
    """Takes the words out of the corpus that tests read, for which there is no style encoder here."""

    @staticmethod
    def apply() -> None:
        from musictool.training.tasks.code_conditions import Styles

        Styles.prepare = lambda *_: None  # type: ignore[method-assign]
        Styles.of = lambda self, piece: self.nothing()  # type: ignore[method-assign]


def held_memory_bytes() -> int:
    """What this process holds now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(finetune(options.contender, options.home, options)))
        return
    with tempfile.TemporaryDirectory() as home:
        parameters = prepare(Path(home), options.width, options.layers)
        print(f"{parameters:,} parameters, batches of {options.batch} x {options.frames} frames, {options.precision}")
        command = [sys.executable, "-m", "tests.benchmarks.bench_finetuning", *sys.argv[1:], "--home", home]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        found: dict[str, list[dict[str, Any]]] = {how: [] for how in CONTENDERS}
        for _ in range(options.rounds):
            for how in CONTENDERS:
                done = subprocess.run(
                    [*command, "--contender", how], env=environ, check=True, capture_output=True, text=True
                )
                found[how].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{'':8}{'until then, MB':>16}{'steps, MB':>11}{'checkpoint, MB':>16}{'s a step':>10}")
    for how, each in found.items():
        least = {name: min(one[name] for one in each) for name in each[0]}
        sizes = [least[name] / _MEGABYTE for name in ("begun", "steps", "checkpoint")]
        print(f"{how:8}{sizes[0]:16.0f}{sizes[1]:11.0f}{sizes[2]:16.1f}{least['seconds']:10.2f}")


if __name__ == "__main__":
    main()
