"""Arrays as folders in zarr's second format, as TensorStore writes them for T5X: `.zarray` and a file for each chunk.

Read and written: C order, gzip, zlib or no compression, any grid of chunks. Anything else is refused by name. What
`.zarray` says is checked before memory is taken for it, and what a chunk unpacks to is bounded by what it should be.
"""

from __future__ import annotations

import json
import math
import zlib
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from musictool.checkpoints.arrays import NumberFormat, bytes_from_tensor, check_shape, find_number_format
from musictool.checkpoints.checkpoint import broken

METADATA_NAME = ".zarray"
MAX_METADATA_BYTES = 1 << 20
MAX_CHUNKS = 1 << 20
_GZIP_LEVEL = 1
_WINDOW_BITS = {"gzip": 31, "zlib": 15}


class ZarrArray(NamedTuple):
    """What `.zarray` says.

    Attributes:
        folder: the array's.
        shape, chunks: of the array and of each chunk.
        number: what it is made of.
        compressor: `gzip`, `zlib` or nothing.
        separator: between the numbers in a chunk's name.
        fill: stands where a chunk is not there; None means that every chunk has to be.
    """

    folder: Path
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    number: NumberFormat
    compressor: str
    separator: str
    fill: float | None


def open_zarr(folder: Path) -> ZarrArray:
    """Read an array's description.

    Raises:
        InputError: it is damaged, or asks for what is not read here.
        OSError: it is not there, or cannot be read.
    """
    path = folder / METADATA_NAME
    with open(path, "rb") as file:
        text = file.read(MAX_METADATA_BYTES)
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("zarr_format") != 2:
            raise ValueError("it is not of zarr's second format")
        return _array(folder, data)
    except (ValueError, RecursionError) as error:
        raise broken(path, f"unreadable zarr array: {error}") from error


def _array(folder: Path, data: dict[str, Any]) -> ZarrArray:
    """What a description means.

    Raises:
        ValueError: it can't be meant, or is not read here.
    """
    number = find_number_format(data.get("dtype"))
    shape, chunks = check_shape(data.get("shape"), number), check_shape(data.get("chunks"), number)
    if len(chunks) != len(shape) or any(not 0 < c <= max(s, 1) for c, s in zip(chunks, shape)):
        raise ValueError(f"chunks of shape {list(chunks)} for an array of shape {list(shape)}")
    if math.prod(_grid(shape, chunks)) > MAX_CHUNKS:
        raise ValueError(f"{math.prod(_grid(shape, chunks))} chunks are too many")
    if data.get("order") != "C":
        raise ValueError(f"order {data.get('order')!r:.20} is not read, only 'C'")
    if data.get("filters"):
        raise ValueError("filters are not read")
    compressor = data.get("compressor")
    kind = "" if compressor is None else compressor.get("id") if isinstance(compressor, dict) else compressor
    if kind != "" and kind not in tuple(_WINDOW_BITS):
        raise ValueError(f"compressor {kind!r:.20} is not read, only gzip and zlib")
    separator = data.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise ValueError(f"dimension separator {separator!r:.20} is not known")
    fill = data.get("fill_value")
    if fill is not None and type(fill) not in (int, float, bool):
        raise ValueError(f"fill value {fill!r:.20} is not read")
    return ZarrArray(folder, shape, chunks, number, str(kind), separator, fill)


def _grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> list[int]:
    """How many chunks there are along each dimension."""
    return [-(-size // chunk) for size, chunk in zip(shape, chunks)]


def read_zarr(array: ZarrArray) -> Tensor:
    """Read an array's numbers.

    Raises:
        InputError: a chunk is missing or damaged.
    """
    whole = torch.empty(array.shape, dtype=array.number.torch)
    bits = (whole.view(torch.int16) if array.number.torch is torch.bfloat16 else whole).numpy()
    for index in product(*map(range, _grid(array.shape, array.chunks))):
        place = tuple(slice(i * c, min((i + 1) * c, s)) for i, c, s in zip(index, array.chunks, array.shape))
        data = _read_chunk(array, index)
        if data is None:
            assert array.fill is not None
            whole[place] = array.fill
        else:
            chunk = np.frombuffer(data, array.number.bits).reshape(array.chunks)
            bits[place] = chunk[tuple(slice(p.stop - p.start) for p in place)]
    return whole


def _read_chunk(array: ZarrArray, index: tuple[int, ...]) -> bytes | None:
    """The bytes of a chunk; None where a missing chunk has a meaning."""
    path = array.folder / (array.separator.join(map(str, index)) or "0")
    wanted = math.prod(array.chunks) * array.number.bytes
    packed_max = wanted + wanted // 1000 + 1024  # deflate makes nothing longer than that
    try:
        with open(path, "rb") as file:
            packed = file.read(packed_max + 1)
    except FileNotFoundError as error:
        if array.fill is not None:
            return None
        raise broken(path, "a chunk of the array is missing") from error
    except OSError as error:
        raise broken(path, (error.strerror or "cannot be read").lower()) from error
    if len(packed) > packed_max:
        raise broken(path, f"the chunk is longer than the {wanted} bytes it should hold")
    data = _unpacked(packed, array.compressor, wanted, path) if array.compressor else packed
    if len(data) != wanted:
        raise broken(path, f"the chunk holds {len(data)} bytes in place of {wanted}")
    return data


def _unpacked(packed: bytes, compressor: str, wanted: int, path: Path) -> bytes:
    """A chunk's bytes, at most one more than there should be."""
    unpacker = zlib.decompressobj(_WINDOW_BITS[compressor])
    try:
        data = unpacker.decompress(packed, wanted + 1)
    except zlib.error as error:
        raise broken(path, f"the chunk's {compressor} data is broken") from error
    if len(data) > wanted or unpacker.unused_data:
        raise broken(path, f"the chunk holds more than {wanted} bytes")
    if not unpacker.eof:
        raise broken(path, "the chunk ends early")
    return data


def write_zarr(folder: Path, tensor: Tensor) -> dict[str, Any]:
    """Write a tensor as one gzip chunk, as T5X does.

    Args:
        folder: the array's; it is made.
        tensor: at least one number.

    Returns:
        The array's metadata.
    """
    number = find_number_format(tensor.dtype)
    shape = list(tensor.shape)
    metadata = {
        "chunks": shape,
        "compressor": {"id": "gzip", "level": _GZIP_LEVEL},
        "dimension_separator": ".",
        "dtype": number.zarr,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": shape,
        "zarr_format": 2,
    }
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _WINDOW_BITS["gzip"])
    folder.mkdir()
    (folder / METADATA_NAME).write_text(json.dumps(metadata, separators=(",", ":")))
    with open(folder / (".".join("0" for _ in shape) or "0"), "wb") as file:
        file.write(packer.compress(bytes_from_tensor(tensor)))
        file.write(packer.flush())
    return metadata
