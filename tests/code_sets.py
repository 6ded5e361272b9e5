"""Corpora of codes in which there is something to learn, and a small model of codes in a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from musictool.checkpoints.native import ModelFacts, write_native
from musictool.inference.code_corpus import CodeCorpusWriter
from musictool.inference.coded_sound import WholeCodes
from musictool.models.saxgpt import SaxGPT, SaxGPTConfig
from musictool.stream.records import CodeChunk, Head

CODEC, CODEC_SHA = "some-codec", "ab" * 32
SIZE = 24
SMALL_SAXGPT = SaxGPTConfig(
    width=32,
    heads=2,
    hidden=64,
    encoder_layers=1,
    decoder_layers=1,
    codebooks=2,
    codebook_size=SIZE,
    codec=CODEC,
    positions=66,
    dropout=0.1,
)


class Pair(NamedTuple):
    """Codes of a lead and of its backing, int32 [K, t] each."""

    lead: NDArray[np.int32]
    backing: NDArray[np.int32]


def draw_pairs(
    count: int, frames: int = 150, codebooks: int = 3, seed: int = 0, steps: range = range(1, 4)
) -> list[Pair]:
    """Leads that climb from code to code, as fast as the backing's code says: by one of some steps."""
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        step = int(generator.choice(steps))
        first = generator.integers(0, SIZE, (codebooks, 1))
        lead = (first + step * np.arange(frames)) % SIZE
        pairs.append(Pair(lead.astype(np.int32), np.full((codebooks, frames), step, np.int32)))
    return pairs


def write_corpus(path: Path, pieces: list[NDArray[np.int32]], vocab: str = CODEC, sha: str = CODEC_SHA) -> Path:
    """Write a corpus of codes."""
    with open(path, "wb") as file:
        writer = CodeCorpusWriter(file)
        for number, codes in enumerate(pieces):
            meta = {"codebooks": len(codes), "text": f"words {number}"}
            head = Head(f"piece-{number}", "codes", vocab, sha, meta=meta)
            chunk = CodeChunk(codes, np.zeros(0, np.float32))
            writer.write(head, len(codes), WholeCodes((chunk,), None, None, ""))
        writer.close()
    return path


def write_pairs(folder: Path, name: str, pairs: list[Pair]) -> Path:
    """Write two corpora, as a split of the pipeline's has them; gives that of the leads."""
    write_corpus(folder / f"{name}.backing.parquet", [pair.backing for pair in pairs])
    return write_corpus(folder / f"{name}.lead.parquet", [pair.lead for pair in pairs])


def install_small_saxgpt(home: Path, name: str = "small-saxgpt", seed: int = 0) -> Path:
    """Write a random SaxGPT to a store, which says which codec it is for; gives its folder."""
    torch.manual_seed(seed)
    folder = home / "models" / name
    folder.mkdir(parents=True)
    source = {"codec": CODEC, "codec_sha256": CODEC_SHA}
    facts = ModelFacts("saxgpt", "saxgpt-xsmall", asdict(SMALL_SAXGPT), source=source)
    write_native(folder, SaxGPT(SMALL_SAXGPT).state_dict(), facts, "A random model.\n")
    return folder
