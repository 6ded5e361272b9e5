"""Neural codecs: seconds of work for a second of sound, and memory; `mtk`, the `encodec` package and transformers.

All run EnCodec of 24 kHz as published, with the same random weights, over the same noise. Each measurement is a process
of its own, since what one of them leaves in memory would slow the next; within it come five seconds to warm up, then
encoding, then decoding. The contenders take turns, and the best of each counts. `mtk` is given a second of sound at a
time, and keeps codes alone; the others want it whole. Peak memory is the whole process's, imports included (Linux only:
VmHWM). How many codes are the package's is told beside it, and whether pieces of 1 ms to 10 s give the same.

A live stream is encoded and decoded in blocks of 100 ms as they come; its worst block is the one that took longest.

    python -m tests.benchmarks.bench_codec [--threads 4] [--seconds 10 60 600] [--rounds 3] [--kbps 6] [--hour]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PRESET = "encodec-24khz"
THEIRS = ("encodec", "transformers")
WARM_SECONDS = 5
LIVE_SECONDS, LIVE_THREADS, LATENCY_SECONDS = 30, 2, 0.1
TARGETS = {60: 2.0, 600: 3.0}  # times as fast as the faster of theirs


class Contender(NamedTuple):
    """One way to make codes of so many seconds of noise, int [K, T], and sound of codes."""

    encode: Callable[[int], NDArray[Any]]
    decode: Callable[[NDArray[Any]], object]


def noise(seconds: int, rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """So many seconds of noise that swells and fades, float32 [1, rate_hz] each."""
    for second in range(seconds):
        generator = np.random.default_rng(second)
        loudness = 0.1 + 0.05 * np.sin(second + np.linspace(0, 1, rate_hz))
        yield (generator.normal(0, 1, (1, rate_hz)) * loudness).astype(np.float32)


def pieces(sound: NDArray[np.float32], rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """Sound in pieces of 1 ms to 10 s, of whose lengths one is as likely as a tenth of it."""
    generator = np.random.default_rng(0)
    start = 0
    while start < sound.shape[1]:
        length = int(rate_hz * 10 ** generator.uniform(-3, 1))
        yield sound[:, start : start + length]
        start += length


# ---------------------------------------------------------------------------------------------------------- contenders


def of_package(kbps: float, weights: Path) -> Contender:
    """The `encodec` package."""
    model = _package_model()
    model.set_target_bandwidth(kbps)

    def encode(seconds: int) -> NDArray[Any]:
        sound = torch.from_numpy(np.concatenate(list(noise(seconds, model.sample_rate)), 1))
        ((codes, _),) = model.encode(sound[None])
        return codes[0].numpy()

    return Contender(encode, lambda codes: model.decode([(torch.from_numpy(codes)[None], None)]))


def of_transformers(kbps: float, weights: Path) -> Contender:
    """Hugging Face's, with the weights of the package's model, in the same layers in the same order."""
    from tests.models.codec_oracle import transformers_model

    source = _package_model()
    model = transformers_model(_config())
    kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.LSTM)
    layers = [[part for part in whole.modules() if isinstance(part, kinds)] for whole in (source, model)]
    with torch.no_grad():
        source.encoder(torch.zeros(1, 1, 320))  # its weight norm sets weights as they are used
        source.decoder(torch.zeros(1, 128, 1))
        for theirs, other in zip(*layers, strict=True):
            if isinstance(theirs, nn.LSTM):
                other.load_state_dict(theirs.state_dict())
            else:
                other.weight, other.bias.data = theirs.weight, theirs.bias
        for theirs, other in zip(source.quantizer.vq.layers, model.quantizer.layers, strict=True):
            other.codebook.embed.copy_(theirs._codebook.embed)

    def encode(seconds: int) -> NDArray[Any]:
        sound = torch.from_numpy(np.concatenate(list(noise(seconds, model.config.sampling_rate)), 1))
        return model.encode(sound[None], bandwidth=kbps).audio_codes[0, 0].numpy()

    return Contender(encode, lambda codes: model.decode(torch.from_numpy(codes)[None, None], [None]))


def of_mtk(kbps: float, weights: Path) -> Contender:
    """Ours, in which nothing of theirs is imported."""
    from musictool.inference.codec_streaming import CodeBlock, Decoder, Encoder, load_codec

    codec = load_codec(str(weights), "cpu")
    config = codec.model.config
    levels = config.levels_for(kbps)

    def encode(seconds: int) -> NDArray[Any]:
        encoder = Encoder(codec, levels)
        blocks = [block for second in noise(seconds, config.rate_hz) for block in encoder.push(second)]
        return np.concatenate([block.codes for block in [*blocks, *encoder.finish()]], 1)

    def decode(codes: NDArray[Any]) -> None:
        decoder = Decoder(codec)
        for start in range(0, codes.shape[1], 75):
            decoder.push(CodeBlock(codes[:, start : start + 75]))
        decoder.finish()

    return Contender(encode, decode)


CONTENDERS: dict[str, Callable[[float, Path], Contender]] = {
    "encodec": of_package,
    "transformers": of_transformers,
    "mtk": of_mtk,
}


def _config() -> Any:
    from musictool.models.registry import load_preset

    return load_preset(PRESET)


def _package_model() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tests.models.codec_oracle import package_model

        return package_model(_config())


def write_ours(weights: Path) -> None:
    """Write a model of ours with the weights of the package's."""
    from musictool.checkpoints.formats import open_checkpoint
    from musictool.checkpoints.native import ModelFacts, write_native
    from musictool.models.registry import config_to_dict, foreign_names

    torch.save(_package_model().state_dict(), weights / "x.th")
    checkpoint, _ = foreign_names(_config())["encodec"].to_ours(open_checkpoint(weights / "x.th"))
    tensors = {name: tensor.read() for name, tensor in checkpoint.tensors.items()}
    write_native(weights, tensors, ModelFacts("codec", PRESET, config_to_dict(_config())), "Random.\n")


# ---------------------------------------------------------------------------------------- each in a process of its own


def alone(name: str, seconds: int, kbps: float, folder: Path) -> dict[str, float]:
    """Figures of a contender, whose codes go to a file."""
    with torch.inference_mode():
        contender = CONTENDERS[name](kbps, folder)
        contender.decode(contender.encode(WARM_SECONDS))
        start = time.perf_counter()
        codes = contender.encode(seconds)
        middle = time.perf_counter()
        contender.decode(codes)
        end = time.perf_counter()
    np.save(folder / f"{name}.npy", codes)
    return {
        "encode": (middle - start) / seconds,
        "decode": (end - middle) / seconds,
        "megabytes": _peak_megabytes(),
    }


def live(kbps: float, folder: Path) -> dict[str, float]:
    """Figures of a stream of 100 ms, encoded and decoded as it comes."""
    from musictool.inference.codec_streaming import Decoder, Encoder, load_codec

    codec = load_codec(str(folder), "cpu")
    config = codec.model.config
    encoder = Encoder(codec, config.levels_for(kbps), latency_seconds=LATENCY_SECONDS)
    decoder = Decoder(codec, latency_seconds=LATENCY_SECONDS)
    samples = int(LATENCY_SECONDS * config.rate_hz)
    taken = []
    for second in noise(LIVE_SECONDS, config.rate_hz):
        for first in range(0, config.rate_hz, samples):
            start = time.perf_counter()
            for block in encoder.push(second[:, first : first + samples]):
                decoder.push(block)
            taken.append(time.perf_counter() - start)
    del taken[:10]
    factor = sum(taken) / len(taken) / LATENCY_SECONDS
    return {"factor": factor, "worst_ms": max(taken) * 1000, "usual_ms": float(np.median(taken)) * 1000}


def in_pieces(kbps: float, folder: Path) -> dict[str, bool]:
    """Whether sound in pieces of any size gives the codes that the package makes of the whole."""
    from musictool.inference.codec_streaming import Encoder, load_codec

    codec = load_codec(str(folder), "cpu")
    config = codec.model.config
    sound = np.concatenate(list(noise(60, config.rate_hz)), 1)
    encoder = Encoder(codec, config.levels_for(kbps))
    blocks = [block for piece in pieces(sound, config.rate_hz) for block in encoder.push(piece)]
    codes = np.concatenate([block.codes for block in [*blocks, *encoder.finish()]], 1)
    with torch.inference_mode():
        whole = of_package(kbps, folder).encode(60)
    return {"is_same": bool(np.array_equal(codes, whole))}


def _peak_megabytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 // 10**6 for line in status if line.startswith("VmHWM"))


def elsewhere(what: str, threads: int, given: argparse.Namespace, folder: Path, seconds: int = 0) -> Any:
    """What this file says when it is run in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.benchmarks.bench_codec",
        "--alone",
        what,
        "--folder",
        folder,
    ]
    command += ["--kbps", str(given.kbps), "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# -------------------------------------------------------------------------------------------------------------- report


def race(seconds: int, given: argparse.Namespace, folder: Path) -> None:
    """Print the figures of all contenders for noise of some length."""
    best: dict[str, dict[str, float]] = {}
    for turn in range(given.rounds):
        names = list(CONTENDERS)
        for name in names[turn % 3 :] + names[: turn % 3]:
            figures = elsewhere(name, given.threads, given, folder, seconds)
            known = best.setdefault(name, figures)
            best[name] = {key: min(known[key], figures[key]) for key in figures}
    codes = {name: np.load(folder / f"{name}.npy") for name in best}
    for name, figures in best.items():
        line = f"{seconds:5} s  {name:12}"
        for way in ("encode", "decode"):
            line += f"  {way} {figures[way]:.4f} (package / this {best['encodec'][way] / figures[way]:5.2f})"
        same = float((codes[name] == codes["encodec"]).mean())
        print(f"{line}  {figures['megabytes']:6,.0f} MB  codes as the package's {same:.4%}", flush=True)
    for way in ("encode", "decode"):
        ratio = min(best[name][way] for name in THEIRS) / best["mtk"][way]
        target = TARGETS.get(seconds)
        verdict = "" if target is None else f", target {target:g}: {'ok' if ratio >= target else 'MISSED'}"
        print(f"{seconds:5} s  {way} {ratio:.2f} times as fast as the faster of theirs{verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=int, nargs="*", default=[10, 60, 600])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kbps", type=float, default=6.0)
    parser.add_argument("--hour", action="store_true", help="the memory that an hour takes `mtk`, too")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        parts = {"live": live, "pieces": in_pieces}
        part = parts.get(given.alone, partial(alone, given.alone, given.seconds[0]))
        print(json.dumps(part(given.kbps, given.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ours(folder)
        for seconds in given.seconds:
            race(seconds, given, folder)
        if given.hour:
            megabytes = elsewhere("mtk", given.threads, given, folder, 3600)["megabytes"]
            print(f" 3600 s  mtk {megabytes:,} MB, target 1,000: {'ok' if megabytes < 1000 else 'OVER'}", flush=True)
        same = elsewhere("pieces", given.threads, given, folder)["is_same"]
        print(f"pieces of 1 ms to 10 s give the package's codes of the whole minute: {'yes' if same else 'NO'}")
        figures = elsewhere("live", LIVE_THREADS, given, folder)
    print(
        f"live, {LIVE_THREADS} threads, encoded and decoded by 100 ms: real-time factor {figures['factor']:.3f}, "
        f"a block {figures['usual_ms']:.1f} ms, the worst {figures['worst_ms']:.1f} ms"
    )


if __name__ == "__main__":
    main()
