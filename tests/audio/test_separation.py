"""Mixes taken apart: parts add up, lengths stay, memory is bounded, and what is missing is said."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.audio import separation
from musictool.audio.separation import Separator
from musictool.errors import MissingError, UsageError
from tests.demucs_stub import install_demucs, remove_demucs


def mix(frames: int, rate_hz: int, channels: int) -> np.ndarray:
    time = np.arange(frames) / rate_hz
    sound = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 3000 * time)
    return np.stack([sound * (1 - 0.3 * channel) for channel in range(channels)], axis=1).astype(np.float32)


@pytest.mark.parametrize(("rate_hz", "channels"), [(32_000, 1), (44_100, 2), (22_050, 2)])
def test_parts_add_up_and_are_as_long_as_the_mix(monkeypatch, rate_hz, channels):
    install_demucs(monkeypatch)
    monkeypatch.setattr(separation, "STRETCH_SECONDS", 1.0)
    monkeypatch.setattr(separation, "AROUND_SECONDS", 0.2)
    sound = mix(rate_hz * 3 + 123, rate_hz, channels)
    blocks = (sound[start : start + 7777] for start in range(0, len(sound), 7777))
    separator = Separator("any", "other", "cpu")
    pieces = list(separator.separated(blocks, rate_hz, channels, len(sound), float(sound.std())))
    lead, rest = (np.concatenate([piece[part] for piece in pieces]) for part in range(2))
    assert lead.shape == rest.shape == sound.shape
    inner = slice(rate_hz // 10, -rate_hz // 10)
    np.testing.assert_allclose(lead[inner], 0.25 * sound[inner], atol=1e-4)
    np.testing.assert_allclose((lead + rest)[inner], sound[inner], atol=1e-4)


def test_long_sound_is_worked_on_in_stretches(monkeypatch):
    shapes = install_demucs(monkeypatch)
    monkeypatch.setattr(separation, "STRETCH_SECONDS", 2.0)
    monkeypatch.setattr(separation, "AROUND_SECONDS", 0.5)
    sound = mix(44_100 * 7, 44_100, 2)
    list(Separator("any", "other", "cpu").separated([sound], 44_100, 2, len(sound), 0.2))
    assert shapes == [(1, 2, 3 * 44_100)] * 3 + [(1, 2, 2 * 44_100)]


def test_a_stem_or_model_that_is_not_there_is_named(monkeypatch):
    install_demucs(monkeypatch)
    with pytest.raises(UsageError, match="saxophone") as caught:
        Separator("any", "saxophone", "cpu")
    assert "drums, other, vocals" in caught.value.hint
    with pytest.raises(MissingError, match="neither a single"):
        Separator("nonsense", "other", "cpu")


def test_without_demucs_it_says_what_to_install(monkeypatch):
    remove_demucs(monkeypatch)
    with pytest.raises(MissingError, match="Demucs") as caught:
        Separator("any", "other", "cpu")
    assert caught.value.hint == "pip install 'musictool[separate]'"
