"""`mtk models` as whole commands."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from musictool.checkpoints import published, store
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.commands.models import ExportFormat
from musictool.inference.model_files import LAYOUTS, load_model
from tests.checkpoints import tiny
from tests.checkpoints.server import Behaviour, serving

KERNEL = "target.encoder.layers_0.attention.out.kernel"
OURS = "encoder.blocks.0.self_attention.output.weight"
SHARED = os.environ.get("MTK_TEST_SHARED")

presets = tiny.presets


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def mtk(home: Path) -> Callable[..., tuple[int, str, str]]:
    """Run `mtk models ARGUMENT…` with a store of its own: status, standard output, standard error."""

    def run(*arguments: object, **variables: str) -> tuple[int, str, str]:
        environ = {"MTK_HOME": str(home), **variables}
        environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO(), environ)
        status = main(["models", *map(str, arguments)], environment)
        return status, environment.stdout.getvalue().decode(), environment.stderr.getvalue()

    return run


@pytest.fixture
def checkpoint(presets, tmp_path: Path) -> Path:
    """A T5X folder of preset `tiny`."""
    tiny.t5x_folder(tmp_path / "tiny-t5x")
    return tmp_path / "tiny-t5x"


# ------------------------------------------------------------------------------------------- list, show, import, export


def test_an_imported_model_is_listed_shown_and_verified(mtk, checkpoint, home):
    status, out, err = mtk("import", checkpoint, "--as", "tiny")
    assert (status, out) == (0, "")
    assert err == f"mtk: note: imported as tiny ({home / 'models' / 'tiny'})\n"
    _, out, _ = mtk("list")
    names = [line.split()[0] for line in out.splitlines()[1:]]
    shipped = ["codec-24khz", "note-tagger", "saxgpt-weimar", "symbolic-generator", "tatumflow"]
    assert names == [*shipped, "tiny", "tiny-relative"]
    rows = [json.loads(line) for line in mtk("list", "--json")[1].splitlines()][len(shipped) :]
    assert [(row["name"], row["place"], row["path"]) for row in rows] == [
        ("tiny", "store", str(home / "models" / "tiny")),
        ("tiny-relative", None, None),
    ]
    assert rows[0]["bytes"] == (home / "models" / "tiny" / "model.safetensors").stat().st_size
    shown = json.loads(mtk("show", "tiny", "--json")[1])
    assert shown["parameters"] == sum(tensor.numel() for tensor in tiny.random_weights("tiny").values())
    assert f"total {shown['parameters']:>24,}".split() in [line.split() for line in mtk("show", "tiny")[1].splitlines()]
    status, out, _ = mtk("verify", "tiny", checkpoint)
    assert status == 0
    assert [line.split(":")[0] for line in out.splitlines()] == ["ok  tiny", f"ok  {checkpoint}"]


def test_the_published_model_is_shown_before_its_weights_are_here(mtk):
    status, out, _ = mtk("show", "mt3")
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    for row in (["encoder", "19,145,216"], ["decoder", "26,751,488"], ["total", "45,896,704"]):
        assert row in rows
    assert "not here: mtk models pull mt3" in out


def test_a_second_import_keeps_the_first_unless_forced(mtk, checkpoint):
    mtk("import", checkpoint, "--as", "tiny")
    status, _, err = mtk("import", checkpoint, "--as", "tiny")
    assert status == 2
    assert "hint: replace it with --force" in err
    assert mtk("import", checkpoint, "--as", "tiny", "--force")[0] == 0


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_an_export_can_be_imported(mtk, checkpoint, tmp_path, layout):
    mtk("import", checkpoint, "--as", "tiny")
    assert mtk("export", "tiny", "--format", layout, "-o", tmp_path / "out" / "x")[0] == 0
    assert mtk("verify", tmp_path / "out" / "x")[0] == 0
    assert mtk("import", tmp_path / "out" / "x", "--as", "again")[0] == 0
    one, two = (json.loads(mtk("show", name, "--json")[1]) for name in ("tiny", "again"))
    assert one["sha256"] == two["sha256"]
    assert mtk("export", "tiny", "--format", layout, "-o", tmp_path / "out" / "x")[0] == 2


def test_the_formats_of_export_are_those_there_are():
    assert tuple(format.value for format in ExportFormat) == LAYOUTS


@pytest.mark.parametrize("numbers", ["float16", "bfloat16"])
def test_an_export_in_half_precision_is_half_as_large_and_rounds_the_same_weights(
    mtk, checkpoint, home, tmp_path, numbers
):
    mtk("import", checkpoint, "--as", "tiny")
    half = tmp_path / "half"
    assert mtk("export", "tiny", "--weights", numbers, "-o", half)[0] == 0
    assert mtk("verify", half)[0] == 0
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, home / "models" / "tiny")]
    assert sizes[0] < 0.7 * sizes[1]
    whole, rounded = (load_model(str(path)).model.state_dict() for path in (home / "models" / "tiny", half))
    for name, tensor in whole.items():
        assert torch.equal(rounded[name], tensor.to(getattr(torch, numbers)).float())


def test_weights_that_half_precision_cannot_hold_are_named(mtk, checkpoint, home, tmp_path):
    mtk("import", checkpoint, "--as", "tiny")
    file = home / "models" / "tiny" / "model.safetensors"
    tensors = load_file(file)
    tensors[OURS][0, 0] = 1e6
    save_file(tensors, file)
    status, _, err = mtk("export", "tiny", "--weights", "float16", "-o", tmp_path / "half")
    assert status == 2
    assert f"a weight is too large for float16 ({OURS})" in err
    assert not (tmp_path / "half").exists()
    assert mtk("export", "tiny", "--weights", "bfloat16", "-o", tmp_path / "half")[0] == 0


def test_models_are_found_in_read_only_folders(mtk, checkpoint, home, tmp_path):
    mtk("import", checkpoint, "--as", "tiny")
    shutil.move(home / "models", tmp_path / "elsewhere")
    assert mtk("verify", "tiny")[0] == 4
    assert mtk("verify", "tiny", MTK_MODEL_PATH=str(tmp_path / "elsewhere"))[0] == 0
    assert mtk("verify", tmp_path / "elsewhere" / "tiny")[0] == 0


def test_a_damaged_model_is_listed_as_such(mtk, checkpoint, home):
    mtk("import", checkpoint, "--as", "tiny")
    (home / "models" / "tiny" / "config.json").write_text("{")
    status, out, _ = mtk("list")
    assert status == 0
    assert "unreadable: no valid JSON" in out
    assert mtk("show", "tiny")[0] == 3


# --------------------------------------------------------------------------------------------------------------- verify


@pytest.mark.parametrize(
    ("tensor", "row"),
    [
        (None, f"missing {OURS} {KERNEL} [8, 6]"),
        (torch.zeros(8, 6), f"wrong shape {OURS} {KERNEL} [8, 6] [6, 8]"),
        (torch.full((6, 8), float("nan")), f"not finite {OURS} {KERNEL} 48 of 48 values"),
    ],
)
def test_a_wrong_tensor_is_a_row_of_the_table_and_exit_status_3(mtk, presets, tmp_path, tensor, row):
    tiny.t5x_folder(tmp_path / "x", **{KERNEL.replace(".", "__"): tensor})
    for arguments in (("verify", tmp_path / "x"), ("import", tmp_path / "x", "--as", "tiny")):
        status, out, err = mtk(*arguments)
        assert status == 3
        head, told = out.splitlines()
        assert head.split() == ["problem", "tensor", "in", "the", "file", "expected", "found"]
        assert " ".join(told.split()) == row
        assert err.startswith("mtk: error: the checkpoint does not fit: ")
        assert OURS in err


def test_every_wrong_tensor_is_a_row(mtk, presets, tmp_path):
    changes = {KERNEL: None, "target.decoder.decoder_norm.scale": torch.tensor([float("inf")] * 8)}
    changes["target.encoder.continuous_inputs_projection.kernel"] = torch.zeros(5, 5)
    tiny.t5x_folder(tmp_path / "x", **{name.replace(".", "__"): tensor for name, tensor in changes.items()})
    status, out, err = mtk("verify", tmp_path / "x", "--json")
    (record,) = map(json.loads, out.splitlines())
    assert status == 3
    assert not record["ok"]
    assert {(f["problem"], f["stored"]) for f in record["findings"]} == set(
        zip(("missing", "not finite", "wrong shape"), changes)
    )
    assert "1 missing, 1 not finite" in err or "1 wrong shape, 1 missing" in err


def test_a_bad_one_among_several_does_not_stop_the_others(mtk, checkpoint, tmp_path):
    mtk("import", checkpoint, "--as", "tiny")
    (tmp_path / "x.wav").write_bytes(b"RIFF" * 20)
    status, out, err = mtk("verify", tmp_path / "x.wav", "nowhere", "tiny")
    assert status == 3
    assert out.startswith("ok  tiny: ")
    assert err.count("mtk: failed: ") == 2
    assert "mtk: error: 2 of 3 checkpoints" in err


def test_a_checkpoint_right_here_needs_no_dot_before_its_name(mtk, checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    assert mtk("verify", "tiny-t5x")[0] == 0
    assert mtk("import", "tiny-t5x", "--as", "tiny")[0] == 0


def test_without_an_argument_all_models_are_verified(mtk, checkpoint):
    shipped = ["ok  codec-24khz", "ok  note-tagger", "ok  saxgpt-weimar", "ok  symbolic-generator", "ok  tatumflow"]
    assert [line.split(":")[0] for line in mtk("verify")[1].splitlines()] == shipped
    mtk("import", checkpoint, "--as", "a")
    mtk("import", checkpoint, "--as", "b")
    assert [line.split(":")[0] for line in mtk("verify")[1].splitlines()] == ["ok  a", "ok  b", *shipped]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("show", "nowhere"), 4),
        (("show", "./nowhere"), 3),
        (("show", "a b"), 2),
        (("export", "nowhere", "-o", "x"), 4),
        (("import", "nowhere", "--as", "x"), 3),
        (("import", ".", "--as", "x"), 3),
        (("import", ".", "--as", "../x"), 2),
        (("import", ".", "--as", "a.b"), 2),
        (("pull", "nowhere"), 2),
        (("pull", "mt3", "--from", "file:///etc"), 2),
        (("verify", "nowhere"), 4),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_hint(mtk, tmp_path, monkeypatch, arguments, status):
    monkeypatch.chdir(tmp_path)
    found, out, err = mtk(*arguments)
    assert (found, out) == (status, "")
    assert err.startswith("mtk: error: ")
    assert err.count("\n") <= 2
    assert not list(tmp_path.iterdir())


def test_code_in_a_torch_file_is_refused_in_one_line(mtk, presets, tmp_path):
    torch.save({"a": torch.nn.Linear(2, 2)}, tmp_path / "x.pt")
    status, _, err = mtk("import", tmp_path / "x.pt", "--as", "tiny")
    assert status == 3
    assert "code in files is not run" in err
    assert err.count("\n") == 2


# ----------------------------------------------------------------------------------------------------------------- pull


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def mirror(checkpoint, behaviour, tmp_path, monkeypatch) -> Iterator[str]:
    """A server that has `tiny`, and a list of what is published that says so."""
    names = sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
    contents = {name: (checkpoint / name).read_bytes() for name in names}
    files = [[name, len(data), hashlib.sha256(data).hexdigest()] for name, data in contents.items()]
    facts = {
        "preset": "tiny",
        "url": "https://nowhere.invalid/",
        "licence": "CC0-1.0",
        "about": "Nobody.",
        "files": files,
    }
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "tiny.json").write_text(json.dumps({**facts, "files": files}))
    monkeypatch.setattr(published, "_FOLDER", tmp_path / "published")
    for module in (published, store):
        monkeypatch.setattr(module, "PUBLISHED", ("tiny",))
    with serving(checkpoint.parent, behaviour) as url:
        yield url


def test_a_pulled_model_is_the_imported_one_and_says_where_it_is_from(mtk, mirror, checkpoint, home):
    status, _, err = mtk("pull", "tiny", "--from", f"{mirror}tiny-t5x")
    assert (status, err) == (0, f"mtk: note: imported as tiny ({home / 'models' / 'tiny'})\n")
    mtk("import", checkpoint, "--as", "again")
    one, two = (json.loads(mtk("show", name, "--json")[1]) for name in ("tiny", "again"))
    assert one["sha256"] == two["sha256"]
    assert (one["source"]["licence"], one["source"]["url"]) == ("CC0-1.0", "https://nowhere.invalid/")
    assert not list((home / "downloads").iterdir())


def test_a_mirror_is_found_by_its_variable(mtk, mirror, checkpoint):
    checkpoint.rename(checkpoint.parent / "tiny")
    assert mtk("pull", "tiny", MTK_MIRROR=mirror.rstrip("/"))[0] == 0


def test_a_model_that_is_here_is_not_pulled_again_unless_forced(mtk, mirror, behaviour):
    mtk("pull", "tiny", "--from", f"{mirror}tiny-t5x")
    behaviour.requests.clear()
    status, _, err = mtk("pull", "tiny", "--from", f"{mirror}tiny-t5x")
    assert (status, behaviour.requests) == (0, [])
    assert "here already" in err
    assert mtk("pull", "tiny", "--from", f"{mirror}tiny-t5x", "--force")[0] == 0
    assert behaviour.requests


def test_a_dry_run_lists_what_would_come_and_fetches_nothing(mtk, mirror, checkpoint, behaviour, home):
    status, out, err = mtk("pull", "tiny", "--dry-run")
    rows = [line.split() for line in out.splitlines()]
    assert status == 0
    assert all(len(digest) == 64 and url.startswith("https://nowhere.invalid/") for _, digest, url in rows)
    assert sum(int(size) for size, _, _ in rows) == sum(p.stat().st_size for p in checkpoint.rglob("*") if p.is_file())
    assert err.startswith("mtk: note: ")
    assert not behaviour.requests
    assert not home.exists()


def test_a_corrupted_file_is_named_and_nothing_is_imported(mtk, mirror, behaviour, home):
    behaviour.corrupt.add(f"tiny-t5x/{KERNEL}/0.0")
    status, _, err = mtk("pull", "tiny", "--from", f"{mirror}tiny-t5x")
    assert status == 3
    assert err.startswith("mtk: error: the file is not the one that was published: its sha256 differs")
    assert f"{KERNEL}/0.0" in err.splitlines()[0]
    assert not (home / "models").exists()
    downloads = home / "downloads" / "tiny"
    kept = {path.relative_to(downloads).as_posix() for path in downloads.rglob("*") if path.is_file()}
    behaviour.corrupt.clear()
    behaviour.requests.clear()
    assert mtk("pull", "tiny", "--from", f"{mirror}tiny-t5x")[0] == 0
    assert f"tiny-t5x/{KERNEL}/0.0" in behaviour.asked()
    assert kept.isdisjoint(path.removeprefix("tiny-t5x/") for path in behaviour.asked())


def test_a_file_that_is_not_at_the_server_is_named(mtk, mirror):
    status, _, err = mtk("pull", "tiny", "--from", f"{mirror}elsewhere")
    assert status == 3
    assert "404" in err
    assert err.count("\n") == 2


def test_progress_of_a_pull_is_told_to_machines(mtk, mirror):
    _, _, err = mtk("pull", "tiny", "--from", f"{mirror}tiny-t5x", "--log", "json")
    events = [json.loads(line).get("event") for line in err.splitlines()]
    assert events == ["start", "end", None]


# ------------------------------------------------------------------------------------------------- in real processes


def test_a_list_imports_no_torch(home):
    code = (
        "import sys; from musictool.cli.main import main; assert main(['models', 'list']) == 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "MTK_HOME": str(home)})


@pytest.mark.skipif(not SHARED, reason="MTK_TEST_SHARED is not set")
def test_the_published_checkpoint_is_pulled_imported_shown_and_verified(mtk, home, behaviour):
    with serving(Path(SHARED or "") / "models" / "mt3-t5x", behaviour) as url:
        assert mtk("pull", "mt3", "--from", url)[0] == 0
    rows = [line.split() for line in mtk("show", "mt3")[1].splitlines()]
    for row in (["encoder", "19,145,216"], ["decoder", "26,751,488"], ["total", "45,896,704"]):
        assert row in rows
    assert mtk("verify", "mt3")[0] == 0
    model = load_model(str(home / "models" / "mt3")).model
    assert sum(parameter.numel() for parameter in model.parameters()) == 45_896_704
