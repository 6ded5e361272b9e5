"""Training codecs: every part of it does something, and a run that was broken off goes on as if it had not been."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.errors import InputError, UsageError
from musictool.inference.model_files import load_model
from musictool.models.codec import Codec, CodecConfig
from musictool.training.discriminators import DiscriminatorConfig
from musictool.training.runs import RunFolder, read_metrics
from musictool.training.tasks.codec import CodecData, CodecLoss, CodecTask, CodecTraining

RATE = 24_000
CONFIG = CodecConfig(
    filters=8,
    ratios=(5, 4, 2),
    stem_stride=8,
    stem_kernel=16,
    width=16,
    codebooks=4,
    codebook_size=32,
    lstm_layers=0,
    bandwidths_kbps=(0.4, 0.8, 1.5),
)
SMALL = DiscriminatorConfig(windows=(256,), filters=4, dilations=(1,))
LOSS = CodecLoss(mel_windows=(128, 512), discriminator=SMALL)
JUDGED = replace(LOSS, adversarial=1.0, features=1.0)
RECIPE = """
task = "codec"
[model]
filters = 8
ratios = [5, 4, 2]
stem_stride = 8
stem_kernel = 16
width = 16
codebooks = 4
codebook_size = 32
lstm_layers = 0
bandwidths_kbps = [0.4, 0.8, 1.5]
[data]
train = ["sounds"]
valid = ["sounds"]
window_seconds = 0.3
valid_excerpts = 2
valid_seconds = 0.5
[loss]
mel_windows = [128, 512]
discriminator = { windows = [256], filters = 4, dilations = [1] }
[[curriculum]]
value = "loss.adversarial"
points = [[0, 0.0], [3, 1.0]]
[[curriculum]]
value = "loss.features"
points = [[0, 0.0], [3, 1.0]]
[optimiser]
learning_rate = 1e-3
[run]
steps = 6
batch_size = 2
ema_decay = 0.9
workers = 0
threads = 1
log_every = 1
evaluate_every = 3
save_every = 2
keep = 9
"""

Mtk = Callable[..., int]
pytestmark = pytest.mark.usefixtures("own_threads")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Three files of chords under bursts of noise, 2 seconds each."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    for number in range(3):
        chord = sum(0.1 * np.sin(2 * np.pi * hz * time) for hz in generator.uniform(150, 2000, 4))
        bursts = generator.normal(0, 0.03, len(time)) * (np.sin(2 * np.pi * 3 * time) > 0)
        soundfile.write(folder / f"{number}.flac", chord + bursts, RATE)
    return folder


@pytest.fixture
def recipe(tmp_path, sounds) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.replace('"sounds"', json.dumps(str(sounds))))
    return path


@pytest.fixture
def mtk() -> Mtk:
    """Run `mtk ARGUMENT...`; its exit status."""

    def run(*arguments: object) -> int:
        return main([str(argument) for argument in arguments], Environment(io.BytesIO(), io.BytesIO(), io.StringIO()))

    return run


def task_of(sounds: Path, loss: CodecLoss = LOSS, config: CodecConfig = CONFIG, **data: object) -> CodecTask:
    section = CodecData(train=(sounds,), valid=(sounds,), window_seconds=0.3, valid_excerpts=4, **data)
    return CodecTask(config, section, loss, 0)


def training_of(task: CodecTask, config: CodecConfig = CONFIG) -> CodecTraining:
    torch.manual_seed(0)
    return task.accompanied(Codec(config), is_fresh=True).train()


def batch_of(task: CodecTask, count: int = 4, first: int = 0, **data: object) -> dict[str, torch.Tensor]:
    section = CodecData(window_seconds=0.3, **data)
    return task.collate([task.example(first + number, section) for number in range(count)])


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}


# ------------------------------------------------------------------------------------------------------------ examples


def test_an_example_is_a_pure_function_of_its_index(sounds):
    first, second = (task_of(sounds, valid_seconds=1.0) for _ in range(2))
    data = CodecData(window_seconds=0.3, mix_share=0.5)
    for index in (0, 7, 3):
        one, other = first.example(index, data), second.example(index, data)
        assert np.array_equal(one.audio, other.audio)
        assert one.levels == other.levels
    assert not np.array_equal(first.example(0, data).audio, first.example(1, data).audio)


def test_windows_are_whole_frames_within_full_scale(sounds):
    task = task_of(sounds)
    for index in range(20):
        audio = task.example(index, CodecData(window_seconds=0.31, mix_share=1.0, gain_decibels=(20.0, 30.0))).audio
        assert audio.shape == (1, 23 * CONFIG.hop_samples)
        assert np.abs(audio).max() <= 0.99 + 1e-6


def test_levels_are_those_of_the_bit_rates(sounds):
    task = task_of(sounds)
    found = {task.example(index, CodecData(window_seconds=0.1)).levels for index in range(40)}
    assert found == {CONFIG.levels_for(kbps) for kbps in CONFIG.bandwidths_kbps} == {1, 2, 4}
    full = {task.example(index, CodecData(window_seconds=0.1, full_share=1.0)).levels for index in range(10)}
    assert full == {4}


# ---------------------------------------------------------------------------------------------------------------- loss


def test_before_discriminators_take_part_they_are_left_alone(sounds, monkeypatch):
    task = task_of(sounds)
    training = training_of(task)
    monkeypatch.setattr(training.discriminators, "forward", None)  # a call would fail
    loss, parts = task.loss(training, batch_of(task), LOSS)
    loss.backward()
    assert all(gradient is None for gradient in gradients(training.discriminators).values())
    assert all(gradient is not None for gradient in gradients(training.model).values())
    assert parts["adversarial"] == parts["features"] == parts["telling"] == 0


def test_parts_have_the_same_names_with_discriminators_and_without(sounds):
    task = task_of(sounds)
    training = training_of(task)
    batch = batch_of(task)
    assert task.loss(training, batch, LOSS)[1].keys() == task.loss(training, batch, JUDGED)[1].keys()


def test_the_codec_learns_from_verdicts_through_discriminators_that_learn_nothing_from_that(sounds):
    """What reaches the discriminators is the gradient of what they minimise, whatever the codec's losses weigh."""
    task = task_of(sounds)
    batch = batch_of(task)
    seen = {}
    for name, loss in {
        "adversarial": replace(LOSS, time=0.0, mel=0.0, adversarial=1.0),
        "features": replace(LOSS, time=0.0, mel=0.0, features=1.0),
        "all": replace(JUDGED, adversarial=40.0),
    }.items():
        training = training_of(task)
        task.loss(training, batch, loss)[0].backward()
        seen[name] = gradients(training.discriminators)
        assert all(gradient.abs().sum() > 0 for gradient in gradients(training.model.decoder).values())
        assert all(gradient.abs().sum() > 0 for gradient in gradients(training.model.encoder).values())
    for name in ("features", "all"):
        for key, gradient in seen["adversarial"].items():
            assert torch.allclose(gradient, seen[name][key], atol=1e-7)


def test_what_discriminators_minimise_does_not_reach_the_codec(sounds, monkeypatch):
    task = task_of(sounds)
    batch = batch_of(task)
    found = []
    for factor in (0.0, 100.0):
        telling = torch.zeros(()).requires_grad_()
        monkeypatch.setattr(
            "musictool.training.tasks.codec.telling_loss",
            lambda real, coded, factor=factor, telling=telling: telling + factor * coded[0].logits.mean(),
        )
        training = training_of(task)
        task.loss(training, batch, JUDGED)[0].backward()
        found.append(gradients(training.model))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


def test_the_loss_tells_the_weighted_sum_of_its_parts(sounds):
    task = task_of(sounds)
    loss, parts = task.loss(training_of(task), batch_of(task), JUDGED)
    weights = {**JUDGED.shares, "commitment": JUDGED.commitment, "telling": 1.0}
    assert loss.item() == pytest.approx(sum(weights[name] * part.item() for name, part in parts.items()), rel=1e-5)


def test_a_codec_that_normalises_learns_from_loud_and_soft_sound_alike(sounds):
    config = replace(CONFIG, normalises=True, segment_seconds=1.0)
    task = task_of(sounds, config=config)
    batch = batch_of(task)
    found = []
    for gain in (1.0, 0.01):
        training = training_of(task, config)
        task.loss(training, {**batch, "audio": gain * batch["audio"]}, LOSS)[0].backward()
        found.append(torch.cat([gradient.flatten() for gradient in gradients(training.model).values()]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.99


def test_stereo_in_segments_is_learned_and_judged(sounds):
    config = replace(
        CONFIG, channels=2, is_causal=False, norm="group", normalises=True, segment_seconds=0.5, lstm_layers=1
    )
    task = task_of(sounds, JUDGED, config)
    training = training_of(task, config)
    batch = batch_of(task)
    assert batch["audio"].shape[1] == 2
    task.loss(training, batch, JUDGED)[0].backward()
    for gradient in gradients(training).values():
        assert gradient.abs().sum() > 0
        assert torch.isfinite(gradient).all()
    assert np.isfinite(task.evaluate(training.model.eval())["loss"])


# ------------------------------------------------------------------------------------------------------------ training


def test_some_steps_lower_the_mel_distance_and_codebooks_get_used(sounds):
    loss = replace(LOSS, codebook_decay=0.9)
    task = task_of(sounds, loss, valid_seconds=0.5)
    training = training_of(task)
    optimiser = torch.optim.AdamW(training.model.parameters(), lr=2e-3, betas=(0.8, 0.99))
    before = task.evaluate(training.model.eval())
    training.train()
    for step in range(40):
        task.loss(training, batch_of(task, first=4 * step), loss)[0].backward()
        optimiser.step()
        optimiser.zero_grad()
    after = task.evaluate(training.model.eval())
    assert after["loss"] < 0.8 * before["loss"]
    assert after["codes_used"] > 0.4
    assert training.learner.is_started.all()


def test_figures_of_an_evaluation_are_named_by_bit_rate(sounds):
    task = task_of(sounds, valid_seconds=0.5)
    figures = task.evaluate(training_of(task).model.eval())
    assert list(figures) == ["loss", "mel_0.375kbps", "mel_0.75kbps", "mel_1.5kbps", "si_sdr", "codes_used"]
    assert figures["loss"] == pytest.approx(np.mean([figures[name] for name in figures if name.startswith("mel_")]))
    assert 0 < figures["codes_used"] <= 1


def test_a_run_that_goes_on_ends_as_if_it_had_not_been_broken_off(mtk, recipe, tmp_path):
    """Broken off before the discriminators take part (step 2), and after (step 4)."""
    whole = RunFolder(tmp_path / "whole")
    assert mtk("train", recipe, "-q", "-o", whole.path) == 0
    losses = [record["loss/telling"] for record in read_metrics(whole.metrics) if "loss/telling" in record]
    assert losses[:3] == [0, 0, 0]
    assert min(losses[3:]) > 0
    for step in (2, 4):
        broken_off = RunFolder(tmp_path / f"broken-off-{step}")
        shutil.copytree(whole.path, broken_off.path)
        for later in broken_off.checkpoint_steps():
            if later > step:
                shutil.rmtree(broken_off.checkpoint(later))
        assert mtk("train", "--resume", "-q", "-o", broken_off.path) == 0
        for name in ("model.safetensors", "training/model.safetensors"):
            one, other = (load_file(run.checkpoint(6) / name) for run in (whole, broken_off))
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_model_that_is_written_is_the_codec_alone(mtk, recipe, tmp_path):
    run = RunFolder(tmp_path / "run")
    assert mtk("train", recipe, "-q", "run.steps=2", "-o", run.path) == 0
    written = load_file(run.best / "model.safetensors")
    assert written.keys() == Codec(CONFIG).state_dict().keys()
    trained = load_file(run.state(2) / "model.safetensors")
    for name, tensor in written.items():
        if name.startswith("quantizer."):  # averages already: not averaged again
            assert torch.equal(tensor, trained[f"model.{name}"])
    assert any(key.startswith("discriminators.") for key in trained)
    assert load_model(str(run.best)).model.config == CONFIG


def train_shared(process: int, folder: str, sounds: str) -> None:
    """One of two processes: some steps on its own examples, and then what it has."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=process, world_size=2)
    task = task_of(Path(sounds))
    training = training_of(task)
    shared = torch.nn.parallel.DistributedDataParallel(training, find_unused_parameters=True, broadcast_buffers=False)
    optimiser = torch.optim.AdamW(shared.parameters(), lr=1e-3)
    torch.manual_seed(process)  # what codebooks draw differs, but for what they agree on
    for step in range(4):
        batch = batch_of(task, first=8 * step + 4 * process)
        task.loss(shared, batch, JUDGED if step > 1 else LOSS)[0].backward()
        optimiser.step()
        optimiser.zero_grad()
    torch.save(training.state_dict(), f"{folder}/{process}.pt")
    torch.distributed.destroy_process_group()


def test_processes_that_see_other_examples_stay_alike(sounds, tmp_path):
    """Codec, codebooks and what they follow, discriminators, and the balancer's means."""
    torch.multiprocessing.start_processes(
        train_shared, (str(tmp_path), str(sounds)), nprocs=2, start_method="forkserver"
    )
    one, other = (torch.load(tmp_path / f"{process}.pt") for process in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["balancer.weights"].count_nonzero() == 4


def test_a_codec_that_is_there_keeps_its_codebooks(mtk, recipe, sounds, tmp_path):
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    assert mtk("train", recipe, "-q", "run.steps=4", "-o", first.path) == 0
    settings = ("run.steps=2", "run.batch_size=2", "run.workers=0", "data.window_seconds=0.3", "run.precision=fp32")
    assert mtk("finetune", "--model", first.best, "--data", sounds, *settings, "-q", "-o", second.path) == 0
    before, after = (load_file(run.best / "model.safetensors") for run in (first, second))
    for name in before:
        if name.startswith("quantizer."):
            moved = (after[name] - before[name]).norm() / before[name].norm()
            assert 0 < moved < 0.3


@pytest.mark.parametrize("parts", [["decoder"], ["decoder", "quantizer"]])
def test_a_decoder_may_learn_alone_and_codes_stay_what_they_are(mtk, recipe, sounds, tmp_path, parts):
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    assert mtk("train", recipe, "-q", "run.steps=2", "-o", first.path) == 0
    settings = ("run.steps=2", "run.batch_size=2", "run.workers=0", "data.window_seconds=0.3", "run.precision=fp32")
    trains = f"run.trains={json.dumps(parts)}"
    assert mtk("finetune", "--model", first.best, "--data", sounds, *settings, trains, "-q", "-o", second.path) == 0
    before, after = (load_file(run.best / "model.safetensors") for run in (first, second))
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(parts)
    sound, codes, heard = sounds / "0.flac", tmp_path / "codes.mtk", tmp_path / "heard.wav"
    assert mtk("encode", "--model", first.best, sound, "-o", codes) == 0
    keeps_codes = parts == ["decoder"]
    assert mtk("decode", "--model", second.best, codes, "-o", heard) == (0 if keeps_codes else 3)
    third = RunFolder(tmp_path / "third")  # what comes of it keeps them, too, for as long as nothing else learns
    assert mtk("finetune", "--model", second.best, "--data", sounds, *settings, trains, "-q", "-o", third.path) == 0
    assert mtk("decode", "--model", third.best, codes, "-o", heard, "--force") == (0 if keeps_codes else 3)
    assert mtk("finetune", "--model", third.best, "--data", sounds, *settings, "-q", "-o", tmp_path / "all") == 0
    assert mtk("decode", "--model", tmp_path / "all/best", codes, "-o", heard, "--force") == 3


# ---------------------------------------------------------------------------------------------------------- complaints


def test_no_data_and_no_sound_are_told(tmp_path):
    with pytest.raises(UsageError, match="no data to learn from"):
        CodecTask(CONFIG, CodecData(), LOSS, 0).check()
    with pytest.raises(InputError, match="no sound to learn from"):
        task_of(tmp_path).check()


@pytest.mark.parametrize(
    "settings",
    [
        "data.shares=[1.0, 2.0]",
        "data.window_seconds=0.0",
        "data.mix_share=2.0",
        "loss.mel=-1.0",
        "loss.mel_windows=[]",
        "loss.discriminator.windows=[8]",
        "loss.codebook_decay=1.0",
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(mtk, recipe, tmp_path, settings):
    assert mtk("train", recipe, settings, "-q", "-o", tmp_path / "run") == 2
    assert not (tmp_path / "run").exists()
