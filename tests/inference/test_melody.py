"""Chroma of a melody: what MusicGen's own feature extractor finds, however the sound is cut."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from musictool.inference.melody import RATE_HZ, chroma_of, pitch_class_filters, read_melody


def scale(samples: int) -> np.ndarray:
    """Three semitones a second, upwards, in a little noise: float32 [n]."""
    times = np.arange(samples) / RATE_HZ
    rate_hz = 220 * 2 ** (np.floor(3 * times) % 24 / 12)
    noise = np.random.default_rng(0).normal(0, 0.05, samples)
    return (0.5 * np.sin(2 * np.pi * np.cumsum(rate_hz) / RATE_HZ) + noise).astype(np.float32)


def clicks(samples: int) -> np.ndarray:
    """One sample in a thousand, float32 [n]: a sample more or less at an edge changes what is found there."""
    generator = np.random.default_rng(1)
    return ((generator.random(samples) < 1e-3) * generator.normal(0, 0.5, samples)).astype(np.float32)


@pytest.fixture(scope="module")
def extractor():
    pytest.importorskip("torchaudio")
    return pytest.importorskip("transformers").MusicgenMelodyFeatureExtractor()


def test_the_filters_are_those_of_transformers(extractor):
    assert torch.equal(pitch_class_filters(), extractor.chroma_filters)


EDGES = (1, 100, 16_383, 16_384, 20_000)


@pytest.mark.parametrize(
    ("make", "samples"),
    [*((scale, samples) for samples in (*EDGES, 100_001)), *((clicks, samples) for samples in EDGES)],
)
def test_chroma_is_that_of_transformers(extractor, make, samples):
    sound = make(samples)
    expected = extractor(sound, sampling_rate=RATE_HZ, return_tensors="pt").input_features[0]
    chroma = chroma_of([sound])
    assert torch.equal(chroma, expected)
    assert len(chroma.argmax(1).unique()) > 4 or samples < 100_000


@pytest.mark.parametrize("size", [1000, 4096, 16_384, 33_333])
def test_chroma_does_not_depend_on_how_sound_is_cut(size):
    sound = scale(70_000)
    parts = [sound[begin : begin + size] for begin in range(0, len(sound), size)]
    assert torch.equal(chroma_of(parts), chroma_of([sound]))


def test_a_tone_is_its_pitch_class_at_any_rate_and_in_any_channels(tmp_path):
    times = np.arange(44_100) / 44_100
    tone = np.sin(2 * np.pi * 440 * times)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone, 0.5 * tone], axis=1), 44_100)
    chroma, sha256 = read_melody(path)
    assert chroma.argmax(1).tolist() == [9] * len(chroma)
    assert len(chroma) == 32_000 // 4096 + 1
    assert len(sha256) == 64


def test_silence_is_no_melody():
    assert chroma_of([np.zeros(40_000, np.float32)]).argmax(1).unique().tolist() == [0]
