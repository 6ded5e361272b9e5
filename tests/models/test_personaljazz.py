"""PersonalJazz: its sizes, what adapters can reach, and styles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from musictool.checkpoints.store import Store
from musictool.errors import UsageError
from musictool.inference.model_description import describe_model
from musictool.models.personaljazz import PersonalJazzConfig
from musictool.models.registry import build_model, config_from_dict, load_preset
from tests.small_code_models import SMALL_PERSONALJAZZ, random_code_model, random_styles


def test_the_preset_has_the_shape_that_is_described(tmp_path):
    model = build_model(load_preset("personaljazz"), "meta")
    width, layers = 1024, 24
    matrices = [value for name, value in model.decoder.named_parameters() if value.dim() == 2]
    assert sum(value.numel() for value in matrices) == layers * 12 * width**2 == 301_989_888
    norms = (2 * layers + 1) * width
    codes = 8 * (2048 + 1) * width + 8 * 2048 * width
    style = 512 * width + width
    expected = layers * 12 * width**2 + norms + codes + style
    assert describe_model("personaljazz", store=Store(tmp_path)).parameters == expected


@pytest.mark.parametrize("preset", ["personaljazz", "personaljazz-small"])
def test_presets_say_the_codes_of_their_codecs(preset):
    config = load_preset(preset)
    codec = load_preset(config.codec)
    assert (config.codebooks, config.codebook_size) == (codec.codebooks, codec.codebook_size)
    assert codec.frame_rate_hz == 75
    assert config.frames_max / codec.frame_rate_hz == 30


@torch.inference_mode()
def test_how_long_ago_a_step_was_counts():
    model = random_code_model(replace(SMALL_PERSONALJAZZ, layers=1))
    steps = torch.randint(0, model.special_id, (1, 8, 9), generator=torch.Generator().manual_seed(0))
    other = steps[..., [0, 5, 2, 3, 4, 1, 6, 7, 8]]
    style = random_styles(1)
    assert (model(other, style) - model(steps, style))[..., -1, :].abs().max() > 0.01


@torch.inference_mode()
def test_no_style_is_a_style_of_its_own():
    model = random_code_model(SMALL_PERSONALJAZZ)
    steps = torch.full((1, 8, 1), model.special_id)
    nothing = model(steps, torch.zeros(1, SMALL_PERSONALJAZZ.style_width))
    assert nothing.std() > 0.5
    model.style.none.add_(1.0)
    assert not torch.allclose(model(steps, torch.zeros(1, SMALL_PERSONALJAZZ.style_width)), nothing, atol=0.01)
    style = random_styles(1)
    said = model(steps, style)
    model.style.none.add_(1.0)
    assert torch.equal(model(steps, style), said)


def test_a_style_weighs_as_much_as_a_step_of_codes():
    torch.manual_seed(0)
    model = build_model(PersonalJazzConfig(width=256, heads=4, hidden=64, layers=1))
    with torch.no_grad():
        steps = model.embedding(torch.randint(0, 2048, (1, 8, 50)))
        first = model.style(random_styles(50, 512))
        nothing = model.style(torch.zeros(1, 512))
    for made in (steps, first, nothing):
        assert made.square().mean().sqrt().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"width": 0}, {"codebooks": 0}, {"frames_max": 0}, {"layer": 3}])
def test_numbers_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(UsageError):
        config_from_dict({"family": "personaljazz", **wrong})
