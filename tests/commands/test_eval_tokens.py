"""`mtk eval tokens` as a whole command."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from musictool.checkpoints.native import ModelFacts, write_native
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.models.symbolic_generator import SymbolicGenerator, SymbolicGeneratorConfig
from musictool.stream.records import Failure, Head
from musictool.stream.writer import StreamWriter
from tests.commands.conftest import Result
from tests.small_code_models import SMALL_PERSONALJAZZ, SMALL_SAXGPT, install_code_model

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")

CODEBOOKS, SIZE = SMALL_SAXGPT.codebooks, SMALL_SAXGPT.codebook_size
META = {"codebooks": CODEBOOKS, "codebook_size": SIZE, "frame_rate_hz": 75}
COMPOSER = SymbolicGeneratorConfig(width=16, heads=2, hidden=32, layers=2, context=256, styles=("pop", "jazz"))


@pytest.fixture
def mtk(one_thread, tmp_path):
    """Run `mtk ARGUMENT…` with bytes on standard input, where there are small random models; one thread."""
    install_code_model(tmp_path / "home", SMALL_SAXGPT)
    install_code_model(tmp_path / "home", replace(SMALL_PERSONALJAZZ, frames_max=48))
    torch.manual_seed(1)
    folder = tmp_path / "home" / "models" / "composer"
    folder.mkdir()
    facts = ModelFacts("symbolic-generator", "symbolic-generator", asdict(COMPOSER))
    write_native(folder, SymbolicGenerator(COMPOSER).state_dict(), facts, "A random model.\n")

    def run(*arguments, stdin=b""):
        environ = {"MTK_HOME": str(tmp_path / "home")}
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), environ)
        status = main([str(argument) for argument in arguments], environment)
        return Result(status, environment.stdout.getvalue(), environment.stderr.getvalue())

    return run


def codes(frames, seed=0, codebooks=CODEBOOKS):
    return np.random.default_rng(seed).integers(0, SIZE, (codebooks, frames)).astype(np.int32)


def stream_of(*, codec_sha="sha", **items):
    """A stream of codes; an item without codes has failed."""
    stream = io.BytesIO()
    writer = StreamWriter(stream)
    for name, own in items.items():
        head = Head(name, "codes", "codec-24khz", codec_sha, META)
        if own is None:
            writer.failed(head, Failure("bad-file", "no good"))
            continue
        with writer.item(head) as item:
            item.write(own)
    return stream.getvalue()


def record_of(result, status=0):
    assert result.status == status, result.err
    return json.loads(result.out, parse_constant=pytest.fail)


def test_every_item_and_all_together_are_told(mtk):
    stream = stream_of(a=codes(30), b=codes(100, 1))
    record = record_of(mtk("eval", "tokens", "-m", "saxgpt", "--json", stdin=stream))
    a, b = record["items"]
    total = record["all"]
    assert (a["item"], a["tokens"], b["tokens"]) == ("a", 30 * CODEBOOKS, 100 * CODEBOOKS)
    mean = (a["cross_entropy_bits"] * a["tokens"] + b["cross_entropy_bits"] * b["tokens"]) / total["tokens"]
    assert total["cross_entropy_bits"] == pytest.approx(mean)
    assert total["kbps"] == pytest.approx(mean * CODEBOOKS * 75 / 1000)
    assert [part["part"] for part in record["parts"]] == list(map(str, range(1, CODEBOOKS + 1)))
    assert sum(part["share"] for part in record["parts"]) == pytest.approx(1)
    by_temperature = {row["temperature"]: row for row in record["temperatures"]}
    assert sorted(by_temperature) == [0.5, 1, 1.5]
    assert by_temperature[1]["perplexity"] == total["perplexity"]
    assert len(by_temperature[0.5]["parts"]) == CODEBOOKS
    assert (record["model"]["name"], record["model"]["family"]) == ("saxgpt", "saxgpt")
    assert record["continued"] is record["against"] is None


def test_pieces_side_by_side_are_scored_as_each_alone(mtk):
    stream = stream_of(**{f"item{n}": codes(length, n) for n, length in enumerate((30, 1, 100, 0, 60))})
    one, four = (
        record_of(mtk("eval", "tokens", "-m", "personaljazz", "--batch", n, "--json", stdin=stream)) for n in (1, 4)
    )
    for ours, theirs in zip(one["items"], four["items"], strict=True):
        assert ours.pop("item") == theirs.pop("item")
        assert ours == (pytest.approx(theirs, rel=1e-5) if theirs["tokens"] else theirs)
    assert one["items"][3] == dict.fromkeys(one["items"][3]) | {"tokens": 0}


def test_the_same_seed_gives_the_same_bytes(mtk, tmp_path):
    stream = stream_of(a=codes(40), b=codes(60, 1))
    command = ["eval", "tokens", "-m", "personaljazz", "--continue", "8", "--prompt-tokens", "4", "--temperatures", "1"]
    first, again = (mtk(*command, "--json", "--plot", tmp_path / f"{n}.png", stdin=stream) for n in (1, 2))
    assert first.status == 0, first.err
    assert first.out == again.out
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    other = record_of(mtk(*command, "--seed", "1", "--json", stdin=stream))
    continued = json.loads(first.out)["continued"]
    assert other["continued"]["made"][1] != continued["made"][1]
    assert other["continued"]["made"][0] == continued["made"][0]  # nothing is drawn
    assert [way["temperature"] for way in continued["made"]] == [0, 1]
    assert continued["teacher_forced"]["first_divergence"]["mean"] is not None


def test_the_table_names_everything(mtk, tmp_path):
    stream = stream_of(a=codes(40), b=codes(3, 1))
    command = [
        "eval",
        "tokens",
        "-m",
        "saxgpt",
        "--continue",
        "8",
        "--prompt-seconds",
        "0.1",
        "-o",
        tmp_path / "r.json",
    ]
    (tmp_path / "train.mtk").write_bytes(stream_of(x=codes(40)[:, 10:22]))
    result = mtk(*command, "--against", tmp_path / "train.mtk", stdin=stream)
    assert result.status == 0, result.err
    text = result.out.decode()
    lines = ("a", "all of 2", "codebook", "temperature", "model's guesses", "greedy", "at 1.5", "max of 2", "a, x")
    for line in ("kbit/s", "KL bits", *lines[:6], "temperature 1.5", *lines[7:]):
        assert line in text, line
    assert "1 pieces end with a prompt of 8 and are not continued" in result.err
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["continued"]["prompt"] == 8
    assert record["against"]["tokens"]["max"] == 12
    again = mtk(*command, stdin=stream)
    assert again.status == 2
    assert "the file exists" in again.err


def test_a_backing_is_read_along_with_the_pieces(mtk, tmp_path):
    lead = stream_of(a=codes(30), b=None, c=codes(20, 2))
    command = ["eval", "tokens", "-m", "saxgpt", "--json"]
    paths = {}
    for name, seeds in {"one": (5, 6, 7), "other": (8, 9, 7)}.items():
        paths[name] = tmp_path / f"{name}.mtk"
        paths[name].write_bytes(stream_of(**{item: codes(30, seed) for item, seed in zip("abc", seeds, strict=True)}))
    bare, one, other = (
        record_of(mtk(*command, *more, stdin=lead), 1)["items"]
        for more in ((), ("--backing", paths["one"]), ("--backing", paths["other"]))
    )
    assert bare[0] != one[0] != other[0]
    assert bare[1] != one[1] == other[1]
    short = tmp_path / "short.mtk"
    short.write_bytes(stream_of(a=codes(30, 5)))
    record = record_of(mtk(*command, "--backing", short, stdin=lead), 1)
    assert [item["code"] for item in record["failed"]] == ["bad-file", "no-backing"]
    assert record["items"] == one[:1]


def test_corpora_and_streams_give_the_same_figures(mtk, tmp_path, folder):
    (folder / "b.mid").unlink()
    notes = mtk("tokenize", folder, "-s", "remi").out
    assert mtk("tokenize", folder, "-s", "remi", "-o", tmp_path / "notes.parquet").status == 0
    command = ["eval", "tokens", "-m", "composer", "--json"]
    of_stream, of_corpus = record_of(mtk(*command, stdin=notes)), record_of(mtk(*command, tmp_path / "notes.parquet"))
    assert of_stream == of_corpus
    item = of_stream["items"][0]
    assert item["bits_per_note"] == pytest.approx(item["cross_entropy_bits"] * item["tokens"] / item["notes"])
    assert {"Pitch", "Chord", "Bar"} <= {part["part"] for part in of_stream["parts"]}
    assert len(record_of(mtk(*command, "--limit", 1, stdin=notes))["items"]) == 1
    jazz = record_of(mtk(*command, "--style", "jazz", stdin=notes))
    assert jazz["all"]["cross_entropy_bits"] != of_stream["all"]["cross_entropy_bits"]


def test_codes_of_a_corpus_are_those_of_a_stream(mtk, tmp_path):
    from musictool.inference.code_corpus import CodeCorpusWriter
    from musictool.inference.coded_sound import ItemCodes
    from musictool.stream.reader import StreamReader

    stream = stream_of(a=codes(30), b=codes(20, 1))
    with open(tmp_path / "codes.parquet", "wb") as file:
        writer = CodeCorpusWriter(file)
        for item in StreamReader(io.BytesIO(stream), lambda head: None):
            writer.write(item.head, CODEBOOKS, ItemCodes(item))
        writer.close()
    command = ["eval", "tokens", "-m", "saxgpt", "--json"]
    assert record_of(mtk(*command, tmp_path / "codes.parquet")) == record_of(mtk(*command, stdin=stream))


def test_a_composer_goes_on_from_notes(mtk, waltz):
    notes = mtk("tokenize", waltz, "-s", "tatum").out
    record = record_of(mtk("eval", "tokens", "-m", "composer", "--continue", "20", "--json", stdin=notes))
    assert record["continued"]["prompt"] == 64
    assert record["continued"]["pieces"] == 1
    assert "codebooks" not in record["continued"]["made"][0]
    result = mtk("eval", "tokens", "-m", "composer", "--continue", "20", "--prompt-seconds", "1", stdin=notes)
    assert result.status == 2
    assert "counted in tokens" in result.err


def test_what_a_piece_quotes_is_found_in_any_key(mtk, tmp_path, waltz):
    assert mtk("tokenize", waltz, "-s", "remi", "-o", tmp_path / "train.parquet").status == 0
    moved = mtk("tokenize", waltz, "-s", "remi", "--augment", "pitch=1..5", "--copies", "1").out
    record = record_of(mtk("eval", "tokens", "--against", tmp_path / "train.parquet", "--json", stdin=moved))
    own, other = record["items"]
    assert own["tokens_run"] == {"at": 0, "item": "waltz", "item_at": 0}
    assert other["longest_run_tokens"] < own["longest_run_tokens"] // 4
    assert other["longest_run_notes"] == own["longest_run_notes"] > 50
    assert other["notes_run"] == {"item": "waltz"}
    assert record["against"]["notes"]["max"] == own["longest_run_notes"]
    assert record["model"] is record["all"] is None


def test_assertions_are_held_against_all_pieces(mtk, tmp_path):
    stream = stream_of(a=codes(30))
    (tmp_path / "train.mtk").write_bytes(stream)
    command = ["eval", "tokens", "-m", "saxgpt", "--against", tmp_path / "train.mtk", "--json"]
    fine, missed = (
        mtk(*command, "--assert", "perplexity<=1e6", "--assert", f"longest_run_tokens<={most}", stdin=stream)
        for most in (30, 29)
    )
    assert all(one["holds"] for one in record_of(fine)["assertions"])
    assert [one["holds"] for one in record_of(missed, 1)["assertions"]] == [True, False]
    assert "longest_run_tokens is to be <= 29, and it is 30" in missed.err
    result = mtk("eval", "tokens", "-m", "saxgpt", "--assert", "longest_run_tokens<=2", stdin=stream)
    assert result.status == 2
    assert "no such metric" in result.err


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "no model is named"),
        (["-m", "saxgpt", "--temperatures", "0"], 2, "no such temperature: '0'"),
        (["-m", "saxgpt", "--temperatures", "1,warm"], 2, "no such temperature: 'warm'"),
        (["-m", "saxgpt", "--temperatures", "1,nan"], 2, "no such temperature"),
        (["-m", "saxgpt", "--prompt-tokens", "4"], 2, "a prompt is for --continue"),
        (["-m", "saxgpt", "--continue", "100"], 2, "are too many: the model sees 72 frames"),
        (["-m", "nobody"], 4, "no model"),
        (["-m", "saxgpt", "--text", "blue"], 2, "takes no text"),
        (["--against", "{}", "--continue", "4"], 2, "--continue is for a --model"),
        (["--against", "-"], 2, "standard input is named twice"),
        (["-m", "saxgpt", "--against", "{}/other.mtk"], 3, "beside those of 'codec-24khz'"),
        (["-m", "saxgpt", "--plot", "x.gif"], 2, "no such kind of picture"),
        (["-m", "saxgpt", "{}/broken.parquet"], 3, "broken Parquet file"),
        (["-m", "saxgpt", "{}/other.parquet"], 3, "no token corpus: column 'item'"),
        (["-m", "saxgpt", "--against", "{}/nothing.parquet"], 3, "no such file"),
    ],
)
def test_what_makes_no_sense_is_one_line(mtk, tmp_path, options, status, message):
    (tmp_path / "other.mtk").write_bytes(stream_of(x=codes(5), codec_sha="another"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1, but no more of it")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "other.parquet")
    stream = stream_of(a=codes(50))
    result = mtk("eval", "tokens", *(option.format(tmp_path) for option in options), stdin=stream)
    assert result.status == status, result.err
    assert message in result.err
    assert "Traceback" not in result.err


def test_items_that_cannot_be_read_are_named_and_the_others_go_on(mtk, waltz, tmp_path):
    stream = stream_of(a=codes(10), b=codes(10, codebooks=3), c=codes(10) + SIZE, d=None, e=codes(10, 4))
    notes = mtk("tokenize", waltz).out
    result = mtk("eval", "tokens", "-m", "saxgpt", "--json", stdin=stream + notes)
    record = record_of(result, 1)
    assert [item["item"] for item in record["items"]] == ["a", "e"]
    failed = {item["item"]: item["code"] for item in record["failed"]}
    assert failed == {"b": "other-codes", "c": "code-out-of-range", "d": "bad-file", "waltz": "wrong-kind"}
    others = stream_of(a=codes(10)) + stream_of(f=codes(10), codec_sha="another")
    (tmp_path / "train.mtk").write_bytes(stream_of(x=codes(10)))
    record = record_of(mtk("eval", "tokens", "--against", tmp_path / "train.mtk", "--json", stdin=others), 1)
    assert [item["code"] for item in record["failed"]] == ["other-tokens"]
    assert record["items"][0]["longest_run_tokens"] == 10
    broken = mtk("eval", "tokens", "-m", "saxgpt", "--json", stdin=stream[:-40])
    assert broken.status == 3
    assert [item["item"] for item in json.loads(broken.out)["items"]] == ["a"]
