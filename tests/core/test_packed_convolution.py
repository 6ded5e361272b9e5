"""Packed layers say what the layers they are made of say, in any memory order, whole and in chunks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.core.convolution import (
    Activation,
    Chain,
    Convolution,
    Recurrence,
    ResidualUnit,
    TransposedConvolution,
)
from musictool.core.packed_convolution import PackedActivation, can_pack_convolutions, pack_convolutions
from musictool.core.quantizer import ResidualQuantizer

pytestmark = pytest.mark.skipif(not can_pack_convolutions(), reason="this torch has no oneDNN")


def packed(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A packed copy, in which nothing is left that could be packed."""
    copied = copy.deepcopy(module)
    pack_convolutions(copied, dtype)
    plain = (nn.Conv1d, nn.ConvTranspose1d, nn.LSTM)
    assert not any(isinstance(part, plain) or type(part) is Activation for part in copied.modules())
    return copied


def chain(*, is_causal: bool = True, has_norm: bool = False) -> Chain:
    """Every kind of layer there is, from [B, 2, N] to [B, 2, N]."""
    options = {"is_causal": is_causal, "has_norm": has_norm}
    return Chain(
        [
            Convolution(2, 6, 7, **options),
            ResidualUnit(
                Convolution(6, 3, 3, dilation=2, **options),
                Convolution(3, 6, 1, **options),
                Convolution(6, 6, 1, **options),
            ),
            Activation(),
            Convolution(6, 20, 8, stride=4, **options),
            Recurrence(20, 2),
            TransposedConvolution(20, 6, 8, 4, **options),
            ResidualUnit(Convolution(6, 3, 3, **options), Convolution(3, 6, 1, **options), None),
            Convolution(6, 2, 7, **options),
        ]
    )


def drawn(samples: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 2, samples, generator=torch.Generator().manual_seed(samples))


@torch.inference_mode()
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_packed_layers_say_what_plain_layers_say(has_norm, is_causal, batch):
    torch.manual_seed(0)
    plain = chain(is_causal=is_causal, has_norm=has_norm)
    fast = packed(plain)
    for samples in (1, 3, 4, 30, 1001):
        torch.testing.assert_close(fast(drawn(samples, batch)), plain(drawn(samples, batch)), rtol=0, atol=4e-6)


@torch.inference_mode()
@pytest.mark.parametrize("is_causal", [False, True])
def test_packed_layers_in_chunks_say_what_they_say_of_the_whole(is_causal):
    torch.manual_seed(0)
    fast = packed(chain(is_causal=is_causal))
    assert isinstance(fast, Chain)
    x = drawn(203, 2)
    state = fast.begin()
    sizes = [0, 1, 1, 2, 3, 0, 40, 5, 100, 51]
    parts = [fast.step(part, state, number == len(sizes) - 1) for number, part in enumerate(x.split(sizes, dim=-1))]
    torch.testing.assert_close(torch.cat(parts, -1), fast(x), rtol=0, atol=2e-6)


@torch.inference_mode()
def test_memory_order_makes_no_difference():
    torch.manual_seed(0)
    fast = packed(chain())
    x = drawn(100, 2)
    side_by_side = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert side_by_side.stride() != x.stride()
    torch.testing.assert_close(fast(side_by_side), fast(x), rtol=0, atol=2e-6)


@torch.inference_mode()
def test_a_packed_activation_is_torchs_of_any_number():
    x = torch.cat(
        [torch.linspace(-120, 10, 4001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3e38, -3e38, torch.inf, -torch.inf])]
    )
    y = PackedActivation()(x)
    torch.testing.assert_close(y, functional.elu(x), rtol=0, atol=2e-7)
    assert torch.isnan(PackedActivation()(torch.tensor([torch.nan]))).all()


@torch.inference_mode()
def test_a_norm_of_a_small_signal_on_a_large_offset_keeps_its_digits():
    torch.manual_seed(0)
    plain = Convolution(2, 6, 1, has_norm=True)
    plain.conv.bias.add_(30.0)
    exact = copy.deepcopy(plain).double()
    wanted = exact(drawn(1000).double())
    torch.testing.assert_close(packed(plain)(drawn(1000)).double(), wanted, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_packed_codebooks_find_the_same_entries():
    torch.manual_seed(0)
    plain = ResidualQuantizer(4, 50, 12)
    fast = packed(plain)
    latents = torch.randn(2, 12, 300)
    codes = plain.encode(latents)
    assert codes.unique().numel() == 50
    assert torch.equal(fast.encode(latents), codes)
    assert torch.equal(fast.encode(latents, 2), codes[:, :2])
    assert torch.equal(fast.decode(codes), plain.decode(codes))


@torch.inference_mode()
def test_bfloat16_is_near():
    torch.manual_seed(0)
    plain = chain()
    wanted, rough = plain(drawn(400)), packed(plain, torch.bfloat16)(drawn(400))
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, wanted)
    assert (rough - wanted).std() < 0.03 * wanted.std()
