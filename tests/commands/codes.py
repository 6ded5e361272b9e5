"""Sounds, and streams of codes, for the tests of what makes and reads them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile

from musictool.stream.reader import ItemReader, StreamReader
from musictool.stream.writer import StreamWriter

RATE = 24_000


def sound(seconds: float, rate_hz: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Gliding tones in noise, float32 [n, C], within -0.6..0.6."""
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = [np.sin(2 * np.pi * (200 + 90 * channel + 40 * times) * times) for channel in range(channels)]
    noise = generator.normal(0, 0.02, (len(times), channels))
    return (0.4 * np.stack(tones, axis=1) + noise).astype(np.float32)


def wav(samples: np.ndarray, rate_hz: int = RATE, **options: Any) -> bytes:
    """A sound file's bytes."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=options.pop("format", "WAV"), **options)
    return file.getvalue()


def items_of(stream: bytes) -> dict[str, tuple[ItemReader, np.ndarray]]:
    """The items of a stream of codes by name, each checked and with its codes."""
    found = {}
    for item in StreamReader(io.BytesIO(stream), lambda head: None):
        chunks = list(item.chunks())
        found[item.head.item] = (item, np.concatenate(chunks, axis=1) if chunks else np.zeros((0, 0), np.int32))
    return found


def rewritten(stream: bytes, *, codes: np.ndarray | None = None, scales: Any = None, **changes: Any) -> bytes:
    """The only item of a stream with other codes, or another head or end: whole and sealed all the same."""
    from dataclasses import replace

    ((item, own),) = items_of(stream).values()
    ends = {key: changes.pop(key) for key in ("samples", "source_samples") if key in changes}
    sink = io.BytesIO()
    with StreamWriter(sink).item(replace(item.head, **changes)) as written:
        written.write(own if codes is None else codes, () if scales is None else scales)
        assert item.closing is not None
        written.samples = ends.get("samples", item.closing.samples)
        written.source_samples = ends.get("source_samples", item.closing.source_samples)
    return sink.getvalue()
