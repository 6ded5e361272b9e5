"""`mtk eval audio` as a whole command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from musictool.metrics import spectrogram_picture
from musictool.metrics.audio import METRICS, evaluate
from musictool.metrics.codes import CODE_METRICS
from musictool.stream.records import Failure, Head
from musictool.stream.writer import StreamWriter
from tests.small_models import install_small_note_tagger

RATE = 16_000


def sound(seed, seconds=1.0, channels=1):
    """Some tones over noise, float32 [frames, C]."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE))[:, None] / RATE
    tones = sum(np.sin(2 * np.pi * generator.uniform(100, 3000, channels) * time) for _ in range(4)) / 8
    return (tones + generator.normal(0, 0.003, tones.shape)).astype(np.float32)


def worse(samples, level, seed=7):
    return samples + np.random.default_rng(seed).normal(0, level, samples.shape).astype(np.float32)


def write(path, samples, rate_hz=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


@pytest.fixture
def references(tmp_path):
    folder = tmp_path / "refs"
    for seed, name in enumerate(("a", "b", "inner/c")):
        write(folder / f"{name}.wav", sound(seed))
    return folder


@pytest.fixture
def results(tmp_path):
    """A folder with a as it is, a worse b, something else for c, and d."""
    folder = tmp_path / "out"
    samples = {"a": sound(0), "b": worse(sound(1), 0.01), "inner/c": sound(9), "d": sound(8)}
    for name, some in samples.items():
        write(folder / f"{name}.wav", some)
    return folder


def items_of(result):
    record = json.loads(result.out, parse_constant=pytest.fail)
    return {item["item"]: item for item in record["items"]}, record


def stream_of(meta=None, codec="codec", **items):
    """A stream of codes; an item without codes has failed."""
    stream = io.BytesIO()
    writer = StreamWriter(stream)
    for name, codes in items.items():
        known = {"codebooks": 4, "codebook_size": 64, "frame_rate_hz": 75.0} if meta is None else meta
        head = Head(name, "codes", codec, f"{codec}-sha", known)
        if codes is None:
            writer.failed(head, Failure("bad-file", "no good"))
            continue
        with writer.item(head) as item:
            item.write(np.asarray(codes, np.int32))
    return stream.getvalue()


def codes(seed, frames=500, size=64, codebooks=4):
    return np.random.default_rng(seed).integers(0, size, (codebooks, frames))


# ---------------------------------------------------------------------------------------------------- with references


def test_results_are_compared_with_the_references_of_their_names(mtk, references, results):
    result = mtk("eval", "audio", results, "-r", references, "--json")
    items, record = items_of(result)
    facts = ["item", "rate_hz", "channels", "seconds", "surplus_seconds"]
    assert list(items["b"]) == [*facts, *METRICS, "file_kbps"]
    pair = np.stack([sound(1).T, soundfile.read(results / "b.wav", dtype="float32", always_2d=True)[0].T])
    assert {metric: items["b"][metric] for metric in METRICS} == pytest.approx(evaluate([pair], RATE))
    assert [items["b"][fact] for fact in facts[1:]] == [RATE, 1, 1.0, 0.0]
    assert items["b"]["file_kbps"] == pytest.approx((results / "b.wav").stat().st_size * 8 / 1000)
    assert items["a"]["si_sdr_db"] == 120 > items["b"]["si_sdr_db"] > items["inner/c"]["si_sdr_db"]
    assert record["mean"] == {
        name: pytest.approx(np.mean([item[name] for item in items.values()])) for name in [*METRICS, "file_kbps"]
    }
    missing = {"item": "d", "code": "no-reference", "message": "there is no reference"}
    assert (result.status, record["failed"], record["frechet"]) == (1, [missing], None)


def test_the_table_has_a_line_an_item_and_their_mean(mtk, references, results):
    lines = mtk("eval", "audio", results, "-r", references).out.decode().splitlines()
    assert [line.split("  ")[-1].strip() for line in lines] == ["item", "a", "b", "inner/c", "mean of 3"]
    assert lines[1].split() == ["120.00", "0.0000", "0.0000", "0.0000", "0.0000", "512.64", "1.000", "a"]


def test_sound_comes_in_any_form_and_through_pipes(mtk, references, tmp_path):
    flac = write(tmp_path / "x.flac", worse(sound(1), 0.01))
    os.mkfifo(tmp_path / "pipe")
    feed = subprocess.Popen(["sh", "-c", f"cat {flac} > {tmp_path / 'pipe'}"])
    found = [
        items_of(mtk("eval", "audio", *given, "-r", references / "b.wav", "--json", stdin=flac.read_bytes()))[0]
        for given in ((flac,), (), ("-",), (tmp_path / "pipe",))
    ]
    feed.wait(30)
    assert [list(items) for items in found] == [["x"], ["stdin"], ["stdin"], ["pipe"]]
    scores = [{name: next(iter(items.values()))[name] for name in METRICS} for items in found]
    assert scores[1:] == scores[:1] * 3


def test_folders_are_not_compared_with_themselves(mtk, references):
    result = mtk("eval", "audio", references, "-r", references, "--json")
    assert (result.status, items_of(result)[0]) == (0, {})
    assert result.err.count("left out, since it is its own reference") == 3


def test_mono_and_stereo_are_compared_if_they_are_mixed(mtk, references, tmp_path):
    stereo = write(tmp_path / "a.wav", np.repeat(sound(0), 2, axis=1))
    result = mtk("eval", "audio", stereo, "-r", references)
    assert (result.status, result.out.decode().count("\n")) == (3, 1)
    piped = mtk("eval", "audio", "-r", references / "a.wav", stdin=stereo.read_bytes())
    for found, name in ((result, stereo), (piped, "standard input")):
        assert found.err.splitlines() == [
            f"mtk: error: 2 channels where the reference has 1 channel ({name})",
            "hint: compare the mean of all channels with --mono",
        ]
    items, _ = items_of(mtk("eval", "audio", stereo, "-r", references, "--mono", "--json"))
    assert items["a"]["si_sdr_db"] == 120


def test_lengths_may_differ_within_a_tolerance(mtk, references, tmp_path):
    short = write(tmp_path / "a.wav", sound(0)[:-2400])
    result = mtk("eval", "audio", short, "-r", references)
    assert result.status == 3
    assert "0.150 s shorter than the reference" in result.err
    items, _ = items_of(mtk("eval", "audio", short, "-r", references, "--length-tolerance", "0.2", "--json"))
    assert (items["a"]["surplus_seconds"], items["a"]["seconds"], items["a"]["si_sdr_db"]) == (-0.15, 0.85, 120)


def test_silence_has_no_si_sdr_and_says_so(mtk, references, results):
    write(results / "a.wav", np.zeros((RATE, 1)))
    result = mtk("eval", "audio", results / "a.wav", results / "b.wav", "-r", references, "--json")
    items, record = items_of(result)
    assert (result.status, items["a"]["si_sdr_db"]) == (0, None)
    assert "mtk: warning: one of the two is silent: there is no SI-SDR (a)" in result.err
    assert record["mean"]["si_sdr_db"] == items["b"]["si_sdr_db"]
    assert "  -  " in mtk("eval", "audio", results / "a.wav", "-r", references).out.decode().splitlines()[1]
    assert mtk("eval", "audio", results / "a.wav", "-r", references, "--assert", "si_sdr_db>-999").status == 1


@pytest.mark.parametrize("damage", ["nan", "empty", "no sound", "nothing"])
@pytest.mark.parametrize("side", ["result", "reference"])
def test_a_broken_file_fails_alone_with_3_and_among_others_with_1(mtk, references, results, damage, side):
    path = (results if side == "result" else references) / "b.wav"
    if damage in ("nan", "empty"):
        write(path, np.full((10, 1), np.nan) if damage == "nan" else np.zeros((0, 1)))
    else:
        path.write_bytes(b"" if damage == "nothing" else b"no sound at all")
    alone = mtk("eval", "audio", results / "b.wav", "-r", references)
    assert (alone.status, len(alone.err.splitlines()) <= 2) == (3, True)
    assert str(path) in alone.err
    among = mtk("eval", "audio", results / "a.wav", results / "b.wav", results / "no.wav", "-r", references, "--json")
    items, record = items_of(among)
    assert (among.status, list(items), len(record["failed"])) == (1, ["a"], 2)


def test_what_is_no_sound_is_sent_on(mtk, references, tmp_path):
    (tmp_path / "a.mtk").write_bytes(stream_of(a=codes(0)))
    for given, stdin in (((tmp_path / "a.mtk",), b""), ((), stream_of(a=codes(0)))):
        result = mtk("eval", "audio", *given, "-r", references / "a.wav", stdin=stdin)
        assert result.status == 3
        assert "no sound in this file" in result.err
        assert "hint: mtk decode makes sound of it" in result.err


@pytest.mark.parametrize("options", [(), ("--plot",), ("--mono", "--embeddings", "note-tagger")])
def test_jobs_change_nothing(mtk, references, results, tmp_path, options):
    outputs = []
    for jobs in (1, 2):
        pictures = f"{tmp_path}/pictures-{jobs}/"
        given = [word for option in options for word in ((option, pictures) if option == "--plot" else (option,))]
        result = mtk("eval", "audio", results, "-r", references, "--json", "-j", jobs, *given)
        found = {path.name: path.read_bytes() for path in sorted((tmp_path / f"pictures-{jobs}").rglob("*.png"))}
        outputs.append([result, found])
    assert outputs[0] == outputs[1]
    assert list(outputs[0][1]) == (["a.png", "b.png", "c.png"] if "--plot" in options else [])


# ------------------------------------------------------------------------------------------------------------- Fréchet


def test_with_embeddings_results_have_a_distance_to_their_references(mtk, tmp_path):
    install_small_note_tagger(tmp_path)
    model = ("--embeddings", tmp_path / "models" / "note-tagger")
    folders = [tmp_path / "refs", tmp_path / "same", tmp_path / "worse"]
    for seed in range(4):
        samples = sound(seed, 5)
        for folder, level in zip(folders, (0, 0.0001, 0.1)):
            write(folder / f"{seed}.wav", worse(samples, level))
    found = []
    for folder in folders[1:]:
        result = mtk("eval", "audio", folder, "-r", folders[0], *model, "--json")
        assert (result.status, result.err) == (0, "")
        found.append(items_of(result)[1])
    facts = found[0]["frechet"]
    assert (facts["embeddings"], facts["other_embeddings"], facts["model"]["name"]) == (20, 20, "note-tagger")
    assert len(facts["model"]["sha256"]) == 64
    assert found[0]["mean"]["frechet_distance"] == facts["frechet_distance"]
    assert 0 < 10 * facts["frechet_distance"] < found[1]["frechet"]["frechet_distance"]
    items, record = items_of(mtk("eval", "audio", folders[1], "--corpus", folders[0], *model, "--json"))
    assert record["frechet"] == facts
    assert (record["corpus_items"], items["1"]) == (4, {"item": "1", "embeddings": 5})
    condition = ("--assert", f"frechet_distance<={facts['frechet_distance']}")
    result = mtk("eval", "audio", folders[2], "--corpus", folders[0], *model, *condition)
    assert (result.status, result.out.decode().splitlines()[1].split()[1:4]) == (1, ["20", "20", "note-tagger"])


def test_too_few_embeddings_are_pointed_out(mtk, references, results):
    result = mtk("eval", "audio", results / "b.wav", "--corpus", references, "--json")
    items, record = items_of(result)
    assert (result.status, items["b"]["embeddings"], record["frechet"]["frechet_distance"]) == (0, 1, None)
    assert "1 embeddings are too few for a Fréchet distance: there is none" in result.err
    assert "note-tagger takes 65 s of sound on each side" in result.err
    table = mtk("eval", "audio", results, "-r", references, "--embeddings", "note-tagger").out.decode().splitlines()
    assert table[-2].split() == ["Fréchet", "embeddings", "beside", "model"]


def test_a_corpus_that_cannot_be_read_whole_is_said_to_be(mtk, references, results):
    piped = mtk("eval", "audio", "--corpus", references, stdin=b"no sound")
    assert (piped.status, piped.err.splitlines()[0].endswith("(standard input)")) == (3, True)
    (references / "x.wav").write_bytes(b"no sound")
    result = mtk("eval", "audio", results, "--corpus", references, "--json")
    items, record = items_of(result)
    assert (result.status, len(items), record["corpus_items"]) == (1, 4, 3)
    assert [failed["item"] for failed in record["failed"]] == ["x"]


# --------------------------------------------------------------------------------------------------------------- codes


def test_codes_have_their_statistics_and_those_of_all(mtk):
    stream = stream_of(a=codes(0), b=codes(1, 20, 8))
    result = mtk("eval", "audio", "--json", stdin=stream)
    items, record = items_of(result)
    assert (result.status, result.err) == (0, "")
    assert list(items["a"]) == ["item", "frames", *CODE_METRICS, "codebooks"]
    assert (items["a"]["frames"], items["b"]["frames"]) == (500, 20)
    assert items["a"]["usage"] == 1 > items["b"]["usage"]
    assert items["a"]["bit_rate_kbps"] == 1.8 >= items["a"]["entropy_kbps"] > items["b"]["entropy_kbps"]
    together = mtk("eval", "audio", "--json", stdin=stream_of(ab=np.concatenate([codes(0), codes(1, 20, 8)], axis=1)))
    whole = {key: value for key, value in items_of(together)[0]["ab"].items() if key != "item"}
    assert record["all"] == whole
    assert record["codec"] == {
        "codec": "codec", "codec_sha256": "codec-sha", "codebooks": 4, "codebook_size": 64, "frame_rate_hz": 75.0
    }  # fmt: skip


def test_the_tables_of_codes_have_a_line_an_item_and_a_line_a_codebook(mtk, tmp_path):
    (tmp_path / "x.mtk").write_bytes(stream_of(a=codes(0), b=codes(1)))
    lines = mtk("eval", "audio", tmp_path).out.decode().splitlines()
    names = [line.split("  ")[-1].strip() for line in lines]
    assert names == ["item", "a", "b", "all of 2", "", "codebook", "1", "2", "3", "4"]
    assert lines[3].split()[0] == "1.800"


def test_codes_of_another_kind_fail_alone(mtk):
    stream = (
        stream_of(a=codes(0))
        + stream_of(b=codes(0, codebooks=2), meta={"codebooks": 2, "codebook_size": 64, "frame_rate_hz": 75.0})
        + stream_of(c=codes(0), codec="other")
        + stream_of(d=codes(0), meta={})
        + stream_of(e=codes(0, size=90))
        + stream_of(f=None, g=codes(0)[:3], h=codes(1))
    )
    result = mtk("eval", "audio", "--json", stdin=stream)
    items, record = items_of(result)
    assert (result.status, list(items)) == (1, ["a", "h"])
    messages = {failed["item"]: failed["message"] for failed in record["failed"]}
    assert messages.pop("e").endswith("is out of range: the codebooks have 64 entries")
    assert messages == {
        "b": "2 codebooks of 'codec' after 4 of 'codec'",
        "c": "4 codebooks of 'other' after 4 of 'codec'",
        "d": "the head's meta does not say what codebooks is",
        "f": "no good",
        "g": "3 codebook rows where the head says 4",
    }
    assert record["all"]["frames"] == 1000


def test_no_codes_are_said_to_be_none(mtk):
    result = mtk("eval", "audio", "--json", stdin=stream_of(a=np.zeros((4, 0))))
    items, record = items_of(result)
    assert (result.status, items["a"]["entropy_bits"], record["all"]["usage"]) == (0, None, 0)
    assert "mtk: warning: it has no codes (a)" in result.err
    assert mtk("eval", "audio", stdin=stream_of(a=np.zeros((4, 0)))).status == 0


def test_a_stream_that_breaks_off_ends_with_3_after_the_items_before(mtk):
    result = mtk("eval", "audio", "--json", stdin=stream_of(a=codes(0), b=codes(1))[:-20])
    items, record = items_of(result)
    assert (result.status, list(items), record["all"]["frames"]) == (3, ["a"], 500)
    assert "the stream ends inside" in result.err


def test_notes_are_sent_to_their_own_verb(mtk, waltz):
    result = mtk("eval", "audio", stdin=mtk("tokenize", waltz).out)
    assert result.status == 1
    assert "the item holds notes, not codes" in result.err
    assert "hint: mtk eval symbolic measures notes" in result.err


def test_names_of_strangers_do_not_drive_the_terminal(mtk):
    table = mtk("eval", "audio", stdin=stream_of(**{"a\x1b[2J\n": codes(0)})).out.decode()
    assert table.splitlines()[1].endswith("  a_[2J_")


# ------------------------------------------------------------------------------------------------------------- options


def test_assertions_hold_the_mean_to_account(mtk, references, results):
    def run(*conditions, options=(results / "b.wav", "-r", references), stdin=b""):
        words = [word for condition in conditions for word in ("--assert", condition)]
        return mtk("eval", "audio", *options, *words, stdin=stdin)

    assert run("si_sdr_db>20", "mel_distance<1", "file_kbps>=512").status == 0
    result = run("si_sdr_db>99", "stft_distance<9")
    assert result.status == 1
    assert result.err.startswith("mtk: error: mean si_sdr_db is to be > 99, and it is 2")
    stream = stream_of(a=codes(0), b=codes(0, 3))
    assert run("least_usage>=0.99", "bit_rate_kbps==1.8", options=(), stdin=stream).status == 0
    assert run("perplexity>64", options=(), stdin=stream).status == 1
    assert run("perplexity>1", options=(), stdin=stream_of(a=None)).status == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-r", "x", "--corpus", "y"), "contradict each other"),
        (("--corpus", "-"), "a corpus cannot come from standard input"),
        (("--plot", "x.png"), "--plot is for sound that has a --reference"),
        (("--mono", "--corpus", "x"), "--mono is for sound that has a --reference"),
        (("--embeddings", "auto"), "--embeddings is for sound that has"),
        (("-r", "x", "--assert", "usage>0.5"), "no such metric"),
        (("-r", "x", "--assert", "frechet_distance<5"), "no such metric"),
        (("--assert", "si_sdr_db>0.5"), "no such metric"),
        (("--assert", "usage"), "no condition"),
        (("-r", "x", "--plot", "x.gif"), "no such kind of picture"),
        (("-r", "x", "--plot", "{who}.png"), "unknown placeholder"),
        (("-r", "x", "--length-tolerance", "-1"), "-1"),
        (("-r", "x", "--device", "abacus"), "no such device"),
        ((), "sound is judged beside other sound"),
    ],
)
def test_wrong_usage_ends_before_any_work(mtk, results, options, message):
    result = mtk("eval", "audio", results / "a.wav", *options)
    assert (result.status, result.out) == (2, b"")
    assert message in result.err.splitlines()[0]


@pytest.mark.parametrize("option", ["-r", "--corpus", "--embeddings"])
def test_what_is_not_there_ends_before_any_work(mtk, references, results, option):
    options = ("-r", references, "--embeddings") if option == "--embeddings" else (option,)
    result = mtk("eval", "audio", results, *options, results / "nowhere")
    assert (result.status, result.out) == (3, b"")


def test_one_reference_is_for_one_item(mtk, references, results):
    result = mtk("eval", "audio", results, "-r", references / "a.wav")
    assert result.status == 2
    assert "more than one item for one reference" in result.err


# ------------------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_picture_is_written_whole_and_kept_unless_forced(mtk, references, results, tmp_path, suffix):
    target = tmp_path / f"x.{suffix}"
    command = ("eval", "audio", results / "b.wav", "-r", references, "--plot", target)
    assert mtk(*command).status == 0
    first = target.read_bytes()
    assert mtk(*command).status == 2
    target.write_bytes(b"old")
    assert mtk(*command, "--force").status == 0
    assert target.read_bytes() == first


def test_a_picture_shows_both_sounds(mtk, references, results, tmp_path, monkeypatch):
    drawn = {}

    def draw(file, spectrograms, **options):
        drawn.update(options, spectrograms=spectrograms)

    monkeypatch.setattr(spectrogram_picture, "draw", draw)
    assert mtk("eval", "audio", results / "b.wav", "-r", references, "--plot", tmp_path / "{stem}.SVG").status == 0
    assert drawn["format"] == "svg"
    expected = items_of(mtk("eval", "audio", results / "b.wav", "-r", references, "--json"))[0]["b"]
    figures = f"SI-SDR {expected['si_sdr_db']:.2f} dB", f"mel {expected['mel_distance']:.4f}"
    assert drawn["title"].split("     ")[:3] == ["b", *figures]
    assert drawn["spectrograms"].reference.shape == drawn["spectrograms"].result.shape == (128, -(-RATE // 512))
    assert drawn["spectrograms"].seconds == 1
    assert (drawn["spectrograms"].result > drawn["spectrograms"].reference).mean() > 0.9


def test_without_matplotlib_a_picture_ends_with_4(mtk, references, results, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = mtk("eval", "audio", results, "-r", references, "--plot", tmp_path / "x.png")
    assert (result.status, result.out) == (4, b"")
    assert "pip install 'musictool[plot]'" in result.err


def test_codes_are_judged_without_torch(tmp_path):
    (tmp_path / "x.mtk").write_bytes(stream_of(a=codes(0)))
    code = (
        "import sys; from musictool.cli.main import main\n"
        f"assert main(['eval', 'audio', {str(tmp_path / 'x.mtk')!r}]) == 0\n"
        "assert not {'torch', 'scipy', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
