"""Tokens a second from MIDI files to ids and back, ours beside MidiTok's, in one process.

Timed is what a caller of either library does with a file: `in` is path to ids (reading, parsing, preprocessing,
tokenizing), `out` is ids to the library's score in memory, `midi` is ids to the bytes of a MIDI file. Contenders take
turns on each batch of files, in an order that rotates, so that whatever else the machine does falls on all of them.
What is counted is CPU time of this process; garbage is collected before each turn, outside the clock. A ratio is the
median over batches of (our tokens a second / theirs); the ratio of whole files a second, which long-winded tokens
can't flatter, stands beside it.

    python -m tests.benchmarks.bench_schemes [FOLDER] [--files N] [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import miditok
import symusic

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.score_meta import assemble

DEFAULT_FOLDER = Path(os.environ.get("MTK_TEST_DATA", "data")) / "pop909"
BATCH_FILES = 16


@dataclass
class Contender:
    """One way to make ids of a file and a score of ids."""

    name: str
    encode: Callable[[Path], Any]
    decode: Callable[[Any], Any]
    to_midi: Callable[[Any], bytes]
    count: Callable[[Any], int]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"in": [], "out": [], "midi": []})
    tokens: list[int] = field(default_factory=list)


def ours(scheme_name: str) -> Contender:
    """A scheme of this package."""
    scheme = find_scheme(scheme_name)
    return Contender(
        f"mtk {scheme_name}",
        lambda path: scheme.encode(read_midi(path)),
        lambda ids: scheme.decode([ids]),
        lambda ids: write_midi(assemble(scheme.decode([ids]), {})),
        len,
    )


def miditoks(name: str, tokenizer: miditok.MusicTokenizer) -> Contender:
    """A tokenizer of MidiTok; its ids are one sequence, or one a track."""

    def count(ids: Any) -> int:
        return len(ids) if isinstance(ids, miditok.TokSequence) else sum(len(sequence) for sequence in ids)

    return Contender(
        f"MidiTok {name}",
        tokenizer.encode,
        tokenizer.decode,
        lambda ids: tokenizer.decode(ids).dumps_midi(),
        count,
    )


def contenders() -> list[Contender]:
    """Ours, and MidiTok's with its default configuration and with what ours always has: programs, tempo, metre."""
    full = {"use_programs": True, "use_tempos": True, "use_time_signatures": True}
    with_programs = {"use_programs": True}
    return [
        ours("remi"),
        ours("tatum"),
        ours("mt3"),
        miditoks("REMI", miditok.REMI()),
        miditoks("REMI+", miditok.REMI(miditok.TokenizerConfig(**full))),
        miditoks("MIDILike", miditok.MIDILike()),
        miditoks("MIDILike+", miditok.MIDILike(miditok.TokenizerConfig(**with_programs))),
    ]


# (what, ours, theirs, tokens a second we want to be ahead by)
TARGETS = [
    ("in", "mtk remi", "MidiTok REMI", 20),
    ("in", "mtk remi", "MidiTok REMI+", 20),
    ("out", "mtk remi", "MidiTok REMI", 3),
    ("out", "mtk remi", "MidiTok REMI+", 3),
    ("midi", "mtk remi", "MidiTok REMI", 3),
    ("midi", "mtk remi", "MidiTok REMI+", 3),
    ("in", "mtk tatum", "MidiTok MIDILike", 30),
    ("in", "mtk tatum", "MidiTok MIDILike+", 30),
    ("out", "mtk tatum", "MidiTok MIDILike", 10),
    ("out", "mtk tatum", "MidiTok MIDILike+", 10),
    ("midi", "mtk tatum", "MidiTok MIDILike", 10),
    ("midi", "mtk tatum", "MidiTok MIDILike+", 10),
]


def timed(work: Callable[[Any], Any], items: list) -> tuple[list, float]:
    """The results of some work on every item, and the CPU seconds it took."""
    gc.collect()
    start = time.process_time()
    results = [work(item) for item in items]
    return results, time.process_time() - start


def measure(paths: list[Path], rounds: int) -> tuple[list[Contender], float, float]:
    """Let all contenders work on all files; CPU seconds a round of symusic's parse and of our read beside them."""
    field_of = contenders()
    parse_seconds = read_seconds = 0.0
    for _ in range(rounds):
        for number, start in enumerate(range(0, len(paths), BATCH_FILES)):
            batch = paths[start : start + BATCH_FILES]
            parse_seconds += timed(symusic.Score, batch)[1]
            read_seconds += timed(read_midi, batch)[1]
            turn = number % len(field_of)
            for contender in field_of[turn:] + field_of[:turn]:
                ids, seconds = timed(contender.encode, batch)
                contender.seconds["in"].append(seconds)
                contender.tokens.append(sum(map(contender.count, ids)))
                contender.seconds["out"].append(timed(contender.decode, ids)[1])
                contender.seconds["midi"].append(timed(contender.to_midi, ids)[1])
    return field_of, parse_seconds / rounds, read_seconds / rounds


def report(field_of: list[Contender], parse_seconds: float, read_seconds: float, files: int, rounds: int) -> None:
    """Print rates, then ratios beside their targets."""
    print(f"{files} files, {rounds} rounds", *(f", {name} {version(name)}" for name in ("miditok", "symusic")), sep="")
    parse, read = (seconds / files * 1e3 for seconds in (parse_seconds, read_seconds))
    print(f"symusic parse alone: {parse:.3f} ms a file; read_midi: {read:.3f} ({read / parse:.1f} times as long)")
    print(f"\n{'':20} {'tokens a file':>13} {'in':>12} {'out':>12} {'midi':>12}   (tokens a second)")
    for contender in field_of:
        tokens = sum(contender.tokens)
        rates = " ".join(f"{tokens / sum(contender.seconds[what]):12,.0f}" for what in ("in", "out", "midi"))
        print(f"{contender.name:20} {tokens / files / rounds:13,.0f} {rates}")
    by_name = {contender.name: contender for contender in field_of}
    print(f"\n{'':46} {'tokens':>8} {'files':>8} {'target':>8}   (our rate / theirs)")
    for what, our_name, their_name, target in TARGETS:
        our, their = by_name[our_name], by_name[their_name]
        files_ratio = [b / a for a, b in zip(our.seconds[what], their.seconds[what], strict=True)]
        tokens_ratio = [r * a / b for r, a, b in zip(files_ratio, our.tokens, their.tokens, strict=True)]
        verdict = "ok" if median(tokens_ratio) >= target else "SHORT"
        print(
            f"{what:5} {our_name:12} / {their_name:26} {median(tokens_ratio):8.1f} {median(files_ratio):8.1f} "
            f"{target:8} {verdict}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--files", type=int, help="only the first N files")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    paths = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in (".mid", ".midi"))[: options.files]
    if not paths:
        parser.error(f"no MIDI files in {options.folder}")
    warnings.simplefilter("ignore")  # MidiTok warns of files without programs it knows
    measure(paths[:BATCH_FILES], 1)  # imports, caches
    report(*measure(paths, options.rounds), len(paths), options.rounds)


if __name__ == "__main__":
    main()
