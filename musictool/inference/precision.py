"""A model made ready to run: on a device, in a number format, with the fastest linear layers there are for both.

`fp32` is exact. `bf16` halves the weights: on a GPU the whole model is bfloat16; on a CPU the matrix products are, with
the keys and values that they give, and what lies between them (norms, softmax, sums) stays float32. `int8` halves them
again, of linear layers and on a CPU alone; it is made for models that say one step after another, whose time goes into
reading weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from musictool.core.compiled_transformer import can_compile, compile_steps
from musictool.core.packed_linear import can_pack
from musictool.core.packed_transformer import pack_transformers
from musictool.errors import ResourceError, UsageError

PrecisionName = Literal["fp32", "bf16", "int8"]

_DTYPES: dict[PrecisionName, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


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


def dtype_without_linears(precision: PrecisionName) -> torch.dtype:
    """What a model computes in whose layers are convolutions.

    Raises:
        UsageError: `int8`, which is for linear layers.
    """
    if precision == "int8":
        hint = "int8 is for models that say one step after another; use bf16"
        raise UsageError("the model cannot run in int8", context="--precision", hint=hint)
    return _DTYPES[precision]


@torch.no_grad()
def make_ready(
    model: nn.Module, device: torch.device, precision: PrecisionName = "fp32", *, says_steps: bool = False
) -> nn.Module:
    """Put a model on a device in a number format, for inference alone.

    Args:
        model: float32 on a CPU; it is changed.
        device: where it is to run.
        precision: `fp32`, `bf16` or `int8`.
        says_steps: the model says one step after another; on a CPU they are compiled, where numba is.

    Returns:
        The model, in evaluation mode.

    Raises:
        ResourceError: there is no `int8` on the device.
    """
    model.eval()
    if precision == "int8" and device.type != "cpu":
        raise ResourceError(f"no int8 on {device.type}", hint="use --precision bf16, or --device cpu")
    dtype = _DTYPES[precision]
    if device.type != "cpu":
        return model.to(device, dtype)
    if precision != "int8" and not can_pack():
        return model.to(dtype)
    pack_transformers(model, dtype)
    if says_steps and can_compile():
        compile_steps(model)
    for parameter in model.parameters():  # a copy of the little that is left lets go of the mapped file
        parameter.data = parameter.data.clone()
    return model
