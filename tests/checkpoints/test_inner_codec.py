"""Codecs that come in one folder with a model: kept once, under a name that is free, and told of by the model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from musictool.checkpoints.inner_codec import codec_name_of, keep_codec
from musictool.checkpoints.native import ModelFacts, read_facts
from musictool.checkpoints.store import Store
from musictool.errors import UsageError
from musictool.inference.codec_choice import Codecs
from musictool.inference.model_files import export_model, import_model, load_model
from musictool.models.codec import Codec
from tests.commands.generators import CODEC, save_tokenizer
from tests.models.musicgen_oracle import build_port, save

PRESET, OWNER = "encodec-32khz", "musicgen-small"


def weights(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return Codec(CODEC).state_dict()


def keep(store: Store, tensors: dict[str, Tensor], preset: str = PRESET, owner: str = OWNER, force: bool = False):
    facts = ModelFacts("codec", preset, asdict(CODEC))
    return keep_codec(tensors, facts, "A codec.\n", preset=preset, owner=owner, store=store, force=force)


def test_a_codec_is_kept_once_and_under_its_presets_name_if_that_is_free(tmp_path):
    store = Store(tmp_path)
    first = keep(store, weights(0))
    assert first["codec"] == PRESET
    assert keep(store, weights(0), owner="musicgen-large") == first
    other = keep(store, weights(1))
    assert other["codec"] == "musicgen-small-codec"
    assert keep(store, weights(1), preset="", owner="another") == other
    assert sorted(path.name for path in store.models.iterdir()) == [PRESET, "musicgen-small-codec"]
    for kept in (first, other):
        assert read_facts(store.models / kept["codec"]).weights_sha256 == kept["codec_sha256"]


def test_a_damaged_model_is_none_that_is_here(tmp_path):
    store = Store(tmp_path)
    kept = keep(store, weights(0))
    (store.models / PRESET / "model.safetensors").write_bytes(b"")
    assert keep(store, weights(0))["codec"] == "musicgen-small-codec"
    assert kept["codec_sha256"] == keep(store, weights(0))["codec_sha256"]


def test_another_codec_of_the_same_owner_is_replaced_by_force_alone(tmp_path):
    store = Store(tmp_path)
    keep(store, weights(0), preset="")
    with pytest.raises(UsageError, match="it exists"):
        keep(store, weights(1), preset="")
    assert keep(store, weights(1), preset="", force=True)["codec"] == "musicgen-small-codec"


def test_a_long_name_leaves_room():
    assert codec_name_of("x" * 64) == "x" * 58 + "-codec"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = save(build_port("mono"), tmp_path_factory.mktemp("theirs") / "mono")
    save_tokenizer(folder)
    return folder


def test_a_model_of_another_library_brings_its_codec_and_its_tokenizer(folder, tmp_path):
    store = Store(tmp_path)
    first, second = (import_model(folder, name, store=store) for name in ("one", "two"))
    source = read_facts(first.path).source
    assert source["codec"] == "one-codec"
    assert read_facts(second.path).source == source
    assert sorted(path.name for path in store.models.iterdir()) == ["one", "one-codec", "two"]
    assert Codecs(store).load("whatever", source["codec_sha256"]).name == "one-codec"
    assert (first.path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert load_model("one", store=store).source == source
    import_model(folder, "one", store=store, force=True)


def test_a_tokenizer_goes_where_its_model_goes(folder, tmp_path):
    store = Store(tmp_path / "store")
    text = (folder / "tokenizer.json").read_bytes()
    import_model(folder, "one", store=store)
    for layout in ("native", "huggingface"):
        export_model("one", layout, tmp_path / layout, store=store)
        assert (tmp_path / layout / "tokenizer.json").read_bytes() == text
        export_model("one", layout, tmp_path / layout, store=store, force=True)
    again = import_model(tmp_path / "native", "again", store=store)
    assert (again.path / "tokenizer.json").read_bytes() == text
    assert read_facts(again.path).source == read_facts(store.models / "one").source
