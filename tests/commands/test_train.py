"""`mtk train` as a whole command, on a task that takes milliseconds.

Runs that are to be killed go on in a forked process, which has nothing left to import.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from musictool.cli.main import main
from musictool.config import load_toml
from musictool.training import acceleration
from musictool.training.recipe import build_recipe
from musictool.training.runs import RunFolder, read_metrics
from tests.training import toy

ROOT = Path(__file__).parents[2]
RECIPE = """
task = "toy"
[model]
dropout = 0.1
[optimiser]
learning_rate = 0.01
[schedule]
warmup_steps = 10
[run]
steps = 60
batch_size = 4
ema_decay = 0.9
workers = 0
threads = 1
log_every = 20
evaluate_every = 20
save_every = 20
keep = 99
[[curriculum]]
value = "data.contrast"
kind = "linear"
points = [[0, 9.0], [30, 3.0]]
"""

pytestmark = [pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"), pytest.mark.usefixtures("own_threads")]


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toy.register(monkeypatch.setitem)


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


@dataclass(frozen=True)
class Background:
    """`mtk` in a process of its own; its messages go to a file."""

    process: object
    messages: Path

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def status(self, seconds: float = 60) -> int:
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it did not end"
        return self.process.exitcode


@contextmanager
def background(messages: Path, *arguments: object, file_bytes: int | None = None) -> Iterator[Background]:
    process = get_context("fork").Process(target=_run, args=([str(a) for a in arguments], messages, file_bytes))
    process.start()
    try:
        yield Background(process, messages)
    finally:
        process.kill()
        process.join()


def _run(arguments: list[str], messages: Path, file_bytes: int | None) -> None:
    with open(messages, "w") as file:
        sys.stderr = file
        torch.set_num_threads(1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        status = main(arguments)
        file.flush()
    sys.exit(status)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


def weights(folder: Path) -> dict[str, bytes]:
    """All weights of a run's last checkpoint and of its best, as they lie on the disk."""
    last = RunFolder(folder).checkpoint_steps()[-1]
    paths = [RunFolder(folder).checkpoint(last) / name for name in ("model.safetensors", "training/model.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in (*paths, folder / "best/model.safetensors")}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------------------------------------------------- a whole run


def test_a_run_learns_and_leaves_models_and_figures(mtk, recipe, run):
    result = mtk("train", recipe, "run.steps=200", "run.log_every=50", "-o", run)
    assert result.status == 0
    records = read_metrics(run / "metrics.jsonl")
    assert records[0]["parameters"] == 440
    assert records[-1]["reason"] == "done"
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 5
    logged = next(record for record in records if "loss" in record)
    assert {"step", "seconds", "loss/entropy", "learning_rate", "gradient_norm", "steps_per_second"} <= logged.keys()
    assert 0 < logged["data_wait_share"] < 1
    assert logged["numbers_per_second"] == pytest.approx(logged["steps_per_second"] * 32)
    assert [record["valid/accuracy"] for record in records if "valid/accuracy" in record][-1] > 0.9
    facts = json.loads((run / "best" / "config.json").read_text())
    assert (facts["family"], facts["config"]["dropout"], facts["source"]["format"]) == ("toy", 0.1, "mtk train")
    assert load_file(run / "best" / "model.safetensors").keys() == toy.Toy(toy.ToyConfig()).state_dict().keys()
    assert "accuracy: " in (run / "best" / "card.md").read_text()
    assert result.err.count("\n") == 4 + 10 + 1  # logs, evaluations, and how it ended
    assert "trained after 200 steps; best" in result.err
    asked = build_recipe(load_toml(recipe), ["run.steps=200", "run.log_every=50"])
    assert build_recipe(load_toml(run / "recipe.toml")) == asked


def test_the_same_seed_gives_the_same_weights_and_another_others(mtk, recipe, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        mtk("train", recipe, f"run.seed={seed}", "run.steps=5", "-o", tmp_path / name)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_quiet_says_nothing_and_json_says_it_to_machines(mtk, recipe, tmp_path):
    assert mtk("train", recipe, "-q", "-o", tmp_path / "a").err == ""
    lines = mtk("train", recipe, "--log", "json", "-o", tmp_path / "b").err.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["step"] for event in events if event.get("event") == "progress"] == [20, 20, 40, 40, 60, 60]


def test_checkpoints_are_kept_by_number_and_made_by_the_clock_too(mtk, recipe, tmp_path):
    mtk("train", recipe, "run.keep=2", "-o", tmp_path / "a")
    assert RunFolder(tmp_path / "a").checkpoint_steps() == [40, 60]
    mtk("train", recipe, "run.steps=4", "run.save_every=0", "run.save_minutes=1e-9", "-o", tmp_path / "b")
    assert RunFolder(tmp_path / "b").checkpoint_steps() == [1, 2, 3, 4]
    mtk("train", recipe, "run.steps=4", "run.save_every=0", "run.save_minutes=0", "-o", tmp_path / "c")
    assert RunFolder(tmp_path / "c").checkpoint_steps() == [4]


def test_a_run_ends_early_when_there_is_no_gain_and_keeps_the_best(mtk, recipe, run):
    settings = ("run.best=accuracy", "run.best_is=max", "run.patience=2", "run.evaluate_every=10", "run.steps=2000")
    assert mtk("train", recipe, *settings, "-o", run).status == 0
    records = read_metrics(run / "metrics.jsonl")
    figures = [record["valid/accuracy"] for record in records if "valid/accuracy" in record]
    assert len(figures) < 200
    assert records[-1]["reason"] == "no gain"
    assert max(figures) == figures[-3]
    facts = json.loads((run / "best" / "config.json").read_text())
    assert facts["source"]["step"] == str(10 * (len(figures) - 2))
    before = everything(run)
    assert mtk("train", "--resume", "-o", run).status == 0
    assert everything(run) == before


def test_without_held_out_data_the_last_model_passes_for_the_best(mtk, recipe, run):
    assert mtk("train", recipe, "data.valid=[]", "-o", run).status == 0
    last = run / "checkpoints" / "000000060"
    assert (run / "best" / "model.safetensors").read_bytes() == (last / "model.safetensors").read_bytes()
    assert not [record for record in read_metrics(run / "metrics.jsonl") if "valid/loss" in record]
    result = mtk("train", recipe, "data.valid=[]", "run.patience=1", "-o", run.with_name("patient"))
    assert (result.status, "name data to evaluate on" in result.err) == (2, True)


def test_low_precision_learns_too(mtk, recipe, run):
    mtk("train", recipe, "run.precision=bf16", "run.steps=200", "-o", run)
    assert read_metrics(run / "metrics.jsonl")[-2]["valid/accuracy"] > 0.9


def test_a_run_begins_with_the_weights_of_a_model(mtk, recipe, run, tmp_path):
    mtk("train", recipe, "-o", run)
    settings = (f"model.from={run}/best", "optimiser.learning_rate=0", "run.steps=1")
    assert mtk("train", recipe, *settings, "-o", tmp_path / "b").status == 0
    before, after = (load_file(folder / "best" / "model.safetensors") for folder in (run, tmp_path / "b"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    result = mtk("train", recipe, f"model.from={run}/best", "model.width=3", "-o", tmp_path / "c")
    assert (result.status, "the recipe's model has other shapes" in result.err) == (2, True)


def test_trackers_get_the_figures(mtk, recipe, run):
    pytest.importorskip("tensorboard")
    assert mtk("train", recipe, 'run.trackers=["tensorboard"]', "-o", run).status == 0
    (events,) = run.rglob("events.out.tfevents.*.0")
    assert b"valid/accuracy" in events.read_bytes()


# ------------------------------------------------------------------------------------------------------ never lose work


def test_killed_at_any_step_and_resumed_is_bit_equal_to_an_uninterrupted_run(mtk, recipe, tmp_path):
    settings = ("run.save_every=3", "run.accumulation=2", "data.nap_seconds=0.0005")
    assert mtk("train", recipe, *settings, "-o", tmp_path / "whole").status == 0
    for attempt in range(2):
        run, steps = tmp_path / f"killed-{attempt}", random.randrange(1, 19)
        arguments = ("train", recipe, *settings, "-o", run)
        with background(tmp_path / "messages", *arguments) as running:
            wait_for(lambda run=run, steps=steps: len(RunFolder(run).checkpoint_steps()) >= steps)
            time.sleep(random.random() / 50)
            running.send(signal.SIGKILL)
            assert running.status() == -signal.SIGKILL
        assert mtk("train", "--resume", "run.workers=1", "-o", run).status == 0
        assert weights(run) == weights(tmp_path / "whole"), f"killed after checkpoint {steps}"
        steps_told = [record["step"] for record in read_metrics(run / "metrics.jsonl") if "step" in record]
        assert steps_told == sorted(steps_told)
        assert {path.name[0] for path in (run / "checkpoints").iterdir()} == {"0"}  # nothing half-written stays


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_been(mtk, recipe, tmp_path, number, status):
    settings = ("run.save_every=0", "data.nap_seconds=0.001", "run.workers=1")
    mtk("train", recipe, *settings, "-o", tmp_path / "whole")
    run = tmp_path / "run"
    with background(tmp_path / "messages", "train", recipe, *settings, "-o", run) as running:
        wait_for(lambda: (run / "metrics.jsonl").exists() and b'"step":20' in (run / "metrics.jsonl").read_bytes())
        running.send(number)
        assert running.status() == status
    (step,) = RunFolder(run).checkpoint_steps()
    assert 20 <= step < 60
    assert read_metrics(run / "metrics.jsonl")[-1]["reason"] == "interrupted"
    assert f"interrupted; saved after {step} steps" in (tmp_path / "messages").read_text()
    assert mtk("train", recipe, *settings, "--resume", "-o", run).status == 0
    assert weights(run) == weights(tmp_path / "whole")


def test_a_signal_breaks_off_an_evaluation_which_is_done_when_the_run_goes_on(mtk, recipe, tmp_path, run):
    settings = ("run.log_every=5", "run.patience=1")
    mtk("train", recipe, *settings, "-o", tmp_path / "whole")
    recipe.write_text(RECIPE.replace("[optimiser]", "[data]\nevaluation_seconds = 100\n[optimiser]"))
    with background(tmp_path / "messages", "train", recipe, *settings, "-o", run) as running:
        wait_for(lambda: (run / "metrics.jsonl").exists() and b'"step":20' in (run / "metrics.jsonl").read_bytes())
        time.sleep(0.05)
        running.send(signal.SIGTERM)
        assert running.status(10) == 143
    assert RunFolder(run).checkpoint_steps() == [20]
    for path in (recipe, run / "recipe.toml"):
        path.write_text(path.read_text().replace("evaluation_seconds = 100", "evaluation_seconds = 0"))
    assert mtk("train", "--resume", "-o", run).status == 0
    evaluated = [record["step"] for record in read_metrics(run / "metrics.jsonl") if "valid/loss" in record]
    assert evaluated == [20, 40, 60]
    assert weights(run) == weights(tmp_path / "whole")


def test_a_second_ctrl_c_ends_at_once(recipe, tmp_path, run):
    with background(tmp_path / "messages", "train", recipe, "data.nap_seconds=100", "-o", run) as running:
        wait_for(lambda: (run / "metrics.jsonl").exists())
        time.sleep(0.1)
        running.send(signal.SIGINT)
        time.sleep(0.1)
        running.send(signal.SIGINT)
        assert running.status(10) == 130
    assert RunFolder(run).checkpoint_steps() == []


@pytest.mark.parametrize("file_bytes", [1_000, 6_000])
def test_no_space_for_a_checkpoint_is_one_line_and_the_ones_before_stay(mtk, recipe, tmp_path, run, file_bytes):
    mtk("train", recipe, "run.steps=20", "-o", run)
    before = {path: data for path, data in everything(run).items() if "checkpoints" in path}
    (run / "metrics.jsonl").write_bytes(b"")
    arguments = ("train", "--resume", "run.steps=30", "run.log_every=0", "-q", "-o", run)
    with background(tmp_path / "messages", *arguments, file_bytes=file_bytes) as running:
        assert running.status() == 3
    lines = (tmp_path / "messages").read_text().splitlines()
    assert lines[0].startswith("mtk: error: file too large (")
    assert lines[1].startswith("hint: make room")
    assert len(lines) == 2
    assert RunFolder(run).checkpoint_steps() == [20]
    after = everything(run)
    assert not [path for path in after if ".part" in path]
    assert {path: after[path] for path in before} == before
    assert mtk("train", "--resume", "-o", run).status == 0


def test_a_loss_that_is_no_number_ends_the_run_and_nothing_of_it_is_saved(mtk, recipe, run):
    result = mtk("train", recipe, "-q", "data.nan_at=100", "run.save_every=2", "run.evaluate_every=0", "-o", run)
    assert result.status == 1
    first, hint = result.err.splitlines()
    assert first == f"mtk: error: the loss is no number at step 26 ({run})"
    assert "learning_rate" in hint
    assert f"{run}/checkpoints/000000024" in hint
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["reason"] == "failed"
    assert RunFolder(run).checkpoint_steps()[-1] == 24
    for step in RunFolder(run).checkpoint_steps():
        saved = load_file(RunFolder(run).state(step) / "model.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in saved.values())


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(mtk, recipe, run):
    mtk("train", recipe, "-o", run)
    (run / "checkpoints/000000060/training/optimizer.bin").write_bytes(b"no optimiser")
    result = mtk("train", "--resume", "run.steps=70", "-o", run)
    assert (result.status, "the checkpoint is damaged" in result.err) == (3, True)
    assert "remove the folder" in result.err
    (run / "checkpoints/000000060").rename(run / "away")
    (run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes() + b'{"step":60,"seco')
    assert mtk("train", "--resume", "run.steps=70", "-o", run).status == 0
    told = [record["step"] for record in read_metrics(run / "metrics.jsonl") if "loss" in record]
    assert told == [20, 40, 60, 70]


def test_a_best_model_that_was_just_being_replaced_is_put_back(mtk, recipe, run):
    mtk("train", recipe, "-o", run)
    (run / "best").rename(run / ".mtk-0123456789abcdef.part.old")
    (run / "checkpoints" / ".000000080.part").mkdir()
    assert mtk("train", "--resume", "-o", run).status == 0
    assert (run / "best" / "model.safetensors").exists()
    assert not list(run.rglob(".*"))


# ------------------------------------------------------------------------------------------------------- many processes


def test_two_processes_are_one_that_accumulates_twice_as_much(mtk, recipe, tmp_path):
    settings = ("model.dropout=0.0", "run.log_every=1", "run.steps=30", "--device", "cpu", "-q")
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*program, "-m", "tests.training.toy", "train", str(recipe), *settings, "-o", str(shared)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert mtk("train", recipe, *settings, "run.accumulation=2", "-o", alone).status == 0
    two, one = ([r["loss"] for r in read_metrics(run / "metrics.jsonl") if "loss" in r] for run in (shared, alone))
    assert len(two) == 30
    assert two == pytest.approx(one, rel=1e-5)
    result = mtk("train", "--resume", "run.steps=40", "-o", shared)
    assert (result.status, "begun by 2 processes, not 1" in result.err) == (2, True)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("run.sed=1",), 2, "unknown key 'run.sed'"),
        (('data.train=["nowhere"]',), 3, "no such file or folder (nowhere)"),
        (("model.widht=1",), 2, "unknown key 'widht'"),
        (("model.preset=mt3",), 2, "task toy trains models of family toy, and this is one of mt3"),
        (("model.from=nowhere",), 4, "no model named 'nowhere'"),
        (("run.precision=fp16", "--device", "cpu"), 2, "fp16 is for GPUs"),
        (("run.checkpoint_gradients=true",), 2, "this model has no layers to compute again"),
        (('run.trackers=["wandb"]',), 4, "the package 'wandb' is not installed"),
        (("--device", "cuda:77"), 5, "no such device"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_one_line_and_begins_nothing(
    mtk, recipe, run, monkeypatch, arguments, status, message
):
    monkeypatch.setattr(acceleration, "find_spec", lambda name: None)
    result = mtk("train", recipe, *arguments, "-o", run)
    assert result.status == status
    assert result.err.startswith("mtk: error: ")
    assert message in result.err
    assert result.err.count("\n") <= 2
    assert RunFolder(run).checkpoint_steps() == []
    assert not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_bytes()


def test_a_run_that_is_there_is_neither_begun_again_nor_changed(mtk, recipe, run):
    mtk("train", recipe, "-o", run)
    before = everything(run)
    result = mtk("train", recipe, "-o", run)
    assert (result.status, "there is a run in this folder" in result.err) == (2, True)
    result = mtk("train", recipe, "run.seed=3", "data.contrast=2", "run.steps=90", "--resume", "-o", run)
    assert (result.status, "not the run's recipe: data.contrast, run.seed (" in result.err) == (2, True)
    result = mtk("train", recipe, "--resume", "-o", run)
    assert (result.status, "trained after 60 steps" in result.err) == (0, True)
    assert everything(run) == before


def test_a_figure_that_there_is_not_is_told_once_the_work_is_saved(mtk, recipe, run):
    result = mtk("train", recipe, "run.best=f1", "-o", run)
    assert result.status == 2
    assert "evaluations have no figure 'f1'" in result.err
    assert "there are loss, accuracy" in result.err
    assert RunFolder(run).checkpoint_steps() == [20]


def test_what_is_missing_is_asked_for(mtk, recipe, run):
    assert "no folder for the run" in mtk("train", recipe).err
    assert "no recipe" in mtk("train", "-o", run).err
    assert "no such training preset" in mtk("train", "--preset", "nothing", "-o", run).err
    assert "no such file" in mtk("train", run / "nowhere.toml", "-o", run).err
    assert "the recipe names no task" in mtk("train", _written(recipe, "[run]\nsteps = 1\n"), "-o", run).err


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ------------------------------------------------------------------------------------------------- dry runs, finetuning


def test_a_dry_run_prints_a_recipe_and_what_it_takes_and_writes_nothing(mtk, recipe, run):
    result = mtk("train", recipe, "run.batch_size=32", "--dry-run", "-o", run)
    assert (result.status, result.err) == (0, "")
    assert not run.exists()
    assert build_recipe(load_toml(_written(recipe, result.out.decode()))).run.batch_size == 32
    lines = [line.split() for line in result.out.decode().splitlines() if line.startswith("#   ")]
    assert [line[1:] for line in lines[:5]] == [
        ["position", "128"],
        ["inner", "144"],
        ["norm", "32"],
        ["head", "136"],
        ["all", "440"],
    ]
    assert [" ".join(line[1:-1]) for line in lines[5:]] == [
        "weights",
        "gradients",
        "adamw state",
        "averaged weights",
        "activations, batch of 32",
        "all",
    ]


def test_a_dry_run_without_data_says_what_it_can(mtk, recipe):
    result = mtk("train", recipe, 'data.train=["nowhere"]', "--dry-run")
    assert (result.status, "no such file or folder (nowhere)" in result.err) == (3, True)
    assert b"# parameters" in result.out


def test_finetuning_goes_on_with_a_model_by_its_familys_recipe(mtk, recipe, run, tmp_path, monkeypatch):
    mtk("train", recipe, "-o", run)
    presets = tmp_path / "presets"
    presets.mkdir()
    changes = "[finetune.run]\nsteps = 3\n[finetune.optimiser]\nlearning_rate = 0.0\n"
    (presets / "toy.toml").write_text(RECIPE.replace("[optimiser]", '[data]\nvalid = ["there"]\n[optimiser]') + changes)
    monkeypatch.setattr("musictool.training.recipe._PRESET_FOLDER", presets)
    tuned = tmp_path / "tuned"
    arguments = ("finetune", "--model", f"{run}/best", "--data", "here", "run.batch_size=2", "-o", tuned)
    assert mtk(*arguments).status == 0
    followed = build_recipe(load_toml(tuned / "recipe.toml"))
    assert (followed.run.steps, followed.run.batch_size) == (3, 2)
    assert (followed.data.train, followed.data.valid) == (("here",), ("here",))  # none of the preset's own
    before, after = (load_file(folder / "best" / "model.safetensors") for folder in (run, tuned))
    assert all(torch.equal(before[name], after[name]) for name in before)  # at a learning rate of 0
    assert mtk(*arguments).status == 2
    assert mtk(*arguments, "run.steps=4", "--resume").status == 0
    assert "nowhere" in mtk("finetune", "--model", f"{run}/best", "--data", "nowhere", "-o", tmp_path / "b").err
