"""Styles of words and sound: the same however a sound comes, and zeros of nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from musictool.checkpoints.store import Store
from musictool.errors import InputError, MissingError, UsageError
from musictool.inference.style_reading import StyleReader, open_style_reader
from musictool.inference.subwords import TOKENIZER_NAME
from musictool.models.style_encoder import StyleEncoder
from tests.small_code_models import SMALL_SAXGPT, SMALL_STYLE_ENCODER, install_code_model, install_style_encoder

RATE = SMALL_STYLE_ENCODER.front_end.rate_hz


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("styles")
    install_style_encoder(home)
    return home


@pytest.fixture(scope="module")
def reader(home: Path) -> StyleReader:
    return open_style_reader("style-encoder", store=Store(home), device="cpu")


def random_sound(seconds: float, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    count = int(seconds * RATE)
    swell = np.interp(np.arange(count), np.linspace(0, count, 9), generator.random(9))
    return (swell * generator.standard_normal(count)).astype(np.float32)


def test_words_have_a_style_of_length_1(reader):
    style = reader.of_text("slow blues")
    assert style.shape == (reader.width,) == (12,)
    assert style.norm().item() == pytest.approx(1)
    assert (style - reader.of_text("fast bebop")).abs().max() > 0.05
    assert torch.equal(style, reader.of_text(" SLOW blues "))


def test_of_no_words_and_no_sound_there_is_no_style(reader):
    assert not reader.of_text("  ").any()
    assert not reader.of_sound([]).any()
    assert not reader.of_sound([np.zeros(0, np.float32)]).any()


def test_ten_thousand_words_are_read_as_far_as_the_model_reads(reader):
    style = reader.of_text("slow blues " * 10_000)
    assert torch.equal(style, reader.of_text("slow blues " * 8))  # 16 ids
    assert not torch.equal(style, reader.of_text("slow blues " * 7))


@pytest.mark.parametrize("seconds", [0.001, 0.4, 1.0, 1.1, 1.3, 3.77, 11.0])
@pytest.mark.parametrize("cuts", [[100], [1, 7999, 8001, 20_000], list(range(0, 90_000, 997))])
def test_the_style_of_a_sound_does_not_hang_on_how_it_comes(reader, seconds, cuts):
    sound = random_sound(seconds)
    edges = [0, *(cut for cut in cuts if cut < len(sound)), len(sound)]
    style = reader.of_sound(sound[start:end] for start, end in pairwise(edges))
    torch.testing.assert_close(style, reader.of_sound([sound]), atol=1e-5, rtol=0)
    assert style.norm().item() == pytest.approx(1)


def test_the_style_of_a_long_sound_is_the_mean_of_its_windows(reader):
    sound = random_sound(3.5)
    windows = [reader.of_sound([sound[first : first + RATE]]) for first in range(0, len(sound), RATE)]
    mean = sum(weight * window for weight, window in zip([1, 1, 1, 0.5], windows, strict=True))
    torch.testing.assert_close(reader.of_sound([sound]), mean / mean.norm(), atol=1e-5, rtol=0)
    barely_more = np.concatenate([sound[: 3 * RATE], random_sound(0.2, seed=1)])
    torch.testing.assert_close(reader.of_sound([barely_more]), reader.of_sound([sound[: 3 * RATE]]))


def test_half_precision_gives_nearly_the_same_styles(home, reader):
    half = open_style_reader("style-encoder", store=Store(home), device="cpu", precision="bf16")
    sound = random_sound(2.3)
    assert half.of_text("slow blues") @ reader.of_text("slow blues") > 0.999
    assert half.of_sound([sound]) @ reader.of_sound([sound]) > 0.999
    assert half.of_text("slow blues").dtype == torch.float32


def test_what_is_no_style_encoder_or_has_no_tokenizer_is_refused(home, tmp_path):
    install_code_model(home, SMALL_SAXGPT)
    with pytest.raises(UsageError, match="no style encoder but of family saxgpt"):
        open_style_reader("saxgpt", store=Store(home))
    with pytest.raises(MissingError):
        open_style_reader("nowhere", store=Store(home))
    folder = install_style_encoder(tmp_path)
    (folder / TOKENIZER_NAME).unlink()
    with pytest.raises(InputError, match="no tokenizer"):
        open_style_reader("style-encoder", store=Store(tmp_path))


def test_it_is_a_style_encoder(reader):
    assert isinstance(reader._model, StyleEncoder)
    assert (reader.name, len(reader.sha256), reader.rate_hz) == ("style-encoder", 64, RATE)
