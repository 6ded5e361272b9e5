"""MusicGen: numbers and codes as `transformers` has them with the same folder, and the same in parts or at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from musictool.checkpoints.checkpoint import stored_in_memory
from musictool.checkpoints.formats import open_checkpoint
from musictool.checkpoints.store import Store
from musictool.errors import InputError
from musictool.inference.codes_generation import generate_codes
from musictool.inference.model_description import describe_model
from musictool.inference.model_files import expected_shapes, import_model, load_model
from musictool.inference.sampling import Sampling
from musictool.models import codec_names
from musictool.models.musicgen import Conditions, MusicGen, MusicGenConfig
from musictool.models.musicgen_names import audio_encoder, config_from_huggingface, huggingface_config
from musictool.models.musicgen_parts import TextEncoderConfig
from musictool.models.registry import PRESETS, build_model, foreign_names, load_preset
from tests.models.musicgen_oracle import KINDS, NEWER_TEXT, SPECIAL, TEXT, build_port, build_shapes, greedy_codes, save

pytestmark = pytest.mark.usefixtures("one_thread")

CLOSE = 1e-4


class Pair(NamedTuple):
    """A model of theirs, its folder, and what we read from there."""

    port: Any
    folder: Path
    model: MusicGen


@pytest.fixture(scope="module")
def pairs(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    home = tmp_path_factory.mktemp("musicgen")
    store = Store(home / "store")
    made = {}
    for kind, text in [*((kind, TEXT) for kind in KINDS), ("newer text", NEWER_TEXT)]:
        port = build_port("mono" if kind == "newer text" else kind, text=text)
        folder = save(port, home / kind.replace(" ", "-"))
        import_model(folder, folder.name, store=store)
        made[kind] = Pair(port, folder, load_model(folder.name, store=store).model)
    return made


every_kind = pytest.mark.parametrize("kind", [*KINDS, "newer text"])


def random_text(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids, int64 [B, S], with T5's padding after them, and which of them are text."""
    generator = torch.Generator().manual_seed(seed)
    visible = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(2, TEXT["vocab_size"], visible.shape, generator=generator)
    return ids.where(visible, 0), visible


def random_steps(model: MusicGen, rows: int, frames: int = 11, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, SPECIAL, (rows, model.config.codebooks, frames), generator=generator)
    return model.pattern.spread(codes, model.special_id)


def random_chroma(rows: int, frames: int) -> Tensor:
    return torch.eye(12)[torch.randint(0, 12, (rows, frames), generator=torch.Generator().manual_seed(frames))]


def their_logits(port: Any, steps: Tensor, **conditions: Tensor) -> Tensor:
    """Logits of steps [B, K, T], those of what comes before them left out: [B, K, T, V]."""
    logits = port(**conditions, decoder_input_ids=steps.flatten(0, 1)).logits
    return logits.unflatten(0, steps.shape[:2])[:, :, -steps.shape[-1] :]


def assert_close(got: Tensor, expected: Tensor, atol: float = CLOSE) -> None:
    assert expected.std() > 0.5
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


# ------------------------------------------------------------------------------------------------- against transformers


@torch.inference_mode()
@every_kind
@pytest.mark.parametrize("length", [1, 7, 150])  # the longest has more tokens than T5 tells distances apart
def test_logits_equal_those_of_transformers(pairs, kind, length):
    port, _, model = pairs[kind]
    ids, visible = random_text([length, length], length)
    steps = random_steps(model, 2)
    expected = their_logits(port, steps, input_ids=ids, attention_mask=visible.long())
    assert_close(model(steps, model.encode_text(ids, visible)), expected)
    assert_close(model(steps, model.encode_text(ids)), expected)


@torch.inference_mode()
@every_kind
def test_logits_of_padded_text_equal_those_of_transformers(pairs, kind):
    port, _, model = pairs[kind]
    ids, visible = random_text([9, 4, 1])
    steps = random_steps(model, 3)
    expected = their_logits(port, steps, input_ids=ids, attention_mask=visible.long())
    conditions = model.encode_text(ids, visible)
    if model.config.has_melody:  # theirs looks at the zeros that stand for padding, and begins the codes after them
        conditions = conditions._replace(visible=None)
    assert_close(model(steps, conditions), expected)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 4, 9, 14])  # the model knows 9: shorter ones come again, longer ones are cut
@pytest.mark.parametrize("kind", ["melody", "stereo melody"])
def test_logits_with_a_melody_equal_those_of_transformers(pairs, kind, frames):
    port, _, model = pairs[kind]
    ids, visible = random_text([5, 5])
    chroma = random_chroma(2, frames)
    steps = random_steps(model, 2)
    expected = their_logits(port, steps, input_ids=ids, attention_mask=visible.long(), input_features=chroma)
    assert_close(model(steps, model.encode_text(ids, visible, chroma)), expected)
    assert not torch.allclose(model(steps, model.encode_text(ids, visible)), expected, atol=0.1)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["mono", "newer text"])
def test_text_is_read_as_by_their_encoder(pairs, kind):
    port, _, model = pairs[kind]
    ids, visible = random_text([40, 23, 1])
    theirs = port.text_encoder(input_ids=ids, attention_mask=visible.long()).last_hidden_state
    assert_close(model.text_encoder(ids, visible)[visible], theirs[visible], 1e-5)
    alone = torch.cat([model.text_encoder(row[seen][None])[0] for row, seen in zip(ids, visible, strict=True)])
    assert_close(alone, theirs[visible], 1e-5)


@every_kind
@pytest.mark.parametrize("guidance", [None, 3.0])
@pytest.mark.parametrize("frames", [4, 40])
def test_greedy_codes_equal_those_of_transformers(pairs, kind, guidance, frames):
    port, _, model = pairs[kind]
    ids, visible = random_text([6, 6], 5)
    given = {"input_ids": ids, "attention_mask": visible.long()}
    expected = greedy_codes(port, frames, guidance, **given)
    assert expected.shape == (2, model.config.codebooks, frames)
    got = generated(model, model.encode_text(ids, visible), frames, guidance=guidance or 1.0)
    assert torch.equal(got, expected)
    if frames > 4:
        assert all(len(row.unique()) > 5 for row in expected)
        other = generated(model, model.encode_text(ids, visible), frames, guidance=1.0 if guidance else 3.0)
        assert not torch.equal(other, expected)


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_greedy_codes_of_padded_text_equal_those_of_transformers(pairs, kind):
    port, _, model = pairs[kind]
    ids, visible = random_text([7, 2, 4])
    expected = greedy_codes(port, 12, 2.0, input_ids=ids, attention_mask=visible.long())
    assert torch.equal(generated(model, model.encode_text(ids, visible), 12, guidance=2.0), expected)


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_greedy_codes_with_a_melody_equal_those_of_transformers(pairs, guidance):
    port, _, model = pairs["melody"]
    ids, visible = random_text([6, 6])
    chroma = random_chroma(2, 5)
    given = {"input_ids": ids, "attention_mask": visible.long(), "input_features": chroma}
    expected = greedy_codes(port, 20, guidance, **given)
    conditions = model.encode_text(ids, visible, chroma)
    assert torch.equal(generated(model, conditions, 20, guidance=guidance or 1.0), expected)


@pytest.mark.parametrize("known", [1, 2, 9])
@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_greedy_codes_after_a_prompt_equal_those_of_transformers(pairs, kind, known):
    port, _, model = pairs[kind]
    ids, visible = random_text([6, 6])
    prompt = model.pattern.gather(random_steps(model, 2, known))
    given = {"input_ids": ids, "attention_mask": visible.long(), "decoder_input_ids": prompt.flatten(0, 1)}
    expected = greedy_codes(port, 15, **given)[..., known:]
    got = generated(model, model.encode_text(ids, visible), expected.shape[-1], prompt=prompt)
    assert torch.equal(got, expected)


def generated(model: MusicGen, conditions: Conditions, frames: int, **options: Any) -> Tensor:
    return torch.stack(list(generate_codes(model, conditions, frames, **options)), dim=-1)


# --------------------------------------------------------------------------------------------------------- their folder


@every_kind
def test_every_tensor_of_a_folder_is_read_and_written_back_under_its_name(pairs, kind):
    port, folder, model = pairs[kind]
    names = foreign_names(model.config)["huggingface"]
    written = names.to_theirs(model.state_dict())
    theirs = {name: tensor for name, tensor in port.state_dict().items() if not name.startswith("audio_encoder.")}
    assert set(written) == set(theirs)
    assert all(torch.equal(written[name], tensor) for name, tensor in theirs.items())
    read, _ = names.to_ours(open_checkpoint(folder))
    assert set(read.names) == set(model.state_dict())


def test_what_older_versions_wrote_beside_is_passed_over(pairs):
    port, folder, model = pairs["mono"]
    table = {"decoder.model.decoder.embed_positions.weights": torch.zeros(4, 32)}
    copy = {"text_encoder.encoder.embed_tokens.weight": port.text_encoder.shared.weight.detach()}
    checkpoint = open_checkpoint(folder)
    tensors = {**checkpoint.tensors, **stored_in_memory(table | copy)}
    read, copies = foreign_names(model.config)["huggingface"].to_ours(replace(checkpoint, tensors=tensors))
    assert set(read.names) == set(model.state_dict())
    assert set(copies) == {"text_encoder.embedding.weight"}


@every_kind
def test_a_configuration_comes_back_from_theirs(pairs, kind):
    port, folder, model = pairs[kind]
    assert config_from_huggingface(open_checkpoint(folder).config, "") == model.config
    written = huggingface_config(model.config)
    assert type(port.config)(**written).decoder.to_dict() == port.config.decoder.to_dict()
    assert type(port.config)(**written).text_encoder.to_dict() == port.config.text_encoder.to_dict()
    assert config_from_huggingface(written, "") == model.config


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("musicgen-")])
def test_the_configuration_of_every_preset_comes_back_from_theirs(preset):
    config = load_preset(preset)
    assert config_from_huggingface(huggingface_config(config), "") == config


@torch.inference_mode()
def test_the_codec_of_a_folder_is_a_model_of_its_own(pairs):
    port, folder, _ = pairs["stereo"]
    inner = audio_encoder(open_checkpoint(folder))
    config = codec_names.config_from_huggingface(inner.config, "")
    codec = build_model(config).eval()
    read, _ = foreign_names(config)["huggingface"].to_ours(inner)
    codec.load_state_dict({name: read.tensor(name) for name in read.names})
    codes = torch.randint(0, SPECIAL, (1, config.codebooks, 12))
    expected = port.audio_encoder.decode(codes[None], [None]).audio_values
    torch.testing.assert_close(codec.decode(codes), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decoder": {"bos_token_id": 3}},
        {"decoder": {"num_attention_heads": 5}},
        {"decoder": {"audio_channels": 3}},
        {"decoder": {"hidden_size": "wide"}},
        {"decoder": {"activation_function": "swoosh"}},
        {"text_encoder": {"model_type": "bert"}},
        {"text_encoder": {"feed_forward_proj": "gated-gated"}},
        {"audio_encoder": [1]},
        {"decoder": 7},
        {"text_encoder": None},
    ],
)
def test_a_configuration_that_makes_no_sense_is_an_input_error(wrong):
    stated = huggingface_config(MusicGenConfig())
    for key, value in wrong.items():
        stated[key] = {**stated[key], **value} if isinstance(value, dict) else value
    with pytest.raises(InputError):
        config_from_huggingface(stated, "config.json")


# ------------------------------------------------------------------------------------------------------ against itself


def logits_in_parts(model: MusicGen, steps: Tensor, conditions: Conditions, sizes: list[int], **cache: Any) -> Tensor:
    store, memory = model.start(conditions, **cache)
    parts = []
    for part in steps.split(sizes, dim=-1):
        positions = store.begin(part.shape[-1])
        parts.append(model.decode(part, memory, cache=store, positions=positions))
        store.commit(part.shape[-1])
    return torch.cat(parts, dim=2)


@torch.inference_mode()
@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 30, [12, 1, 1, 16]])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_decode_equals_full_forward(pairs, kind, sizes, is_static):
    model = pairs[kind].model
    conditions = model.encode_text(*random_text([5, 2, 8]))
    steps = random_steps(model, 3, 40)[..., :30]
    in_parts = logits_in_parts(model, steps, conditions, sizes, capacity=30 if is_static else 1, is_static=is_static)
    assert_close(in_parts, model(steps, conditions), 1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_those_beside_it(pairs, kind):
    model = pairs[kind].model
    ids, visible = random_text([5, 2, 8])
    steps = random_steps(model, 3)
    together = model(steps, model.encode_text(ids, visible))
    alone = [model(steps[row : row + 1], model.encode_text(ids[row, seen][None])) for row, seen in enumerate(visible)]
    assert_close(together, torch.cat(alone), 1e-5)
    options: dict[str, Any] = {"sampling": Sampling(temperature=1.0, top_k=20, seed=3), "guidance": 2.5}
    codes = generated(model, model.encode_text(ids, visible), 16, **options)
    for row, seen in enumerate(visible):
        draws = [options["sampling"].generator(row)]
        single = generated(model, model.encode_text(ids[row, seen][None]), 16, draws=draws, **options)
        assert torch.equal(single[0], codes[row])


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_what_guidance_compares_with(pairs, kind):
    model = pairs[kind].model
    ids, visible = random_text([5])
    steps = random_steps(model, 2)
    conditions = model.with_and_without(model.encode_text(ids))
    nothing = model.encode_text(ids, torch.zeros_like(visible))
    if model.config.has_melody:  # there no text is no step, and less guidance is as many steps of zeros
        nothing = Conditions(nothing.states)
    logits = model(steps, conditions)
    assert logits.isfinite().all()
    assert_close(model(steps[1:], nothing), logits[1:], 1e-5)
    assert not torch.allclose(model(steps[1:], Conditions(conditions.states[:1])), logits[1:], atol=0.1)


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_any_text_is_finite_beside_one_that_has_some(pairs, kind):
    model = pairs[kind].model
    ids, visible = random_text([5, 3])
    visible[1] = False
    conditions = model.encode_text(ids, visible)
    assert conditions.visible.any(1).all()  # attention to nothing is not a number on every device
    steps = random_steps(model, 2)
    assert model(steps, conditions).isfinite().all()
    assert_close(logits_in_parts(model, steps, conditions, [4, 11]), model(steps, conditions), 1e-5)


def test_a_melody_is_refused_by_a_model_that_follows_none(pairs):
    with pytest.raises(ValueError, match="no melody"):
        pairs["mono"].model.encode_text(random_text([3])[0], None, random_chroma(1, 4))


# -------------------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize(
    ("preset", "encoder", "decoder"),
    [
        ("musicgen-small", 110_416_000, 419_584_000),
        ("musicgen-medium", 110_809_728, 1_837_556_736),
        ("musicgen-large", 111_203_456, 3_255_382_016),
        ("musicgen-stereo-small", 110_416_000, 436_365_312),
        ("musicgen-melody", 110_809_728, 1_384_444_416),
    ],
)
def test_presets_have_the_sizes_of_what_is_published(tmp_path, preset, encoder, decoder):
    parts = {part.name: part.parameters for part in describe_model(preset, store=Store(tmp_path)).parts}
    assert parts == {"text_encoder": encoder, "decoder": decoder}


@pytest.mark.parametrize("preset", ["musicgen-small", "musicgen-stereo-melody"])
def test_presets_have_the_tensors_of_their_models(preset):
    config = load_preset(preset)
    with torch.device("meta"):
        port = build_shapes(huggingface_config(config))
    theirs = {name: tensor.shape for name, tensor in port.state_dict().items()}
    ours = foreign_names(config)["huggingface"].to_theirs(build_model(config, "meta").state_dict())
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: shape for name, shape in theirs.items() if not name.startswith("audio_encoder.")
    }


@torch.inference_mode()
def test_fresh_weights_keep_sizes_and_later_layers_add_less():
    text = TextEncoderConfig(vocabulary=50, layers=1)
    model = MusicGen(MusicGenConfig(width=64, heads=4, hidden=256, layers=6, codebook_size=SPECIAL, text=text)).eval()
    assert 0.5 < model(random_steps(model, 1), model.encode_text(random_text([5])[0])).std() < 2
    for number, block in enumerate(model.decoder.blocks, 1):
        for part in block.self_attention.query, block.cross_attention.value, block.feed_forward.up:
            assert part.weight.std().item() == pytest.approx((2 * number * 64) ** -0.5, rel=0.05)
    assert model.embedding.table.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert expected_shapes(model.config).keys() == model.state_dict().keys()
