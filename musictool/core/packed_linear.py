"""Linear layers packed for oneDNN, for inference on a CPU.

torch multiplies float32 matrices through MKL, which on CPUs of other makers than its own leaves two thirds of their
speed unused (tests/benchmarks/README.md has figures); oneDNN does not, and its bfloat16 products are faster still where
the CPU has them. A packed layer holds its weight in oneDNN's own order and nothing else: it is not trained or saved.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PACKED_FOR_ROWS = 1024


def can_pack() -> bool:
    """Whether this torch and this CPU have what it takes."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PackedLinear(nn.Module):
    """A linear layer in oneDNN's order; the same numbers as the layer it is made of up to rounding.

    Args:
        linear: on a CPU, float32.
        dtype: what weights and products are in; input, output and sums stay float32.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), _PACKED_FOR_ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., in] to float32 [..., out]."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return y.float()


def pack_linears(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Replace every linear layer inside a module by a packed one."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedLinear(child, dtype))
        else:
            pack_linears(child, dtype)
