"""Whether a model of codes writes faster than they sound: PersonalJazz of 24 x 1024 with random weights, one piece.

Frames are drawn as `mtk generate` draws them, chosen among 250, after a second of a prompt. Told are milliseconds a
frame, the real-time factor (seconds of work for a second of sound; asked on a GPU: below .3), and what share of the
device's bandwidth reading the weights and half of a full cache at each step comes to; the bandwidth is that of adding
up a gigabyte, in turns with the frames. On a GPU with recorded steps and without, in turns; the medians count.

    python -m tests.benchmarks.bench_realtime [--device cuda] [--precision bf16] [--preset NAME] [--seconds 10]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

import torch

from musictool.inference import codes_generation
from musictool.inference.codes_generation import generate_codes
from musictool.inference.precision import find_device, make_ready
from musictool.inference.sampling import Sampling
from musictool.models.registry import build_model, load_preset

TARGET = 0.3
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
TURNS = 5
_GIGABYTE = 1_000_000_000


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that work takes, until it is done."""
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=BYTES, default="bf16")
    parser.add_argument("--preset", default="personaljazz")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    device = find_device(given.device)
    config = load_preset(given.preset)
    rate_hz = load_preset(config.codec).frame_rate_hz
    torch.manual_seed(0)
    model: Any = build_model(config)
    layers = sum(part.numel() for name, part in model.named_parameters() if name.startswith(("decoder", "heads")))
    make_ready(model, device, given.precision, says_steps=True)
    frames, known = round(given.seconds * rate_hz), round(rate_hz)
    style = torch.nn.functional.normalize(torch.randn(1, config.style_width), dim=1).to(device)
    prompt = torch.randint(0, config.codebook_size, (1, config.codebooks, known), device=device)
    sampling = Sampling(temperature=1.0, top_k=250)
    size = BYTES[given.precision]
    cached = 2 * config.layers * config.width * (known + frames) // 2 * max(size, 2)
    kept = torch.ones(_GIGABYTE // 4, device=device)

    def write() -> None:
        for _ in generate_codes(model, style, frames, prompt=prompt, sampling=sampling):
            pass

    ways = {"recorded": True, "said": False} if device.type == "cuda" else {"said": False}
    taken: dict[str, list[float]] = {name: [] for name in (*ways, "bandwidth")}
    for turn in range(TURNS + 1):  # the first is to get warm
        for name, records in ways.items():
            with mock.patch.object(codes_generation, "can_record", lambda device, records=records: records):
                seconds = timed(write, device)
            taken[name] += [seconds / frames] if turn else []
        taken["bandwidth"] += [timed(kept.sum, device) for _ in range(5)]
    bandwidth = _GIGABYTE / median(taken["bandwidth"])
    print(f"{given.preset}, {layers / 1e6:.0f} million weights, {given.precision} on {device}")
    print(f"{rate_hz:g} frames a second; bandwidth of a sum {bandwidth / _GIGABYTE:.0f} GB/s")
    for name in ways:
        frame = median(taken[name])
        factor, share = frame * rate_hz, (layers * size + cached) / frame / bandwidth
        line = f"{name:9} {frame * 1000:7.2f} ms a frame  real-time factor {factor:.3f}  {share:.0%} of the bandwidth"
        print(line + (f"  target {TARGET:g}: {'ok' if factor < TARGET else 'MISSED'}" if device.type == "cuda" else ""))


if __name__ == "__main__":
    main()
