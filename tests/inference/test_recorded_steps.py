"""Steps that are recorded say what steps that are not say; on a CPU a tape stands for a GPU's recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musictool.core import cuda_graphs
from musictool.core.kv_cache import KVCache
from musictool.inference import codes_generation
from musictool.inference.codes_generation import WARM_STEPS, generate_codes
from musictool.inference.sampling import Sampling
from musictool.models.musicgen import Conditions, MusicGen, MusicGenConfig
from musictool.models.musicgen_parts import TextEncoderConfig
from tests import tape
from tests.small_code_models import (
    SMALL_PERSONALJAZZ,
    SMALL_SAXGPT,
    random_backings,
    random_code_model,
    random_styles,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = TextEncoderConfig(vocabulary=20, width=32, heads=4, head_width=8, hidden=64, layers=1)
SMALL_MUSICGEN = MusicGenConfig(width=32, heads=4, hidden=64, layers=2, codebook_size=24, text=TEXT)
SMALL_MELODY = replace(SMALL_MUSICGEN, has_melody=True, chroma_bins=4, chroma_frames=7)
has_no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def musicgen_case(config: MusicGenConfig) -> tuple[nn.Module, Any]:
    model: Any = random_code_model(config)
    visible = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    with torch.no_grad():
        told = model.encode_text(torch.randint(1, 20, (2, 5), generator=torch.Generator().manual_seed(0)), visible)
    return model, told


CASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "musicgen": lambda: musicgen_case(SMALL_MUSICGEN),
    "melody": lambda: musicgen_case(SMALL_MELODY),
    "personaljazz": lambda: (random_code_model(SMALL_PERSONALJAZZ), random_styles(2)),
    "saxgpt": lambda: (random_code_model(SMALL_SAXGPT), random_backings(9, 30)),
}
every_model = pytest.mark.parametrize("name", CASES)


class Recordings:
    """How often steps were recorded, and played."""

    def __init__(self, record: Callable[..., Callable[[], Tensor]]) -> None:
        self._record = record
        self.made = self.played = 0

    def record(self, work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        play = self._record(work, device)
        self.made += 1

        def count() -> Tensor:
            self.played += 1
            return play()

        return count


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=has_no_gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def recordings(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Recordings:
    made = Recordings(tape.record if device.type == "cpu" else cuda_graphs.record)
    monkeypatch.setattr(codes_generation, "record", made.record)
    monkeypatch.setattr(codes_generation, "can_record", lambda device: True)
    return made


def case(name: str, device: torch.device) -> tuple[Any, Any]:
    model, conditions = CASES[name]()
    if isinstance(conditions, Conditions):
        conditions = Conditions(*(None if part is None else part.to(device) for part in conditions))
    else:
        conditions = conditions.to(device)
    return model.to(device), conditions


def generated(model: Any, conditions: Any, frames: int, **options: Any) -> Tensor:
    return torch.stack(list(generate_codes(model, conditions, frames, **options)), dim=-1)


def unrecorded(monkeypatch: pytest.MonkeyPatch, *given: Any, **options: Any) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(codes_generation, "can_record", lambda device: False)
        return generated(*given, **options)


@every_model
@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("known", [0, 1, 7])
def test_recorded_steps_give_the_same_codes(name, guidance, known, device, recordings, monkeypatch):
    model, conditions = case(name, device)
    options = {"guidance": guidance, "sampling": Sampling(temperature=1.0, top_k=5, seed=3)}
    whole = unrecorded(monkeypatch, model, conditions, known + 20, **options)
    assert all(len(row.unique()) > 4 for row in whole)
    options["prompt"] = whole[..., :known] if known else None
    wanted = unrecorded(monkeypatch, model, conditions, 20, **options)
    assert recordings.made == 0
    assert torch.equal(generated(model, conditions, 20, **options), wanted)
    assert recordings.made == 1
    assert recordings.played >= 20 - WARM_STEPS


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, int], list[KVCache]]:
    """Gives a model's caches less room than is asked for; a list of those that it began."""

    def cramp(model: Any, missing: int) -> list[KVCache]:
        caches = []
        start = model.start

        def start_cramped(told: Any, *, capacity: int, **options: Any) -> tuple[KVCache, Any]:
            cache, memory = start(told, capacity=capacity - missing, **options)
            caches.append(cache)
            return cache, memory

        monkeypatch.setattr(model, "start", start_cramped)
        return caches

    return cramp


@every_model
def test_what_cannot_be_recorded_is_done_step_by_step(name, device, recordings, cramped, monkeypatch):
    model, conditions = case(name, device)
    wanted = unrecorded(monkeypatch, model, conditions, 12)
    caches = cramped(model, 1)  # the last step is said and not read
    tries = []

    def fail(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        tries.append(device)
        lengths = caches[0].lengths.clone()
        work()
        caches[0].lengths.copy_(lengths)  # what is recorded is not done
        raise torch.OutOfMemoryError("no memory for what is recorded")

    monkeypatch.setattr(codes_generation, "record", fail)
    assert torch.equal(generated(model, conditions, 12), wanted)
    assert len(tries) == 1


@every_model
def test_recorded_steps_do_not_go_beyond_the_cache(name, device, recordings, cramped):
    model, conditions = case(name, device)
    cramped(model, 2)
    with pytest.raises(ValueError, match="the cache is full"):
        generated(model, conditions, 12)
    assert recordings.made == 1


def test_only_a_gpu_records():
    assert cuda_graphs.can_record(torch.device("cuda:1"))
    assert not cuda_graphs.can_record(torch.device("cpu"))


@torch.inference_mode()
def test_a_full_cache_is_refused_to_recorded_steps():
    model: MusicGen = random_code_model(SMALL_MUSICGEN)  # type: ignore[assignment]
    cache = model.new_cache(2, capacity=3, is_static=True)
    for _ in range(2):
        cache.begin(1)
        cache.commit(1)
    cache.follow(1)
    with pytest.raises(ValueError, match="the cache is full: 4 steps, and room for 3"):
        cache.follow(1)
    cache.recount()
    assert cache.begin(1).tolist() == [[2], [2]]
