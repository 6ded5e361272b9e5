"""`mtk generate` over a backing track and in a style, with small random models of SaxGPT and PersonalJazz."""

from __future__ import annotations

import io
from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from musictool.checkpoints.store import Store
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.inference.codes_generation import generate_codes
from musictool.inference.generation import Piece, Setup, open_generator
from musictool.inference.generation_options import Drawing, Request
from musictool.inference.model_files import load_model
from musictool.inference.style_reading import open_style_reader
from musictool.models.saxgpt import SaxGPT
from tests.commands.codes import items_of, sound
from tests.commands.generators import CODEC, SMALL_SAXGPT, install_models

pytestmark = pytest.mark.usefixtures("one_thread")

Run = Callable[..., tuple[int, bytes, str]]

RATE_HZ = 8000
FRAMES = SMALL_SAXGPT.frames_max
KEPT = int(FRAMES * 0.4)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    install_models(home)
    return home


@pytest.fixture
def run(home) -> Run:
    """Run `mtk ARGUMENT…`: exit status, standard output, standard error."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(home)})
        status = main([str(argument) for argument in arguments], environment)
        return status, environment.stdout.getvalue(), environment.stderr.getvalue()

    return run


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write a sound of some seconds."""

    def write(seconds: float, name: str = "track.wav", seed: int = 0) -> Path:
        soundfile.write(tmp_path / name, sound(seconds, RATE_HZ, seed=seed), RATE_HZ)
        return tmp_path / name

    return write


def only(run: Run, *arguments: object, stdin: bytes = b"") -> np.ndarray:
    status, stream, errors = run("generate", *arguments, stdin=stdin)
    assert (status, errors) == (0, "")
    ((_, codes),) = items_of(stream).values()
    return codes


# -------------------------------------------------------------------------------------------------------------- backing


def codes_of(run: Run, path: Path) -> np.ndarray:
    ((_, codes),) = items_of(run("encode", "-m", SMALL_SAXGPT.codec, "--codebooks", 4, path)[1]).values()
    return codes


@torch.inference_mode()
def along(model: SaxGPT, backing: np.ndarray, guidance: float) -> Tensor:
    """The likeliest lead over a backing, window by window, int64 [K, t]."""
    given = torch.from_numpy(backing[None]).long()
    lead = torch.zeros(1, 4, 0, dtype=torch.int64)
    while lead.shape[-1] < given.shape[-1]:
        known = min(KEPT, lead.shape[-1])
        begin = lead.shape[-1] - known
        under = given[..., begin : begin + FRAMES]
        prompt = lead[..., begin:]
        made = generate_codes(model, under, under.shape[-1] - known, prompt=prompt, guidance=guidance)
        lead = torch.cat([lead, torch.stack(list(made), dim=-1)], dim=-1)
    return lead[0]


@pytest.mark.parametrize("guidance", [1, 2])
@pytest.mark.parametrize("seconds", [0.3, 1.7])
def test_a_lead_goes_along_with_its_backing_window_by_window(run, home, write, seconds, guidance):
    path = write(seconds)
    lead = only(run, "-m", "saxgpt", "--backing", path, "--temperature", 0, "--guidance", guidance)
    backing = codes_of(run, path)
    assert lead.shape == backing.shape == (4, round(100 * seconds))
    model = load_model("saxgpt", store=Store(home)).model
    assert isinstance(model, SaxGPT)
    np.testing.assert_array_equal(lead, along(model, backing, guidance).numpy())
    assert len(np.unique(lead)) > 8
    other = only(run, "-m", "saxgpt", "--backing", write(seconds, "other.wav", 1), "--temperature", 0)
    assert not np.array_equal(lead, other)


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.234])
def test_a_lead_is_as_long_as_its_backing_to_the_sample(run, write, tmp_path, seconds):
    stream = run("generate", "-m", "saxgpt", "--backing", write(seconds))[1]
    ((item, codes),) = items_of(stream).values()
    samples = -(-round(seconds * RATE_HZ) * CODEC.rate_hz // RATE_HZ)
    assert item.closing.samples == samples
    assert codes.shape[1] == -(-samples // CODEC.hop_samples)
    (stage,) = item.head.made
    assert stage["backing"] == "track.wav"
    assert len(stage["backing_sha256"]) == 64
    assert run("decode", "-o", tmp_path / "lead.wav", stdin=stream)[0] == 0
    assert soundfile.info(tmp_path / "lead.wav").frames == samples


@pytest.mark.parametrize("minutes", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_lead_over_a_long_backing_is_begun_at_once(home, tmp_path, minutes):
    soundfile.write(tmp_path / "long.flac", np.tile(sound(60, 800), (minutes, 1)), 800)
    generator = open_generator("saxgpt", Setup(Store(home), "cpu"))
    plan = generator.plan(Request(backing=str(tmp_path / "long.flac")), None)
    assert (plan.seconds, plan.samples) == (60 * minutes, 60 * minutes * 800)
    chunks = list(islice(generator.generate([Piece(0, plan)], Drawing(0)), 5))
    assert [chunk.tokens.shape for chunk in chunks] == [(4, 20)] * 5
    assert not chunks[-1].is_last


def test_no_more_of_a_backing_is_encoded_than_can_be_heard(run, home, write):
    path, seconds, generator = write(60.0), 2.0, open_generator("saxgpt", Setup(Store(home), "cpu"))
    lengths = (60.0, seconds)
    whole, part = (generator.plan(Request(backing=str(path), duration_seconds=length), None) for length in lengths)
    assert 200 + FRAMES <= part.conditions.given.shape[1] < 0.5 * whole.conditions.given.shape[1]
    used = 200 + FRAMES // 2  # behind them, codes may know that there is no more
    assert torch.equal(part.conditions.given[:, :used], whole.conditions.given[:, :used])
    assert part.made["backing_sha256"] == whole.made["backing_sha256"] == sha256(path.read_bytes()).hexdigest()
    lead, beginning = (only(run, "-m", "saxgpt", "--backing", path, "--duration", length) for length in (8, seconds))
    end = 200 - SMALL_SAXGPT.codebooks  # of the last frames not all codes are told of one another
    np.testing.assert_array_equal(lead[:, :end], beginning[:, :end])


def test_a_lead_goes_on_over_the_rest_of_its_backing(run, write):
    path = write(1.2)
    begun = run("generate", "-m", "saxgpt", "--backing", path, "--duration", 0.5, "--temperature", 0)[1]
    ((_, codes),) = items_of(begun).values()
    assert codes.shape == (4, 50)
    lead = only(run, "-m", "saxgpt", "-", "--backing", path, "--temperature", 0, stdin=begun)
    assert lead.shape == (4, 120)
    np.testing.assert_array_equal(lead[:, :50], codes)
    long = run("generate", "-m", "saxgpt", "--duration", 2)[1]
    status, _, errors = run("generate", "-m", "saxgpt", "-", "--backing", path, stdin=long)
    assert (status, "the backing is no longer than what there is to go on from" in errors) == (2, True)


def test_a_lead_may_outlast_its_backing_or_have_none(run, write):
    path = write(0.4)
    lead = only(run, "-m", "saxgpt", "--backing", path, "--duration", 1.5, "--temperature", 0)
    assert lead.shape == (4, 150)
    assert only(run, "-m", "saxgpt", "--duration", 0.5).shape == (4, 50)


def test_backings_side_by_side_are_as_alone(run, write, tmp_path):
    paths = [write(0.9, "a.wav", 1), write(0.5, "b.wav", 2), write(0.9, "c.wav", 3)]
    lines = [f'{{"backing": "{path}", "duration": 0.9}}' for path in paths] + ['{"duration": 0.9}']
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    options = ("generate", "-m", "saxgpt", "--prompts", tmp_path / "prompts.jsonl", "--guidance", 2)
    together, alone = (items_of(run(*options, "--batch", batch)[1]) for batch in (4, 1))
    assert len({codes.tobytes() for _, codes in together.values()}) == 4
    for name, (_, codes) in together.items():
        np.testing.assert_array_equal(codes, alone[name][1])


def test_a_backing_that_is_not_there_is_named(run):
    status, _, errors = run("generate", "-m", "saxgpt", "--backing", "nowhere.wav")
    assert (status, "nowhere.wav" in errors) == (3, True)


# ---------------------------------------------------------------------------------------------------------------- style


@torch.inference_mode()
def in_style(home: Path, style: Tensor, frames: int, guidance: float) -> np.ndarray:
    model = load_model("personaljazz", store=Store(home)).model
    made = generate_codes(model, style[None], frames, guidance=guidance)  # type: ignore[arg-type]
    return torch.stack(list(made), dim=-1)[0].numpy()


@pytest.mark.parametrize("guidance", [1, 2])
def test_a_style_of_words_is_what_the_style_encoder_makes_of_them(run, home, guidance):
    style = open_style_reader("small-style", store=Store(home)).of_text("slow jazz")
    expected = in_style(home, style, 30, guidance)
    options = ("-m", "personaljazz", "--duration", 0.3, "--temperature", 0, "--guidance", guidance)
    for asked in (("--style", "slow jazz"), ("--text", "slow jazz"), ("--text", "slow", "--style", "jazz")):
        np.testing.assert_array_equal(only(run, *options, *asked), expected)
    assert not np.array_equal(only(run, *options, "--style", "a fast waltz"), expected)
    assert not np.array_equal(only(run, *options), expected)
    np.testing.assert_array_equal(only(run, *options, "--style", ""), only(run, *options))


def test_a_style_of_a_file_is_what_the_style_encoder_hears(run, home, write):
    path = write(2.3)
    samples, _ = soundfile.read(path, dtype="float32")
    style = open_style_reader("small-style", store=Store(home)).of_sound([samples])
    options = ("-m", "personaljazz", "--duration", 0.3, "--temperature", 0, "--style", path)
    np.testing.assert_array_equal(only(run, *options), in_style(home, style, 30, 1))
    assert not np.array_equal(only(run, *options, "--text", "slow"), only(run, *options))


def test_a_style_stays_through_all_windows(run, home):
    options = ("-m", "personaljazz", "--temperature", 0, "--style", "slow jazz")
    long, other = (only(run, *options, "--duration", 2, *more) for more in ((), ("--text", "a fast waltz")))
    assert long.shape == (6, 200)
    style = open_style_reader("small-style", store=Store(home)).of_text("slow jazz")
    model = load_model("personaljazz", store=Store(home)).model
    with torch.inference_mode():
        prompt = torch.from_numpy(long[None, :, 30:50]).long()
        made = list(generate_codes(model, style[None], 30, prompt=prompt))  # type: ignore[arg-type]
    np.testing.assert_array_equal(long[:, 50:80], torch.stack(made, dim=-1)[0].numpy())
    assert not np.array_equal(long, other)


def test_a_style_without_its_encoder_says_what_is_missing(run, home):
    folder = home / "models" / "small-style"
    folder.rename(home / "aside")
    try:
        status, _, errors = run("generate", "-m", "personaljazz", "--style", "jazz", "--duration", 0.1)
    finally:
        (home / "aside").rename(folder)
    assert (status, "no model named 'small-style'" in errors) == (4, True)
