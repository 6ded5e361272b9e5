"""Adapters from end to end: `mtk finetune --lora` and `--qlora`, `--adapter`, `mtk models merge`."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from musictool.checkpoints.native import read_facts
from musictool.checkpoints.store import Store
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.commands.finetune import _collections
from musictool.config import load_toml
from musictool.inference.model_files import load_model
from musictool.training.adapters import adapt, write_adapter
from musictool.training.building import build_for
from musictool.training.estimate import measure_sizes
from musictool.training.recipe import AdapterSection, build_recipe
from musictool.training.runs import RunFolder, read_metrics
from musictool.training.session import plan_task
from tests.code_sets import CODEC, draw_pairs, install_small_saxgpt, write_corpus, write_pairs
from tests.commands.conftest import EXAMPLES, Result
from tests.commands.test_train import background, wait_for
from tests.small_models import SMALL_CODEC, install_codec, install_small_mt3

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

BASE = "small-saxgpt"
SETTINGS = (
    "data.window_frames=60", "data.hop_frames=30", "data.untold_share=0", "data.valid_windows=8",
    "optimiser.learning_rate=0.02", "schedule.warmup_steps=2",
    "run.batch_size=4", "run.workers=0", "run.threads=1", "run.precision=fp32",
    "run.log_every=0", "run.evaluate_every=4", "run.save_every=2", "run.keep=99",
)  # fmt: skip
Mtk = Callable[..., Result]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A store with a base, and beside it sets of codes that the base knows nothing of."""
    home = tmp_path_factory.mktemp("home")
    (install_small_saxgpt(home) / "tokenizer.json").write_text("{}")
    install_small_saxgpt(home, "other", seed=1)
    for name, seed in (("train", 0), ("valid", 1)):
        write_pairs(home, name, draw_pairs(6, seed=seed))
    return home


@pytest.fixture(autouse=True)
def _at_home(home, own_threads, monkeypatch):
    monkeypatch.setenv("MTK_HOME", str(home))


@pytest.fixture
def mtk() -> Mtk:
    """Run `mtk ARGUMENT…` with the environment's variables."""

    def run(*arguments: object) -> Result:
        environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO(), os.environ)
        status = main([str(argument) for argument in arguments], environment)
        return Result(status, environment.stdout.getvalue(), environment.stderr.getvalue())

    return run


@pytest.fixture
def finetune(mtk, home, tmp_path) -> Callable[..., Path]:
    """Finetune the base; the run's folder."""

    def run(name: str, *arguments: object, steps: int = 8, status: int = 0) -> Path:
        data = ("--data", home / "train.lead.parquet", f'data.valid=["{home}/valid.lead.parquet"]')
        folder = tmp_path / name
        result = mtk("finetune", "-m", BASE, *data, *SETTINGS, f"run.steps={steps}", *arguments, "-q", "-o", folder)
        assert result.status == status, result.err
        return folder

    return run


def everything_learned(run: Path) -> dict[str, bytes]:
    """All weights and adapters of a run, as they lie on the disk."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}


def loss_of(model: torch.nn.Module, run: Path, store: Store) -> float:
    """What a run's own evaluation says of a model."""
    recipe = build_recipe(load_toml(run / "recipe.toml"))
    _, task = plan_task(recipe, store)
    return task.evaluate(model)["loss"]


# ---------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_a_run_leaves_an_adapter_and_what_it_makes_of_the_base_is_what_was_evaluated(finetune, mtk, home, kind):
    run = finetune("run", f"--{kind}", steps=40)
    names = {path.name for path in (run / "best").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "config.json", "card.md"}
    assert f"an adapter ({kind}, rank 8) of 6,144 parameters" in (run / "best/card.md").read_text()
    records = read_metrics(run / "metrics.jsonl")
    assert records[0]["parameters"] == 6144
    best = min(record["valid/loss"] for record in records if "valid/loss" in record)
    store = Store(home)
    assert best < loss_of(load_model(BASE, store=store).model, run, store) - 0.1
    four_bits = ("--4-bit",) if kind == "qlora" else ()
    merged = run / "merged"
    assert mtk("models", "merge", BASE, "--adapter", run / "best", "-o", merged, *four_bits).status == 0
    assert loss_of(load_model(str(merged), store=store).model, run, store) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("how", ["--lora", "--qlora"])
def test_a_run_that_goes_on_is_one_that_was_never_interrupted(finetune, how):
    dropout = "adapter.dropout=0.1"
    whole = finetune("whole", how, dropout, "run.ema_decay=0.9")
    broken = finetune("broken", how, dropout, "run.ema_decay=0.9")
    for step in (6, 8):
        shutil.rmtree(RunFolder(broken).checkpoint(step))
    (broken / "best" / "adapter_model.safetensors").write_bytes(b"")
    finetune("broken", how, dropout, "run.ema_decay=0.9", "--resume")
    first, second = everything_learned(whole), everything_learned(broken)
    assert len(first) == 2 * 4 + 1
    assert first.pop("best/adapter_model.safetensors") != b""
    second.pop("best/adapter_model.safetensors")
    assert first == second


def test_killed_and_resumed_is_bit_equal_to_an_uninterrupted_run(finetune, mtk, home, tmp_path):
    whole = finetune("whole", "--lora", steps=12)
    killed = tmp_path / "killed"
    data = ("--data", home / "train.lead.parquet", f'data.valid=["{home}/valid.lead.parquet"]')
    order = ("finetune", "-m", BASE, *data, *SETTINGS, "run.steps=12", "--lora", "-q", "-o", killed)
    with background(tmp_path / "messages", *order) as process:
        wait_for(lambda: RunFolder(killed).checkpoint_steps())
        process.send(signal.SIGKILL)
        process.status()
    assert RunFolder(killed).checkpoint_steps()[-1] < 12
    assert mtk("train", "--resume", "-q", "-o", killed).status == 0
    assert everything_learned(killed) == everything_learned(whole)


def test_a_run_does_not_go_on_over_other_weights(finetune, mtk, home):
    run = finetune("run", "--lora", steps=4)
    recipe = run / "recipe.toml"
    for path in run.rglob("adapter_config.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "revision": "0" * 64}))
    result = mtk("train", recipe, "run.steps=6", "--resume", "-q", "-o", run)
    assert result.status == 2
    assert "the adapter is for another model" in result.err


def test_training_goes_on_with_an_adapter_or_with_what_it_makes_of_the_model(finetune, home):
    first = finetune("first", "--lora", steps=4)
    still = "optimiser.learning_rate=0.0"
    further = finetune("further", "--lora", "--adapter", first / "best", still, steps=2)
    before, after = (load_file(run / "best/adapter_model.safetensors") for run in (first, further))
    assert all(torch.equal(before[name], after[name]) for name in before)
    whole = finetune("whole", "--adapter", first / "best", still, steps=2)
    store = Store(home)
    adapted = load_model(BASE, store=store.adapting(BASE, first / "best")).model.state_dict()
    trained = load_model(str(whole / "best"), store=store).model.state_dict()
    assert all(torch.equal(adapted[name], trained[name]) for name in adapted)


def test_without_lora_all_weights_are_trained_and_what_lies_beside_them_is_kept(finetune):
    run = finetune("run", "run.evaluate_every=2", steps=6)
    assert (run / "best/model.safetensors").exists()
    assert "[adapter]" not in (run / "recipe.toml").read_text()
    assert (run / "best/tokenizer.json").read_text() == "{}"
    assert read_facts(run / "best").source["codec"] == CODEC


def test_a_dry_run_tells_what_is_trained(mtk, home):
    for how, trained in (((), []), (("--lora",), ["# trained 6,144"])):
        data = ("--data", home / "train.lead.parquet")
        result = mtk("finetune", "-m", BASE, *data, *SETTINGS, "--dry-run", *how)
        assert (result.status, result.err) == (0, "")
        lines = [" ".join(line.split()) for line in result.out.decode().splitlines()]
        assert [line for line in lines if line.startswith("# trained")] == trained


def test_an_adapter_saves_gradients_and_4_bits_save_weights(home):
    store = Store(home)
    sizes = {}
    for kind in ("lora", "qlora"):
        table = {"task": "code-generation", "model": {"from": BASE}, "adapter": {"kind": kind}}
        recipe = build_recipe(table)
        model = build_for(recipe, plan_task(recipe, store)[0], store)
        sizes[kind] = measure_sizes(recipe, model)
    assert sizes["lora"].parts == sizes["qlora"].parts
    assert {found.trained for found in sizes.values()} == {found.copied for found in sizes.values()} == {6144}
    assert {found.state for found in sizes.values()} == {2 * 6144}
    held = 12 * 32 * 32 + 2 * 2 * 32 * 64  # in attention and feed-forward
    assert sizes["lora"].weight_bytes - sizes["qlora"].weight_bytes == held * 4 - held // 2


# ---------------------------------------------------------------------------------------------------- one clear line


def test_what_makes_no_sense_is_one_line(finetune, mtk, tmp_path, home):
    data = ("--data", home / "train.lead.parquet", "-q")
    small = ("finetune", "-m", BASE, *data, *SETTINGS, "-o", tmp_path / "x")
    nowhere = "no such file or folder (nowhere)"
    for arguments, status, message in (
        ((*small, "--lora", "--qlora"), 2, "--lora and --qlora contradict each other"),
        ((*small, "--lora", "adapter.rank=0"), 2, "rank is at least 1"),
        ((*small, "--lora", 'adapter.targets=["no"]'), 2, "no layer called no"),
        ((*small, "--lora", 'adapter.targets=["final_norm"]'), 2, "is not supported"),
        ((*small, "--adapter", "nowhere"), 3, nowhere),
        ((*small, "--adapter", "nowhere", "--lora"), 3, nowhere),
        (("train", "--preset", "saxgpt", "adapter.rank=4", "-o", tmp_path / "x"), 2, "on a model that is there"),
        (("models", "merge", BASE, "--adapter", "nowhere", "-o", tmp_path / "y"), 3, nowhere),
    ):
        result = mtk(*arguments)
        assert (result.status, message in result.err) == (status, True), result.err
        assert len(result.err.splitlines()) <= 2
        assert not (tmp_path / "x").exists()


def test_merging_refuses_the_wrong_model_and_export_takes_the_result(finetune, mtk, tmp_path):
    adapter = finetune("run", "--lora", steps=2) / "best"
    wrong = mtk("models", "merge", "other", "--adapter", adapter, "-o", tmp_path / "merged")
    assert (wrong.status, len(wrong.err.splitlines())) == (2, 2)
    assert f"the adapter is for another model: {BASE} (" in wrong.err
    assert not (tmp_path / "merged").exists()
    assert mtk("models", "merge", BASE, "--adapter", adapter, "-o", tmp_path / "merged").status == 0
    facts = read_facts(tmp_path / "merged")
    assert (facts.family, facts.preset, facts.source["from"]) == ("saxgpt", "saxgpt-xsmall", BASE)
    assert (facts.source["codec"], (tmp_path / "merged/tokenizer.json").read_text()) == (CODEC, "{}")
    assert mtk("models", "verify", tmp_path / "merged").status == 0
    taken = mtk("models", "merge", BASE, "--adapter", adapter, "-o", tmp_path / "merged")
    assert (taken.status, "--force" in taken.err) == (2, True)
    half = tmp_path / "half"
    assert mtk("models", "export", tmp_path / "merged", "--weights", "float16", "-o", half).status == 0
    assert load_file(half / "model.safetensors")["heads.linear.weight"].dtype == torch.float16


def test_a_verb_takes_an_adapter_beside_its_model(mtk, tmp_path, monkeypatch):
    install_small_mt3(tmp_path)
    monkeypatch.setenv("MTK_HOME", str(tmp_path))
    store = Store(tmp_path)
    loaded = load_model("mt3", store=store)
    adapt(loaded.model, AdapterSection())
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    (tmp_path / "adapter").mkdir()
    write_adapter(tmp_path / "adapter", loaded.model, "mt3", loaded.sha256)
    assert mtk("models", "merge", "mt3", "--adapter", tmp_path / "adapter", "-o", tmp_path / "merged").status == 0
    sound = EXAMPLES / "waltz.ogg"

    def tokens(*arguments: object) -> tuple[list[str], dict]:
        result = mtk("transcribe", sound, "-q", *arguments)
        assert result.status == 0, result.err
        head, *lines = result.out.decode().splitlines()
        return [line for line in lines if '"t"' in line], json.loads(head)["made"][0]

    plain, _ = tokens("-m", "mt3")
    adapted, stage = tokens("-m", "mt3", "--adapter", tmp_path / "adapter")
    merged, _ = tokens("-m", tmp_path / "merged")
    assert adapted == merged != plain
    assert stage["model"] == "mt3+adapter"
    assert stage["model_sha256"] != loaded.sha256
    alone = mtk("transcribe", sound, "-q", "-m", tmp_path / "adapter")
    assert (alone.status, "an adapter, and no model by itself" in alone.err) == (2, True)


def test_collections_are_by_style_where_all_say_one():
    assert _collections(["a/", "b.parquet"]) == ["a/", "b.parquet"]
    assert _collections(["jazz=a/", "pop=b/", "jazz=c.txt"]) == {"jazz": ["a/", "c.txt"], "pop": ["b/"]}
    assert _collections(["jazz=a/", "b/"]) == ["jazz=a/", "b/"]


def test_a_model_that_is_trained_says_whose_codes_it_writes(mtk, home, tmp_path):
    codec = install_codec(home, "a-codec")
    sha256 = read_facts(codec).weights_sha256
    for part, index in (("lead", 0), ("backing", 1)):
        pieces = [pair[index] for pair in draw_pairs(3)]
        write_corpus(tmp_path / f"train.{part}.parquet", pieces, "a-codec", sha256)
    sizes = ("width=32", "heads=2", "hidden=32", "encoder_layers=1", "decoder_layers=1", "positions=64")
    model = (*sizes, "codebooks=2", f"codebook_size={SMALL_CODEC.codebook_size}", "codec='a-codec'")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("task = 'code-generation'\n[model]\npreset = 'saxgpt-xsmall'\n" + "\n".join(model))
    data = f"data.train=['{tmp_path / 'train.lead.parquet'}']"
    settings = [setting for setting in SETTINGS if not setting.startswith("data.valid")]
    result = mtk("train", recipe, "-o", tmp_path / "run", data, *settings, "run.steps=2", "-q")
    assert result.status == 0, result.err
    source = read_facts(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]).source
    assert (source["codec"], source["codec_sha256"]) == ("a-codec", sha256)
