"""The style encoder: one space for words and sound, whatever stands beside them in a batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from musictool.audio.spectrogram import LogMelConfig
from musictool.errors import UsageError
from musictool.inference.precision import make_ready
from musictool.models.registry import build_model, config_from_dict, config_to_dict, load_preset
from musictool.models.style_encoder import StyleEncoder
from tests.small_code_models import SMALL_STYLE_ENCODER

CONFIG = SMALL_STYLE_ENCODER
BINS, STYLE = CONFIG.front_end.bins, CONFIG.style_width


@pytest.fixture
def model() -> StyleEncoder:
    torch.manual_seed(1)
    made = build_model(CONFIG)
    assert isinstance(made, StyleEncoder)
    return made.eval()


def random_text(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    visible = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randint(0, CONFIG.vocabulary, visible.shape, generator=torch.Generator().manual_seed(seed)), visible


def random_frames(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frames, float [B, F, M], behind whose ends stands something else, and which are theirs."""
    visible = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    noise = torch.randn(*visible.shape, BINS, generator=torch.Generator().manual_seed(seed))
    return 4 * noise - 3, visible


def assert_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_text_does_not_depend_on_those_beside_it(model):
    ids, visible = random_text(9, 4, 1)
    together = model.encode_text(ids, visible)
    alone = [model.encode_text(row[seen][None]) for row, seen in zip(ids, visible, strict=True)]
    assert_close(together, torch.cat(alone))
    assert (together[0] - together[1]).abs().max() > 0.1


@torch.inference_mode()
@pytest.mark.parametrize("longest", [40, 41, 42, 43])
def test_a_stretch_of_sound_does_not_depend_on_those_beside_it(model, longest):
    frames, visible = random_frames(longest, 37, 18, 5, 2, 1)
    together = model.encode_audio(frames, visible)
    alone = [model.encode_audio(row[seen][None]) for row, seen in zip(frames, visible, strict=True)]
    assert_close(together, torch.cat(alone))
    assert (together[0] - together[1]).abs().max() > 0.1


@torch.inference_mode()
def test_styles_have_length_1_and_that_of_nothing_has_none(model):
    ids, visible = random_text(9, 4)
    frames, seen = random_frames(30, 12)
    for styles in (model.encode_text(ids, visible), model.encode_audio(frames, seen)):
        assert styles.shape == (2, STYLE)
        assert_close(styles.norm(dim=-1), torch.ones(2))
    visible[1], seen[1] = False, False
    for styles in (model.encode_text(ids, visible), model.encode_audio(frames, seen)):
        assert styles[0].norm().item() == pytest.approx(1)
        assert not styles[1].any()


@torch.inference_mode()
def test_the_order_of_words_and_of_frames_counts(model):
    ids, _ = random_text(9)
    frames, _ = random_frames(30)
    assert (model.encode_text(ids.flip(1)) - model.encode_text(ids)).abs().max() > 0.01
    assert (model.encode_audio(frames.flip(1)) - model.encode_audio(frames)).abs().max() > 0.01


@torch.inference_mode()
@pytest.mark.parametrize("frame", [0, 1, 2, 3, 28, 29])
def test_every_frame_is_heard(model, frame):
    frames, _ = random_frames(30)
    changed = frames.clone()
    changed[0, frame] += 4
    assert (model.encode_audio(changed) - model.encode_audio(frames)).abs().max() > 1e-3


@torch.inference_mode()
def test_logits_are_similarities_over_the_temperature(model):
    text, sound = random_text(9, 4, 2), random_frames(30, 12, 8)
    expected = model.encode_text(*text) @ model.encode_audio(*sound).T
    assert_close(model(*text, *sound), expected / 0.07)
    model.contrast.log_scale.fill_(20.0)
    assert_close(model(*text, *sound), expected * 100)


def test_every_parameter_learns():
    torch.manual_seed(1)
    model = build_model(CONFIG)
    model(*random_text(9, 4), *random_frames(30, 12)).log_softmax(-1).diagonal().sum().backward()
    assert [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_say_nearly_the_same(model, dtype):
    text, sound = random_text(9, 4), random_frames(30, 12)
    expected = torch.cat([model.encode_text(*text), model.encode_audio(*sound)])
    half = model.to(dtype)
    got = torch.cat([half.encode_text(*text), half.encode_audio(*sound)])
    assert got.dtype == torch.float32
    assert (got * expected).sum(-1).min() > 0.999


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_made_ready_says_nearly_the_same(model, precision):
    text, sound = random_text(9, 4), random_frames(30, 12)
    expected = torch.cat([model.encode_text(*text), model.encode_audio(*sound)])
    ready = make_ready(model, torch.device("cpu"), precision)
    got = torch.cat([ready.encode_text(*text), ready.encode_audio(*sound)])
    assert (got * expected).sum(-1).min() > 0.999


def test_fresh_layers_keep_sizes():
    torch.manual_seed(0)
    wide = replace(CONFIG.audio, width=256, heads=4)
    model = build_model(replace(CONFIG, audio=wide, front_end=LogMelConfig(bins=96))).eval()
    seen = []
    model.audio.stack.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    frames = 4 * torch.randn(2, 40, 96) - 3
    with torch.no_grad():
        model.encode_audio(frames)
    assert seen[0].square().mean().sqrt().item() == pytest.approx(1, abs=0.4)


def test_the_preset_makes_the_styles_that_personaljazz_takes():
    config = load_preset("style-encoder")
    assert config.style_width == load_preset("personaljazz").style_width == 512
    assert load_preset("personaljazz").style_encoder == "style-encoder"
    assert config.window_frames == 500


def test_a_configuration_survives_being_written():
    assert config_from_dict(config_to_dict(CONFIG)) == CONFIG


@pytest.mark.parametrize(
    "wrong", [{"text": {"heads": 3}}, {"style_width": 0}, {"window_seconds": 0.001}, {"audio": {"layer": 3}}]
)
def test_numbers_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(UsageError):
        config_from_dict({"family": "style-encoder", **wrong})
