"""Sound as points: what each model makes of it, however it comes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from musictool.audio.spectrogram import LogFrequency
from musictool.checkpoints.files import sha256_of
from musictool.checkpoints.store import Store
from musictool.errors import InputError, MissingError, UsageError
from musictool.inference.audio_embeddings import open_embedding
from musictool.inference.model_files import load_model
from musictool.metrics.frechet import Moments, frechet_distance
from musictool.models.codec import Codec
from musictool.models.vggish import VGGish
from tests.small_models import SMALL_STEREO_CODEC, install_codec, install_small_mt3


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def noise(seconds, rate_hz, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate_hz)).astype(np.float32)


def embedded(embedding, samples, cuts=()):
    found = list(embedding.embed(np.split(samples, cuts)))
    return np.concatenate([np.zeros((0, embedding.width), np.float32), *found])


def assert_cuts_make_no_difference(embedding, seconds, tolerance=1e-5):
    samples = noise(seconds, embedding.rate_hz)
    cuts = np.sort(np.random.default_rng(1).integers(0, len(samples), 20))
    whole, pieces = embedded(embedding, samples), embedded(embedding, samples, cuts)
    np.testing.assert_allclose(pieces, whole, atol=tolerance * np.abs(whole).max())
    return whole


# --------------------------------------------------------------------------------------------------------- note tagger


def test_the_transcribers_features_are_those_after_its_second_block(store):
    embedding = open_embedding("note-tagger", "cpu", store=store)
    samples = noise(18.3, embedding.rate_hz)  # more than a stretch
    found = assert_cuts_make_no_difference(embedding, 18.3)
    loaded = load_model("note-tagger", store=store)
    given = []
    loaded.model.blocks[1].register_forward_hook(lambda module, x, y: given.append(y))
    with torch.inference_mode():
        whole = samples[: len(samples) // 320 * 320]
        loaded.model(LogFrequency(loaded.config.front_end)(torch.from_numpy(whole)[None]))
    expected = given[0][0, :, : 18 * 50].mean(2).unflatten(1, (18, 50)).mean(2).T  # [D, T, 88] -> [seconds, D]
    np.testing.assert_allclose(found[1:17], expected[1:17], atol=1e-4)  # the others look beyond the sound
    assert found.shape == (18, embedding.width)
    assert (embedding.name, embedding.sha256) == (loaded.name, loaded.sha256)


@pytest.mark.parametrize(("seconds", "count"), [(0, 0), (0.99, 0), (1, 1), (1.5, 1), (16, 16), (16.99, 16), (17, 17)])
def test_every_whole_second_is_embedded(store, seconds, count):
    embedding = open_embedding("note-tagger", "cpu", store=store)
    assert len(embedded(embedding, noise(seconds, embedding.rate_hz))) == count


def test_more_noise_is_further_away(store):
    embedding = open_embedding("note-tagger", "cpu", store=store)
    time = np.arange(40 * embedding.rate_hz) / embedding.rate_hz
    tone = np.sin(2 * np.pi * 220 * 2 ** (np.floor(time) % 12 / 12) * time)
    music = (tone * np.exp(-2 * (time % 0.5)) / 4).astype(np.float32)
    distances = []
    clean = None
    for level in (0, 0.003, 0.03, 0.3):
        moments = Moments(embedding.width)
        moments.add(embedded(embedding, music + level * noise(40, embedding.rate_hz)))
        clean = clean or moments.gaussian()
        distances.append(frechet_distance(clean, moments.gaussian()))
    assert distances == sorted(distances)
    assert distances[1] > 100 * abs(distances[0])


# --------------------------------------------------------------------------------------------------------------- codec


def test_a_codecs_latents_are_means_over_a_second(store):
    folder = install_codec(store.home)
    embedding = open_embedding("codec-24khz", "cpu", store=store)
    found = assert_cuts_make_no_difference(embedding, 3.7)
    model = load_model(str(folder)).model
    assert isinstance(model, Codec)
    with torch.inference_mode():
        latents = model.encoder(torch.from_numpy(noise(3.7, 24_000))[None, None])[0]
    np.testing.assert_allclose(found, latents[:, : 3 * 75].unflatten(1, (3, 75)).mean(2).T, atol=1e-4)
    assert embedding.hop_seconds == 1


def test_a_codec_with_segments_is_refused(store):
    install_codec(store.home, "stereo", SMALL_STEREO_CODEC)
    with pytest.raises(UsageError, match="brings segments to one loudness"):
        open_embedding("stereo", "cpu", store=store)


# -------------------------------------------------------------------------------------------------------------- vggish


@pytest.fixture(scope="module")
def vggish(tmp_path_factory):
    """A file of random weights by the names of the port, and the weights."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, tensor in VGGish("meta").state_dict().items():
        scale = 1 if tensor.ndim == 1 else (3 / tensor[0].numel()) ** 0.5
        weights[name] = (torch.rand(tensor.shape, generator=generator) - 0.5).mul_(3 * scale).half()
    path = tmp_path_factory.mktemp("vggish") / "vggish-random.pth"
    torch.save(weights, path)
    return path, {name: tensor.float() for name, tensor in weights.items()}


def patches_as_google_makes_them(samples):
    """Log-mel patches [B, 1, 96, 64] in float64, after the program that comes with the published weights."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    frames = np.stack([samples[start : start + 400] for start in range(0, len(samples) - 399, 160)])
    magnitudes = np.abs(np.fft.rfft(frames * window, 512))

    def mel(hertz):
        return 1127 * np.log(1 + np.asarray(hertz) / 700)

    edges, bins = np.linspace(mel(125), mel(7500), 66), mel(np.linspace(0, 8000, 257))
    weights = np.zeros((257, 64))
    for number in range(64):
        low, centre, high = edges[number : number + 3]
        weights[:, number] = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    weights[0] = 0
    levels = np.log(magnitudes @ weights + 0.01)
    return np.stack([levels[start : start + 96] for start in range(0, len(levels) - 95, 96)])[:, None]


def test_vggish_is_what_its_port_computes(store, vggish):
    path, weights = vggish
    embedding = open_embedding(str(path), "cpu", store=store)
    found = assert_cuts_make_no_difference(embedding, 2.5)
    x = torch.from_numpy(patches_as_google_makes_them(noise(2.5, 16_000).astype(np.float64))).float()
    for number in (0, 3, 6, 8, 11, 13):
        weight, bias = (weights[f"features.{number}.{kind}"] for kind in ("weight", "bias"))
        x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
        if number not in (6, 11):
            x = functional.max_pool2d(x, 2)
    x = x.transpose(1, 3).transpose(1, 2).flatten(1)
    for number in (0, 2, 4):
        weight, bias = (weights[f"embeddings.{number}.{kind}"] for kind in ("weight", "bias"))
        x = functional.linear(x, weight, bias)
        x = functional.relu(x) if number < 4 else x
    np.testing.assert_allclose(found, x, atol=1e-5 * float(x.abs().max()))
    assert (embedding.name, embedding.sha256) == ("vggish-random", sha256_of(path))
    assert found.shape == (2, 128)


def test_weights_in_the_store_are_found_by_name_and_preferred(store, vggish):
    assert open_embedding(store=store).name == "note-tagger"
    with pytest.raises(MissingError, match="no weights of vggish") as caught:
        open_embedding("vggish", store=store)
    assert str(store.home / "embeddings" / "vggish") in caught.value.hint
    (store.home / "embeddings").mkdir(parents=True)
    (store.home / "embeddings" / "vggish.pth").symlink_to(vggish[0])
    for name in ("auto", "vggish"):
        assert open_embedding(name, "cpu", store=store).name == "vggish"


def test_weights_of_something_else_are_refused(store, tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "some.pth")
    with pytest.raises(InputError, match="the checkpoint does not fit: 17 missing, of 18 tensors") as caught:
        open_embedding(str(tmp_path / "some.pth"), store=store)
    assert caught.value.hint == "weights of CLAP and of VGGish are known"
    install_small_mt3(store.home)
    with pytest.raises(UsageError, match="mt3 is no model that embeds sound"):
        open_embedding("mt3", store=store)


# ---------------------------------------------------------------------------------------------------------------- clap


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def clap(tmp_path_factory, request):
    """A folder with a small random CLAP of windows of a second, without and with fusion of longer ones."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    audio = {
        "num_mel_bins": 16,
        "spec_size": 64,
        "patch_stride": [4, 4],
        "window_size": 4,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "projection_dim": 12,
        "enable_fusion": request.param,
    }
    config = transformers.ClapConfig(
        text_config={**sizes, "vocab_size": 20, "projection_dim": 12}, audio_config=audio, projection_dim=12
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clap") / "small-clap"
    transformers.ClapModel(config).eval().save_pretrained(folder)
    truncation = "fusion" if request.param else "rand_trunc"
    front_end = {"feature_size": 16, "max_length_s": 1, "truncation": truncation, "sampling_rate": 16_000}
    front_end |= {"hop_length": 160, "fft_window_size": 512, "frequency_max": 7000}
    transformers.ClapFeatureExtractor(**front_end).save_pretrained(folder)
    return folder


def test_clap_is_what_transformers_computes(store, clap, capfd):
    import transformers

    embedding = open_embedding(str(clap), "cpu", store=store)
    found = assert_cuts_make_no_difference(embedding, 3.4)
    assert capfd.readouterr() == ("", "")
    model, front_end = (
        kind.from_pretrained(clap) for kind in (transformers.ClapModel, transformers.ClapFeatureExtractor)
    )
    samples = noise(3.4, 16_000)
    for row, start in zip(found, (0, 1, 2), strict=True):
        window = samples[start * 16_000 : (start + 1) * 16_000]
        with torch.inference_mode():
            seen = front_end(window, sampling_rate=16_000, return_tensors="pt")
            expected = model.get_audio_features(seen["input_features"], is_longer=torch.tensor([[False]]))
        np.testing.assert_allclose(row, getattr(expected, "pooler_output", expected)[0], atol=1e-5)
    assert (embedding.name, embedding.width) == ("small-clap", 12)
    assert embedding.sha256 == sha256_of(clap / "model.safetensors")
    assert len(embedded(embedding, samples[:5000])) == 1
    assert len(embedded(embedding, samples[:0])) == 0


def test_clap_in_the_store_comes_first(store, clap, vggish):
    (store.home / "embeddings").mkdir(parents=True)
    (store.home / "embeddings" / "vggish.pth").symlink_to(vggish[0])
    (store.home / "embeddings" / "clap").symlink_to(clap)
    assert open_embedding("auto", "cpu", store=store).name == "clap"


def test_clap_without_transformers_is_one_line(store, clap, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError, match="CLAP is read by transformers") as caught:
        open_embedding(str(clap), store=store)
    assert caught.value.hint == "pip install transformers"


def test_a_clap_that_is_not_whole_is_refused(store, clap, tmp_path):
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((clap / name).read_bytes())
    tensors = load_file(clap / "model.safetensors")
    tensors.pop("audio_projection.linear1.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="1 of its tensors are missing"):
        open_embedding(str(tmp_path), store=store)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="CLAP cannot be read"):
        open_embedding(str(tmp_path), store=store)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clap", "audio_config": 3}))
    with pytest.raises(InputError, match="CLAP cannot be read"):
        open_embedding(str(tmp_path), store=store)
