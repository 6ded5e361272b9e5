"""Learning styles: what goes with what, and a model that finds it."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tomli_w
import torch

from musictool.audio.augment import AugmentConfig
from musictool.checkpoints.store import Store
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.errors import UsageError
from musictool.inference.style_reading import open_style_reader
from musictool.inference.subwords import TOKENIZER_NAME, open_subwords
from musictool.models.registry import build_model
from musictool.training.tasks.style_encoding import (
    StyleEncoding,
    StyleEncodingData,
    StyleEncodingLoss,
    goes_with,
    softmax_loss,
)
from tests.small_code_models import SMALL_STYLE_ENCODER, install_style_encoder

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SMALL_STYLE_ENCODER
RATE = CONFIG.front_end.rate_hz
KINDS = {"a low hum": 120.0, "a whistle": 2400.0, "noise": 0.0}


def write_kinds(folder: Path, each: int = 4, seconds: float = 1.5) -> Path:
    """Sound of three kinds, with captions."""
    generator = np.random.default_rng(each)
    folder.mkdir()
    for text, hz in KINDS.items():
        for number in range(each):
            time = np.arange(int(seconds * RATE)) / RATE
            sound = np.sin(2 * np.pi * hz * generator.uniform(0.9, 1.1) * time) if hz else generator.random(len(time))
            path = folder / f"{text.replace(' ', '-')}-{number}.wav"
            soundfile.write(path, (0.3 * sound).astype(np.float32), RATE)
            path.with_suffix(".txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> StyleEncodingData:
    home = tmp_path_factory.mktemp("kinds")
    return StyleEncodingData(train=(write_kinds(home / "train"),), valid=(write_kinds(home / "valid", 2),))


def task_of(data: StyleEncodingData, **config: object) -> StyleEncoding:
    return StyleEncoding(replace(CONFIG, **config), data, StyleEncodingLoss(), 0)


def test_a_model_learns_to_find_what_goes_with_words(data):
    task = task_of(data)
    task.check()
    torch.manual_seed(0)
    model = build_model(replace(CONFIG, dropout=0.0))
    before = task.evaluate(model.eval())
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(12):
        batch = task.collate([task.example(12 * step + number, data) for number in range(12)])
        loss, parts = task.loss(model.train(), batch, StyleEncodingLoss())
        assert set(parts) == {"to_sound", "to_text"}
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = task.evaluate(model.eval())
    assert before["recall_1"] < 1 == after["recall_1"] == after["recall_5"]
    assert after["loss"] < before["loss"] - 0.5
    assert task.amounts(batch) == {"audio_seconds": pytest.approx(12.0)}


def test_an_example_hangs_on_its_number_alone(data):
    task, other = task_of(data), task_of(data)
    for index in (0, 7, 1000):
        one, same = task.example(index, data), other.example(index, data)
        assert np.array_equal(one.samples, same.samples)
        assert (one.ids, one.frames) == (same.ids, same.frames)
        assert one.frames == CONFIG.window_frames
    assert not np.array_equal(task.example(0, data).samples, task.example(3, data).samples)


def test_sound_may_be_changed_on_the_way(data):
    plain = task_of(data)
    changing = replace(data, augment=AugmentConfig(noise_share=1.0))
    batch = plain.collate([plain.example(index, data) for index in range(3)])
    changed = task_of(changing).collate([plain.example(index, changing) for index in range(3)])
    assert changed["samples"].shape == batch["samples"].shape
    assert torch.equal(changed["ids"], batch["ids"])
    assert (changed["samples"] - batch["samples"]).abs().mean() > 0.001


def test_what_lies_behind_the_end_of_a_short_file_does_not_count(tmp_path):
    short = StyleEncodingData(train=(write_kinds(tmp_path / "short", 1, seconds=0.33),))
    task = task_of(short)
    batch = task.collate([task.example(index, short) for index in range(4)])
    assert batch["frames"].tolist() == [16] * 4  # of 20 ms
    frames, visible = task._frames(batch)
    assert visible.sum(1).tolist() == [16] * 4
    assert frames.shape[1] == CONFIG.window_frames == 50


def test_the_same_caption_goes_with_all_that_have_it():
    ids = torch.tensor([[5, 6], [5, 0], [5, 6], [5, 9]])
    visible = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    expected = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.bool)
    assert torch.equal(goes_with(ids, visible), expected)


def test_the_loss_is_least_where_the_softmax_is_what_goes_with_each():
    goes = torch.tensor([[True, False, True], [False, True, False]])
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    probability = logits.softmax(-1)
    expected = -(0.5 * probability[0, 0].log() + 0.5 * probability[0, 2].log() + probability[1, 1].log()) / 2
    assert softmax_loss(logits, goes).item() == pytest.approx(expected.item(), rel=1e-5)
    assert softmax_loss(goes * 40.0, goes).item() == pytest.approx(np.log(2) / 2, rel=1e-4)


def test_a_fresh_model_gets_a_tokenizer_of_its_captions_and_another_keeps_its_own(data, tmp_path):
    fresh = task_of(data)
    fresh.use_store(Store(tmp_path), "")
    made = fresh.files()[TOKENIZER_NAME]
    assert b"whistle" in made
    folder = install_style_encoder(tmp_path)
    on = task_of(data)
    on.use_store(Store(tmp_path), "style-encoder")
    assert on.files()[TOKENIZER_NAME] == (folder / TOKENIZER_NAME).read_bytes() != made
    read = open_subwords(folder)
    assert on.example(0, data).ids in [read.ids(text, CONFIG.tokens_max) for text in KINDS]
    assert on.example(0, data).ids != fresh.example(0, data).ids


@pytest.mark.parametrize("changed", [{"train": ()}, {"vocabulary": 255}])
def test_what_can_not_be_learned_is_said_before(data, changed):
    config = {key: value for key, value in changed.items() if key == "vocabulary"}
    rest = {key: value for key, value in changed.items() if key == "train"}
    with pytest.raises(UsageError):
        task_of(replace(data, **rest), **config).check()


def test_a_run_writes_a_model_that_reads_words_and_another_goes_on_from_it(data, tmp_path):
    recipe = {
        "task": "style-encoding",
        "model": asdict(replace(CONFIG, vocabulary=280)),
        "data": {"train": list(map(str, data.train)), "valid": list(map(str, data.valid))},
        "run": {"steps": 1, "batch_size": 3, "workers": 0, "threads": 1, "save_every": 1, "keep": 9},
    }
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe))
    store = Store(tmp_path / "store")

    def mtk(*arguments: object) -> int:
        return main([str(argument) for argument in arguments], Environment(io.BytesIO(), io.BytesIO(), io.StringIO()))

    assert mtk("train", path, "-q", "-o", tmp_path / "first") == 0
    best = tmp_path / "first/best"
    reader = open_style_reader(str(best), store=store, device="cpu")
    assert reader.of_text("a whistle").norm().item() == pytest.approx(1)
    again = ["finetune", "--model", best, "--data", tmp_path / "other", "run.steps=1", "run.batch_size=3"]
    write_kinds(tmp_path / "other", 1)
    (tmp_path / "other/noise-0.txt").write_text("something else altogether")
    assert mtk(*again, "run.workers=0", "run.precision=fp32", "-q", "-o", tmp_path / "second") == 0
    written = [*tmp_path.glob("*/best"), *tmp_path.glob("*/checkpoints/*")]
    assert len(written) == 4
    assert len({(folder / TOKENIZER_NAME).read_bytes() for folder in written}) == 1
