"""What a step of codec training costs, part by part, on one thread.

The codec alone with the loss of samples, which is little more than a bare loop; then with each of the other losses and
with discriminators. Figures are seconds of the processor for a step, forward, backward and AdamW, the least of several,
and audio seconds a second; the share is that of the bare step.

    python -m tests.benchmarks.bench_codec_training [--preset codec-24khz] [--batch 8] [--seconds 1.0] [--steps 5]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from torch import Tensor

from musictool.models.codec import Codec, CodecConfig
from musictool.models.registry import load_preset
from musictool.training.discriminators import DiscriminatorConfig
from musictool.training.tasks.codec import CodecLoss, CodecTraining

BARE = CodecLoss(mel=0.0)
CASES = {
    "samples alone": BARE,
    "and mel": CodecLoss(),
    "and STFT": CodecLoss(stft=1.0),
    "mel, 1 discriminator": CodecLoss(
        adversarial=1.0, features=1.0, discriminator=DiscriminatorConfig(windows=(1024,), filters=8)
    ),
    "mel, 2 discriminators": CodecLoss(
        adversarial=1.0, features=1.0, discriminator=DiscriminatorConfig(windows=(1024, 512), filters=8)
    ),
    "mel, 2, wider": CodecLoss(
        adversarial=1.0, features=1.0, discriminator=DiscriminatorConfig(windows=(1024, 512), filters=16)
    ),
}


def seconds_a_step(config: CodecConfig, loss: CodecLoss, batch: dict[str, Tensor], is_low: bool, steps: int) -> float:
    """The least of some steps."""
    torch.manual_seed(0)
    training = CodecTraining(Codec(config), loss, is_fresh=True)
    optimiser = torch.optim.AdamW(training.parameters(), fused=True)
    best = float("inf")
    for _ in range(steps):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_low):
            total, _ = training(batch["audio"], batch["levels"], loss)
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="codec-24khz")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config: CodecConfig = replace(load_preset(options.preset), segment_seconds=None, norm="none", normalises=False)
    samples = round(options.seconds * config.frame_rate_hz) * config.hop_samples
    batch = {
        "audio": 0.1 * torch.randn(options.batch, config.channels, samples),
        "levels": torch.randint(1, config.codebooks + 1, (options.batch,)),
    }
    audio_seconds = options.batch * options.seconds
    bare = 0.0
    for name, loss in CASES.items():
        cost = seconds_a_step(config, loss, batch, options.precision == "bf16", options.steps)
        bare = bare or cost
        print(
            f"{name:24} {cost:7.3f} s a step, {audio_seconds / cost:7.1f} x real time, share of bare {bare / cost:.2f}"
        )


if __name__ == "__main__":
    main()
