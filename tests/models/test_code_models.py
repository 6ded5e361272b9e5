"""Models of codes: the same in parts or at once, alone or in a batch, and never ahead of their time."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from musictool.checkpoints.store import Store
from musictool.inference.codes_generation import generate_codes
from musictool.inference.model_files import export_model, load_model
from musictool.inference.precision import make_ready
from musictool.inference.sampling import Sampling
from musictool.models.registry import build_model, config_from_dict, config_to_dict
from tests.small_code_models import (
    SMALL_PERSONALJAZZ,
    SMALL_SAXGPT,
    install_code_model,
    random_backings,
    random_code_model,
    random_styles,
)

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS = {"personaljazz": SMALL_PERSONALJAZZ, "saxgpt": SMALL_SAXGPT}


class Case(NamedTuple):
    """A model, conditions of three pieces side by side, and those of each alone."""

    model: Any
    conditions: Tensor
    single: list[Tensor]


def personaljazz_case() -> Case:
    styles = random_styles(3)
    styles[1] = 0
    return Case(random_code_model(SMALL_PERSONALJAZZ), styles, list(styles.split(1)))


def saxgpt_case() -> Case:
    lengths = (9, 0, 30)
    backings = random_backings(*lengths)
    single = [row[None, :, :length] for row, length in zip(backings, lengths, strict=True)]
    return Case(random_code_model(SMALL_SAXGPT), backings, single)


CASES = {"personaljazz": personaljazz_case, "saxgpt": saxgpt_case}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def random_steps(model: Any, rows: int = 3, frames: int = 21, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, model.special_id, (rows, model.pattern.codebooks, frames), generator=generator)
    return model.pattern.spread(codes, model.special_id)


def generated(model: Any, conditions: Tensor, frames: int, **options: Any) -> Tensor:
    return torch.stack(list(generate_codes(model, conditions, frames, **options)), dim=-1)


def assert_close(got: Tensor, expected: Tensor, atol: float = 2e-5) -> None:
    assert expected.std() > 0.5
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


def logits_in_parts(case: Case, steps: Tensor, sizes: list[int], **cache: Any) -> Tensor:
    store, memory = case.model.start(case.conditions, **cache)
    parts = []
    for part in steps.split(sizes, dim=-1):
        positions = store.begin(part.shape[-1])
        parts.append(case.model.decode(part, memory, cache=store, positions=positions))
        store.commit(part.shape[-1])
    return torch.cat(parts, dim=2)


@torch.inference_mode()
@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 29, [12, 1, 1, 15]])
def test_cached_decode_equals_full_forward(case, sizes, is_static):
    steps = random_steps(case.model)
    assert steps.shape[-1] == sum(sizes)
    in_parts = logits_in_parts(case, steps, sizes, capacity=29 if is_static else 1, is_static=is_static)
    assert_close(in_parts, case.model(steps, case.conditions))


@torch.inference_mode()
def test_a_row_does_not_depend_on_those_beside_it(case):
    model, conditions, single = case
    steps = random_steps(model)
    alone = [model(steps[row : row + 1], own) for row, own in enumerate(single)]
    assert_close(model(steps, conditions), torch.cat(alone))


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_same_seed_gives_the_same_codes_alone_or_in_a_batch(case, guidance):
    model, conditions, single = case
    options: dict[str, Any] = {"sampling": Sampling(temperature=1.0, top_k=20, seed=3), "guidance": guidance}
    codes = generated(model, conditions, 20, **options)
    assert codes.shape == (3, 8, 20)
    assert 0 <= codes.min() <= codes.max() < model.special_id
    assert all(len(row.unique()) > 20 for row in codes)
    assert torch.equal(codes, generated(model, conditions, 20, **options))
    for row, own in enumerate(single):
        draws = [options["sampling"].generator(row)]
        assert torch.equal(generated(model, own, 20, draws=draws, **options)[0], codes[row])
    other = {**options, "sampling": Sampling(temperature=1.0, top_k=20, seed=4)}
    assert not torch.equal(codes, generated(model, conditions, 20, **other))


@torch.inference_mode()
@pytest.mark.parametrize("step", [1, 8, 20])
def test_no_step_sees_a_later_one(case, step):
    model, conditions, _ = case
    steps = random_steps(model)
    changed = steps.clone()
    changed[..., step:] = random_steps(model, seed=1)[..., step:]
    before, after = model(steps, conditions), model(changed, conditions)
    torch.testing.assert_close(after[:, :, :step], before[:, :, :step], atol=1e-6, rtol=0)
    assert (after - before)[:, :, step:].abs().amax((1, 3)).min() > 0.01


@torch.inference_mode()
def test_every_step_hears_its_conditions_and_every_step_before(case):
    model, conditions, single = case
    steps = random_steps(model, rows=1)
    said = model(steps, single[2])
    other = model(steps, conditions.flip(-1)[2:])
    assert (other - said).abs().amax((0, 1, 3)).min() > 1e-3
    changed = steps.clone()
    changed[..., 1] = (steps[..., 1] + 1) % model.special_id
    assert (model(changed, single[2]) - said)[:, :, 1:].abs().amax((0, 1, 3)).min() > 1e-4


@torch.inference_mode()
def test_guidance_compares_with_what_is_said_without_conditions(case):
    model, conditions, single = case
    steps = random_steps(model).repeat(2, 1, 1)
    both = model(steps, model.with_and_without(conditions))
    assert_close(both[:3], model(steps[:3], conditions))
    alone = model(steps[4:5], single[1])  # the second piece has no conditions
    assert_close(both[4:5], alone)
    assert_close(both[1:2], alone)
    assert (both[0] - both[3]).abs().max() > 0.1


@pytest.mark.parametrize("known", [1, 7, 19])
def test_codes_go_on_after_a_prompt_as_they_did_without(case, known):
    model, conditions, _ = case
    codes = generated(model, conditions, 20)
    assert torch.equal(generated(model, conditions, 20 - known, prompt=codes[..., :known]), codes[..., known:])


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_say_nearly_the_same(case, dtype):
    model, conditions, _ = case
    steps = random_steps(model)
    expected = model(steps, conditions).log_softmax(-1)
    half = model.to(dtype)
    in_half = half(steps, conditions).float().log_softmax(-1)
    assert (in_half - expected).abs().mean() < (0.02 if dtype == torch.bfloat16 else 0.005)
    assert_close(logits_in_parts(case, steps, [1, 20, 8], capacity=30), half(steps, conditions), 0.2)


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_made_ready_says_nearly_the_same(case, precision):
    model, conditions, _ = case
    steps = random_steps(model)
    expected = model(steps, conditions).log_softmax(-1)
    ready = make_ready(model, torch.device("cpu"), precision)
    error = (ready(steps, conditions).log_softmax(-1) - expected).abs()
    assert error.max() < 1e-4 if precision == "fp32" else error.mean() < 0.02


@torch.inference_mode()
@pytest.mark.parametrize("numbers", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", list(CASES))
def test_a_model_that_was_stored_is_the_same_model(tmp_path, name, numbers):
    case = CASES[name]()
    steps = random_steps(case.model)
    store = Store(tmp_path)
    install_code_model(tmp_path, CONFIGS[name], "stored")
    export_model("stored", "native", tmp_path / "exported", numbers=numbers, store=store)
    loaded = load_model(str(tmp_path / "exported"), store=store)
    assert loaded.config == CONFIGS[name]
    said, expected = loaded.model(steps, case.conditions), case.model(steps, case.conditions)
    assert torch.equal(said, expected) == (numbers == "float32")
    assert (said - expected).abs().mean() < 0.05


@pytest.mark.parametrize("name", list(CASES))
def test_a_configuration_survives_being_written(name):
    assert config_from_dict(config_to_dict(CONFIGS[name])) == CONFIGS[name]


@pytest.mark.parametrize("name", list(CASES))
def test_every_parameter_learns(name):
    case = CASES[name]()
    case.model(random_steps(case.model), case.conditions).square().sum().backward()
    assert [key for key, value in case.model.named_parameters() if value.grad is None or not value.grad.any()] == []


@torch.inference_mode()
@pytest.mark.parametrize("name", list(CASES))
def test_fresh_weights_are_as_unsure_as_there_are_codes(name):
    torch.manual_seed(0)
    case = CASES[name]()
    fresh: nn.Module = build_model(CONFIGS[name]).eval()
    logits = fresh(random_steps(case.model), case.conditions)
    assert 0.7 < logits.std() < 1.3
