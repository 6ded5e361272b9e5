"""A model made ready to run: on a device, in a number format, with the fastest linear layers there are for both.

`fp32` is exact. `bf16` halves the weights: on a GPU the whole model is bfloat16; on a CPU the matrix products are, and
what lies between them (norms, softmax, the cache) stays float32, which there is both faster and more exact.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from musictool.core.packed_linear import can_pack, pack_linears
from musictool.errors import ResourceError

PrecisionName = Literal["fp32", "bf16"]


def find_device(name: str) -> torch.device:
    """The device of a name: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ResourceError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(f"no such device: {name}", hint="use --device cpu, or auto for the best there is")
    return device


@torch.no_grad()
def make_ready(model: nn.Module, device: torch.device, precision: PrecisionName = "fp32") -> nn.Module:
    """Put a model on a device in a number format, for inference alone.

    Args:
        model: float32 on a CPU; it is changed.
        device: where it is to run.
        precision: `fp32` or `bf16`.

    Returns:
        The model, in evaluation mode.
    """
    model.eval()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type != "cpu":
        return model.to(device, dtype)
    if not can_pack():
        return model.to(dtype)
    pack_linears(model, dtype)
    for parameter in model.parameters():  # a copy of the little that is left lets go of the mapped file
        parameter.data = parameter.data.clone()
    return model
