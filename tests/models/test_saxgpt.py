"""SaxGPT: its sizes, how far it reaches, and what it sees of a backing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from musictool.core.positions import waves
from musictool.errors import UsageError
from musictool.inference.codes_generation import generate_codes
from musictool.models.registry import build_model, config_from_dict, config_to_dict, load_preset
from musictool.models.saxgpt import SaxGPT
from tests.small_code_models import SMALL_SAXGPT, random_backings, random_code_model

SPECIAL = SMALL_SAXGPT.special_id


@pytest.fixture(scope="module")
def model() -> SaxGPT:
    return random_code_model(SMALL_SAXGPT)


def random_steps(model: SaxGPT, frames: int) -> torch.Tensor:
    codes = torch.randint(0, SPECIAL, (1, 8, frames), generator=torch.Generator().manual_seed(5))
    return model.pattern.spread(codes, SPECIAL)


@pytest.mark.parametrize(
    ("size", "width", "heads", "layers"),
    [("xsmall", 128, 2, 4), ("small", 256, 4, 6), ("medium", 384, 6, 6), ("large", 512, 8, 8), ("xlarge", 768, 12, 12)],
)
def test_presets_have_the_shapes_that_are_described(size, width, heads, layers):
    config = load_preset(f"saxgpt-{size}")
    assert (config.width, config.heads, config.hidden) == (width, heads, 4 * width)
    assert (config.encoder_layers, config.decoder_layers, config.positions) == (layers, layers, 1505)
    assert config.distance_bias
    codec = load_preset(config.codec)
    assert (config.codebooks, config.codebook_size) == (codec.codebooks, codec.codebook_size) == (4, 2048)
    assert (codec.rate_hz, codec.frame_rate_hz) == (32_000, 50)
    model = build_model(config, "meta")
    matrices = layers * (12 + 16) * width**2
    norms = ((2 + 3) * layers + 2) * 2 * width
    tables = 4 * 2049 * width + 1505 * width
    heads_of_codes = 4 * 2048 * width
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == matrices + norms + tables + heads_of_codes


def test_codebook_k_begins_at_step_k_plus_1():
    assert build_model(load_preset("saxgpt-xsmall"), "meta").pattern.offsets == (0, 1, 2, 3)


@torch.inference_mode()
def test_there_is_room_for_as_many_frames_as_it_says(model):
    most = SMALL_SAXGPT.frames_max
    assert load_preset("saxgpt-small").frames_max == 1501
    backing = random_backings(most)
    assert model(random_steps(model, most), backing).isfinite().all()
    assert sum(1 for _ in generate_codes(model, backing, most)) == most
    with pytest.raises(ValueError, match="81 steps, and the model knows 80"):
        model(random_steps(model, most + 1), backing)
    with pytest.raises(ValueError, match="81 steps, and the model knows 80"):
        next(generate_codes(model, backing, most + 2))
    with pytest.raises(ValueError, match="81 steps, and the model knows 80"):
        model(random_steps(model, 3), random_backings(80))


@torch.inference_mode()
def test_the_lead_hears_all_of_the_backing_at_every_step(model):
    backing, steps = random_backings(30), random_steps(model, 21)
    said = model(steps, backing)
    for frame in (0, 15, 29):
        for codebook in (0, 7):
            changed = backing.clone()
            changed[0, codebook, frame] = (changed[0, codebook, frame] + 1) % SPECIAL
            assert (model(steps, changed) - said).abs().amax((0, 1, 3)).min() > 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("distance_bias", [True, False])
def test_what_sounds_when_is_heard_without_learning_where_there_is_a_bias(distance_bias):
    config = replace(SMALL_SAXGPT, distance_bias=distance_bias)
    model = random_code_model(config)
    model.positions.weight.zero_()  # else they tell what is where, though it takes learning to use that
    backing, steps = random_backings(60), random_steps(model, 60)
    later = (model(steps, backing.roll(20, -1)) - model(steps, backing)).square().mean().sqrt()
    another = (model(steps, random_backings(60, seed=9)) - model(steps, backing)).square().mean().sqrt()
    assert (later > 0.5 * another) == distance_bias


def test_a_model_that_says_nothing_of_a_bias_was_trained_without():
    said = config_to_dict(SMALL_SAXGPT)
    del said["distance_bias"]
    assert not config_from_dict(said).distance_bias


@torch.inference_mode()
def test_frames_with_fewer_codebooks_are_heard(model):
    backing, steps = random_backings(30), random_steps(model, 21)
    backing[:, 4:] = SPECIAL
    without = torch.full_like(backing, SPECIAL)
    assert (model(steps, backing) - model(steps, without)).abs().max() > 0.1


@torch.inference_mode()
def test_where_there_is_no_backing_there_is_still_something_to_see(model):
    for nothing in (torch.full((2, 8, 5), SPECIAL), torch.zeros(2, 8, 0, dtype=torch.int64)):
        visible = model.remember(nothing).visible
        assert visible.any(1).all()  # attention to nothing is not a number on every device
        assert visible.sum() == 2


def test_fresh_codes_are_of_size_1_once_scaled():
    torch.manual_seed(0)
    fresh = build_model(replace(load_preset("saxgpt-small"), encoder_layers=1, decoder_layers=1))
    place = torch.arange(50)
    with torch.no_grad():
        codes = fresh._placed(torch.randint(0, 2048, (1, 4, 50)), place) - fresh.positions(place)
    assert codes.square().mean().sqrt().item() == pytest.approx(1, abs=0.1)
    assert fresh.positions.weight.square().mean().sqrt().item() == pytest.approx(0.5**0.5, abs=0.01)


def test_what_sounds_together_stands_at_the_same_position(model):
    assert model.pattern.first_step(0) == model._backing_pattern.first_step(0) == 1
    fresh = build_model(SMALL_SAXGPT)
    torch.testing.assert_close(fresh.positions.weight.data, waves(torch.arange(80), 32))


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"width": 2}, {"codebooks": 0}, {"positions": 4}, {"layers": 3}])
def test_numbers_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(UsageError):
        config_from_dict({"family": "saxgpt", **wrong})


def test_it_can_be_built_over_the_codes_of_another_codec():
    codec = load_preset("codec-24khz")
    config = replace(
        load_preset("saxgpt-xsmall"),
        codec="codec-24khz",
        codebooks=codec.codebooks,
        codebook_size=codec.codebook_size,
    )
    assert build_model(config, "meta").heads.linear.out_features == 8 * 1024
