"""The shipped transcriber a few frames at a time and a stretch at a time: `NoteTagger.tag` and `NoteTagger.forward`.

    python -m tests.benchmarks.bench_note_tagging [--threads 4] [--seconds 60] [--rounds 5]

Both say the same of the same frames, which is checked; they take turns, and the best of each counts. `forward` gets
stretches of 1,024 frames with what lies around each, as it must where sound is read in pieces.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from musictool.inference.model_files import load_model
from musictool.inference.note_tagging import FRAMES_AT_ONCE_ON_CPU
from musictool.models.note_tagger import NoteTagger

STRETCH_FRAMES = 1024


def forward_in_stretches(model: NoteTagger, frames: Tensor) -> Tensor:
    """Onset logits of all frames but the first and last `context_frames`, [B, T, 88]."""
    around = model.config.context_frames
    said = []
    for first in range(around, frames.shape[1] - around, STRETCH_FRAMES):
        stretch = frames[:, first - around : first + STRETCH_FRAMES + around]
        said.append(model(stretch).onset[:, around : stretch.shape[1] - around])
    return torch.cat(said, 1)


def main() -> None:
    """Print seconds a second of sound, and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    model = load_model("note-tagger").model
    assert isinstance(model, NoteTagger)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    front_end = model.config.front_end
    frames_count = arguments.seconds * front_end.rate_hz // front_end.hop_samples + 2 * model.config.context_frames
    frames = torch.rand(1, frames_count, front_end.bins, len(front_end.windows_samples))

    ways: dict[str, Callable[[], Tensor]] = {
        "forward": lambda: forward_in_stretches(model, frames),
        "tag": lambda: model.tag(frames, FRAMES_AT_ONCE_ON_CPU).onset,
    }
    for precision in ("fp32", "bf16"):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            best = dict.fromkeys(ways, float("inf"))
            for _ in range(arguments.rounds):
                said = {}
                for name, way in ways.items():
                    begin = time.perf_counter()
                    said[name] = way()
                    best[name] = min(best[name], time.perf_counter() - begin)
            torch.testing.assert_close(said["tag"], said["forward"], atol=1e-4, rtol=0)
        factors = "  ".join(f"{name} {seconds / arguments.seconds:.4f}" for name, seconds in best.items())
        print(f"{precision}: seconds a second of sound: {factors}  ratio {best['forward'] / best['tag']:.2f}")


if __name__ == "__main__":
    main()
