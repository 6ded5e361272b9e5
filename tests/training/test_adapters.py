"""Adapters of peft on models of ours: what is trained, what is written, and that peft and we mean the same by it."""

from __future__ import annotations

import json
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from musictool.checkpoints.adapters import read_adapter
from musictool.checkpoints.native import read_facts
from musictool.checkpoints.store import Store
from musictool.errors import InputError, MissingError, UsageError
from musictool.inference.four_bits import round_to_4_bits
from musictool.inference.model_files import load_model, merge_model
from musictool.models.registry import build_model, load_preset
from musictool.models.saxgpt import SaxGPT
from musictool.training.adapters import adapt, adapter_tensors, write_adapter
from musictool.training.averaging import AveragedWeights
from musictool.training.recipe import AdapterSection, load_finetuning_table
from tests.code_sets import SIZE, SMALL_SAXGPT, install_small_saxgpt
from tests.small_models import install_codec

BASE = "small-saxgpt"
PROJECTIONS = 4 * 3  # of the encoder's layer, and of the decoder's, which attends twice


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    home = tmp_path_factory.mktemp("home")
    install_small_saxgpt(home)
    install_small_saxgpt(home, "other", seed=1)
    return Store(home)


@pytest.fixture
def read() -> tuple[torch.Tensor, torch.Tensor]:
    """Steps and a backing."""
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randint(0, SIZE, (2, 2, frames), generator=generator) for frames in (12, 9))


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def adapted(store: Store, kind: str = "lora", seed: int = 0, **values: object) -> SaxGPT:
    """The base with an adapter that changes a good deal, in evaluation mode."""
    model = load_model(BASE, store=store).model
    torch.manual_seed(seed)
    adapt(model, AdapterSection(kind=kind, **values))
    with torch.no_grad():
        for parameter in trained_parameters(model):
            parameter.normal_(std=0.2)
    return model.eval()


def written(store: Store, model: nn.Module, folder: Path) -> Path:
    folder.mkdir()
    write_adapter(folder, model, BASE, read_facts(store.find(BASE).path).weights_sha256)
    return folder


# ------------------------------------------------------------------------------------------------------ what it trains


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_a_fresh_adapter_changes_nothing_and_is_all_that_is_trained(store, read, kind):
    base, model = (load_model(BASE, store=store).model for _ in range(2))
    if kind == "qlora":
        round_to_4_bits(base)
    adapt(model, AdapterSection(kind=kind))
    torch.testing.assert_close(model.eval()(*read), base(*read), atol=1e-5, rtol=0)
    assert type(model) is SaxGPT
    assert sum(map(torch.numel, trained_parameters(model))) == PROJECTIONS * 2 * 8 * SMALL_SAXGPT.width
    assert {parameter.dtype for parameter in trained_parameters(model)} == {torch.float32}
    model(*read).square().mean().backward()
    assert all(parameter.grad is not None for parameter in trained_parameters(model))


def test_an_adapter_is_held_in_32_bits_whatever_is_computed_in(store):
    model = load_model(BASE, store=store).model
    adapt(model, AdapterSection(kind="qlora"), compute=torch.bfloat16)
    assert {parameter.dtype for parameter in trained_parameters(model)} == {torch.float32}
    assert model.decoder.blocks[0].self_attention.query.base_layer.compute_dtype == torch.bfloat16


def test_an_adapter_of_a_recipe_that_ships_bears_ten_times_the_rate():
    table = load_finetuning_table("saxgpt")
    adapted = load_finetuning_table("saxgpt", "qlora")
    assert (table["optimiser"]["learning_rate"], adapted["optimiser"]["learning_rate"]) == (3e-5, 3e-4)
    assert adapted["adapter"] == {"kind": "qlora"}


def test_rank_8_on_the_96_projections_of_personaljazz_trains_1_572_864_parameters():
    model = build_model(load_preset("personaljazz"), "meta")
    adapt(model, AdapterSection())
    assert sum(map(torch.numel, trained_parameters(model))) == 1_572_864
    assert len(adapter_tensors(model)) == 2 * 96


def test_what_is_read_only_is_not_adapted():
    model = build_model(load_preset("musicgen-small"), "meta")
    adapt(model, AdapterSection())
    assert not any(name.startswith("text_encoder") for name in adapter_tensors(model))
    assert len(adapter_tensors(model)) == 2 * 24 * 8


def test_an_evaluation_in_between_leaves_weights_of_4_bits_to_be_trained_over(store, read):
    """On some processors bitsandbytes puts weights into another order then, and goes on without gradients."""
    model = adapted(store, "qlora").train()
    weights = AveragedWeights(model, 0.0)
    with torch.no_grad():
        weights.current()(*read)
    logits = model(*read)
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained_parameters(model))


def test_the_second_copy_has_the_frozen_weights_themselves_and_others_of_the_adapter(store):
    model = adapted(store)
    copied = dict(AveragedWeights(model, 0.9).current().named_parameters())
    for name, parameter in model.named_parameters():
        assert (copied[name].data_ptr() == parameter.data_ptr()) == ("lora" not in name), name


def test_the_state_is_the_adapter_and_goes_on_over_the_base(store, read):
    model = adapted(store)
    state = model.state_dict()
    assert len(state) == 2 * PROJECTIONS
    assert all("lora" in name for name in state)
    wrapped = nn.ModuleDict({"model": model, "beside": nn.Linear(2, 2)})
    assert len(wrapped.state_dict()) == 2 * PROJECTIONS + 2
    fresh = load_model(BASE, store=store).model
    adapt(fresh, AdapterSection())
    fresh.load_state_dict(state)
    assert torch.equal(fresh.eval()(*read), model(*read))
    state.popitem()
    with pytest.raises(RuntimeError, match=r"Missing key.*lora_B"):
        fresh.load_state_dict(state)


# ----------------------------------------------------------------------------------------------------- files, both ways


def test_what_we_write_peft_loads_and_what_peft_writes_we_load(store, read, tmp_path):
    model = adapted(store, rank=4, alpha=6, targets=("query", "up"))
    ours = written(store, model, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(load_model(BASE, store=store).model.train(False), str(ours))
    assert torch.equal(theirs(*read), model(*read))
    theirs.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    assert (
        load_file(tmp_path / "theirs/adapter_model.safetensors").keys()
        == load_file(ours / "adapter_model.safetensors").keys()
    )
    loaded = load_model(BASE, store=store.adapting(BASE, tmp_path / "theirs"))
    torch.testing.assert_close(loaded.model(*read), model(*read), atol=1e-4, rtol=0)
    config = json.loads((ours / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BASE
    assert config["revision"] == read_facts(store.find(BASE).path).weights_sha256


def test_the_same_adapter_is_the_same_bytes(store, tmp_path):
    folders = [written(store, adapted(store), tmp_path / name) for name in ("a", "b")]
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second
    targets = json.loads(first["adapter_config.json"])["target_modules"]
    assert targets == sorted(targets)  # of a set, whose order differs from process to process


@pytest.mark.parametrize("is_4_bit", [False, True])
def test_the_merged_model_equals_base_plus_adapter(store, read, tmp_path, is_4_bit):
    model = adapted(store, "qlora" if is_4_bit else "lora")
    folder = written(store, model, tmp_path / "adapter")
    merge_model(BASE, folder, tmp_path / "merged", is_rounded=is_4_bit, store=store)
    merged = load_model(str(tmp_path / "merged"), store=store).model
    plain = load_model(BASE, store=store).model
    with torch.no_grad():
        torch.testing.assert_close(merged(*read), model(*read), atol=1e-4, rtol=0)
        assert (merged(*read) - plain(*read)).abs().max() > 0.1
    if not is_4_bit:  # what --adapter does elsewhere
        at_once = load_model(BASE, store=store.adapting(BASE, folder)).model.state_dict()
        assert all(torch.equal(at_once[name], tensor) for name, tensor in merged.state_dict().items())


def test_loading_with_an_adapter_tells_of_both_and_leaves_the_base_as_it_was(store, tmp_path):
    before = load_model(BASE, store=store)
    weights = deepcopy(before.model.state_dict())
    folder = written(store, adapted(store), tmp_path / "soft")
    both = load_model(BASE, store=store.adapting(BASE, folder))
    assert both.name == f"{BASE}+soft"
    assert both.sha256 not in (before.sha256, read_adapter(folder).sha256)
    assert type(both.model.decoder.blocks[0].self_attention.query) is nn.Linear
    again = load_model(BASE, store=store).model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    assert load_model("other", store=store.adapting(BASE, folder)).name == "other"


def test_training_goes_on_with_an_adapter(store, read, tmp_path):
    model = adapted(store)
    folder = written(store, model, tmp_path / "adapter")
    further = load_model(BASE, store=store).model
    adapt(further, AdapterSection(), beginning=folder)
    assert torch.equal(further.eval()(*read), model(*read))
    for section, message in (
        (AdapterSection(rank=4), "has r 8, not 4"),
        (AdapterSection(alpha=8), "has lora_alpha 16, not 8"),
        (AdapterSection(targets=("query",)), "for other layers"),
    ):
        with pytest.raises(UsageError, match=message):
            adapt(load_model(BASE, store=store).model, section, beginning=folder)


# ----------------------------------------------------------------------------------------------------- what is refused


def test_an_adapter_for_another_model_is_refused(store, tmp_path):
    folder = written(store, adapted(store), tmp_path / "adapter")
    with pytest.raises(UsageError, match=f"for another model: {BASE} .*, and this is other"):
        load_model("other", store=store.adapting("other", folder))
    with pytest.raises(UsageError, match="an adapter, and no model by itself") as caught:
        store.find(str(folder))
    assert caught.value.hint.endswith(f"--model {BASE} --adapter {folder}")


def _nameless(folder: Path) -> dict:
    """An adapter that does not say what it is for, as one of peft's own may be; gives its configuration."""
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"revision": None, "base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return config


def test_an_adapter_that_does_not_fit_is_refused_whatever_it_says(store, tmp_path):
    folder = written(store, adapted(store), tmp_path / "adapter")
    config, tensors = _nameless(folder), load_file(folder / "adapter_model.safetensors")
    name = next(iter(tensors))
    load_model("other", store=store.adapting("other", folder))  # nothing speaks against it
    damages = {
        "size mismatch|shape": tensors | {name: torch.zeros(8, 5)},
        "of its 25 tensors, 24": tensors
        | {"base_model.model.decoder.blocks.7.query.lora_A.weight": torch.zeros(8, 32)},
        "of its 23 tensors, 23": {key: tensor for key, tensor in tensors.items() if key != name},
    }
    for message, damaged in damages.items():
        save_file(damaged, folder / "adapter_model.safetensors")
        with pytest.raises(UsageError, match=message):
            load_model(BASE, store=store.adapting(BASE, folder))
    save_file(tensors | {name: torch.full((8, 32), torch.nan)}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="NaN"):
        load_model(BASE, store=store.adapting(BASE, folder))
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["nothing"]}))
    with pytest.raises(UsageError, match="does not fit the model"):
        load_model(BASE, store=store.adapting(BASE, folder))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: shutil.rmtree(folder), InputError, "no such file or folder"),
        (
            lambda folder: (folder / "adapter_model.safetensors").unlink(),
            InputError,
            "adapter_model.safetensors is not there",
        ),
        (lambda folder: (folder / "adapter_config.json").unlink(), InputError, "adapter_config.json is not there"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), InputError, "no valid JSON"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), InputError, "no 'peft_type'"),
        (
            lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "X"}'),
            InputError,
            "peft cannot read",
        ),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"{"), InputError, "unreadable safetensors"),
    ],
)
def test_a_damaged_adapter_is_one_line(store, tmp_path, damage, error, message):
    folder = written(store, adapted(store), tmp_path / "adapter")
    damage(folder)
    with pytest.raises(error, match=message):
        load_model(BASE, store=store.adapting(BASE, folder))


def test_models_that_an_adapter_is_nothing_for_are_refused(store, tmp_path):
    install_codec(tmp_path)
    with pytest.raises(UsageError, match="no layer called query or key or value or output"):
        adapt(load_model("codec-24khz", store=Store(tmp_path)).model, AdapterSection())
    model = load_model(BASE, store=store).model
    with pytest.raises(UsageError, match="no layer called queri or quero"):
        adapt(model, AdapterSection(targets=("queri", "quero")))
    with pytest.raises(UsageError, match="is not supported"):
        adapt(model, AdapterSection(targets=("final_norm",)))


@pytest.mark.parametrize("package", ["peft", "bitsandbytes"])
def test_a_package_that_is_missing_is_named_with_what_installs_it(store, tmp_path, monkeypatch, package):
    folder = written(store, adapted(store), tmp_path / "adapter")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingError, match=package) as caught:
        adapt(load_model(BASE, store=store).model, AdapterSection(kind="qlora"))
    assert "pip install 'musictool[finetune]'" in caught.value.hint
    if package == "peft":
        with pytest.raises(MissingError, match="adapters need peft"):
            load_model(BASE, store=store.adapting(BASE, folder))
