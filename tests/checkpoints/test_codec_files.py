"""Codecs' weights in and out of the `encodec` package's files and Hugging Face folders, whole files at a time."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from musictool.checkpoints import published, store
from musictool.checkpoints.native import read_facts
from musictool.checkpoints.verify import VerificationError
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.errors import InputError, UsageError
from musictool.inference import model_description, model_files
from musictool.inference.model_files import export_model, import_model, load_model, verify_model
from musictool.models import registry
from musictool.models.codec import CodecConfig
from tests.checkpoints.server import Behaviour, serving
from tests.models.codec_oracle import package_model, small, sound, transformers_model

PRESETS = ("encodec-24khz", "encodec-48khz", "encodec-32khz")
GAIN, DIRECTION = "encoder.model.0.conv.conv.weight_g", "encoder.model.0.conv.conv.weight_v"
OURS = "encoder.layers.0.conv.weight"


@pytest.fixture
def configs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> dict[str, CodecConfig]:
    """Small codecs in place of the presets of their names."""
    configs = {preset: small(preset) for preset in PRESETS}
    folder = tmp_path_factory.mktemp("presets")
    for name, config in configs.items():
        values = {key: value for key, value in registry.config_to_dict(config).items() if value is not None}
        (folder / f"{name}.toml").write_text(tomli_w.dumps(values))
    monkeypatch.setattr(registry, "_PRESET_FOLDER", folder)
    for module in (registry, model_files, model_description):
        monkeypatch.setattr(module, "PRESETS", PRESETS)
    return configs


@torch.no_grad()
def package_codes(model: Any, audio: Tensor) -> Tensor:
    codes: Tensor = model.quantizer.encode(model.encoder(audio), model.frame_rate)
    return codes.transpose(0, 1)


@torch.no_grad()
def transformers_codes(model: Any, audio: Tensor) -> Tensor:
    codes: Tensor = model.quantizer.encode(model.encoder(audio))
    return codes.transpose(0, 1)


@torch.no_grad()
def our_codes(name: str, audio: Tensor, store: store.Store) -> Tensor:
    codes: Tensor = load_model(name, store=store).model.encode(audio)
    return codes


# -------------------------------------------------------------------------------------------------------------- import


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "wrap", [dict, lambda tensors: {"best_state": tensors, "xp.cfg": "channels: 1", "version": "1"}]
)
def test_a_file_of_the_package_or_of_audiocraft_is_known_by_what_it_holds(configs, store, tmp_path, preset, wrap):
    theirs = package_model(configs[preset])
    torch.save(wrap(theirs.state_dict()), tmp_path / "x.th")
    import_model(tmp_path / "x.th", "mine", store=store)
    assert read_facts(store.folder_for("mine")).preset == preset
    assert load_model("mine", store=store).config == configs[preset]
    audio = sound(configs[preset], 4321)
    assert torch.equal(our_codes("mine", audio, store), package_codes(theirs, audio))
    assert not verify_model(str(tmp_path / "x.th"), store=store).findings


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("encodec-24khz", {"filters": 6, "ratios": (4, 3), "residual_layers": 2, "lstm_layers": 1, "trim_right": 0.5}),
    ("encodec-24khz", {"channels": 2, "pad_mode": "constant", "codebooks": 3}),
    ("encodec-48khz", {"channels": 1, "segment_seconds": 0.5, "overlap": 0.25}),
    ("encodec-32khz", {"has_shortcut": True, "is_causal": True, "width": 12, "rate_hz": 16_000}),
]


@pytest.mark.parametrize(("preset", "changes"), OTHERS)
def test_a_folder_of_transformers_tells_its_own_numbers(configs, store, tmp_path, preset, changes):
    config = replace(configs[preset], **changes)
    config = replace(config, bandwidths_kbps=(1.001 * config.codebooks * config.kbps_of_codebook,))
    theirs = transformers_model(config)
    theirs.save_pretrained(tmp_path / "x")
    import_model(tmp_path / "x", "mine", store=store)
    loaded = load_model("mine", store=store)
    assert loaded.config == config
    assert read_facts(store.folder_for("mine")).preset == "codec"
    audio = sound(config, 4321)
    assert torch.equal(our_codes("mine", audio, store), transformers_codes(theirs, audio))
    assert verify_model(str(tmp_path / "x"), store=store).findings == ()


def test_a_folder_with_the_numbers_of_a_preset_is_called_by_its_name(configs, store, tmp_path):
    transformers_model(configs["encodec-48khz"]).save_pretrained(tmp_path / "x")
    import_model(tmp_path / "x", "mine", store=store)
    assert read_facts(store.folder_for("mine")).preset == "encodec-48khz"
    with pytest.raises(UsageError, match="says that it is no encodec-24khz: rate_hz is 48000, not 24000"):
        import_model(tmp_path / "x", "other", preset="encodec-24khz", store=store)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weight_norm_by_its_older_names_is_read_too(configs, store, tmp_path, file):
    theirs = transformers_model(configs["encodec-24khz"])
    theirs.save_pretrained(tmp_path / "x")
    tensors = load_file(tmp_path / "x" / "model.safetensors")
    (tmp_path / "x" / "model.safetensors").unlink()
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, name in old.items():
        tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
    save = save_file if file.endswith("safetensors") else torch.save
    save(tensors, tmp_path / "x" / file)
    import_model(tmp_path / "x", "mine", store=store)
    audio = sound(configs["encodec-24khz"], 4321)
    assert torch.equal(our_codes("mine", audio, store), transformers_codes(theirs, audio))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"num_filters": "many"}, "'filters'"),
        ({"norm_type": "layer_norm"}, "'norm'"),
        ({"norm_type": "time_group_norm"}, "segments"),
        ({"upsampling_ratios": [0]}, "no codec"),
        ({"upsampling_ratios": 3}, "'ratios'"),
        ({"target_bandwidths": []}, "no codec"),
        ({"target_bandwidths": [1e-9]}, "no room"),
        ({"codebook_dim": 3}, "narrower"),
        ({"chunk_length_s": 1.0}, "segments are normalised"),
        ({"codebook_size": 0}, "no codec"),
        ({"sampling_rate": -5}, "no codec"),
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(configs, store, tmp_path, changes, why):
    transformers_model(configs["encodec-24khz"]).save_pretrained(tmp_path / "x")
    path = tmp_path / "x" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=why) as caught:
        import_model(tmp_path / "x", "mine", store=store)
    assert caught.value.context == str(path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "tensor", "found"),
    [
        (GAIN, None, f"{GAIN} is missing"),
        (DIRECTION, None, f"{DIRECTION} is missing"),
        (GAIN, torch.ones(3, 1, 1), "no gain of shape [3, 1, 1] goes with a direction of shape [4, 1, 7]"),
        (GAIN, torch.full((4, 1, 1), float("nan")), "28 of 28 values"),
        (DIRECTION, torch.ones(4, 2, 7), "[4, 2, 7]"),
    ],
)
def test_a_wrong_part_of_a_weight_is_one_finding(configs, store, tmp_path, name, tensor, found):
    tensors = package_model(configs["encodec-24khz"]).state_dict()
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    torch.save(tensors, tmp_path / "x.th")
    with pytest.raises(VerificationError) as caught:
        import_model(tmp_path / "x.th", "mine", preset="encodec-24khz", store=store)
    (finding,) = caught.value.findings
    assert finding.tensor == OURS
    assert finding.found.startswith(found)


# -------------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("preset", PRESETS)
def test_both_libraries_load_what_is_exported(configs, store, tmp_path, preset):
    config = configs[preset]
    torch.save(package_model(config).state_dict(), tmp_path / "x.th")
    import_model(tmp_path / "x.th", "mine", store=store)
    audio = sound(config, 4321)
    wanted = our_codes("mine", audio, store)

    export_model("mine", "encodec", tmp_path / "package.th", store=store)
    package = package_model(config, seed=1)
    package.load_state_dict(torch.load(tmp_path / "package.th", weights_only=True))
    assert torch.equal(package_codes(package, audio), wanted)
    assert all(layer._codebook.inited for layer in package.quantizer.vq.layers)

    export_model("mine", "huggingface", tmp_path / "folder", store=store)
    port, told = type(transformers_model(config, seed=1)).from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert port.config.num_quantizers == config.codebooks
    assert torch.equal(transformers_codes(port.eval(), audio), wanted)

    for path in ("package.th", "folder"):
        import_model(tmp_path / path, "again", store=store, force=True)
        assert load_model("again", store=store).config == config
        for name, tensor in load_model("mine", store=store).model.state_dict().items():
            other = load_model("again", store=store).model.state_dict()[name]
            torch.testing.assert_close(other, tensor, rtol=1e-6, atol=0)


def test_codebooks_that_no_bit_rate_tells_of_are_told_by_one_more(configs, store, tmp_path):
    config = replace(configs["encodec-24khz"], codebooks=7)
    model = registry.build_model(config)
    names = registry.foreign_names(config)["huggingface"]
    port = type(transformers_model(configs["encodec-24khz"])).config_class(**names.config)
    assert port.num_quantizers == 7
    assert set(names.to_theirs(model.state_dict()))


def test_a_codec_of_our_own_has_no_layout_elsewhere_and_keeps_its_bits_in_a_torch_file(store, tmp_path):
    config = replace(small("codec-24khz"), codebooks=2)
    folder = store.folder_for("mine")
    folder.mkdir(parents=True)
    values = registry.config_to_dict(config)
    model = registry.build_model(config)
    facts = model_files.ModelFacts(values.pop("family"), "codec", values)
    model_files.write_native(folder, model.state_dict(), facts, "")
    for layout in ("encodec", "huggingface", "t5x"):
        with pytest.raises(UsageError, match=f"no {layout} layout"):
            export_model("mine", layout, tmp_path / "x", store=store)
    export_model("mine", "torch", tmp_path / "x", store=store)
    tensors = torch.load(tmp_path / "x", weights_only=True)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())


# ---------------------------------------------------------------------------------------------------------------- pull


@pytest.fixture
def hub(configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to serve: the package's file, and a folder of transformers; and lists of what is published there."""
    folder, lists = tmp_path / "hub", tmp_path / "published"
    folder.mkdir()
    lists.mkdir()
    torch.save(package_model(configs["encodec-24khz"]).state_dict(), folder / "24.th")
    transformers_model(configs["encodec-32khz"]).save_pretrained(folder / "32")
    data = (folder / "24.th").read_bytes()
    about = {"url": "https://nowhere.invalid/", "licence": "MIT", "about": "Nobody."}
    known = {"preset": "encodec-24khz", "files": [["24.th", len(data), hashlib.sha256(data).hexdigest()]]}
    unknown = {"preset": "encodec-32khz", "files": [["config.json", None, ""], ["model.safetensors", None, ""]]}
    for name, facts in (("encodec-24khz", known), ("encodec-32khz", unknown)):
        (lists / f"{name}.json").write_text(json.dumps({**about, **facts}))
    monkeypatch.setattr(published, "_FOLDER", lists)
    for module in (published, store):
        monkeypatch.setattr(module, "PUBLISHED", ("encodec-24khz", "encodec-32khz"))
    return folder


def mtk(home: Path, *arguments: str) -> tuple[int, str, str]:
    environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(home)})
    status = main(["models", *arguments], environment)
    return status, environment.stdout.getvalue().decode(), environment.stderr.getvalue()


def test_a_file_all_of_which_is_known_is_pulled_without_a_remark(hub, tmp_path):
    with serving(hub, Behaviour()) as url:
        status, _, err = mtk(tmp_path / "home", "pull", "encodec-24khz", "--from", url)
    assert (status, err.count("\n")) == (0, 1)
    assert "imported as encodec-24khz" in err


def test_what_could_not_be_checked_is_said_and_kept_with_the_model(hub, tmp_path):
    with serving(hub, Behaviour(stored={"32/model.safetensors"})) as url:
        status, _, err = mtk(tmp_path / "home", "pull", "encodec-32khz", "--from", f"{url}32")
    assert status == 0
    digest = hashlib.sha256((hub / "32" / "model.safetensors").read_bytes()).hexdigest()
    remark = (
        "config.json: its sha256 is not known here, and its server states none; "
        f"model.safetensors: its sha256 is not known here, and the one that its server states was checked: {digest}"
    )
    assert f"mtk: note: {remark}\n" in err
    assert remark in mtk(tmp_path / "home", "show", "encodec-32khz")[1]
    assert mtk(tmp_path / "home", "verify", "encodec-32khz")[0] == 0


def test_a_folder_that_says_it_is_something_else_is_not_imported(hub, tmp_path):
    path = hub / "32" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_mode": "constant"}))
    with serving(hub, Behaviour()) as url:
        status, _, err = mtk(tmp_path / "home", "pull", "encodec-32khz", "--from", f"{url}32")
    assert status == 2
    assert "pad_mode is constant, not reflect" in err
    assert not (tmp_path / "home" / "models").exists()


def test_a_dry_run_does_not_make_up_what_is_not_known(hub, tmp_path):
    status, out, err = mtk(tmp_path / "home", "pull", "encodec-32khz", "--dry-run")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()] == [["?", "?"], ["?", "?"]]
    assert "2 of unknown size" in err
