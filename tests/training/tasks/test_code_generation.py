"""Learning to write codes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from musictool.checkpoints.native import ModelFacts, write_native
from musictool.checkpoints.store import Store
from musictool.errors import MissingError, UsageError
from musictool.models.musicgen import MusicGen, MusicGenConfig
from musictool.models.musicgen_parts import TextEncoderConfig
from musictool.models.personaljazz import PersonalJazzConfig
from musictool.models.registry import build_model
from musictool.models.saxgpt import SaxGPT
from musictool.training.recipe import load_finetuning_table, preset_names
from musictool.training.tasks.code_generation import (
    CodeGeneration,
    CodeGenerationData,
    CodeGenerationLoss,
    CodeTraining,
    laid_out,
)
from tests.code_sets import CODEC, CODEC_SHA, SIZE, SMALL_SAXGPT, draw_pairs, write_corpus, write_pairs

SMALL_TEXT = TextEncoderConfig(vocabulary=60, width=16, heads=2, head_width=8, hidden=32, layers=1)
CONFIGS = {
    "saxgpt": replace(SMALL_SAXGPT, dropout=0.0),
    "musicgen": MusicGenConfig(
        width=32,
        heads=2,
        hidden=64,
        layers=1,
        codebooks=2,
        codebook_size=SIZE,
        codec=CODEC,
        dropout=0.0,
        text=SMALL_TEXT,
    ),
    "personaljazz": PersonalJazzConfig(
        width=32, heads=2, hidden=64, layers=1, codebooks=2, codebook_size=SIZE, codec=CODEC, style_width=8, dropout=0.0
    ),
}
LOSS = CodeGenerationLoss()


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sets")
    pairs = draw_pairs(8, frames=70)
    wordless = write_corpus(folder / "codes.parquet", [pair.lead for pair in pairs])
    return {"saxgpt": write_pairs(folder, "train", pairs), "words": wordless}


def task_of(family: str, path: Path, store: Path, origin: str = "", seed: int = 0, **values: object) -> CodeGeneration:
    data = CodeGenerationData(**{"train": (path,), "window_frames": 40, "hop_frames": 10, **values})
    task = CodeGeneration(CONFIGS[family], data, LOSS, seed)
    task.use_store(Store(store), origin)
    return task


def batch_of(task: CodeGeneration, numbers: range = range(4), **values: object) -> dict[str, torch.Tensor]:
    data = replace(task._data, **values)
    return task.collate([task.example(number, data) for number in numbers])


@pytest.fixture
def with_words(tmp_path, monkeypatch) -> Path:
    """A store with a MusicGen whose tokenizer reads a text by the lengths of its words."""
    torch.manual_seed(0)
    folder = tmp_path / "models" / "teller"
    folder.mkdir(parents=True)
    facts = ModelFacts(
        "musicgen", "musicgen-small", asdict(CONFIGS["musicgen"]), source={"codec": CODEC, "codec_sha256": CODEC_SHA}
    )
    write_native(folder, MusicGen(CONFIGS["musicgen"]).state_dict(), facts, "")
    return tmp_path


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<unk>": 0, "words": 1, **{str(number): 2 + number for number in range(10)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def test_an_example_is_known_from_its_number_and_windows_grow_with_the_step(sets, tmp_path):
    task = task_of("saxgpt", sets["saxgpt"], tmp_path, untold_share=0.5)
    task.check()
    again = task_of("saxgpt", sets["saxgpt"], tmp_path, untold_share=0.5)
    for number in (11, 3, 11):
        first, second = (each.example(number, each._data) for each in (task, again))
        assert np.array_equal(first.codes, second.codes)
        assert np.array_equal(first.told, second.told)
    assert batch_of(task, window_frames=20)["codes"].shape == (4, 2, 20)
    assert batch_of(task)["codes"].shape == (4, 2, 40)
    other = task_of("saxgpt", sets["saxgpt"], tmp_path, seed=1)
    assert not torch.equal(batch_of(other)["codes"], batch_of(task)["codes"])


def test_a_backing_goes_with_its_lead_and_in_some_examples_there_is_none(sets, tmp_path):
    task = task_of("saxgpt", sets["saxgpt"], tmp_path)
    batch = batch_of(task, untold_share=0.0)
    climbs = (batch["codes"][..., 1:] - batch["codes"][..., :-1]) % SIZE
    assert torch.equal(climbs, batch["backing"][..., 1:])  # which says by how much a lead climbs
    untold = [batch_of(task, range(n, n + 1), untold_share=0.3)["backing"].numel() == 0 for n in range(100)]
    assert 15 < sum(untold) < 45


def test_shorter_pieces_are_padded_and_padding_counts_nothing(sets, tmp_path):
    task = task_of("saxgpt", sets["saxgpt"], tmp_path)
    torch.manual_seed(0)
    training = CodeTraining(SaxGPT(CONFIGS["saxgpt"]), task._telling).eval()
    example = task.example(0, replace(task._data, untold_share=0.0))
    short = example._replace(codes=example.codes[:, :7], told=example.told[:, :7])
    alone = task.loss(training, task.collate([short]), LOSS)[0]
    other = task.loss(training, task.collate([example]), LOSS)[0]
    both = task.loss(training, task.collate([short, example]), LOSS)[0]
    torch.testing.assert_close(both, (7 * alone + 40 * other) / 47)
    ids = laid_out(training.model, task.collate([short, example]))
    assert torch.equal(training.model.pattern.gather(ids)[0, :, :7], torch.from_numpy(short.codes).long())
    assert (ids[0, 0, 8:] == SIZE).all()


def test_codebooks_count_as_much_as_they_are_said_to(sets, tmp_path):
    task = task_of("saxgpt", sets["saxgpt"], tmp_path)
    training = CodeTraining(SaxGPT(CONFIGS["saxgpt"]), task._telling).eval()
    batch = batch_of(task)
    total, parts = task.loss(training, batch, LOSS)
    first, second = parts["cross_entropy_1"], parts["cross_entropy_2"]
    torch.testing.assert_close(total.detach(), (first + second) / 2)
    weighed, _ = task.loss(training, batch, CodeGenerationLoss(codebooks=(3.0, 1.0)))
    torch.testing.assert_close(weighed.detach(), (3 * first + second) / 4)


def test_in_scheduled_sampling_the_model_reads_its_own_words(sets, tmp_path):
    task = task_of("saxgpt", sets["saxgpt"], tmp_path)
    training = CodeTraining(SaxGPT(CONFIGS["saxgpt"]), task._telling).eval()
    batch = batch_of(task)
    taught, own = (task.loss(training, batch, CodeGenerationLoss(own_share=share))[0] for share in (0.0, 1.0))
    assert float(taught.detach()) != float(own.detach())


def test_where_all_of_the_past_is_hidden_there_is_the_backing_alone_to_go_by(sets, tmp_path):
    task = task_of("saxgpt", sets["saxgpt"], tmp_path)
    training = CodeTraining(SaxGPT(CONFIGS["saxgpt"]), task._telling).eval()
    batch, said = batch_of(task), []
    training.model.heads.register_forward_hook(lambda *call: said.append(call[-1].detach()))
    other = {**batch, "codes": (batch["codes"] + 1) % SIZE}
    for read in (batch, other, {**other, "backing": (batch["backing"] + 1) % SIZE}):
        task.loss(training, read, CodeGenerationLoss(hidden_share=1.0))
    torch.testing.assert_close(said[0], said[1])
    assert (said[2] - said[1]).abs().max() > 0.01
    with pytest.raises(ValueError, match="hidden_share"):
        CodeGenerationLoss(hidden_share=1.5)


@pytest.mark.parametrize("family", CONFIGS)
def test_each_family_learns(sets, tmp_path, family):
    path = sets["saxgpt"] if family == "saxgpt" else sets["words"]
    torch.manual_seed(0)
    model = build_model(CONFIGS[family])
    task = task_of(family, path, tmp_path, valid=(path,))
    task._telling.prepare = lambda *_: None  # words are read in another test
    task._telling.of = lambda piece: task._telling.nothing() if family != "saxgpt" else piece.backing
    task.check()
    before = task.evaluate(model.eval())
    assert before.keys() == {"loss", "accuracy", "cross_entropy_1", "cross_entropy_2"}
    training = task.accompanied(model.train(), is_fresh=True)
    optimiser = torch.optim.AdamW(training.parameters(), lr=0.01)
    for step in range(20):
        loss, parts = task.loss(training, batch_of(task, range(8 * step, 8 * step + 8)), LOSS)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    after = task.evaluate(model.eval())
    assert after["loss"] < before["loss"] - 0.5
    assert set(parts) == {"cross_entropy_1", "cross_entropy_2", "accuracy"}
    assert task.amounts(batch_of(task)) == {"frames": 160.0}


def test_words_are_read_by_the_tokenizer_beside_the_model(sets, with_words):
    write_tokenizer(with_words / "models" / "teller")
    task = task_of("musicgen", sets["words"], with_words, origin="teller", untold_share=0.0)
    task.check()
    batch = batch_of(task)
    assert batch["text"].shape == (4, 2)
    assert set(batch["text"][:, 0].tolist()) == {1}
    assert task._codec_sha256 == CODEC_SHA
    untold = batch_of(task, untold_share=1.0)
    assert not untold["text_visible"].any()
    model = MusicGen(CONFIGS["musicgen"]).eval()
    told, nothing = (task._telling.conditions(model, one).states for one in (batch, untold))
    assert told.any()
    assert not nothing.any()


def test_what_cannot_be_learned_from_is_one_line(sets, tmp_path, with_words):
    for task, error, message in (
        (task_of("saxgpt", sets["saxgpt"], tmp_path, train=()), UsageError, "no data to learn from"),
        (task_of("saxgpt", sets["saxgpt"], tmp_path, window_frames=65), UsageError, "the model sees 64"),
        (task_of("saxgpt", sets["words"], tmp_path), UsageError, "no piece has one"),
        (task_of("musicgen", sets["words"], tmp_path), UsageError, "words need a tokenizer"),
        (task_of("musicgen", sets["words"], with_words, origin="teller"), MissingError, "its tokenizer is not here"),
        (task_of("personaljazz", sets["words"], tmp_path), MissingError, "no model named 'style-encoder'"),
    ):
        with pytest.raises(error, match=message):
            task.check()
    sound = tmp_path / "sounds"
    sound.mkdir()
    (sound / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(MissingError, match="the codec of the model is not here: some-codec"):
        task_of("saxgpt", sound, tmp_path).check()
    with pytest.raises(UsageError, match="3 codebooks count, and the model writes 2"):
        task = CodeGeneration(
            CONFIGS["saxgpt"], CodeGenerationData(train=(sound,), window_frames=9), CodeGenerationLoss((1, 1, 1)), 0
        )
        task.check()


@pytest.mark.parametrize("family", CONFIGS)
def test_a_recipe_ships_for_finetuning_each_family(family):
    assert family in preset_names()
    table = load_finetuning_table(family)
    assert (table["task"], table["curriculum"]) == ("code-generation", [])
    assert table["optimiser"]["learning_rate"] < 1e-4
