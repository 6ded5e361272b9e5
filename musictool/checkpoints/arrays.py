"""Raw bytes <-> tensors, and the limits on what a file may claim about an array. Knows no file format."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_DIMENSIONS = 8
MAX_ARRAY_BYTES = 1 << 36


class NumberFormat(NamedTuple):
    """How numbers of an array are stored.

    Attributes:
        name: torch's and JAX's.
        zarr: zarr's and TensorStore's.
        bits: a numpy format of the same size; numpy has no bfloat16.
        torch: torch's.
    """

    name: str
    zarr: str
    bits: str
    torch: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes of one number."""
        return np.dtype(self.bits).itemsize


NUMBER_FORMATS = (
    NumberFormat("float32", "<f4", "<f4", torch.float32),
    NumberFormat("bfloat16", "bfloat16", "<i2", torch.bfloat16),
    NumberFormat("float16", "<f2", "<f2", torch.float16),
    NumberFormat("float64", "<f8", "<f8", torch.float64),
    NumberFormat("int8", "|i1", "|i1", torch.int8),
    NumberFormat("uint8", "|u1", "|u1", torch.uint8),
    NumberFormat("int16", "<i2", "<i2", torch.int16),
    NumberFormat("int32", "<i4", "<i4", torch.int32),
    NumberFormat("int64", "<i8", "<i8", torch.int64),
    NumberFormat("bool", "|b1", "|b1", torch.bool),
)


def find_number_format(name: object) -> NumberFormat:
    """A number format by its name, zarr's name or torch's dtype.

    Raises:
        ValueError: there is none; little-endian ones alone are known.
    """
    for number in NUMBER_FORMATS:
        if name in (number.name, number.zarr, number.torch):
            return number
    raise ValueError(f"number format {name!r:.40} is not known")


def check_shape(value: object, number: NumberFormat) -> tuple[int, ...]:
    """A shape from a file.

    Args:
        value: what the file says.
        number: what the array is made of.

    Raises:
        ValueError: it is no list of sizes, or the array would be larger than any that is stored whole.
    """
    if not isinstance(value, (list, tuple)) or len(value) > MAX_DIMENSIONS:
        raise ValueError(f"{value!r:.60} is no shape")
    if any(type(size) is not int or size < 0 for size in value):
        raise ValueError(f"{list(value)!r:.60} is no shape")
    if math.prod(value) * number.bytes > MAX_ARRAY_BYTES:
        raise ValueError(f"an array of shape {list(value)!r:.60} is too large")
    return tuple(value)


def tensor_from_bytes(data: bytes | bytearray | memoryview, number: NumberFormat, shape: tuple[int, ...]) -> Tensor:
    """A tensor of its own memory from numbers in C order.

    Raises:
        ValueError: there are more or fewer bytes than the shape takes.
    """
    wanted = math.prod(shape) * number.bytes
    if len(data) != wanted:
        raise ValueError(f"{len(data)} bytes in place of {wanted}")
    array = np.frombuffer(data, number.bits).reshape(shape).copy()
    return torch.from_numpy(array).view(number.torch)


def bytes_from_tensor(tensor: Tensor) -> bytes:
    """The numbers of a tensor in C order."""
    number = find_number_format(tensor.dtype)
    bits = tensor.detach().cpu().contiguous()
    return (bits.view(torch.int16) if number.torch is torch.bfloat16 else bits).numpy().tobytes()
