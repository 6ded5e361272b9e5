"""Torch files, safetensors and Hugging Face folders, and which of them a path is."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch

from musictool.checkpoints.formats import open_checkpoint
from musictool.checkpoints.native import ModelFacts, write_native
from musictool.checkpoints.safetensors_files import write_safetensors
from musictool.checkpoints.t5x import write_t5x
from musictool.checkpoints.torch_files import open_torch_file, write_torch_file
from musictool.errors import InputError


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = {"a.weight": torch.randn(3, 4, generator=generator), "b.weight": torch.randn(5, generator=generator)}
    return {**values, "c.weight": torch.randn(2, 2, generator=generator).to(torch.bfloat16)}


def assert_same(checkpoint, tensors):
    assert set(checkpoint.names) == set(tensors)
    for name, tensor in tensors.items():
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert checkpoint.tensors[name].dtype == str(tensor.dtype).removeprefix("torch.")
        assert torch.equal(checkpoint.tensor(name), tensor)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"state_dict": t, "epoch": 3, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}},
        lambda t: {"model": {"module." + name: tensor for name, tensor in t.items()}},
        lambda t: {"state_dict": {"model._orig_mod." + name: tensor for name, tensor in t.items()}},
        lambda t: {"model_state_dict": {name: torch.nn.Parameter(tensor) for name, tensor in t.items()}},
    ],
)
def test_tensors_are_found_wherever_training_code_keeps_them(tmp_path, tensors, wrap, is_zip):
    torch.save(wrap(tensors), tmp_path / "x.pt", _use_new_zipfile_serialization=is_zip)
    assert_same(open_checkpoint(tmp_path / "x.pt"), tensors)


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_file_is_not_run(tmp_path, tensors, save):
    save({"a.weight": tensors["a.weight"], "x": Evil(tmp_path / "evil")}, tmp_path / "x.pt")
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "evil").exists()
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_torch_file_cut_anywhere_is_an_error(tmp_path, tensors, is_zip):
    torch.save(tensors, tmp_path / "x.pt", _use_new_zipfile_serialization=is_zip)
    whole = (tmp_path / "x.pt").read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "x.pt").write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            open_torch_file(tmp_path / "x.pt")
        assert caught.value.context == str(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content", [3, [torch.zeros(1)], {}, {"state_dict": {"a": 3}}, {"a": torch.eye(2).to_sparse()}]
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_torch_file_without_tensors_by_name_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match="tensors"):
        open_torch_file(tmp_path / "x.pt")


def test_a_state_dict_is_read_by_torch_as_it_was_written(tmp_path, tensors):
    write_torch_file(tmp_path / "x.pt", tensors)
    read = torch.load(tmp_path / "x.pt", weights_only=True)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_the_same_tensors_make_the_same_bytes_and_digest(tmp_path, tensors):
    first = write_safetensors(tmp_path / "a", tensors)
    assert first == write_safetensors(tmp_path / "b", dict(reversed(tensors.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert_same(open_checkpoint(tmp_path / "a"), tensors)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:20]])
def test_a_safetensors_file_of_another_length_is_an_error(tmp_path, tensors, change):
    write_safetensors(tmp_path / "x", tensors)
    (tmp_path / "x").write_bytes(change((tmp_path / "x").read_bytes()))
    with pytest.raises(InputError, match="unreadable safetensors"):
        open_checkpoint(tmp_path / "x")


def test_a_safetensors_header_that_lies_is_an_error(tmp_path):
    for entry in (
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 40]},
        {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]},
    ):
        header = json.dumps({"a": entry}).encode()
        (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
        with pytest.raises(InputError):
            open_checkpoint(tmp_path / "x")


def shards(folder: Path, tensors: dict[str, torch.Tensor], suffix: str) -> None:
    """A Hugging Face folder in one file for each tensor, and an index."""
    index = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        shard = f"part-{number}{suffix}"
        index[name] = shard
        write = write_safetensors if suffix == ".safetensors" else write_torch_file
        write(folder / shard, {name: tensor})
    stem = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    (folder / f"{stem}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_folder_in_shards_is_the_same_as_one_file(tmp_path, tensors, suffix):
    shards(tmp_path, tensors, suffix)
    read = open_checkpoint(tmp_path)
    assert read.format == "huggingface"
    assert_same(read, tensors)


def test_a_shard_that_is_not_there_makes_its_tensors_unreadable(tmp_path, tensors):
    shards(tmp_path, tensors, ".safetensors")
    (tmp_path / "part-1.safetensors").unlink()
    read = open_checkpoint(tmp_path)
    assert set(read.names) == {"a.weight", "c.weight"}
    assert list(read.unreadable) == ["b.weight"]


@pytest.mark.parametrize(
    "index",
    [b"", b"{}", b"[]", b'{"weight_map":3}', b'{"weight_map":{"a":3}}', b'{"weight_map":{"a":"../x.safetensors"}}',
     b'{"weight_map":{"a":"/x"}}', b'{"weight_map":{"a":".."}}'],
)  # fmt: skip
def test_an_index_that_makes_no_sense_is_an_error(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    (tmp_path.parent / "x.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="unreadable index"):
        open_checkpoint(tmp_path)


def test_a_folder_whose_config_is_damaged_is_taken_for_nothing(tmp_path, tensors):
    write_safetensors(tmp_path / "model.safetensors", tensors)
    assert open_checkpoint(tmp_path).format == "huggingface"
    (tmp_path / "config.json").write_text('{"format": 1, "fam')
    with pytest.raises(InputError, match="no valid JSON"):
        open_checkpoint(tmp_path)


def test_what_a_path_holds_tells_its_format(tmp_path, tensors):
    folders = {name: tmp_path / name for name in ("native", "t5x", "hub")}
    for folder in folders.values():
        folder.mkdir()
    write_native(folders["native"], tensors, ModelFacts("mt3", "mt3", {}), "")
    write_t5x(folders["t5x"], {f"target.{name}": tensor for name, tensor in tensors.items()})
    write_safetensors(folders["hub"] / "model.safetensors", tensors)
    (folders["hub"] / "config.json").write_text('{"model_type": "t5"}')
    write_safetensors(tmp_path / "y.pt", tensors)
    write_torch_file(tmp_path / "y.safetensors", tensors)
    found = {path.name: open_checkpoint(path).format for path in tmp_path.iterdir()}
    assert found == {
        "native": "native",
        "t5x": "t5x",
        "hub": "huggingface",
        "y.pt": "safetensors",
        "y.safetensors": "torch",
    }


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"RIFF" * 9)])
def test_a_path_that_holds_no_checkpoint_is_an_error(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path / "x")
    assert caught.value.context == str(tmp_path / "x")
