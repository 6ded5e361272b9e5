"""Attention at several scales of time, against averages, attention and interpolation done one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.core.attention import Attention, Sight, padding_mask
from musictool.core.multiscale import MultiScaleAttention, MultiScaleBlock, TimeScale, TimeScales
from musictool.core.positions import Rotary, Rotation

WIDTH, HEADS = 24, 6
HEAD_WIDTH = WIDTH // HEADS


def build_attention(seed: int = 0, heads: int = HEADS, scales: tuple[int, ...] = (1, 2, 4)) -> MultiScaleAttention:
    """With gates that are not all the same."""
    torch.manual_seed(seed)
    module = MultiScaleAttention(WIDTH, heads, scales)
    nn.init.normal_(module.gate.weight, std=0.3)
    nn.init.normal_(module.gate.bias, std=0.3)
    return module.eval()


def build_block(seed: int = 0) -> MultiScaleBlock:
    torch.manual_seed(seed)
    return MultiScaleBlock(WIDTH, HEADS, 40).eval()


def test_outputs_are_averaging_attention_and_interpolation_one_after_the_other():
    module, x = build_attention(), torch.randn(2, 16, WIDTH)
    gates = 2 * module.gate(x).sigmoid()
    expected = torch.zeros_like(x)
    for place, scale in enumerate((1, 2, 4)):
        averages = functional.avg_pool1d(x.transpose(1, 2), scale).transpose(1, 2)
        rotation = Rotary(HEAD_WIDTH)(torch.arange(16 // scale) * float(scale) + (scale - 1) / 2)
        attended = module.attentions[place](averages, rotation=rotation)
        back = functional.interpolate(attended.transpose(1, 2), scale_factor=scale, mode="linear").transpose(1, 2)
        expected = expected + gates[..., place, None] * back
    torch.testing.assert_close(module(x, TimeScales(HEAD_WIDTH)(x)), expected, atol=1e-5, rtol=1e-5)


def test_scale_1_alone_is_plain_attention():
    torch.manual_seed(1)
    module, x = MultiScaleAttention(WIDTH, HEADS, (1,)), torch.randn(2, 9, WIDTH)
    plain = Attention(WIDTH, HEADS)
    plain.load_state_dict(module.attentions[0].state_dict())
    visible = padding_mask(torch.tensor([9, 5]), 9)
    expected = plain(x, Sight(visible[:, None, None]), rotation=Rotary(HEAD_WIDTH)(torch.arange(9)))
    torch.testing.assert_close(module(x, TimeScales(HEAD_WIDTH, (1,))(x, visible)), expected)


def test_scales_change_what_comes_out():
    module, x = build_attention(), torch.randn(1, 16, WIDTH)
    coarse, fine = module(x, TimeScales(HEAD_WIDTH)(x)), module(x, TimeScales(HEAD_WIDTH, (1, 1, 1))(x))
    assert (coarse - fine).abs().max() > 0.05


def test_gradients_reach_the_parameters_of_every_scale():
    torch.manual_seed(2)
    module, x = MultiScaleAttention(WIDTH, HEADS), torch.randn(2, 13, WIDTH)
    module(x, TimeScales(HEAD_WIDTH)(x)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        rows = parameter.grad.reshape(len(parameter), -1)
        assert (rows.abs().sum(1) > 1e-5).all(), name


def test_all_scales_together_cost_what_one_does_and_a_gate():
    module = MultiScaleAttention(32, 8)
    assert [attention.heads for attention in module.attentions] == [3, 3, 2]
    assert sum(p.numel() for p in module.parameters()) == 4 * 32**2 + (32 + 1) * 3
    x = torch.randn(1, 10, 32)
    assert module(x, TimeScales(4)(x)).shape == x.shape


def test_rows_of_every_length_come_out_as_if_alone():
    block, looks = build_block(), TimeScales(HEAD_WIDTH)
    x, modulation = torch.randn(17, 17, WIDTH), torch.randn(17, 6, WIDTH)
    together = block(x, modulation, looks(x, padding_mask(torch.arange(1, 18), 17)))
    assert together.isfinite().all()
    for row, length in enumerate(range(1, 18)):
        alone = x[row : row + 1, :length]
        expected = block(alone, modulation[row : row + 1], looks(alone))
        torch.testing.assert_close(together[row : row + 1, :length], expected, atol=1e-5, rtol=1e-5)


def test_padding_in_front_changes_nothing_either():
    module, looks = build_attention(), TimeScales(HEAD_WIDTH)
    x = torch.randn(1, 15, WIDTH)
    visible = torch.arange(15)[None] >= 4
    torch.testing.assert_close(
        module(x, looks(x, visible))[:, 4:], module(x[:, 4:], looks(x[:, 4:])), atol=1e-5, rtol=1e-5
    )


def test_what_lies_in_padding_and_in_gaps_does_not_matter():
    module, looks = build_attention(), TimeScales(HEAD_WIDTH)
    x = torch.randn(2, 14, WIDTH)
    visible = torch.ones(2, 14, dtype=torch.bool)
    visible[0, 9:] = False
    visible[1, [0, 3, 4, 5, 6, 7, 12]] = False  # one average of four is empty
    other = torch.where(visible[..., None], x, 100 * torch.randn_like(x))
    scales = looks(x, visible)
    assert torch.equal(module(x, scales)[visible], module(other, scales)[visible])


def test_a_mask_of_all_frames_is_no_mask():
    module, looks, x = build_attention(), TimeScales(HEAD_WIDTH), torch.randn(2, 11, WIDTH)
    everything = torch.ones(2, 11, dtype=torch.bool)
    torch.testing.assert_close(module(x, looks(x)), module(x, looks(x, everything)))


def unturned(scales: list[TimeScale]) -> list[TimeScale]:
    """The same scales without positions."""
    return [
        scale._replace(rotation=Rotation(torch.ones(HEAD_WIDTH // 2), torch.zeros(HEAD_WIDTH // 2))) for scale in scales
    ]


def test_time_reversed_comes_out_reversed():
    module, x = build_attention(), torch.randn(2, 16, WIDTH)
    scales = unturned(TimeScales(HEAD_WIDTH)(x))
    torch.testing.assert_close(module(x.flip(1), scales), module(x, scales).flip(1), atol=1e-5, rtol=1e-5)


def respond(scale: int, x: Tensor) -> Tensor:
    """What averaging and interpolation make of a signal, float [T]."""
    (at,) = TimeScales(HEAD_WIDTH, (scale,))(x[None, :, None])
    assert at.resampling is not None
    return (at.resampling.up @ at.resampling.down @ x[:, None])[0, :, 0]


@pytest.mark.parametrize("scale", [2, 4])
def test_an_impulse_spreads_evenly_about_its_average(scale):
    for frame in range(8, 16):
        response = respond(scale, functional.one_hot(torch.tensor(frame), 24).float())
        middle = frame // scale * scale + (scale - 1) / 2
        assert float(response.sum()) == pytest.approx(1.0)
        for t in range(24):
            mirrored = round(2 * middle - t)
            assert response[t] == pytest.approx(float(response[mirrored]) if 0 <= mirrored < 24 else 0.0, abs=1e-6)
        assert response.argmax() // scale == frame // scale
        assert (response > 0).sum() == 2 * scale


@pytest.mark.parametrize("scale", [2, 4])
def test_a_ramp_stays_where_it_is(scale):
    ramp = torch.arange(24.0)
    inner = slice(scale, -scale)
    torch.testing.assert_close(respond(scale, ramp)[inner], ramp[inner])


def test_averages_stand_where_their_frames_do():
    x, visible = torch.zeros(2, 7, WIDTH), padding_mask(torch.tensor([7, 5]), 7)
    one, two, four = TimeScales(HEAD_WIDTH)(x, visible)
    rotary = Rotary(HEAD_WIDTH)
    torch.testing.assert_close(one.rotation, rotary(torch.arange(7)))
    torch.testing.assert_close(two.rotation, rotary(torch.tensor([[0.5, 2.5, 4.5, 6.0], [0.5, 2.5, 4.0, 0.0]])))
    torch.testing.assert_close(four.rotation, rotary(torch.tensor([[1.5, 5.0], [1.5, 4.0]])))
    assert two.sight.mask is not None
    assert two.sight.mask[:, 0, 0].tolist() == [[True] * 4, [True, True, True, False]]


def test_a_closed_gate_silences_its_scale():
    module, x = build_attention(), torch.randn(1, 12, WIDTH)
    scales = TimeScales(HEAD_WIDTH)(x)
    with torch.no_grad():
        module.gate.weight.zero_()
        module.gate.bias.copy_(torch.tensor([0.0, -100.0, 0.0]))
        before = module(x, scales)
        module.attentions[1].value.weight.normal_()
        assert torch.equal(module(x, scales), before)
        module.attentions[2].value.weight.normal_()
        assert not torch.equal(module(x, scales), before)


def test_a_block_is_its_formula():
    block, x, modulation = build_block(), torch.randn(2, 9, WIDTH), torch.randn(2, 6, WIDTH)
    scales = TimeScales(HEAD_WIDTH)(x)

    def part(k: int) -> Tensor:
        return modulation[:, k : k + 1]

    h = functional.layer_norm(x, (WIDTH,)) * (1 + part(1)) + part(0)
    y = x + part(2) * block.attention(h, scales)
    h = functional.layer_norm(y, (WIDTH,)) * (1 + part(4)) + part(3)
    expected = y + part(5) * block.feed_forward(h)
    torch.testing.assert_close(block(x, modulation, scales), expected)
    of_each_frame = modulation[:, None].expand(-1, 9, -1, -1)
    torch.testing.assert_close(block(x, of_each_frame, scales), expected)


def test_a_block_without_modulation_gives_its_input_back():
    block, x = build_block(), torch.randn(2, 9, WIDTH)
    assert torch.equal(block(x, torch.zeros(2, 6, WIDTH), TimeScales(HEAD_WIDTH)(x)), x)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: MultiScaleAttention(10, 3), "no multiple of 3 heads"),
        (lambda: MultiScaleAttention(10, 2), "too few for 3 scales"),
        (lambda: TimeScales(4, (1, 0)), "from 1 upwards"),
    ],
)
def test_what_makes_no_sense_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
