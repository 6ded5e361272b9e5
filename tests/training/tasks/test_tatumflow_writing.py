"""The task `style-writing`: who learns, from what, and whole runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.config import load_toml
from musictool.models.tatumflow import Draws, Lesson, TatumFlow
from musictool.training.recipe import build_recipe
from musictool.training.runs import read_metrics
from musictool.training.tasks.tatumflow import Odds, StyleTransferData
from musictool.training.tasks.tatumflow_writing import DecoderTraining, StyleWriting, StyleWritingLoss
from tests.small_models import random_tatumflow
from tests.training.tasks.style_pieces import SCALES, TINY, folders

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def task(styles: Path) -> StyleWriting:
    sides = {side: folders(styles, side) for side in ("train", "valid")}
    data = StyleTransferData(frames=8, tokens=64, valid_windows=8, corrupted_share=0.0, **sides)
    return StyleWriting(TINY, data, StyleWritingLoss(), 0)


@pytest.fixture(scope="module")
def lessons(task: StyleWriting) -> list[dict[str, Tensor]]:
    return [task.collate([task.example(8 * number + k, task._data) for k in range(8)]) for number in range(6)]


def model_to_train() -> TatumFlow:
    model = random_tatumflow(TINY).train()
    assert isinstance(model, TatumFlow)
    return model


def test_the_decoder_learns_and_nobody_else(task, lessons):
    model = model_to_train()
    held = {name: value.clone() for name, value in model.state_dict().items()}
    school = DecoderTraining(model)
    total, parts = task.loss(school, lessons[0], StyleWritingLoss(odds=Odds(drops_style=0.5)))
    total.backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    own = {name for name in held if name.startswith("decoder.") and "tokens" not in name}
    assert reached == own
    assert parts.keys() == {"writing"}
    for name, value in model.state_dict().items():  # the encoder's norm counts batches where it may
        assert torch.equal(value, held[name]), name


class Spy:
    """A model that notes what it is given, and says nothing of it."""

    def __call__(self, lesson: Lesson, draws: Draws) -> Tensor:
        self.draws = draws
        return torch.zeros(*lesson.told.ids.shape, TINY.vocabulary)


@pytest.mark.parametrize(("share", "noise"), [(0.0, (1.0, 1.0)), (1.0, (0.0, 0.0)), (1.0, (0.9, 1.0))])
def test_the_decoder_reads_what_the_section_says(task, lessons, share, noise):
    spy = Spy()
    task.loss(spy, lessons[0], StyleWritingLoss(share, noise))
    step = spy.draws.step
    if share == 0:
        assert not step.any()
    else:
        least, most = (max(1, round(each * TINY.diffusion_steps)) for each in noise)
        assert ((step >= least) & (step <= most)).all()


def test_who_has_learnt_writes_denoised_latents_better_than_before(task, lessons):
    torch.manual_seed(0)
    model = model_to_train()
    before = task.evaluate(model.eval())
    school = DecoderTraining(model)
    optimiser = torch.optim.Adam([p for p in school.parameters() if p.requires_grad], 1e-2)
    for step in range(40):
        total, _ = task.loss(school, lessons[step % 6], StyleWritingLoss())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    after = task.evaluate(model.eval())
    assert after.keys() == {"loss", "writing_0", "writing_50", "writing_80"}
    assert all(after[name] < 0.9 * before[name] for name in after)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"denoised_share": 1.2}, "denoised_share"),
        ({"noise": (0.5, 0.2)}, "noise is a least and a most"),
        ({"noise": (-0.1, 0.2)}, "noise is a least and a most"),
    ],
)
def test_values_that_make_no_sense_are_refused(section, words):
    with pytest.raises(ValueError, match=words):
        StyleWritingLoss(**section)


def mtk(*arguments: object) -> tuple[int, str]:
    """Status and messages of a command."""
    environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO())
    return main([str(argument) for argument in arguments], environment), environment.stderr.getvalue()


def test_a_run_goes_on_from_a_model_and_keeps_all_but_its_decoder(styles, tmp_path):
    sides = [f'data.{side}.{style}=["{styles / side / style}"]' for side in ("train", "valid") for style in SCALES]
    model = [f"model.{name}={getattr(TINY, name)}" for name in ("width", "heads", "hidden", "decoder_layers")]
    run = ["run.batch_size=3", "run.steps=2", "run.workers=0", "run.threads=1", "run.precision=fp32"]
    small = ["data.valid_windows=4", *run, *sides]
    first = ["--preset", "tatumflow", 'model.styles=["high","low"]', *model, *small, "-o", tmp_path / "first"]
    status, messages = mtk("train", *first, "--device", "cpu")
    assert status == 0, messages
    (tmp_path / "writing.toml").write_text(f'task = "style-writing"\n[model]\nfrom = "{tmp_path}/first/best"\n')
    status, messages = mtk("train", tmp_path / "writing.toml", *small, "-o", tmp_path / "second", "--device", "cpu")
    assert status == 0, messages
    assert "valid/writing_80" in read_metrics(tmp_path / "second/metrics.jsonl")[-2]
    before, after = (load_file(tmp_path / name / "best/model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("decoder.") and "tokens" not in name for name in changed)


def test_the_recipe_that_ships_is_whole():
    path = Path(__file__).parents[3] / "examples/recipes/tatumflow/tatumflow-writing.toml"
    recipe = build_recipe(load_toml(path))
    assert recipe.task == "style-writing"
    assert isinstance(recipe.loss, StyleWritingLoss)
