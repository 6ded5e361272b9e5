"""`mtk generate` as a whole command, with small random models of MusicGen that `transformers` has saved."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from musictool.checkpoints.store import Store
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.core.compiled_transformer import compile_steps
from musictool.inference import musicgen_generation, precision
from musictool.inference.codes_generation import generate_codes
from musictool.inference.melody import chroma_of
from musictool.inference.model_files import load_model
from musictool.stream.reader import StreamReader
from musictool.stream.records import Failure
from musictool.stream.writer import StreamWriter
from tests.commands.codes import items_of, rewritten
from tests.commands.generators import save_tokenizer
from tests.models.musicgen_oracle import build_port, greedy_codes, save

pytestmark = pytest.mark.usefixtures("one_thread")

Run = Callable[..., tuple[int, bytes, str]]

TEXT = "jazzing around the clock"
FRAME_RATE_HZ = 40


class Models:
    """Models of `transformers`, their folders, and the store that these were imported into."""

    def __init__(self, home: Path) -> None:
        self.home = home / "store"
        self.folders = home / "theirs"
        self.ports: dict[str, Any] = {}
        for kind in ("mono", "stereo", "melody"):
            self.ports[kind] = build_port(kind)
            generator = torch.Generator().manual_seed(2)
            for layer in self.ports[kind].audio_encoder.quantizer.layers:
                layer.codebook.embed.normal_(generator=generator)
            folder = save(self.ports[kind], self.folders / kind)
            save_tokenizer(folder)
            assert self.run("models", "import", folder, "--as", kind)[0] == 0

    def run(self, *arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """Run `mtk ARGUMENT…`: exit status, standard output, standard error."""
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(self.home)})
        status = main([str(argument) for argument in arguments], environment)
        return status, environment.stdout.getvalue(), environment.stderr.getvalue()

    def tokens(self, kind: str, text: str) -> dict[str, torch.Tensor]:
        """A text by their tokenizer."""
        import transformers

        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(self.folders / kind)
        read = tokenizer(text, return_tensors="pt")
        return {"input_ids": read["input_ids"], "attention_mask": read["attention_mask"]}


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Models:
    return Models(tmp_path_factory.mktemp("musicgen"))


@pytest.fixture
def run(models) -> Run:
    return models.run


def made(run: Run, *arguments: object, stdin: bytes = b"", model: str = "mono") -> dict[str, np.ndarray]:
    """The codes of what is generated, by name."""
    status, stream, errors = run("generate", "--model", model, *arguments, stdin=stdin)
    assert (status, errors) == (0, "")
    return {name: codes for name, (_, codes) in items_of(stream).items()}


def only(run: Run, *arguments: object, stdin: bytes = b"", model: str = "mono") -> np.ndarray:
    (codes,) = made(run, *arguments, stdin=stdin, model=model).values()
    return codes


# ------------------------------------------------------------------------------------------------- against transformers


@pytest.mark.parametrize("guidance", [1, 3])
@pytest.mark.parametrize("kind", ["mono", "stereo", "melody"])
def test_greedy_codes_of_a_text_are_those_of_transformers(models, run, kind, guidance, monkeypatch):
    expected = greedy_codes(models.ports[kind], 40, float(guidance), **models.tokens(kind, TEXT))[0]
    options = ("--text", TEXT, "--temperature", 0, "--guidance", guidance, "--duration", 1)
    np.testing.assert_array_equal(only(run, *options, model=kind), expected.numpy())
    # The same as large models say it, whose steps are compiled.
    pytest.importorskip("numba")
    monkeypatch.setattr(precision, "compile_steps", partial(compile_steps, weights_min=0))
    np.testing.assert_array_equal(only(run, *options, model=kind), expected.numpy())


@pytest.mark.parametrize("guidance", [1, 3])
def test_greedy_codes_of_a_melody_are_those_of_transformers(models, run, tmp_path, guidance):
    pytest.importorskip("torchaudio")
    import transformers

    rate_hz = 32_000
    notes_hz = np.repeat([262.0, 330.0, 392.0, 494.0, 440.0], rate_hz // 4)
    melody = (0.5 * np.sin(2 * np.pi * np.cumsum(notes_hz) / rate_hz)).astype(np.float32)
    soundfile.write(tmp_path / "melody.wav", melody, rate_hz, subtype="FLOAT")
    features = transformers.MusicgenMelodyFeatureExtractor()(melody, sampling_rate=rate_hz, return_tensors="pt")
    given = {**models.tokens("melody", TEXT), "input_features": features.input_features}
    expected = greedy_codes(models.ports["melody"], 40, float(guidance), **given)[0]
    options = ("--text", TEXT, "--temperature", 0, "--guidance", guidance, "--duration", 1)
    got = only(run, *options, "--melody", tmp_path / "melody.wav", model="melody")
    np.testing.assert_array_equal(got, expected.numpy())
    assert not np.array_equal(got, only(run, *options, model="melody"))


def test_melodies_side_by_side_are_as_alone(run, tmp_path):
    paths = []
    for number, hz in enumerate([262, 440]):
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], np.sin(2 * np.pi * hz * np.arange(16_000 * (number + 1)) / 32_000), 32_000)
    lines = [f'{{"text": "jazz", "melody": "{path}"}}' for path in paths] + ["jazz", '{"text": ""}']
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    options = ("--prompts", tmp_path / "prompts.jsonl", "--duration", 0.5)
    together, alone = (made(run, *options, "--batch", batch, model="melody") for batch in (4, 1))
    assert len({codes.tobytes() for codes in together.values()}) == 4
    for name, codes in together.items():
        np.testing.assert_array_equal(codes, alone[name])


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_decoded_sound_is_that_of_transformers(models, run, tmp_path, kind):
    port, channels = models.ports[kind], {"mono": 1, "stereo": 2}[kind]
    with torch.inference_mode():
        steps = 40 + port.decoder.num_codebooks // channels
        given = models.tokens(kind, TEXT)
        audio = port.generate(**given, do_sample=False, guidance_scale=3.0, max_new_tokens=steps - 1)[0]
    stream = run("generate", "-m", kind, "--text", TEXT, "--temperature", 0, "--duration", 1)[1]
    assert run("decode", "--bits", 32, "-o", tmp_path / "x.wav", stdin=stream)[0] == 0
    sound, rate_hz = soundfile.read(tmp_path / "x.wav", dtype="float32", always_2d=True)
    assert (rate_hz, sound.shape) == (320, (320, channels))
    np.testing.assert_allclose(sound.T, audio.numpy(), atol=1e-5)
    assert sound.std() > 1e-2
    if kind == "stereo":
        assert abs(sound[:, 0] - sound[:, 1]).max() > 1e-2


def test_an_empty_text_is_none_and_no_text_is_unconditional(models, run):
    options = ("--temperature", 0, "--duration", 1)
    free = only(run, *options, "--guidance", 0, "--text", TEXT)
    for text in ((), ("--text", ""), ("--text", "  ")):
        np.testing.assert_array_equal(only(run, *options, *text), free)


# ----------------------------------------------------------------------------------------------------------- the stream


def test_the_head_says_what_was_made_and_how(models, run):
    stream = run("generate", "-m", "stereo", "--text", TEXT, "--duration", 0.3, "--top-k", 5, "--seed", 7)[1]
    ((item, codes),) = items_of(stream).values()
    head = item.head
    assert codes.shape == (8, 12)
    assert (head.item, head.kind, head.number, head.of) == ("generated-1", "codes", 1, 1)
    assert head.meta == {
        "rate_hz": 320,
        "channels": 2,
        "codebooks": 8,
        "codebook_size": 32,
        "frame_rate_hz": 40.0,
        "hop_samples": 8,
        "duration_seconds": 0.3,
    }
    (stage,) = head.made
    expected = {
        "command": "generate",
        "model": "stereo",
        "text": TEXT,
        "duration_seconds": 0.3,
        "temperature": 1.0,
        "top_k": 5,
        "guidance": 3.0,
        "seed": 7,
        "piece": 1,
    }
    assert expected.items() <= stage.items()
    facts = json.loads((models.home / "models" / "stereo" / "config.json").read_bytes())
    assert stage["model_sha256"] == facts["weights_sha256"]
    assert (head.vocab, head.vocab_sha) == (facts["source"]["codec"], facts["source"]["codec_sha256"])
    assert item.closing.samples == 96


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (3, "8 rows of codes cannot be of 3 channels"),
        (0, "the head tells of no channels that sound could have: 0"),
        ("2", "the head tells of no channels that sound could have: '2'"),
        (10**9, "the head tells of no channels that sound could have"),
        (1, "8 rows of codes, and stereo-codec has 4 codebooks"),
    ],
)
def test_channels_that_codes_cannot_have_are_refused(run, tmp_path, channels, message):
    stream = run("generate", "-m", "stereo", "--duration", 0.3)[1]
    meta = {**next(iter(items_of(stream).values()))[0].head.meta, "channels": channels}
    status, _, errors = run("decode", "-o", tmp_path / "x.wav", stdin=rewritten(stream, meta=meta))
    assert status in (1, 3)
    assert message in errors


def test_fewer_codebooks_of_two_channels_are_the_coarsest_of_each(run, tmp_path):
    stream = run("generate", "-m", "stereo", "--duration", 0.3)[1]
    ((_, codes),) = items_of(stream).values()
    coarse = rewritten(stream, codes=codes[:4])
    for name, given, options in (("a", stream, ("--codebooks", 2)), ("b", coarse, ())):
        assert run("decode", "--bits", 32, "-o", tmp_path / name, "--format", "wav", *options, stdin=given)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_sound_is_as_long_as_asked_to_the_sample(run, tmp_path):
    stream = run("generate", "-m", "mono", "--duration", 0.51)[1]
    ((item, codes),) = items_of(stream).values()
    assert (codes.shape[1], item.closing.samples) == (21, 163)
    assert run("decode", "-o", tmp_path / "x.wav", stdin=stream)[0] == 0
    assert soundfile.info(tmp_path / "x.wav").frames == 163


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(run):
    def stream(*arguments: object) -> bytes:
        return run("generate", "-m", "mono", "--text", TEXT, "--duration", 1, "--count", 3, *arguments)[1]

    assert stream("--seed", 3) == stream("--seed", 3)
    codes = [codes for seed in (3, 4) for _, codes in items_of(stream("--seed", seed)).values()]
    assert len({own.tobytes() for own in codes}) == 6


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_pieces_side_by_side_are_those_made_one_by_one(run, tmp_path, batch):
    lines = ["jazz", '{"text": "a slow waltz in winter", "duration": 0.7}', '{"text": ""}', "round the clock"]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    options = ("--prompts", tmp_path / "prompts.jsonl", "--duration", 0.5, "--count", 2)
    together, alone = made(run, *options), made(run, *options, "--batch", batch)
    assert [codes.shape[1] for codes in together.values()] == [20, 20, 28, 28, 20, 20, 20, 20]
    assert together.keys() == alone.keys() == {f"generated-{number}" for number in range(1, 9)}
    for name, codes in together.items():
        np.testing.assert_array_equal(codes, alone[name])
    assert len({codes.tobytes() for codes in together.values()}) == 8


def test_a_piece_longer_than_the_window_goes_on(run, monkeypatch):
    assert musicgen_generation.WINDOW_SECONDS == 30
    options = ("--text", TEXT, "--duration", 3, "--temperature", 0)
    whole = only(run, *options)
    monkeypatch.setattr(musicgen_generation, "WINDOW_SECONDS", 1)
    long = only(run, *options)
    assert long.shape == whole.shape == (4, 120)
    np.testing.assert_array_equal(long[:, :37], whole[:, :37])
    assert not np.array_equal(long[:, 40:], whole[:, 40:])
    assert len(np.unique(long[:, 40:])) > 8


@pytest.mark.parametrize("seconds", [0.9, 2.5])
def test_a_melody_goes_along_with_the_windows(models, run, tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(musicgen_generation, "WINDOW_SECONDS", 1)
    rate_hz = 32_000
    notes_hz = np.repeat([262.0, 330.0, 392.0, 494.0, 440.0, 294.0, 349.0, 262.0], rate_hz // 3)
    melody = 0.5 * np.sin(2 * np.pi * np.cumsum(notes_hz[: round(seconds * rate_hz)]) / rate_hz)
    soundfile.write(tmp_path / "all.wav", melody, rate_hz, subtype="FLOAT")
    options = ("--text", TEXT, "--temperature", 0, "--guidance", 1)
    long = only(run, *options, "--melody", tmp_path / "all.wav", "--duration", 1.6, model="melody")
    begun = run("generate", "-m", "melody", *options, "--melody", tmp_path / "all.wav", "--duration", 1)[1]
    ((_, first),) = items_of(begun).values()
    np.testing.assert_array_equal(long[:, :40], first)
    # The second window begins with the last 16 frames of the first, at 0.6 s; the melody from there on, and again.
    frame = round(0.6 * 32_000 / 4096)
    turned = chroma_of([melody.astype(np.float32)]).roll(-frame, 0)
    model = load_model("melody", store=Store(models.home)).model
    given = models.tokens("melody", TEXT)
    with torch.inference_mode():
        conditions = model.encode_text(given["input_ids"], None, turned[None])
        prompt = torch.from_numpy(first[None, :, 24:]).long()
        made = torch.stack(list(generate_codes(model, conditions, 24, prompt=prompt)), dim=-1)
    np.testing.assert_array_equal(long[:, 40:], made[0].numpy())


def test_lines_leave_as_chunks_are_made(models):
    written: list[tuple[int, bool]] = []

    class Watching(io.BytesIO):
        def flush(self) -> None:
            written.append((self.getvalue().count(b"\n"), b'"end"' in self.getvalue()))

    environment = Environment(io.BytesIO(), Watching(), io.StringIO(), {"MTK_HOME": str(models.home)})
    assert main(["generate", "-m", "mono", "--text", TEXT, "--duration", "2"], environment) == 0
    assert [lines for lines, _ in written][:10] == list(range(1, 11))
    assert not written[9][1]


# -------------------------------------------------------------------------------------------------------------- prompts


def test_a_piece_goes_on_from_a_stream(run):
    whole = run("generate", "-m", "mono", "--text", TEXT, "--duration", 1, "--temperature", 0, "--guidance", 1)[1]
    ((begun, codes),) = items_of(whole).values()
    options = ("--text", TEXT, "--duration", 0.5, "--temperature", 0, "--guidance", 1)
    status, stream, errors = run("generate", "-m", "mono", "-", *options, stdin=whole)
    assert (status, errors) == (0, "")
    ((item, longer),) = items_of(stream).values()
    assert longer.shape == (4, 60)
    np.testing.assert_array_equal(longer[:, :40], codes)
    sure = only(run, "--text", TEXT, "--duration", 1.5, "--temperature", 0, "--guidance", 1)
    np.testing.assert_array_equal(longer[:, :37], sure[:, :37])
    assert [stage["command"] for stage in item.head.made] == ["generate", "generate"]
    assert item.closing.source_sha == begun.closing.sha
    assert (item.closing.samples, item.head.meta["duration_seconds"]) == (480, 1.5)


def test_standard_input_is_gone_on_from_where_nothing_else_is_asked_for(run):
    begun = run("generate", "-m", "mono", "--text", TEXT, "--duration", 0.5)[1]
    assert only(run, "--duration", 0.5, stdin=begun).shape == (4, 40)
    assert only(run, "--duration", 0.5, "--text", TEXT, stdin=begun).shape == (4, 20)
    assert only(run, "--duration", 0.5).shape == (4, 20)


def test_codes_of_one_channel_are_gone_on_from_in_two(models, run, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).normal(0, 0.1, 320), 320)
    codec = json.loads((models.home / "models" / "stereo" / "config.json").read_bytes())["source"]["codec"]
    encoded = run("encode", "-m", codec, tmp_path / "x.wav")[1]
    ((_, codes),) = items_of(encoded).values()
    longer = only(run, "-", "--duration", 0.5, stdin=encoded, model="stereo")
    np.testing.assert_array_equal(longer[:, :40], np.repeat(codes, 2, axis=0))
    status, _, errors = run(
        "generate", "-m", "stereo", "-", stdin=run("encode", "-m", codec, "--codebooks", 3, tmp_path / "x.wav")[1]
    )
    assert status == 3
    assert (
        f"3 rows of codes, and the model writes 8\nhint: make them with: mtk encode --model {codec} --codebooks 4"
        in errors
    )


def test_what_cannot_be_gone_on_from_is_named(run, waltz):
    notes = run("tokenize", waltz)[1]
    status, _, errors = run("generate", "-m", "mono", "-", stdin=notes)
    assert status == 3
    assert "notes, and the model goes on from codes" in errors
    status, _, errors = run("generate", "-m", "mono", waltz)
    assert status == 3
    assert "no token stream, and the model goes on from codes" in errors
    status, _, errors = run("generate", "-m", "stereo", "-", stdin=run("generate", "-m", "mono", "--duration", 1)[1])
    assert status == 3
    assert "is another one" in errors
    status, _, errors = run("generate", "-m", "mono", "-")
    assert (status, "the stream is empty" in errors) == (3, True)


def test_codes_that_the_codec_has_not_are_refused(run):
    begun = run("generate", "-m", "mono", "--duration", 0.5)[1]
    status, _, errors = run("generate", "-m", "mono", "-", stdin=rewritten(begun, codes=np.full((4, 3), 32)))
    assert (status, "no such code: 32" in errors) == (3, True)


def test_a_failed_item_travels_on_and_others_are_gone_on_from(run):
    begun = run("generate", "-m", "mono", "--duration", 0.5)[1]
    ((item, codes),) = items_of(begun).values()
    sink = io.BytesIO()
    for number, name in enumerate(["a", "b", "c"], 1):
        head = replace(item.head, item=name, number=number, of=3)
        if name == "b":
            StreamWriter(sink).failed(head, Failure("unreadable-audio", "nothing to hear"))
            continue
        with StreamWriter(sink).item(head) as written:
            written.write(codes)
    status, stream, errors = run("generate", "-m", "mono", "-", "--duration", 0.5, "--count", 2, stdin=sink.getvalue())
    assert status == 1
    assert errors.count("mtk: failed: b") == 2
    read = []
    for one in StreamReader(io.BytesIO(stream), lambda head: None):
        one.skip()
        read.append((one.head.item, one.head.number, one.head.of, one.failure is None))
    names = ["a", "a-2", "b", "b-2", "c", "c-2"]
    assert read == [(name, number, 6, name[0] != "b") for number, name in enumerate(names, 1)]


def test_a_stream_that_breaks_off_fails_after_what_was_whole(run):
    begun = run("generate", "-m", "mono", "--duration", 0.5, "--count", 2)[1]
    status, stream, errors = run("generate", "-m", "mono", "-", "--duration", 0.5, stdin=begun[:-200])
    assert status == 3
    assert "ends inside" in errors
    assert b'"end"' in stream


# --------------------------------------------------------------------------------------------- prompts in files, typed


def test_a_line_of_a_file_is_a_request_with_a_name_of_its_own(run, tmp_path):
    lines = ['{"text": "jazz", "name": "one", "duration": 0.2}', '{"text": "jazz", "name": "two"}']
    options = ("--count", 2, "--duration", 0.1, "-o", f"{tmp_path}/out/")
    assert run("generate", "-m", "mono", "--prompts", "-", *options, stdin="\n".join(lines).encode())[0] == 0
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == ["one-2.mtk", "one.mtk", "two-2.mtk", "two.mtk"]
    ((item, codes),) = items_of(paths[0].read_bytes()).values()
    assert (item.head.number, item.head.of, codes.shape[1]) == (1, 1, 8)


def test_a_batch_goes_on_with_what_is_missing(run, tmp_path):
    options = (
        "generate",
        "-m",
        "mono",
        "--text",
        TEXT,
        "--duration",
        0.5,
        "--count",
        3,
        "-o",
        f"{tmp_path}/{{stem}}.mtk",
    )
    assert run(*options)[0] == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(*options)[0] == 2
    (tmp_path / "generated-2.mtk").unlink()
    assert run(*options, "--skip-existing")[0] == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_typed_is_made_line_by_line(run, tmp_path):
    typed = b"jazz\na slow waltz\n\nnever read\n"
    options = ("--duration", 0.5, "--seed", 2)
    codes = made(run, "--interactive", *options, stdin=typed)
    (tmp_path / "prompts.txt").write_text("jazz\na slow waltz\n")
    expected = made(run, "--prompts", tmp_path / "prompts.txt", *options)
    assert codes.keys() == expected.keys() == {"generated-1", "generated-2"}
    for name, own in codes.items():
        np.testing.assert_array_equal(own, expected[name])


def test_a_typed_line_that_cannot_be_met_ends_nothing(run):
    typed = b'{"style": "jazz"}\n{"text": \njazz'
    status, stream, errors = run("generate", "-m", "mono", "--interactive", "--duration", 0.5, stdin=typed)
    assert status == 1
    assert errors.count("mtk: failed:") == 2
    assert "mono takes no --style" in errors
    assert "no valid JSON" in errors
    assert stream.count(b'"end"') == 1


def test_each_typed_line_is_answered_before_the_next_is_read(models):
    answers: list[int] = []

    class Typist(io.BytesIO):
        def readline(self, *arguments: Any) -> bytes:
            answers.append(environment.stdout.getvalue().count(b'"end"'))
            return super().readline(*arguments)

    environment = Environment(Typist(b"one\ntwo\n"), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(models.home)})
    assert main(["generate", "-m", "mono", "--interactive", "--duration", "0.1", "--count", "2"], environment) == 0
    assert answers == [0, 2, 4]


def test_a_terminal_is_asked_for_words(models):
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    environment = Environment(Terminal(b"jazz\n\n"), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(models.home)})
    assert main(["generate", "-m", "mono", "--interactive", "--duration", "0.1"], environment) == 0
    assert environment.stderr.getvalue() == "text> text> "


# ---------------------------------------------------------------------------------------------------------------- edges


def test_a_text_of_ten_thousand_words_is_cut_with_one_warning(models, run):
    text = "jazz " * 10_000
    options = ("generate", "-m", "mono", "--duration", 0.5, "--temperature", 0)
    status, stream, errors = run(*options, "--text", text, "--count", 3)
    assert status == 0
    assert errors.count("mtk: warning: the text is cut: the model reads 512 ids of it") == 1
    codes = next(iter(items_of(stream).values()))[1]
    given = {name: torch.cat([ids[:, :511], ids[:, -1:]], 1) for name, ids in models.tokens("mono", text).items()}
    np.testing.assert_array_equal(codes, greedy_codes(models.ports["mono"], 20, 3.0, **given)[0].numpy())


@pytest.mark.parametrize("options", [("--temperature", 100), ("--top-k", 10**6), ("--top-k", 0), ("--top-p", 1e-9)])
def test_extreme_numbers_are_taken(run, options):
    codes = only(run, "--text", TEXT, "--duration", 0.5, *options)
    assert codes.min() >= 0
    assert codes.max() < 32
    if "--top-p" in options:
        np.testing.assert_array_equal(codes, only(run, "--text", TEXT, "--duration", 0.5, "--temperature", 0))


def test_top_k_beyond_the_vocabulary_is_all_of_it(run):
    options = ("--text", TEXT, "--duration", 0.5)
    np.testing.assert_array_equal(only(run, *options, "--top-k", 32), only(run, *options, "--top-k", 999))
    assert not np.array_equal(only(run, *options, "--top-k", 2), only(run, *options, "--top-k", 32))


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--style", "jazz"), 2, "mono takes no --style"),
        (("--bars", 4), 2, "mono takes no --bars"),
        (("--melody", "x.wav"), 2, "mono takes no --melody"),
        (("--duration", 0), 2, "no such duration: 0"),
        (("--duration", "inf"), 2, "no such duration: inf"),
        (("--temperature", -1), 2, "temperature is from 0"),
        (("--top-p", 0), 2, "no such share: 0"),
        (("--count", 0), 2, "0 is not in the range"),
        (("--names", "--text", "x"), 2, "codes have no names"),
        (("--text", "x", "--prompts", "y"), 2, "--text and --prompts contradict"),
        (("--interactive", "--prompts", "y"), 2, "--prompts and --interactive contradict"),
        (("--interactive", "x.mtk"), 2, "--interactive and INPUT contradict"),
        (("--prompts", "nowhere.txt"), 3, "no such file or directory (nowhere.txt)"),
        (("--prompts", "-"), 3, "there is no request in it (standard input)"),
        (("--adapter", "nowhere/"), 3, "nowhere"),
        (("nowhere.mtk",), 3, "no such file (nowhere.mtk)"),
        (("--model", "none"), 4, "no model named 'none'"),
        (("--device", "cuda:99"), 5, "no such device: cuda:99"),
    ],
)
def test_wrong_usage_is_one_clear_line(run, options, status, message):
    model = () if "--model" in options else ("--model", "mono")
    got, stream, errors = run("generate", *model, *options)
    assert (got, stream) == (status, b"")
    assert message in errors
    assert len(errors.splitlines()) <= 2


def test_a_melody_that_cannot_be_read_is_named(run, tmp_path):
    (tmp_path / "x.wav").write_bytes(b"no sound")
    status, _, errors = run("generate", "-m", "melody", "--melody", tmp_path / "x.wav")
    assert (status, "x.wav" in errors) == (3, True)


def test_a_line_of_a_file_that_asks_for_nonsense_is_named_before_anything_is_made(run, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('jazz\n{"style": "jazz"}\n')
    status, stream, errors = run("generate", "-m", "mono", "--prompts", path)
    assert (status, stream) == (2, b"")
    assert f"mono takes no --style ({path}, line 2)" in errors


def test_a_model_without_its_codec_or_its_tokenizer_says_what_is_missing(models, tmp_path):
    home = tmp_path / "home"
    environ = {"MTK_HOME": str(home)}

    def run(*arguments: str) -> tuple[int, str]:
        environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO(), environ)
        return main([*arguments], environment), environment.stderr.getvalue()

    assert run("models", "import", str(models.folders / "mono"), "--as", "bare")[0] == 0
    (home / "models" / "bare" / "tokenizer.json").unlink()
    status, errors = run("generate", "-m", "bare", "--text", "jazz")
    assert (status, "its tokenizer is not here" in errors) == (4, True)
    (home / "models" / "bare-codec" / "config.json").unlink()
    status, errors = run("generate", "-m", "bare")
    assert (status, "the codec of bare is not here: bare-codec" in errors) == (4, True)


def test_out_of_memory_is_one_clear_line(run, monkeypatch):
    from musictool.models.musicgen import MusicGen

    def fail(*arguments: Any, **others: Any) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(MusicGen, "start", fail)
    status, _, errors = run("generate", "-m", "mono", "--text", "jazz")
    assert status == 5
    assert "out of memory" in errors
    assert len(errors.splitlines()) == 2


def test_a_closed_pipe_ends_it_quietly(models):
    command = [sys.executable, "-m", "musictool", "generate", "-m", "mono", "--text", TEXT, "--duration", "3600"]
    environ = {**os.environ, "MTK_HOME": str(models.home), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"mtk":1')
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (0, b"")


def test_ctrl_c_ends_it_quietly_and_leaves_no_file(models, tmp_path):
    command = [
        sys.executable,
        "-m",
        "musictool",
        "generate",
        "-m",
        "mono",
        "--duration",
        "3600",
        "-o",
        "x.mtk",
        "--log",
        "json",
    ]
    environ = {**os.environ, "MTK_HOME": str(models.home), "OMP_NUM_THREADS": "1"}
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environ, cwd=tmp_path, **options) as process:
        assert process.stderr is not None
        assert b'"start"' in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()
    assert list(tmp_path.iterdir()) == []
