"""Linear layers packed for inference on a CPU: in oneDNN's order, or with weights of eight bits.

torch multiplies float32 matrices through MKL, which on CPUs of other makers than its own leaves two thirds of their
speed unused (tests/benchmarks/README.md has figures); oneDNN does not, and its bfloat16 products are faster still where
the CPU has them. With few rows, as where a model says one step after another, what counts is how soon the weights are
read, and of eight bits they are a quarter of what they are in float32. Packed layers are not trained or saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.core.feed_forward import Activation

FUSED: dict[Activation, tuple[str, str]] = {
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}
"""Activations that oneDNN has, and what it calls them."""

_PACKED_FOR_ROWS = 1024
_STEPS = 127  # of eight bits, on either side of 0
_LEAST = 1e-20  # an output whose weights are all 0 has a scale, too
_COLUMNS = 32  # torch reads as many at once, and past the end where there are fewer
_ROWS_IN_INT8 = 32  # beyond, it is faster to write the weights out in bfloat16 first


def can_pack() -> bool:
    """Whether this torch and this CPU have what it takes."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PackedLinear(nn.Module):
    """A linear layer in oneDNN's order; the same numbers as the layer it is made of up to rounding.

    Args:
        linear: on a CPU, float32.
        dtype: what weights and products are in; input, output and sums stay float32.
        activation: of its output, worked out where that is still at hand; one of `FUSED`, or none.
    """

    def __init__(
        self, linear: nn.Linear, dtype: torch.dtype = torch.float32, activation: Activation | None = None
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self._activation = FUSED[activation] if activation else ("none", "")
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight.detach().to(dtype), _PACKED_FOR_ROWS
        )
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] to float32 [..., out]."""
        return self.said(x).float()

    def said(self, x: Tensor) -> Tensor:
        """float [..., in] to [..., out], in the format of its products."""
        name, kind = self._activation
        if x.dtype != self.dtype:
            x = x.to(self.dtype)
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.weight, self.bias, name, [], kind)
        return y

    def lay_in_rows(self) -> Tensor:
        """The weights, [out, in], from now on a row after another, in which order compiled steps read them."""
        if self.weight.is_mkldnn:
            self.weight = self.weight.to_dense()
        return self.weight


class PackedInt8Linear(nn.Module):
    """A linear layer whose weights have eight bits, and a scale for each output; it reads its input in bfloat16.

    Args:
        linear: on a CPU, float32.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        largest = weight.abs().amax(1).clamp_min_(_LEAST)
        self.scales = (largest / _STEPS).bfloat16()
        quantised = (weight / self.scales[:, None]).round_().clamp_(-_STEPS, _STEPS).to(torch.int8)
        self._missing = -linear.in_features % _COLUMNS
        self.weight = functional.pad(quantised, (0, self._missing))
        self.bias = None if linear.bias is None else linear.bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] to float32 [..., out]."""
        return self.said(x).float()

    def said(self, x: Tensor) -> Tensor:
        """float [..., in] to bfloat16 [..., out]."""
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        if self._missing:
            rows = functional.pad(rows, (0, self._missing))
        if len(rows) <= _ROWS_IN_INT8:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scales)
        else:
            y = functional.linear(rows, self.weight.bfloat16()) * self.scales
        y = y.view(*x.shape[:-1], len(self.scales))
        return y if self.bias is None else y.add_(self.bias)

    def lay_in_rows(self) -> Tensor:
        """The weights, int8 [out, in or more], as they are."""
        return self.weight


Packed = PackedLinear | PackedInt8Linear


def pack_linear(linear: nn.Linear, dtype: torch.dtype = torch.float32, activation: Activation | None = None) -> Packed:
    """A packed layer in place of a linear one.

    Args:
        linear: on a CPU, float32.
        dtype: float32, bfloat16 or int8.
        activation: of its output; none with int8.
    """
    if dtype != torch.int8:
        return PackedLinear(linear, dtype, activation)
    assert activation is None, "eight bits know no activation"
    return PackedInt8Linear(linear)


def pack_linears(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Replace every linear layer inside a module by a packed one."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, pack_linear(child, dtype))
        else:
            pack_linears(child, dtype)


def side_by_side(linears: Sequence[nn.Linear]) -> nn.Linear:
    """One layer that says what several say of the same input, one after the other; all have a bias or none has."""
    first = linears[0]
    joined = nn.utils.skip_init(
        nn.Linear, first.in_features, sum(each.out_features for each in linears), bias=first.bias is not None
    )
    joined.weight.data = torch.cat([each.weight.detach() for each in linears])
    if first.bias is not None:
        joined.bias.data = torch.cat([each.bias.detach() for each in linears])
    return joined
