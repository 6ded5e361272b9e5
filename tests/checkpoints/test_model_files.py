"""Import, check, export and load: what comes in is what goes out, and what is wrong is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from musictool.checkpoints.native import read_card, read_facts
from musictool.checkpoints.safetensors_files import write_safetensors
from musictool.checkpoints.store import Store
from musictool.checkpoints.verify import VerificationError
from musictool.errors import InputError, MissingError, UsageError
from musictool.inference.model_description import describe_model
from musictool.inference.model_files import export_model, import_model, load_model, verify_model
from musictool.models.registry import build_model, load_preset
from tests.checkpoints.tiny import LAYOUTS, in_layout, random_weights, t5x_folder

KERNEL = "target.decoder.layers_1.mlp.wo.kernel"
OURS = "decoder.blocks.1.feed_forward.down.weight"


@pytest.fixture
def tiny(presets, store, tmp_path):
    """A model named `tiny` in the store; its weights."""
    weights = t5x_folder(tmp_path / "tiny-t5x")
    import_model(tmp_path / "tiny-t5x", "tiny", store=store)
    return weights


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    if left.keys() != right.keys():
        return False
    return all(left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("preset", ["tiny", "tiny-relative"])
def test_weights_go_through_every_layout_bit_for_bit(presets, store, tmp_path, preset):
    t5x_folder(tmp_path / "t5x", preset)
    import_model(tmp_path / "t5x", "first", preset=preset, store=store)
    for layout in LAYOUTS:
        export_model("first", layout, tmp_path / f"{layout}-export", store=store)
        import_model(tmp_path / f"{layout}-export", layout, store=store)
        assert read_facts(store.folder_for(layout)).preset == preset
        assert same(load_model(layout, store=store).model.state_dict(), random_weights(preset))
        assert not verify_model(layout, store=store).findings
        assert not verify_model(str(tmp_path / f"{layout}-export"), store=store).findings
    digests = {read_facts(store.folder_for(layout)).weights_sha256 for layout in LAYOUTS}
    assert digests == {read_facts(store.folder_for("first")).weights_sha256}


def test_a_loaded_model_computes_what_one_with_the_same_weights_does(tiny, store):
    loaded = load_model("tiny", store=store)
    reference = build_model(load_preset("tiny")).eval()
    reference.load_state_dict(tiny)
    generator = torch.Generator().manual_seed(1)
    frames, ids = torch.randn(2, 4, 5, generator=generator), torch.randint(0, 12, (2, 6), generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(frames, ids), reference(frames, ids), rtol=0, atol=0)
    assert not loaded.model.training
    assert (loaded.name, loaded.config) == ("tiny", load_preset("tiny"))
    assert loaded.sha256 == read_facts(store.folder_for("tiny")).weights_sha256


def test_a_loaded_model_is_in_float32_whatever_is_stored(presets, store, tmp_path):
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in random_weights("tiny").items()}
    torch.save(halves, tmp_path / "half.pt")
    import_model(tmp_path / "half.pt", "tiny", store=store)
    assert describe_model("tiny", store=store).dtypes == ("bfloat16",)
    loaded = load_model("tiny", store=store).model.state_dict()
    assert same(loaded, {name: tensor.float() for name, tensor in halves.items()})


def test_names_tell_the_layout_whatever_the_file(presets, store, tmp_path):
    weights = random_weights("tiny")
    for name, tensors in {
        "ours": weights,
        "port": {f"module.{name}": tensor for name, tensor in in_layout("huggingface", weights, "tiny").items()},
        "t5x": in_layout("t5x", weights, "tiny"),
    }.items():
        torch.save({"state_dict": tensors}, tmp_path / f"{name}.pth")
        import_model(tmp_path / f"{name}.pth", name, store=store)
        assert same(load_model(name, store=store).model.state_dict(), weights)


def test_a_preset_is_that_of_the_name_or_the_nearest(presets, store, tmp_path):
    t5x_folder(tmp_path / "x", "tiny-relative")
    import_model(tmp_path / "x", "other", store=store)
    assert read_facts(store.folder_for("other")).preset == "tiny-relative"
    with pytest.raises(VerificationError, match="does not fit"):
        import_model(tmp_path / "x", "tiny", store=store)
    import_model(tmp_path / "x", "tiny", preset="tiny-relative", store=store)
    with pytest.raises(UsageError, match="no such preset"):
        import_model(tmp_path / "x", "third", preset="huge", store=store)


NAN = torch.zeros(10, 8).index_put_((torch.tensor([1, 2]), torch.tensor([3, 3])), torch.tensor(float("nan")))


@pytest.mark.parametrize(
    ("tensor", "problem", "told"),
    [
        (None, "missing", ("[8, 10]", "")),
        (torch.zeros(10, 9), "wrong shape", ("[8, 10]", "[9, 10]")),
        (NAN, "not finite", ("", "2 of 80 values")),
        (torch.full((10, 8), float("-inf")), "not finite", ("", "80 of 80 values")),
        (torch.zeros(10, 8, dtype=torch.int32), "wrong type", ("floating point", "int32")),
    ],
)
def test_one_wrong_tensor_is_named_on_import_and_on_verify(presets, store, tmp_path, tensor, problem, told):
    t5x_folder(tmp_path / "x", **{KERNEL.replace(".", "__"): tensor})
    (finding,) = verify_model(str(tmp_path / "x"), store=store).findings
    assert (finding.problem, finding.tensor, finding.stored) == (problem, OURS, KERNEL)
    assert (finding.expected, finding.found) == told
    with pytest.raises(VerificationError) as caught:
        import_model(tmp_path / "x", "tiny", store=store)
    assert caught.value.findings == (finding,)
    assert caught.value.exit_status == 3
    assert OURS in caught.value.message
    assert not store.models.exists() or not list(store.models.iterdir())


def test_a_truncated_chunk_is_named_with_its_tensor(presets, store, tmp_path):
    t5x_folder(tmp_path / "x")
    chunk = tmp_path / "x" / KERNEL / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    (finding,) = verify_model(str(tmp_path / "x"), store=store).findings
    assert (finding.problem, finding.tensor) == ("unreadable", OURS)
    assert str(chunk) in finding.found


def test_a_tied_weight_that_differs_from_its_copy_is_found(presets, store, tmp_path):
    theirs = in_layout("huggingface", random_weights("tiny-relative"), "tiny-relative")
    theirs["lm_head.weight"] += 1
    write_safetensors(tmp_path / "x", theirs)
    (finding,) = verify_model(str(tmp_path / "x"), preset="tiny-relative", store=store).findings
    assert (finding.problem, finding.tensor) == ("copies differ", "token_embedding.weight")


def test_a_byte_changed_in_the_store_is_found_by_its_digest(tiny, store):
    weights = store.folder_for("tiny") / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (finding,) = verify_model("tiny", store=store).findings
    assert (finding.problem, finding.tensor) == ("changed", "model.safetensors")


def test_a_model_that_lost_a_tensor_is_not_loaded(tiny, store):
    del tiny[OURS]
    write_safetensors(store.folder_for("tiny") / "model.safetensors", tiny)
    with pytest.raises(VerificationError, match=f"missing: {OURS}"):
        load_model("tiny", store=store)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"family": "mt9"}, "unknown family"),
        ({"config": {"width": "wide"}}, "'width'"),
        ({"config": {"colour": 3}}, "colour"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_bad_input(tiny, store, change, why):
    path = store.folder_for("tiny") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for use in (load_model, verify_model):
        with pytest.raises(InputError, match=why):
            use("tiny", store=store)


def test_an_installed_model_is_kept_unless_forced(tiny, store, tmp_path):
    torch.save(random_weights("tiny", seed=1), tmp_path / "other.pt")
    with pytest.raises(UsageError, match="exists"):
        import_model(tmp_path / "other.pt", "tiny", store=store)
    assert same(load_model("tiny", store=store).model.state_dict(), tiny)
    import_model(tmp_path / "other.pt", "tiny", store=store, force=True)
    assert same(load_model("tiny", store=store).model.state_dict(), random_weights("tiny", seed=1))
    assert [path.name for path in store.models.iterdir()] == ["tiny"]


def test_a_failed_import_keeps_the_model_that_was_there(tiny, store, tmp_path):
    torch.save({**random_weights("tiny", seed=1), OURS: torch.zeros(1)}, tmp_path / "bad.pt")
    with pytest.raises(VerificationError):
        import_model(tmp_path / "bad.pt", "tiny", store=store, force=True)
    assert same(load_model("tiny", store=store).model.state_dict(), tiny)


def test_a_copied_model_keeps_its_card_and_its_source(tiny, store, tmp_path):
    folder = store.folder_for("tiny")
    (folder / "card.md").write_text("# by hand\n")
    import_model(folder, "copy", store=store)
    assert read_card(store.folder_for("copy")) == "# by hand\n"
    assert read_facts(store.folder_for("copy")) == read_facts(folder)


def test_an_export_keeps_what_is_in_its_way(tiny, store, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UsageError):
            export_model("tiny", "native", tmp_path / "out", store=store, force=force)
    assert os.listdir(tmp_path / "out") == ["notes.txt"]


def test_a_full_disk_leaves_no_half_export_and_is_told_by_the_targets_name(tiny, store, tmp_path):
    code = f"""
import resource, signal
from pathlib import Path
from musictool.checkpoints.store import Store
from musictool.inference.model_files import export_model
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
for layout in {LAYOUTS!r}:
    try:
        export_model("tiny", layout, Path("out") / layout, store=Store(Path({str(store.home)!r})))
    except OSError as error:
        print(error.filename, error.strerror)
"""
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environ
    )
    assert done.stdout.splitlines() == [f"out/{layout} File too large" for layout in LAYOUTS], done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_an_exported_hugging_face_folder_is_loaded_by_transformers(presets, store, tmp_path):
    transformers = pytest.importorskip("transformers")
    weights = t5x_folder(tmp_path / "t5x", "tiny-relative")
    import_model(tmp_path / "t5x", "tiny-relative", store=store)
    export_model("tiny-relative", "huggingface", tmp_path / "hf", store=store)
    port, info = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    theirs = port.state_dict()
    assert torch.equal(theirs["lm_head.weight"], weights["token_embedding.weight"])
    assert torch.equal(theirs["decoder.block.1.layer.2.DenseReluDense.wo.weight"], weights[OURS])


def test_a_model_that_is_not_here_is_missing(presets, store):
    with pytest.raises(MissingError) as caught:
        load_model("mt3", store=store)
    assert caught.value.hint == "mtk models pull mt3"


def test_parts_add_up_and_are_the_same_with_and_without_weights(tiny, store):
    described = describe_model("tiny", store=store)
    assert described.parameters == sum(tensor.numel() for tensor in tiny.values())
    assert [part.name for part in described.parts] == ["encoder", "decoder"]
    for part in described.parts:
        assert part.parameters == sum(inner.parameters for inner in part.inner)
    assert describe_model("tiny", store=Store(Path("nowhere"))).parts == described.parts


def test_the_published_numbers_are_told_by_part_without_weights(store):
    described = describe_model("mt3", store=store)
    assert described.parameters == 45_896_704
    assert {part.name: part.parameters for part in described.parts} == {"encoder": 19_145_216, "decoder": 26_751_488}
    assert {part.name for part in described.parts[1].inner} == {"token_embedding", "blocks", "final_norm", "head"}


def test_no_torch_is_imported_to_list_and_describe_what_is_here(tiny, store):
    code = f"""
import sys
from pathlib import Path
from musictool.checkpoints.store import Store
from musictool.inference.model_description import describe_model
store = Store(Path({str(store.home)!r}))
assert [model.name for model in store.installed() if model.place == "store"] == ["tiny"]
assert describe_model("tiny", store=store).parameters
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
