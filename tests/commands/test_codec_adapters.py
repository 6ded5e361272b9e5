"""Adapters for a codec: the codes stay those of the codec, and what is made of them sounds otherwise."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.checkpoints.native import read_facts
from musictool.checkpoints.safetensors_files import stored_in_safetensors
from musictool.cli.environment import Environment
from musictool.cli.main import main
from tests.commands.codes import items_of
from tests.commands.conftest import Result
from tests.small_models import SMALL_CODEC, install_codec

BASE = "small-codec"
SETTINGS = (
    "data.window_seconds=0.3", "optimiser.learning_rate=0.02", "schedule.warmup_steps=0", "run.steps=6",
    "run.batch_size=2", "run.workers=0", "run.threads=1", "run.precision=fp32", "run.log_every=0",
)  # fmt: skip
Mtk = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("own_threads")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A store with two codecs, and a folder of sound beside it."""
    home = tmp_path_factory.mktemp("home")
    install_codec(home, BASE, replace(SMALL_CODEC, residual_layers=2))
    install_codec(home, "other", seed=2)
    (home / "sounds").mkdir()
    generator = np.random.default_rng(0)
    for number in range(3):
        noise = np.cumsum(generator.normal(0, 0.02, (SMALL_CODEC.rate_hz, SMALL_CODEC.channels)), axis=0)
        soundfile.write(home / f"sounds/{number}.wav", noise - noise.mean(0), SMALL_CODEC.rate_hz, subtype="FLOAT")
    return home


@pytest.fixture(scope="module")
def mtk(home) -> Mtk:
    """Run `mtk ARGUMENT…` with the environment's variables and that store."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        environ = {**os.environ, "MTK_HOME": str(home)}
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), environ)
        status = main([str(argument) for argument in arguments], environment)
        return Result(status, environment.stdout.getvalue(), environment.stderr.getvalue())

    return run


@pytest.fixture(scope="module")
def adapter(mtk, home) -> Path:
    """One that was trained as `mtk finetune --lora` does by itself."""
    result = mtk("finetune", "--lora", "-m", BASE, "--data", home / "sounds", *SETTINGS, "-q", "-o", home / "run")
    assert result.status == 0, result.err
    return home / "run/best"


@pytest.fixture(scope="module")
def codes(mtk, home) -> bytes:
    """A sound, as codes of the base."""
    result = mtk("encode", "-m", BASE, home / "sounds/0.wav")
    assert result.status == 0, result.err
    return result.out


def heard(mtk: Mtk, path: Path, codes: bytes, *arguments: object) -> np.ndarray:
    """What codes sound like."""
    result = mtk("decode", *arguments, "-o", path, "--force", stdin=codes)
    assert result.status == 0, result.err
    return soundfile.read(path)[0]


def test_an_adapter_is_for_the_decoder_and_holds_no_codebooks(adapter):
    names = set(stored_in_safetensors(adapter / "adapter_model.safetensors"))
    assert names
    assert all(".decoder." in name for name in names)
    assert not any("inner" in name for name in names)


def test_it_changes_what_codes_sound_like_wherever_it_is_named(mtk, adapter, codes, tmp_path):
    before = heard(mtk, tmp_path / "sound.wav", codes)
    after = heard(mtk, tmp_path / "sound.wav", codes, "--model", BASE, "--adapter", adapter)
    assert before.shape == after.shape
    assert np.abs(before - after).max() > 0
    np.testing.assert_array_equal(heard(mtk, tmp_path / "sound.wav", codes, "--adapter", adapter), after)


def test_merged_with_its_codec_it_reads_the_same_codes(mtk, adapter, codes, tmp_path):
    assert mtk("models", "merge", BASE, "--adapter", adapter, "-o", tmp_path / "merged").status == 0
    after = heard(mtk, tmp_path / "sound.wav", codes, "--adapter", adapter)
    np.testing.assert_array_equal(heard(mtk, tmp_path / "sound.wav", codes, "--model", tmp_path / "merged"), after)


def test_codes_are_the_codecs_and_say_which_adapter_it_had(mtk, home, adapter, codes, tmp_path, monkeypatch):
    ((item, rows),) = items_of(codes).values()
    result = mtk("encode", "-m", BASE, "--adapter", adapter, home / "sounds/0.wav")
    ((adapted, same),) = items_of(result.out).values()
    np.testing.assert_array_equal(rows, same)
    assert (adapted.head.vocab, adapted.head.vocab_sha) == (item.head.vocab, item.head.vocab_sha)
    assert "adapter" not in item.head.made[0]
    assert (adapted.head.made[0]["adapter"], len(adapted.head.made[0]["adapter_sha256"])) == ("best", 64)
    monkeypatch.setenv("MTK_HOME", str(home))  # a stage has processes of its own
    encode = ("data", "encode", "-m", BASE, home / "sounds/0.wav")
    assert mtk(*encode, "--adapter", adapter, "-o", tmp_path / "codes").status == 0
    (path,) = (tmp_path / "codes").rglob("*.mtk*")
    assert json.loads(path.read_bytes().splitlines()[0])["made"][0]["adapter_sha256"]


def test_one_for_the_encoder_changes_codes_and_merged_is_another_codec(mtk, home, codes, tmp_path):
    targets = 'adapter.targets=["encoder.*.outer.conv"]'
    lora = ("finetune", "--lora", "-m", BASE, "--data", home / "sounds", *SETTINGS, targets, "-q")
    assert mtk(*lora, "-o", tmp_path / "run").status == 0
    merged = tmp_path / "merged"
    assert mtk("models", "merge", BASE, "--adapter", tmp_path / "run/best", "-o", merged).status == 0
    assert "codes_sha256" not in read_facts(merged).source
    result = mtk("decode", "--model", merged, "-o", tmp_path / "sound.wav", stdin=codes)
    assert (result.status, "is another one" in result.err) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--model", "other", "--adapter", "ADAPTER"), 2, "the adapter is for another model"),
        (("--adapter", "nowhere"), 3, "no such file or folder (nowhere)"),
        (("--adapter", "UNSIGNED"), 2, "does not say which codec it is for"),
    ],
)
def test_one_that_does_not_fit_is_one_line(mtk, adapter, codes, tmp_path, arguments, status, words):
    unsigned = tmp_path / "unsigned"
    unsigned.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (unsigned / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    (unsigned / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    named = {"ADAPTER": adapter, "UNSIGNED": unsigned}
    result = mtk("decode", *(named.get(name, name) for name in arguments), "-o", tmp_path / "sound.wav", stdin=codes)
    assert (result.status, words in result.err.splitlines()[0]) == (status, True), result.err
    assert not (tmp_path / "sound.wav").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [("decoder.*.inner.conv", "dilated"), ("decoder.layers.3.conv", "not supported"), ("inward", "no layer called")],
)
def test_layers_that_peft_does_not_know_are_refused_before_there_is_a_run(mtk, home, tmp_path, target, words):
    lora = ("finetune", "--lora", "-m", BASE, "--data", home / "sounds", *SETTINGS, "-q")
    result = mtk(*lora, f'adapter.targets=["{target}"]', "-o", tmp_path / "run")
    assert (result.status, words in result.err.splitlines()[0]) == (2, True), result.err
    assert not (tmp_path / "run").exists()
