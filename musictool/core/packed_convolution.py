"""Convolutions, LSTMs and codebooks packed for oneDNN, for inference on a CPU.

torch has oneDNN put weights into its own order at every call, which for a short chunk takes longer than the work, and
leaves kernels of 1 and codebooks to MKL (see `packed_linear`). Packed layers hold their weights in that order and
nothing else: they are not trained or saved. Signals between them lie time after time in memory, each with all of its
channels, whatever the order of their dimensions.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.core.convolution import Activation
from musictool.core.packed_linear import PackedLinear, can_pack
from musictool.core.quantizer import Codebook

_PACKED_FOR_SAMPLES = 2048
_PACKED_FOR_STEPS = 75
_LOG2_E = math.log2(math.e)
_LSTM_MODE = 2  # as torch numbers kinds of recurrent layers


class PackedConvolution(nn.Module):
    """A convolution in oneDNN's order; the same numbers as the layer it is made of up to rounding.

    Args:
        conv: on a CPU, float32, with a bias, without padding or groups.
        dtype: what weights and products are in; input and output stay float32.
    """

    def __init__(self, conv: nn.Conv1d, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.out_channels = conv.out_channels
        self.bias = cast(Tensor, conv.bias).detach()
        self._dtype = dtype
        self._geometry = [0, 0], [1, *conv.stride], [1, *conv.dilation], 1  # padding, stride, dilation, groups
        weight = conv.weight.detach().to(dtype)[:, :, None].contiguous(memory_format=torch.channels_last)
        size = [1, conv.in_channels, 1, _PACKED_FOR_SAMPLES]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._geometry, size)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [B, C, N] to float32 [B, D, M]."""
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            _time_major(x, self._dtype), self._weight, self.bias.to(self._dtype), *self._geometry, "none", [], ""
        )
        return y[:, :, 0].float()


class PackedTransposed(nn.Module):
    """A transposed convolution in oneDNN's order; the same numbers as the layer it is made of up to rounding.

    Args:
        conv: on a CPU, float32, with a bias, without padding, dilation or groups.
        dtype: what weights and products are in; input and output stay float32.
    """

    def __init__(self, conv: nn.ConvTranspose1d, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.out_channels = conv.out_channels
        self.bias = cast(Tensor, conv.bias).detach()
        self._dtype = dtype
        self._geometry = [0, 0], [0, 0], [1, *conv.stride], [1, 1], 1  # padding twice, stride, dilation, groups
        weight = conv.weight.detach().to(dtype)[:, :, None]
        size = [1, conv.in_channels, 1, _PACKED_FOR_SAMPLES]
        self._weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, *self._geometry, size)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [B, C, T] to float32 [B, D, M]."""
        y: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            _time_major(x, self._dtype), self._weight, self.bias.to(self._dtype), *self._geometry, "none", [], ""
        )
        return y[:, :, 0].float()


class PackedActivation(Activation):
    """An exponential linear unit; the same numbers as torch's own to 2e-7.

    That goes through `expm1`, and takes more than twice as long as powers of two and what is around them.
    """

    def step(self, x: Tensor, state: None, is_last: bool = False) -> Tensor:
        y = x.clamp_max(0).mul_(_LOG2_E).exp2_().sub_(1)  # 0 where x is above it, and never below x
        return torch.maximum(x, y, out=y)


class PackedNorm(nn.GroupNorm):
    """A normalisation over time and channels together; the same numbers as the layer it is made of up to rounding.

    torch's own sorts the channels apart in memory first, or, as of images, takes the variance as a difference of sums.

    Args:
        norm: of a single group.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(1, norm.num_channels, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """float32 [B, C, N] to the same."""
        steps = x.transpose(1, 2)  # [B, N, C]
        return torch.addcmul(
            self.bias, functional.layer_norm(steps, steps.shape[1:], eps=self.eps), self.weight
        ).transpose(1, 2)


class PackedLSTM(nn.Module):
    """An LSTM in oneDNN's order, in float32; the same numbers as the layer it is made of up to rounding.

    Args:
        lstm: on a CPU, float32, one way in time, with biases.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self._width = lstm.hidden_size
        self._layers: list[tuple[Tensor, ...]] = []
        for layer in lstm.all_weights:
            of_input, of_hidden, *biases = (values.detach() for values in layer)
            size = [_PACKED_FOR_STEPS, 1, of_input.shape[1]]
            packed = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                of_input, of_hidden, self._width, False, True, False, size
            )
            self._layers.append((*packed[:2], *biases))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read a chunk.

        Args:
            x: float32 [T, B, C].
            state: float32 [layers, B, C] each, hidden and cell; None before the first chunk.

        Returns:
            float32 [T, B, C], and the state after it.
        """
        if state is None:
            zeros = x.new_zeros(len(self._layers), x.shape[1], self._width)
            state = zeros, zeros
        states = []
        for weights, hidden, cell in zip(self._layers, *state, strict=True):
            x, hidden, cell, _ = torch.ops.aten.mkldnn_rnn_layer(
                x.contiguous(),
                *weights,
                hidden,
                cell,
                reverse=False,
                batch_sizes=[],
                mode=_LSTM_MODE,
                hidden_size=self._width,
                num_layers=1,
                has_biases=True,
                bidirectional=False,
                batch_first=False,
                train=False,
            )
            states.append((hidden, cell))
        hiddens, cells = zip(*states, strict=True)
        return x, (torch.stack(hiddens), torch.stack(cells))


class PackedCodebook(nn.Module):
    """A codebook that is searched by one product in oneDNN's order, in float32.

    Args:
        codebook: on a CPU, float32.
    """

    def __init__(self, codebook: Codebook) -> None:
        super().__init__()
        self.entries = codebook.entries.detach()
        size, width = self.entries.shape
        scores = nn.utils.skip_init(nn.Linear, width, size)
        scores.weight.data, scores.bias.data = self.entries, self.entries.square().sum(1) / -2
        self._scores = PackedLinear(scores)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The entry nearest to each vector; float32 [M, D] to int64 [M]."""
        return cast(Tensor, self._scores(vectors)).argmax(1)

    def forward(self, codes: Tensor) -> Tensor:
        """The entries that codes name; int64 [...] to float32 [..., D]."""
        return functional.embedding(codes, self.entries)


def can_pack_convolutions() -> bool:
    """Whether this torch and this CPU have what it takes."""
    return can_pack() and hasattr(torch.ops.mkldnn, "_reorder_mkldnn_rnn_layer_weight")


def pack_convolutions(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Replace every convolution, activation, normalisation, LSTM and codebook inside a module by a packed one.

    Args:
        module: on a CPU, float32; it is changed.
        dtype: what convolutions are computed in.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv1d):
            setattr(module, name, PackedConvolution(child, dtype))
        elif isinstance(child, nn.ConvTranspose1d):
            setattr(module, name, PackedTransposed(child, dtype))
        elif isinstance(child, Activation):
            setattr(module, name, PackedActivation())
        elif isinstance(child, nn.GroupNorm):
            setattr(module, name, PackedNorm(child))
        elif isinstance(child, nn.LSTM):
            setattr(module, name, PackedLSTM(child))
        elif isinstance(child, Codebook):
            module.add_module(name, PackedCodebook(child))
        else:
            pack_convolutions(child, dtype)


def _time_major(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A signal [B, C, N] as [B, C, 1, N] whose channels lie side by side in memory; no copy if they do."""
    return x.transpose(1, 2).contiguous().to(dtype).transpose(1, 2)[:, :, None]
