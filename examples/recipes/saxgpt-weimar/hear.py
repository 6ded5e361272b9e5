"""Teach the encoder of a SaxGPT to hear: which pitch classes bass and piano play at each frame of a backing.

    python hear.py MODEL CORPUS -o FOLDER [--steps 2500] [--threads 4]

MODEL   a SaxGPT; its encoder and its table of codes are trained, the rest is left as it is
CORPUS  what mtk data run made of pairs: codes of backings with their notes beside them, and what is on which side

What a lead's codes say of chords is too little to learn hearing from: a few bits a second of some nine hundred. Notes
say it at every frame.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.checkpoints.native import CODEC_KEYS, ModelFacts, read_facts, write_native
from musictool.checkpoints.store import Store
from musictool.inference.codec_choice import Codecs
from musictool.inference.model_files import load_model
from musictool.models.saxgpt import SaxGPT, SaxGPTConfig
from musictool.symbolic.midi import read_midi
from musictool.training.data.code_sets import CodeForm, CodePiece, CodeSets

FRAME_RATE_HZ = 75  # of codec-24khz
BASS, PITCH_CLASSES = 32, 12
ROWS, FRAMES, VALID_BATCHES = 16, 600, 2
HELD_FRAMES = 4  # a note that has ended sounds on a little
LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY, LARGEST_NORM = 2e-3, 50, 0.02, 1.0
NOT_COUNTED = -1.0
EVERY = 200


class Backing(NamedTuple):
    """Codes of a backing, int16 [K, F], and which pitch classes of chords and of the bass sound, float [24, F]."""

    codes: Tensor
    sounding: Tensor


class Listener(nn.Module):
    """The part of a model that reads a backing, and a layer that names what it hears."""

    def __init__(self, model: SaxGPT) -> None:
        super().__init__()
        self.embedding, self.encoder = model.embedding, model.encoder
        self.naming = nn.Linear(model.config.width, 2 * PITCH_CLASSES)
        self._remember = model.read_backing

    def forward(self, codes: Tensor) -> Tensor:
        """Logits, float [B, 24, F], of codes, int64 [B, K, F]."""
        states, _ = self._remember(codes)
        heard: Tensor = self.naming(states[:, 1:]).transpose(1, 2)
        return heard


def sounding(path: Path, frames: int) -> Tensor:
    """Which pitch classes sound when, as of `Backing`, by the notes of a MIDI file."""
    notes = read_midi(path).notes
    found = torch.zeros(2 * PITCH_CLASSES, frames)
    first = np.floor(notes.onset_seconds * FRAME_RATE_HZ).astype(int)
    last = np.ceil(notes.offset_seconds * FRAME_RATE_HZ).astype(int) + HELD_FRAMES
    row = notes.pitch % PITCH_CLASSES + np.where(notes.program == BASS, PITCH_CLASSES, 0)
    for begin, end, number in zip(first.tolist(), last.tolist(), row.tolist(), strict=True):
        found[number, begin:end] = 1
    return found


def read_corpus(corpus: Path, config: SaxGPTConfig, store: Store) -> dict[str, CodePiece]:
    """All pieces of a corpus by name."""
    codec = Codecs(store).find(config.codec, None)
    if codec is None:
        raise SystemExit(f"{config.codec} is not here")
    sha256 = read_facts(codec.path).weights_sha256
    form = CodeForm(config.codec, sha256, config.codebooks, config.codebook_size, True)

    def refuse(path: Path) -> np.ndarray:
        raise SystemExit(f"{path} holds no codes")

    return {piece.name: piece for piece in CodeSets(form, refuse).read([corpus / "encode"])}


def side_of(corpus: Path, pieces: dict[str, CodePiece], side: str) -> list[Backing]:
    """The backings of one side."""
    lines = (corpus / "split" / f"{side}.txt").read_text().splitlines()
    names = sorted(Path(line).name for line in lines if "/backing/" in line)
    found = []
    for name in names:
        codes = pieces[name].backing
        assert codes is not None
        notes = corpus / "encode" / "backing" / f"{name}.mid"
        found.append(Backing(torch.from_numpy(codes), sounding(notes, codes.shape[1])))
    return found


def drawn(backings: list[Backing], special_id: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Stretches, drawn as often as a piece is long: codes int64 [B, K, F], what sounds float [B, 24, F]."""
    lengths = torch.tensor([float(backing.codes.shape[1]) for backing in backings])
    codes, targets = [], []
    for number in torch.multinomial(lengths, ROWS, replacement=True, generator=generator).tolist():
        backing = backings[number]
        last = max(1, backing.codes.shape[1] - FRAMES)
        begin = int(torch.randint(last, (1,), generator=generator))
        piece, truth = (part[:, begin : begin + FRAMES] for part in backing)
        missing = (0, FRAMES - piece.shape[1])
        codes.append(functional.pad(piece.long(), missing, value=special_id))
        targets.append(functional.pad(truth, missing, value=NOT_COUNTED))
    return torch.stack(codes), torch.stack(targets)


def loss_of(heard: Tensor, sounds: Tensor) -> Tensor:
    """Binary cross-entropy in nats, of what counts."""
    is_counted = sounds != NOT_COUNTED
    return functional.binary_cross_entropy_with_logits(heard[is_counted], sounds[is_counted])


@torch.inference_mode()
def judged(listener: Listener, batches: list[tuple[Tensor, Tensor]]) -> str:
    """Cross-entropy and F-measure on held-out stretches."""
    losses, right, named, there = [], 0, 0, 0
    for codes, sounds in batches:
        heard = listener(codes)
        losses.append(float(loss_of(heard, sounds)))
        is_named, is_there = (heard > 0) & (sounds != NOT_COUNTED), sounds == 1
        right += int((is_named & is_there).sum())
        named, there = named + int(is_named.sum()), there + int(is_there.sum())
    return f"valid: {np.mean(losses):.4f} nats, F-measure {2 * right / max(named + there, 1):.3f}"


def main() -> None:
    """Read the command line, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--threads", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    store = Store.from_environ(os.environ)
    model = load_model(given.model, store=store).model
    assert isinstance(model, SaxGPT)
    listener = Listener(model)
    pieces = read_corpus(given.corpus, model.config, store)
    train, valid = (side_of(given.corpus, pieces, side) for side in ("train", "valid"))
    generator = torch.Generator().manual_seed(0)
    held_out = [drawn(valid, model.special_id, torch.Generator().manual_seed(n + 1)) for n in range(VALID_BATCHES)]
    optimiser = torch.optim.AdamW(listener.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + float(np.cos(np.pi * step / given.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    start = time.monotonic()
    for step in range(given.steps):
        if step % EVERY == 0:
            print(f"{time.monotonic() - start:.0f} s, step {step}: {judged(listener, held_out)}", flush=True)
        codes, sounds = drawn(train, model.special_id, generator)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(listener(codes), sounds)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(listener.parameters(), LARGEST_NORM)
        optimiser.step()
        schedule.step()
    print(f"{time.monotonic() - start:.0f} s, step {given.steps}: {judged(listener, held_out)}")
    given.output.mkdir(parents=True, exist_ok=True)
    facts = ModelFacts(
        model.config.family, "saxgpt-xsmall", asdict(model.config), source={CODEC_KEYS[0]: model.config.codec}
    )
    write_native(given.output, model.state_dict(), facts, "A SaxGPT whose encoder has learned to hear: see hear.py.\n")


if __name__ == "__main__":
    main()
