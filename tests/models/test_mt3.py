"""MT3: the same numbers as T5 of `transformers` has with the same weights, and the published checkpoint's results."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

from musictool.audio.reading import open_audio
from musictool.audio.spectrogram import LogMel
from musictool.checkpoints.checkpoint import Checkpoint, stored_in_memory
from musictool.checkpoints.store import Store
from musictool.inference.engine import Engine, Requests
from musictool.inference.model_files import import_model, load_model
from musictool.inference.mt3_transcription import MT3Transcriber
from musictool.inference.transcription import Sound, Transcription
from musictool.models.mt3 import MT3
from musictool.models.registry import foreign_names, load_preset
from tests.models.t5_oracle import build_port

SHARED = os.environ.get("MTK_TEST_SHARED")
needs_shared = pytest.mark.skipif(not SHARED, reason="MTK_TEST_SHARED is not set")

MT3_PRESETS = ("mt3", "mt3-relative")

SMALL = {
    "width": 32,
    "heads": 2,
    "head_width": 12,
    "hidden": 40,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "vocabulary": 48,
    "segment_frames": 300,  # more than relative positions tell apart
}
SEGMENTS = 8
RECORDING = "MAPS_MUS-schumm-1_ENSTDkAm"  # its closest choices of those segments are far above rounding errors


@pytest.fixture(autouse=True)
def two_threads(own_threads):
    torch.set_num_threads(2)


def random_mt3(preset: str, seed: int, **changes: object) -> MT3:
    """A model in which every weight matters, norms and relative positions too, and no softmax is all but one-hot."""
    generator = torch.Generator().manual_seed(seed)
    model = MT3(replace(load_preset(preset), **changes))
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            noise = 1 + 0.2 * noise
        elif "embedding" not in name and "position_bias" not in name:
            noise *= (parameter.shape[1] * (model.config.head_width if ".query." in name else 1)) ** -0.5
        parameter.data = noise
    return model.eval()


def small_mt3(preset: str, seed: int = 0, **changes: object) -> MT3:
    return random_mt3(preset, seed, **{**SMALL, **changes})


def random_input(model: MT3, seed: int, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Frames [2, S, M] and ids [2, T]."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(2, model.config.segment_frames, model.config.front_end.bins, generator=generator)
    return frames, torch.randint(0, model.config.vocabulary, (2, steps), generator=generator)


def assert_close(got: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


# --------------------------------------------------------------------------------------------------- against T5, always


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("preset", MT3_PRESETS)
def test_logits_equal_those_of_t5(preset, seed):
    model = small_mt3(preset, seed)
    frames, ids = random_input(model, seed)
    expected = build_port(model).score(frames, ids)
    assert expected.std() > 0.5
    assert_close(model(frames, ids), expected, 1e-5)


@torch.inference_mode()
def test_logits_of_the_relative_preset_equal_those_of_t5_at_its_size():
    model = random_mt3("mt3-relative", 9)
    frames, ids = (rows[:1] for rows in random_input(model, 9))
    assert_close(model(frames, ids), build_port(model).score(frames, ids), 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("preset", MT3_PRESETS)
def test_greedy_ids_equal_those_of_generate(preset, rows):
    model = small_mt3(preset, decoder_layers=2)  # the cache of `generate` is as deep as the encoder
    for parameter in model.decoder.blocks.parameters():
        parameter *= 2  # so that it does not just repeat what it reads
    frames, _ = random_input(model, 0)
    port = build_port(model)
    expected = [port.transcribe(row[None], 150)[0] for row in frames]
    assert len({id for row in expected for id in row}) > 15
    assert decoded(model, frames, tokens_max=150, rows=rows) == expected


@pytest.mark.parametrize("preset", MT3_PRESETS)
def test_weights_of_a_port_are_read_back_as_they_were(preset):
    model = small_mt3(preset)
    names = foreign_names(model.config)["huggingface"]
    stored = stored_in_memory(build_port(model).state_dict())
    checkpoint, copies = names.to_ours(Checkpoint(Path("port"), "huggingface", stored))
    expected = model.state_dict()
    assert set(checkpoint.names) == set(expected)
    assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in expected.items())
    assert set(copies) == {"token_embedding.weight"}
    assert all(torch.equal(copy.read(), model.token_embedding.weight) for copy in copies["token_embedding.weight"])


# -------------------------------------------------------------------------------------------------- against itself


def logits_in_steps(model: MT3, frames: Tensor, ids: Tensor, sizes: list[int], is_static: bool = False) -> Tensor:
    """Logits [B, T, V], some steps at a time."""
    memory = model.remember(frames)
    cache = model.new_cache(len(ids), capacity=ids.shape[1] if is_static else 64, is_static=is_static)
    parts = []
    for part in ids.split(sizes, dim=1):
        positions = cache.begin(part.shape[1])
        parts.append(model.decode(part, memory, cache=cache, positions=positions))
        cache.commit(part.shape[1])
    return torch.cat(parts, dim=1)


@torch.inference_mode()
@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 150, [70, 1, 1, 78]])
@pytest.mark.parametrize("preset", MT3_PRESETS)
def test_cached_logits_equal_uncached(preset, sizes, is_static):
    model = small_mt3(preset)
    frames, ids = random_input(model, 2, 150)
    assert_close(logits_in_steps(model, frames, ids, sizes, is_static), model(frames, ids), 1e-5)


@pytest.mark.parametrize("preset", MT3_PRESETS)
def test_decoder_is_causal_and_sees_all_frames(preset):
    model = small_mt3(preset)
    frames, ids = random_input(model, 3, 20)
    frames.requires_grad_()
    before = model(frames, ids)
    (gradient,) = torch.autograd.grad(before[:, 0].sum(), frames)
    assert (gradient.abs().sum(dim=-1) > 0).all()
    changed = ids.clone()
    changed[:, 12] = (ids[:, 12] + 1) % model.config.vocabulary
    after = model(frames, changed)
    assert_close(after[:, :12], before[:, :12], 1e-6)
    assert ((after - before)[:, 12:].abs().amax(dim=-1) > 1e-3).all()


@torch.inference_mode()
@pytest.mark.parametrize("preset", MT3_PRESETS)
def test_batched_logits_equal_single(preset):
    model = small_mt3(preset)
    frames, ids = random_input(model, 4)
    singles = [model(frames[row : row + 1], ids[row : row + 1]) for row in range(2)]
    assert_close(model(frames, ids), torch.cat(singles), 1e-5)


# --------------------------------------------------------------------------------------------- the published checkpoint


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A store with the published checkpoint, as `mt3`."""
    store = Store(tmp_path_factory.mktemp("home"))
    import_model(Path(SHARED or "", "models/mt3-t5x"), "mt3", store=store)
    return store


@pytest.fixture(scope="session")
def mt3(store) -> MT3:
    return load_model("mt3", store=store).model


@pytest.fixture(scope="session")
def recording() -> Path:
    return Path(SHARED or "", f"data/recordings/maps-dev/{RECORDING}.flac")


@pytest.fixture(scope="session")
def reference() -> list[list[int]]:
    """The published code's ids of each segment."""
    return json.loads(Path(SHARED or "", "references/mt3/tokens_greedy_fp32.json").read_text())[RECORDING][:SEGMENTS]


@pytest.fixture(scope="session")
def frames(mt3, recording) -> Tensor:
    """Log-mel frames of the first segments."""
    samples, _ = soundfile.read(recording, frames=SEGMENTS * mt3.config.segment_samples, dtype="float32")
    return LogMel(mt3.config.front_end)(torch.from_numpy(samples).view(SEGMENTS, -1))


@pytest.fixture(scope="session")
def forced_ids(reference) -> Tensor:
    """What the decoder reads to write the reference: the start id first, zeros after the end."""
    ids = torch.zeros(SEGMENTS, max(map(len, reference)), dtype=torch.int64)
    for row, segment in zip(ids, reference, strict=True):
        row[1 : len(segment)] = torch.tensor(segment[:-1])
    return ids


def decoded(model: MT3, frames: Tensor, *, tokens_max: int, rows: int = 3) -> list[list[int]]:
    """The engine's ids of each row of frames, in fewer rows than there are."""
    engine = Engine(model, end_id=model.config.end_id, tokens_max=tokens_max, rows=rows)
    with torch.inference_mode():
        memory = model.remember(frames)
    keys = range(len(frames))
    done = {d.key: d.ids for d in engine.run([Requests(keys, memory, [[model.config.start_id]] * len(frames))])}
    return [done[key] for key in keys]


@needs_shared
def test_published_checkpoint_has_as_many_parameters_as_it_should(mt3):
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in mt3.named_children()}
    assert parts["frame_projection"] + parts["encoder"] == 19_145_216
    assert parts["token_embedding"] + parts["decoder"] + parts["head"] == 26_751_488
    assert sum(parts.values()) == 45_896_704


@needs_shared
@torch.inference_mode()
def test_published_logits_equal_those_of_a_port(mt3, frames, forced_ids):
    frames, ids = frames[4:6], forced_ids[4:6]
    assert_close(mt3(frames, ids), build_port(mt3).score(frames, ids), 1e-4)


@needs_shared
@torch.inference_mode()
def test_published_cached_logits_equal_uncached(mt3, frames, forced_ids):
    frames, ids = frames[4:6], forced_ids[4:6]
    assert_close(logits_in_steps(mt3, frames, ids, [1] * ids.shape[1]), mt3(frames, ids), 1e-4)


@needs_shared
def test_published_tokens_are_the_reference(mt3, frames, reference):
    assert decoded(mt3, frames, tokens_max=mt3.config.tokens_max) == reference


@needs_shared
def test_published_tokens_of_a_model_made_ready_are_the_reference(store, recording, reference, mt3, tmp_path):
    cut = tmp_path / "cut.flac"
    soundfile.write(cut, *soundfile.read(recording, frames=SEGMENTS * mt3.config.segment_samples, dtype="int16"))
    transcriber = MT3Transcriber(load_model("mt3", store=store), Transcription("mt3", device="cpu"))
    (segments,) = (list(piece.segments()) for piece in transcriber.run([Sound("cut", partial(open_audio, cut))]))
    assert [ids.tolist() for ids in segments[:SEGMENTS]] == reference
    assert len(segments) == SEGMENTS + 1  # sound that ends on a frame's last sample has a frame more
