"""T5X folders: read without JAX, written back, and never trusted."""

from __future__ import annotations

import json
import math
import os
import tracemalloc
import zlib
from itertools import product
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch

from musictool.checkpoints.t5x import open_t5x, write_t5x
from musictool.checkpoints.zarr_files import open_zarr, read_zarr
from musictool.errors import InputError

SHARED = os.environ.get("MTK_TEST_SHARED")
needs_mt3 = pytest.mark.skipif(not SHARED, reason="MTK_TEST_SHARED is not set")
NAME = "target.encoder.dense.kernel"


def packed(array: np.ndarray, dtype: str = "") -> msgpack.ExtType:
    """An array as flax packs it."""
    return msgpack.ExtType(1, msgpack.packb((array.shape, dtype or array.dtype.name, array.tobytes())))


def write_index(folder: Path, target: object, **rest: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "checkpoint").write_bytes(msgpack.packb({"version": 3, "optimizer": {"target": target, **rest}}))


def write_grid(
    folder: Path, array: np.ndarray, chunks: tuple[int, ...], separator: str = ".", **changes: object
) -> None:
    """A zarr array in chunks, written by the format's rules alone; `changes` go into its description."""
    grid = [math.ceil(size / chunk) for size, chunk in zip(array.shape, chunks)]
    padded = np.zeros([count * chunk for count, chunk in zip(grid, chunks)], array.dtype)
    padded[tuple(slice(size) for size in array.shape)] = array
    compressor = changes.get("compressor")
    for index in product(*map(range, grid)):
        part = padded[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks))].tobytes()
        if compressor is not None:
            packer = zlib.compressobj(6, zlib.DEFLATED, {"gzip": 31, "zlib": 15}[compressor["id"]])
            part = packer.compress(part) + packer.flush()
        path = folder / (separator.join(map(str, index)) or "0")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part)
    described = {"zarr_format": 2, "shape": array.shape, "chunks": chunks, "dtype": array.dtype.str, "order": "C"}
    described |= {"compressor": None, "filters": None, "fill_value": None, "dimension_separator": separator}
    (folder / ".zarray").write_text(json.dumps(described | changes))


@pytest.fixture
def array() -> np.ndarray:
    return np.arange(35, dtype=np.float32).reshape(5, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int32])
def test_what_is_written_reads_back_bit_for_bit(tmp_path, dtype):
    bits = torch.arange(-12, 12).to(dtype) / (3 if dtype.is_floating_point else 1)
    tensors = {
        "target.a.kernel": bits.reshape(4, 6).to(dtype),
        "target.a.cube": bits.reshape(2, 3, 4).to(dtype),
        "target.b.scale": bits.to(dtype),
        "target.b.scalar": bits[3].to(dtype),
        "target.empty": torch.zeros(0, 3, dtype=dtype),
    }
    (tmp_path / "x").mkdir()
    write_t5x(tmp_path / "x", tensors)
    read = open_t5x(tmp_path / "x")
    assert set(read.names) == set(tensors)
    assert not read.unreadable
    for name, tensor in tensors.items():
        assert read.shape(name) == tuple(tensor.shape)
        assert read.tensor(name).dtype == dtype
        torch.testing.assert_close(read.tensor(name), tensor, rtol=0, atol=0)
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"checkpoint", "target.a.kernel", "target.a.cube"}


def test_every_way_flax_stores_an_array_is_read(tmp_path, array):
    flat = array.reshape(-1)
    chunked = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 5, "1": 7},
        "chunks": {"0": packed(flat[:20]), "1": packed(flat[20:])},
    }
    bfloat16 = torch.from_numpy(array).to(torch.bfloat16)
    target = {
        "inline": packed(array),
        "chunked": chunked,
        "half": packed(bfloat16.view(torch.int16).numpy(), "bfloat16"),
        "placed": "PLACEHOLDER://target.placed",
        "spec": {"driver": "zarr", "kvstore": {"driver": "gfile", "path": "gs://bucket/elsewhere/target.spec/"}},
        "none": None,
        "branch": {},
    }
    write_index(tmp_path, target)
    for name in ("target.placed", "target.spec"):
        write_grid(tmp_path / name, array, (5, 7))
    read = open_t5x(tmp_path)
    assert set(read.names) == {f"target.{name}" for name in ("inline", "chunked", "half", "placed", "spec")}
    for name in ("inline", "chunked", "placed", "spec"):
        np.testing.assert_array_equal(read.tensor(f"target.{name}").numpy(), array)
    assert torch.equal(read.tensor("target.half"), bfloat16)


def test_what_the_optimizer_keeps_is_not_looked_at(tmp_path, array):
    state = {"step": packed(np.int32(5)), "param_states": {"dense": {"v": packed(array)}}}
    write_index(tmp_path, {"dense": packed(array)}, state=state)
    assert open_t5x(tmp_path).names == ["target.dense"]


@pytest.mark.parametrize("compressor", [None, {"id": "gzip", "level": 1}, {"id": "zlib", "level": 1}])
@pytest.mark.parametrize("chunks", [(5, 7), (1, 1), (2, 3), (5, 2)])
@pytest.mark.parametrize("separator", [".", "/"])
def test_any_grid_of_chunks_is_the_same_array(tmp_path, array, compressor, chunks, separator):
    write_grid(tmp_path / "x", array, chunks, separator, compressor=compressor)
    np.testing.assert_array_equal(read_zarr(open_zarr(tmp_path / "x")).numpy(), array)


def test_bfloat16_comes_in_chunks_too(tmp_path):
    tensor = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    write_grid(tmp_path / "x", tensor.view(torch.int16).numpy(), (2, 3), dtype="bfloat16")
    assert torch.equal(read_zarr(open_zarr(tmp_path / "x")), tensor)


def test_a_missing_chunk_is_the_fill_value_or_an_error(tmp_path, array):
    write_grid(tmp_path / "x", array, (5, 2), fill_value=-1.5)
    (tmp_path / "x" / "0.1").unlink()
    read = read_zarr(open_zarr(tmp_path / "x")).numpy()
    assert (read[:, 2:4] == -1.5).all()
    np.testing.assert_array_equal(read[:, [0, 1, 4, 5, 6]], array[:, [0, 1, 4, 5, 6]])
    write_grid(tmp_path / "y", array, (5, 2))
    (tmp_path / "y" / "0.1").unlink()
    with pytest.raises(InputError, match=r"missing \(.*0\.1\)"):
        read_zarr(open_zarr(tmp_path / "y"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"shape": [1 << 30, 1 << 30]}, "too large"),
        ({"shape": [-5, 7]}, "no shape"),
        ({"shape": [5.0, 7]}, "no shape"),
        ({"shape": [True, 7]}, "no shape"),
        ({"shape": [1] * 40}, "no shape"),
        ({"shape": None}, "no shape"),
        ({"chunks": [5, 0]}, "chunks"),
        ({"chunks": [5, 8]}, "chunks"),
        ({"chunks": [5]}, "chunks"),
        ({"shape": [4096, 4096], "chunks": [1, 1]}, "too many"),
        ({"order": "F"}, "order 'F'"),
        ({"filters": [{"id": "delta"}]}, "filters"),
        ({"compressor": {"id": "blosc"}}, "'blosc'"),
        ({"compressor": {"id": ["gzip"]}}, "compressor"),
        ({"compressor": 3}, "compressor 3"),
        ({"dtype": "|O"}, "number format"),
        ({"dtype": [["a", "<f4"]]}, "number format"),
        ({"dtype": ">f4"}, "number format"),
        ({"dimension_separator": "/../"}, "separator"),
        ({"fill_value": "NaN"}, "fill value"),
        ({"zarr_format": 3}, "second format"),
    ],
)
def test_a_description_that_cannot_be_meant_is_named(tmp_path, array, changes, why):
    write_index(tmp_path, {"encoder": {"dense": {"kernel": f"PLACEHOLDER://{NAME}"}}, "other": packed(array)})
    write_grid(tmp_path / NAME, array, (5, 7))
    described = json.loads((tmp_path / NAME / ".zarray").read_text())
    (tmp_path / NAME / ".zarray").write_text(json.dumps(described | changes))
    read = open_t5x(tmp_path)
    assert read.names == ["target.other"]
    assert why in read.unreadable[NAME].message
    assert ".zarray" in read.unreadable[NAME].context


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"[]", b"\xff\xfe", b"3"])
def test_a_description_that_is_no_json_is_named(tmp_path, array, text):
    write_grid(tmp_path / "x", array, (5, 7))
    (tmp_path / "x" / ".zarray").write_bytes(text)
    with pytest.raises(InputError, match="unreadable zarr array"):
        open_zarr(tmp_path / "x")


@pytest.mark.parametrize("compressor", [None, {"id": "gzip"}, {"id": "zlib"}])
def test_a_chunk_of_another_length_is_refused(tmp_path, array, compressor):
    write_grid(tmp_path / "x", array, (5, 7), compressor=compressor)
    whole = (tmp_path / "x" / "0.0").read_bytes()
    for damaged in (*(whole[:length] for length in range(len(whole))), whole + b"\0", whole + whole):
        (tmp_path / "x" / "0.0").write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            read_zarr(open_zarr(tmp_path / "x"))
        assert caught.value.context.endswith("0.0")


def test_a_chunk_that_unpacks_without_end_takes_no_memory(tmp_path, array):
    write_grid(tmp_path / "x", array, (5, 7), compressor={"id": "zlib"})
    (tmp_path / "x" / "0.0").write_bytes(zlib.compress(bytes(1 << 20), 9))
    described = open_zarr(tmp_path / "x")
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than 140 bytes"):
            read_zarr(described)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("flip", [20, -5])
def test_a_damaged_byte_of_packed_data_is_noticed(tmp_path, array, flip):
    write_grid(tmp_path / "x", array, (5, 7), compressor={"id": "gzip"})
    data = bytearray((tmp_path / "x" / "0.0").read_bytes())
    data[flip] ^= 0x55
    (tmp_path / "x" / "0.0").write_bytes(data)
    with pytest.raises(InputError):
        read_zarr(open_zarr(tmp_path / "x"))


@pytest.mark.parametrize(
    "node",
    [
        "PLACEHOLDER://..",
        "PLACEHOLDER://",
        "PLACEHOLDER://.",
        "PLACEHOLDER://a\0b",
        "PLACEHOLDER://..\\..\\x",
        "target.outside",
        {"driver": "zarr", "kvstore": {"path": ".."}},
        {"driver": "zarr", "kvstore": {"path": "/"}},
        {"driver": "zarr", "kvstore": {"path": 3}},
        {"driver": "zarr", "kvstore": "x"},
        {"driver": "zarr3", "kvstore": {"path": "target.x"}},
        3.5,
        True,
        ["x"],
    ],
)
def test_a_leaf_that_names_no_folder_is_unreadable(tmp_path, node):
    write_index(tmp_path, {"x": node})
    assert list(open_t5x(tmp_path).unreadable) == ["target.x"]


@pytest.mark.parametrize("text", ["../outside", "/{}/outside", "a/../../outside", "../../../outside/"])
def test_a_path_leads_nowhere_but_beside_the_index(tmp_path, array, text):
    write_grid(tmp_path / "outside", array, (5, 7))
    folder = tmp_path / "x"
    spec = {"driver": "zarr", "kvstore": {"path": text.format(tmp_path)}}
    write_index(folder, {"a": spec, "b": f"PLACEHOLDER://{text.format(tmp_path)}"})
    read = open_t5x(folder)
    assert read.names == []
    write_grid(folder / "outside", array + 1, (5, 7))
    assert torch.equal(open_t5x(folder).tensor("target.a"), torch.from_numpy(array + 1))


def test_a_tensor_whose_folder_is_not_there_is_left_out(tmp_path, array):
    write_index(tmp_path, {"a": packed(array), "b": "PLACEHOLDER://target.b"})
    read = open_t5x(tmp_path)
    assert (read.names, dict(read.unreadable)) == (["target.a"], {})


@pytest.mark.parametrize(
    "node",
    [
        msgpack.ExtType(1, b""),
        msgpack.ExtType(1, msgpack.packb("abc")),
        msgpack.ExtType(1, msgpack.packb(((5, 7), "float32", bytes(139)))),
        msgpack.ExtType(1, msgpack.packb(((1 << 40, 1 << 20), "float32", b""))),
        msgpack.ExtType(1, msgpack.packb(((5,), "object", bytes(40)))),
        {"__msgpack_chunked_array__": True},
        {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {}},
        {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": 3}},
        {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": packed(np.ones(2))}},
        {
            "__msgpack_chunked_array__": True,
            "shape": {"0": 3},
            "chunks": {"0": packed(np.ones(2)), "1": packed(np.ones(1, "f4"))},
        },
    ],
)
def test_an_array_that_is_none_is_unreadable(tmp_path, node):
    write_index(tmp_path, {"x": node})
    assert list(open_t5x(tmp_path).unreadable) == ["target.x"]


def test_an_index_cut_anywhere_is_an_error(tmp_path, array):
    write_index(tmp_path, {"a": packed(array), "b": "PLACEHOLDER://target.b"})
    whole = (tmp_path / "checkpoint").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "checkpoint").write_bytes(whole[:length])
        with pytest.raises(InputError):
            open_t5x(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb(3),
        msgpack.packb({"optimizer": 3}),
        msgpack.packb({"optimizer": {"target": 3}}),
        msgpack.packb({"optimizer": {"target": {"a": msgpack.ExtType(7, b"x")}}}),
        b"\x91" * 5000 + b"\xc0",
        b"\xc1",
        b"\x81\xa6target" + b"\x81\xa1a" * 100 + b"\xc0",
    ],
)
def test_an_index_of_something_else_is_an_error(tmp_path, data):
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_t5x(tmp_path)
    assert caught.value.context.endswith("checkpoint")


@needs_mt3
def test_the_published_checkpoint_round_trips_bit_for_bit(tmp_path):
    published = open_t5x(Path(SHARED or "") / "models" / "mt3-t5x")
    tensors = {name: published.tensor(name) for name in published.names}
    assert len(tensors) == 189
    assert sum(tensor.numel() for tensor in tensors.values()) == 45_896_704
    name = "target.encoder.layers_3.mlp.wi_1.kernel"
    raw = zlib.decompress((published.path / name / "0.0").read_bytes(), 31)
    np.testing.assert_array_equal(tensors[name].numpy(), np.frombuffer(raw, "<f4").reshape(512, 1024))
    few = {name: tensors[name] for name in tensors if "layers" not in name or "layers_3.mlp" in name}
    (tmp_path / "x").mkdir()
    write_t5x(tmp_path / "x", few)
    again = open_t5x(tmp_path / "x")
    assert set(again.names) == set(few)
    assert all(torch.equal(again.tensor(name), tensor) for name, tensor in few.items())
