"""Seconds of work for a second of sound: `mtk`'s transcription beside a PyTorch port of MT3 with the same weights.

The port is `tests/models/t5_oracle.py`: T5 of transformers with its own `generate()`, greedy, at most 1024 tokens, in
batches of 5 and of 30 segments, taken from all recordings in a row. All contenders work on the same files in one
process, one after the other, in an order that rotates from round to round. Inside the clock: reading files, the front
end (ours for all), encoding, decoding. Outside: imports, loading, a first run on a few seconds. What of ours comes
before the first token (file, front end, encoder, keys and values of cross-attention) is told beside the whole: no
decoder, however fast, brings the whole below that.

Wall time counts, of each contender's best round: threads wait for each other, so that a little of other work on the
machine costs one of them very much. Peak memory is that of a process which does nothing but ours, imports included
(Linux only: VmHWM; `ru_maxrss` of a child begins at what its parent had).

    python -m tests.benchmarks.bench_transcription MODEL RECORDINGS [--threads 4] [--rounds 2] [--short]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from musictool.audio.chunks import padded_to_hop, stretches
from musictool.audio.reading import mono_blocks, open_audio
from musictool.audio.spectrogram import LogMel
from musictool.checkpoints.store import Store
from musictool.inference.model_files import import_model, load_model
from musictool.inference.mt3_transcription import ENCODED_AT_ONCE, MT3Transcriber
from musictool.inference.precision import PrecisionName, make_ready
from musictool.inference.transcription import Sound, Transcription
from musictool.models.mt3 import MT3, MT3Config
from tests.models.t5_oracle import Port, build_port

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")
SHORT_SECONDS = 10
BATCHES = (5, 30)
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "bf16")
TARGET_FACTOR, TARGET_MEGABYTES = 0.050, 1300

ALONE = """
import sys
sys.path.insert(0, {root!r})
from functools import partial
from pathlib import Path
import torch
from musictool.audio.reading import open_audio
from musictool.checkpoints.store import Store
from musictool.inference.transcription import Sound, Transcription, open_transcriber
torch.set_num_threads({threads})
transcriber = open_transcriber(Transcription("mt3", device="cpu", precision={precision!r}), Store(Path({home!r})))
for piece in transcriber.run([Sound(path, partial(open_audio, path)) for path in {paths!r}]):
    for ids in piece.segments():
        pass
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) * 1024 // 10**6 for line in status if line.startswith("VmHWM")))
"""

Segments = list[list[int]]


@dataclass
class Contender:
    """One way to make ids of files.

    Attributes:
        name: what it is.
        run: the ids of each segment of all files; none, for what only encodes.
        seconds: of each round.
        segments: of the last round.
    """

    name: str
    run: Callable[[Sequence[Path]], Segments]
    seconds: list[float] = field(default_factory=list)
    segments: Segments = field(default_factory=list)

    @property
    def best(self) -> float:
        """Seconds of the best round."""
        return min(self.seconds)


def batches_of_frames(paths: Sequence[Path], config: MT3Config, front_end: LogMel, size: int) -> Iterator[Tensor]:
    """The log-mel frames of all files, float [up to size, T, M]; those after the end of a file are zero."""

    def segments() -> Iterator[np.ndarray]:
        for path in paths:
            with open_audio(path) as reader:
                blocks = padded_to_hop(mono_blocks(reader, config.front_end.rate_hz), config.front_end.hop_samples)
                yield from stretches(blocks, config.segment_samples)

    source = segments()
    while batch := list(islice(source, size)):
        samples = torch.zeros(len(batch), config.segment_samples)
        for row, segment in zip(samples, batch, strict=True):
            row[: len(segment)] = torch.from_numpy(segment)
        frames = front_end(samples)
        for row, segment in zip(frames, batch, strict=True):
            row[len(segment) // config.front_end.hop_samples :] = 0.0
        yield frames


def ported(port: Port, config: MT3Config, size: int) -> Contender:
    """The port, so many segments at a time."""
    front_end = LogMel(config.front_end)

    def run(paths: Sequence[Path]) -> Segments:
        batches = batches_of_frames(paths, config, front_end, size)
        return [ids for frames in batches for ids in port.transcribe(frames, config.tokens_max)]

    return Contender(f"port, generate(), batch {size}", run)


def ours(store: Store, precision: PrecisionName) -> Contender:
    """What `mtk transcribe` does."""
    transcriber = MT3Transcriber(
        load_model("mt3", store=store), Transcription("mt3", device="cpu", precision=precision)
    )

    def run(paths: Sequence[Path]) -> Segments:
        sounds = [Sound(path.stem, partial(open_audio, path)) for path in paths]
        return [ids.tolist() for piece in transcriber.run(sounds) for ids in piece.segments()]

    return Contender(f"mtk {precision}", run)


def encoder_alone(store: Store, precision: PrecisionName) -> Contender:
    """All that comes before the first token."""
    model = load_model("mt3", store=store).model
    assert isinstance(model, MT3)
    make_ready(model, torch.device("cpu"), precision)
    front_end = LogMel(model.config.front_end)

    @torch.inference_mode()
    def run(paths: Sequence[Path]) -> Segments:
        for frames in batches_of_frames(paths, model.config, front_end, ENCODED_AT_ONCE):
            model.remember(frames)
        return []

    return Contender(f"mtk {precision}, no decoder", run)


def contenders(store: Store) -> list[Contender]:
    """Theirs first, then ours, each with what is before its first token."""
    model = load_model("mt3", store=store).model
    assert isinstance(model, MT3)
    port = build_port(model)
    field_of = [ported(port, model.config, size) for size in BATCHES]
    for precision in PRECISIONS:
        field_of += [ours(store, precision), encoder_alone(store, precision)]
    return field_of


def measure(field_of: list[Contender], paths: Sequence[Path], rounds: int) -> None:
    """Let all contenders work on all files."""
    for number in range(rounds):
        turn = number % len(field_of)
        for contender in field_of[turn:] + field_of[:turn]:
            start = time.perf_counter()
            contender.segments = contender.run(paths)
            contender.seconds.append(time.perf_counter() - start)


def report(field_of: list[Contender], sound_seconds: float) -> None:
    """Print real-time factors, ratios to the port's, and how much came out the same."""
    theirs = [contender for contender in field_of if contender.name.startswith("port")]
    reference = theirs[0].segments
    tokens = sum(map(len, reference))
    columns = " ".join(f"{f'against {size}':>11}" for size in BATCHES)
    print(f"{'':30} {'real-time factor':>16} {columns} {'same segments':>14} {'same tokens':>12}")
    for contender in field_of:
        line = f"{contender.name:30} {contender.best / sound_seconds:16.4f}"
        line += "".join(f" {port.best / contender.best:10.2f}x" for port in theirs)
        if contender.segments:
            same = [a for a, b in zip(contender.segments, reference, strict=True) if a == b]
            line += f" {len(same):6} of {len(reference):4} {sum(map(len, same)) / tokens:12.2%}"
        print(line)
    by_name = {contender.name: contender for contender in field_of}
    print()
    for precision in PRECISIONS:
        share = by_name[f"mtk {precision}, no decoder"].best / by_name[f"mtk {precision}"].best
        print(f"mtk {precision}: {share:.0%} of the time is before the first token")
    verdict(by_name["mtk fp32"].best / sound_seconds, TARGET_FACTOR, "real-time factor of mtk fp32", ".4f")


def memory(home: Path, paths: Sequence[Path], threads: int) -> None:
    """Print the peak memory of processes that do nothing but ours."""
    for precision in PRECISIONS:
        code = ALONE.format(
            root=str(ROOT), threads=threads, precision=precision, home=str(home), paths=list(map(str, paths))
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        verdict(int(done.stdout), TARGET_MEGABYTES, f"peak megabytes of mtk {precision}", ",.0f")


def verdict(value: float, target: float, what: str, form: str) -> None:
    """Print a figure that should not be above a target."""
    print(f"{what}: {value:{form}}, target {target:{form}}: {'ok' if value <= target else 'OVER'}")


def beginnings(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Copies of the first seconds of files."""
    copies = []
    for path in paths:
        rate = soundfile.info(path).samplerate
        samples, _ = soundfile.read(path, frames=SHORT_SECONDS * rate, dtype="int16")
        copies.append(folder / f"{path.stem}.flac")
        soundfile.write(copies[-1], samples, rate)
    return copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="the published checkpoint, a folder of T5X")
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--short", action="store_true", help=f"only the first {SHORT_SECONDS} s of each recording")
    options = parser.parse_args()
    paths = sorted(path for path in options.recordings.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"no recordings in {options.recordings}")
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        import_model(options.model, "mt3", store=Store(home))
        short = beginnings(paths, home)
        paths = short if options.short else paths
        seconds = sum(soundfile.info(path).duration for path in paths)
        field_of = contenders(Store(home))
        for contender in field_of:
            contender.run(short[:1])
        versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
        print(
            f"{len(paths)} recordings, {seconds:.0f} s; best of {options.rounds}; {options.threads} threads; {versions}"
        )
        measure(field_of, paths, options.rounds)
        report(field_of, seconds)
        memory(home, paths, options.threads)


if __name__ == "__main__":
    main()
