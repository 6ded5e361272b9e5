"""How fast a token stream is written and read, beside the json module doing the same lines.

Every contender handles the same random ids, in lines of 4096, in alternation; a rate is the median over rounds. The
json module's turn is the least that a stream could be: one object a line and no head, count or digest. What a reader of
ours does besides (sha256, range of every id) is in our figure. With `--memory` a stream of 100 million tokens is
written to a file and read back in a process of its own, whose peak resident memory (Linux only: VmHWM) is told beside
that of a process that has only imported the same modules.

    python tests/benchmarks/bench_stream.py [--tokens N] [--rounds N] [--memory]
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from musictool.stream.files import compressing, decompressing
from musictool.stream.reader import StreamReader
from musictool.stream.records import Head
from musictool.stream.writer import IDS_A_LINE, StreamWriter
from musictool.symbolic.schemes import find_scheme

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = find_scheme("tatum").vocabulary
HEAD = Head("noise", "events", "tatum", VOCABULARY.fingerprint)
MEMORY_TOKENS = 100_000_000

READ_OURS = """
import sys
sys.path.insert(0, {root!r})
from musictool.stream.reader import StreamReader
from musictool.symbolic.schemes import find_scheme
vocabulary = find_scheme("tatum").vocabulary
with open({path!r}, "rb") as source:
    count = sum(len(chunk) for item in StreamReader(source, lambda head: vocabulary) for chunk in item.chunks())
print(count)
"""
READ_LINES = """
import sys, json
sys.path.insert(0, {root!r})
from musictool.stream.reader import StreamReader
from musictool.symbolic.schemes import find_scheme
vocabulary = find_scheme("tatum").vocabulary
with open({path!r}, "rb") as source:
    count = sum(len(json.loads(line).get("t", ())) for line in source)
print(count)
"""
READ_WHOLE = """
import json
with open({path!r}) as source:
    count = len(json.load(source))
print(count)
"""
IMPORT_ONLY = """
import sys
sys.path.insert(0, {root!r})
from musictool.stream.reader import StreamReader
from musictool.symbolic.schemes import find_scheme
find_scheme("tatum")
print(0)
"""

PEAK = """
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmHWM")))
"""


def write_ours(ids: np.ndarray, suffix: str = "", names: Any = None) -> bytes:
    """The ids as a stream, compressed as a suffix asks."""
    sink = io.BytesIO()
    with compressing(sink, f"x.mtk{suffix}") as packed:
        writer = StreamWriter(packed, is_live=False, names=names)
        with writer.item(HEAD) as item:
            item.write(ids)
    return sink.getvalue()


def read_ours(data: bytes, suffix: str = "") -> int:
    """How many tokens a stream holds, each of them checked."""
    with decompressing(io.BytesIO(data), f"x.mtk{suffix}") as plain:
        return sum(len(chunk) for item in StreamReader(plain, lambda _: VOCABULARY) for chunk in item.chunks())


def write_json(ids: np.ndarray) -> bytes:
    """The ids as lines of JSON."""
    parts = (ids[start : start + IDS_A_LINE].tolist() for start in range(0, len(ids), IDS_A_LINE))
    return b"".join(json.dumps({"t": part}, separators=(",", ":")).encode() + b"\n" for part in parts)


def read_json(data: bytes) -> int:
    """How many tokens lines of JSON hold."""
    return sum(len(np.array(json.loads(line)["t"], np.int32)) for line in io.BytesIO(data))


def rates(tokens: int, rounds: int) -> None:
    """Print writing and reading rates of every contender."""
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), tokens).astype(np.int32)
    contenders: dict[str, tuple[Callable[[], bytes], Callable[[bytes], int]]] = {
        "json module, lines": (lambda: write_json(ids), read_json),
        "mtk": (lambda: write_ours(ids), read_ours),
        "mtk --names": (lambda: write_ours(ids, names=VOCABULARY), read_ours),
        "mtk .gz": (lambda: write_ours(ids, ".gz"), lambda data: read_ours(data, ".gz")),
        "mtk .zst": (lambda: write_ours(ids, ".zst"), lambda data: read_ours(data, ".zst")),
    }
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in contenders}
    size = {}
    for _ in range(rounds):
        for name, (write, read) in contenders.items():
            start = time.process_time()
            data = write()
            middle = time.process_time()
            read(data)
            seconds[name][0].append(middle - start)
            seconds[name][1].append(time.process_time() - middle)
            size[name] = len(data)
    print(f"{tokens:,} random ids, {rounds} rounds\n")
    columns = f"{'bytes/token':>11} {'write Mtok/s':>13} {'MB/s':>7} {'read Mtok/s':>12} {'MB/s':>7}"
    print(f"{'':20} {columns}  times json: write read")
    for name, (write_seconds, read_seconds) in seconds.items():
        writes, reads = tokens / median(write_seconds) / 1e6, tokens / median(read_seconds) / 1e6
        width = size[name] / tokens
        against = [
            median(
                theirs / ours
                for ours, theirs in zip(seconds[name][way], seconds["json module, lines"][way], strict=True)
            )
            for way in (0, 1)
        ]
        print(
            f"{name:20} {width:11.2f} {writes:13.1f} {writes * width:7.0f} {reads:12.1f} {reads * width:7.0f}"
            f"  {against[0]:17.1f} {against[1]:4.1f}"
        )


def memory(tokens: int) -> None:
    """Print the peak memory of processes that read very many tokens."""
    with tempfile.TemporaryDirectory() as folder:
        path, whole = Path(folder) / "long.mtk", Path(folder) / "long.json"
        generator = np.random.default_rng(0)
        part = generator.integers(0, len(VOCABULARY), 1_000_000).astype(np.int32)
        with path.open("wb") as sink, StreamWriter(sink, is_live=False).item(HEAD) as item:
            for _ in range(tokens // len(part)):
                item.write(part)
        text = json.dumps(part.tolist(), separators=(",", ":"))[1:-1]
        with whole.open("w") as sink:
            sink.write("[" + ",".join([text] * (tokens // len(part) // 10)) + "]")  # a tenth: its reader needs the room
        print(f"\n{tokens:,} tokens, {path.stat().st_size >> 20} MiB of stream")
        for name, script, file in (
            ("modules alone", IMPORT_ONLY, path),
            ("mtk reader", READ_OURS, path),
            ("json module, lines", READ_LINES, path),
            ("json.load of a tenth", READ_WHOLE, whole),
        ):
            start = time.perf_counter()
            code = script.format(root=str(ROOT), path=str(file)) + PEAK
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            count, mebibytes = map(int, done.stdout.split())
            print(f"{name:22} {count:12,} tokens  {mebibytes:6,} MiB at most  {time.perf_counter() - start:6.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure the memory of 100 million tokens read")
    options = parser.parse_args()
    rates(options.tokens, options.rounds)
    if options.memory:
        memory(MEMORY_TOKENS)


if __name__ == "__main__":
    main()
