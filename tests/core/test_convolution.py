"""Layers that read in chunks: chunks equal the whole, lengths are EnCodec's, causal ones ignore what is to come."""

import pytest
import torch
from torch import Tensor

from musictool.core.convolution import (
    Activation,
    Chain,
    Convolution,
    PadMode,
    Recurrence,
    ResidualUnit,
    Streaming,
    TransposedConvolution,
)

LENGTHS = (1, 2, 3, 7, 8, 9, 11, 16, 23, 100)
CHUNKS = (0, 1, 2, 3, 5, 8, 13)


def in_chunks(layer: Streaming, x: Tensor, generator: torch.Generator) -> Tensor:
    state, outputs, start = layer.begin(), [], 0
    while True:
        size = CHUNKS[int(torch.randint(len(CHUNKS), (), generator=generator))]
        is_last = start + size >= x.shape[-1]
        outputs.append(layer.step(x[..., start : start + size], state, is_last))
        start += size
        if is_last:
            return torch.cat(outputs, -1)


def drawn(length: int, channels: int = 2) -> Tensor:
    return torch.randn(2, channels, length, dtype=torch.float64)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(7, 1, 1), (3, 1, 9), (1, 1, 1), (16, 8, 1), (10, 5, 1), (3, 3, 1)]
)
def test_chunked_convolution_equals_whole(
    is_causal: bool, pad_mode: PadMode, kernel: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(kernel)
    layer = Convolution(2, 3, kernel, stride=stride, dilation=dilation, is_causal=is_causal, pad_mode=pad_mode)
    layer.double()
    generator = torch.Generator().manual_seed(0)
    for length in LENGTHS:
        x = drawn(length)
        whole = layer(x)
        assert whole.shape == (2, 3, -(-length // stride))
        for _ in range(4):
            torch.testing.assert_close(in_chunks(layer, x, generator), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("is_causal", "trim_right"), [(True, 1.0), (True, 0.5), (True, 0.0), (False, 1.0)])
@pytest.mark.parametrize(("kernel", "stride"), [(16, 8), (4, 2), (3, 3), (9, 4)])
def test_chunked_transposed_convolution_equals_whole(
    is_causal: bool, trim_right: float, kernel: int, stride: int
) -> None:
    torch.manual_seed(kernel)
    layer = TransposedConvolution(2, 3, kernel, stride, is_causal=is_causal, trim_right=trim_right).double()
    generator = torch.Generator().manual_seed(0)
    for length in LENGTHS:
        x = drawn(length)
        whole = layer(x)
        assert whole.shape == (2, 3, length * stride)
        for _ in range(4):
            torch.testing.assert_close(in_chunks(layer, x, generator), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("has_shortcut", [True, False])
def test_a_chain_of_all_kinds_reads_in_chunks_what_it_reads_whole(is_causal: bool, has_shortcut: bool) -> None:
    torch.manual_seed(1)
    shortcut = Convolution(4, 4, 1) if has_shortcut else None
    chain = Chain(
        [
            Convolution(2, 4, 7, stride=2, is_causal=is_causal),
            ResidualUnit(Convolution(4, 2, 3, dilation=3, is_causal=is_causal), Convolution(2, 4, 1), shortcut),
            Recurrence(4, 2),
            Activation(),
            TransposedConvolution(4, 2, 6, 3, is_causal=is_causal),
        ]
    ).double()
    generator = torch.Generator().manual_seed(0)
    for length in LENGTHS:
        x = drawn(length)
        whole = chain(x)
        assert whole.shape == (2, 2, -(-length // 2) * 3)
        for _ in range(4):
            torch.testing.assert_close(in_chunks(chain, x, generator), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("is_causal", [True, False])
def test_only_a_causal_convolution_ignores_what_is_to_come(is_causal: bool) -> None:
    layer = Convolution(1, 1, 7, is_causal=is_causal).double()
    x = drawn(40, 1).requires_grad_()
    layer(x)[..., 20].sum().backward()
    assert x.grad is not None
    assert bool(x.grad[..., 21:].any()) is not is_causal
    assert x.grad[..., 14:21].any()


def test_a_causal_chain_says_at_once_what_it_knows() -> None:
    chain = Chain([Convolution(1, 2, 8, stride=4), Activation(), TransposedConvolution(2, 1, 8, 4)])
    state = chain.begin()
    assert chain.step(torch.randn(1, 1, 8), state).shape[-1] == 8
    assert chain.step(torch.randn(1, 1, 4), state).shape[-1] == 4


def test_padding_is_reflection_and_zeros_after_what_is_too_short_for_it() -> None:
    layer = Convolution(1, 1, 4)
    torch.nn.init.constant_(layer.conv.weight, 0)
    torch.nn.init.zeros_(layer.conv.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.conv.weight[..., 0] = 1  # says what lies three samples back
    ramp = torch.arange(1.0, 7)[None, None]
    assert layer(ramp)[0, 0].tolist() == [4, 3, 2, 1, 2, 3]
    assert layer(ramp[..., :2])[0, 0].tolist() == [0, 0]


def test_nothing_gives_nothing() -> None:
    chain = Chain([Convolution(1, 2, 8, stride=4), Recurrence(2, 1), TransposedConvolution(2, 1, 8, 4)])
    assert chain(torch.zeros(1, 1, 0)).shape == (1, 1, 0)


@pytest.mark.parametrize(
    "layer", [Convolution(1, 4, 3, has_norm=True), TransposedConvolution(1, 4, 4, 2, has_norm=True)]
)
def test_a_norm_over_time_refuses_chunks_and_takes_the_whole(layer: Streaming) -> None:
    assert layer(torch.randn(1, 1, 9)).std() > 0.5
    state = layer.begin()
    with pytest.raises(ValueError, match="whole signals"):
        layer.step(torch.randn(1, 1, 9), state)


def test_layers_that_would_leave_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="leave samples out"):
        Convolution(1, 1, 3, stride=4)
    with pytest.raises(ValueError, match="stay empty"):
        TransposedConvolution(1, 1, 3, 4)
