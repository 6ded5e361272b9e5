"""`mtk eval transcription` as a whole command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from musictool.commands import eval_transcription
from musictool.errors import InputError
from musictool.metrics import piano_roll
from musictool.metrics.transcription import METRICS, evaluate
from musictool.stream.records import Head
from musictool.stream.writer import StreamWriter
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.schemes import find_scheme

SHARED = os.environ.get("MTK_TEST_SHARED")


def notes_of(count):
    onset = np.arange(count) / 4
    return Notes.of(onset, onset + 0.2, 60 + np.arange(count) % 12, 20 + np.arange(count) % 90)


@pytest.fixture
def references(tmp_path):
    """A folder with a MIDI file and two lists of 40, 20 and 10 notes."""
    folder = tmp_path / "refs"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.mid").write_bytes(write_midi(Score(notes_of(40))))
    for name, count in (("b", 20), ("inner/c", 10)):
        notes = notes_of(count)
        columns = (notes.onset_seconds, notes.offset_seconds, notes.pitch, notes.velocity)
        lines = ["onset\toffset\tpitch\tvelocity", *("\t".join(map(str, row)) for row in zip(*columns))]
        (folder / f"{name}.tsv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def estimates(tmp_path):
    """A folder with MIDI files: all of a, half of b, all of c and as many wrong notes, and d."""
    folder = tmp_path / "est"
    (folder / "inner").mkdir(parents=True)
    both = Notes.concatenate([notes_of(10), notes_of(10).with_columns(pitch=notes_of(10).pitch + np.int16(20))])
    for name, notes in {"a": notes_of(40), "b": notes_of(10), "inner/c": both, "d": notes_of(5)}.items():
        (folder / f"{name}.mid").write_bytes(write_midi(Score(notes)))
    return folder


def one_item(name, ids):
    """A stream of one item in scheme mt3."""
    stream = io.BytesIO()
    with StreamWriter(stream).item(Head(name, "events", "mt3", find_scheme("mt3").vocabulary.fingerprint)) as item:
        item.write(ids)
    return stream.getvalue()


def items_of(result):
    record = json.loads(result.out)
    return {item["item"]: item for item in record["items"]}, record


def test_files_streams_and_standard_input_score_the_same(mtk, references, estimates, tmp_path):
    files = items_of(mtk("eval", "transcription", estimates, "-r", references, "--json"))[0]
    stream = mtk("tokenize", estimates).out
    (tmp_path / "est.mtk").write_bytes(stream)
    assert mtk("tokenize", estimates, "-o", tmp_path / "est.mtk.zst").status == 0
    scored = [items_of(mtk("eval", "transcription", "-r", references, "--json", stdin=stream))[0]]
    for name in ("est.mtk", "est.mtk.zst"):
        scored.append(items_of(mtk("eval", "transcription", tmp_path / name, "-r", references, "--json"))[0])
    f1s = [{name: round(item["onset_f1"], 4) for name, item in items.items()} for items in (files, *scored)]
    assert f1s == [{"a": 1.0, "b": 0.6667, "inner/c": 0.6667}] * 4
    assert [files[name]["onset_recall"] for name in files] == [1.0, 0.5, 1.0]


def test_a_folders_readme_is_no_estimate(mtk, references, estimates):
    (estimates / "README.txt").write_text("How these were made")
    assert "README" not in mtk("eval", "transcription", estimates, "-r", references).err
    assert "README" in mtk("eval", "transcription", estimates / "README.txt", "-r", references / "a.mid").err


def test_names_of_strangers_do_not_drive_the_terminal(mtk, references):
    stream = one_item("a\x1b[2J\n", find_scheme("mt3").encode(Score(notes_of(5))))
    table = mtk("eval", "transcription", "-r", references / "a.mid", stdin=stream).out.decode()
    assert table.splitlines()[1].endswith("  a_[2J_")


def test_json_has_every_score_in_full_and_their_mean(mtk, references, estimates):
    result = mtk("eval", "transcription", estimates / "b.mid", "-r", references / "b.tsv", "--json")
    items, record = items_of(result)
    truth, found = notes_of(20), read_midi(estimates / "b.mid").notes
    expected = evaluate(truth, found)
    assert list(items["b"]) == ["item", "reference_notes", "estimated_notes", *METRICS]
    assert {name: items["b"][name] for name in METRICS} == expected == record["mean"]
    assert (items["b"]["reference_notes"], items["b"]["estimated_notes"]) == (20, 10)
    assert record["settings"]["tolerances"]["onset_seconds"] == 0.05
    assert (result.status, record["failed"], record["assertions"]) == (0, [], [])


def test_the_table_has_a_line_an_item_and_their_mean(mtk, references, estimates):
    lines = mtk("eval", "transcription", estimates, "-r", references).out.decode().splitlines()
    assert lines[0].split("  ")[-1] == "item"
    assert [line.split("  ")[-1] for line in lines[1:]] == ["a", "b", "inner/c", "mean of 3"]
    f1 = lines[0].index("onset F1"), lines[0].index("onset F1") + len("onset F1")
    assert [float(line[slice(*f1)]) for line in lines[1:]] == [1.0, 0.6667, 0.6667, 0.7778]


def test_an_item_without_reference_is_named_and_the_others_go_on(mtk, references, estimates):
    result = mtk("eval", "transcription", estimates, "-r", references, "--json")
    items, record = items_of(result)
    assert result.status == 1
    assert list(items) == ["a", "b", "inner/c"]
    assert record["failed"] == [{"item": "d", "code": "no-reference", "message": "there is no reference"}]
    assert "mtk: failed: d: there is no reference" in result.err


def test_items_given_up_earlier_are_named_and_the_others_go_on(mtk, folder):
    result = mtk("eval", "transcription", "-r", folder, "--json", stdin=mtk("tokenize", folder).out)
    assert (result.status, list(items_of(result)[0])) == (1, ["a", "inner/c"])
    assert "mtk: failed: b: no track in this MIDI file" in result.err


def test_a_stream_that_breaks_off_ends_with_3_after_the_items_before(mtk, references, estimates):
    stream = mtk("tokenize", estimates / "a.mid", estimates / "b.mid").out
    result = mtk("eval", "transcription", "-r", references, "--json", stdin=stream[:-20])
    assert result.status == 3
    assert list(items_of(result)[0]) == ["a"]
    assert "the stream ends inside" in result.err


def test_unreadable_files_fail_alone_with_3_and_among_others_with_1(mtk, references, estimates):
    bad = estimates / "b.mid"
    bad.write_bytes(b"MThd")
    alone = mtk("eval", "transcription", bad, "-r", references)
    assert (alone.status, alone.err.splitlines()[0].startswith("mtk: error: ")) == (3, True)
    among = mtk("eval", "transcription", estimates / "a.mid", bad, estimates / "no.mid", "-r", references, "--json")
    assert (among.status, list(items_of(among)[0])) == (1, ["a"])


def test_a_damaged_reference_fails_its_item_alone(mtk, references, estimates):
    (references / "b.tsv").write_text("onset,offset,pitch\n0,1,60\n2,1,60\n")
    stream = mtk("tokenize", estimates / "a.mid", estimates / "b.mid").out
    result = mtk("eval", "transcription", "-r", references, "--json", stdin=stream)
    assert (result.status, list(items_of(result)[0])) == (1, ["a"])
    assert "b.tsv, line 3" in result.err


@pytest.mark.parametrize("jobs", [2, 0])
def test_jobs_change_nothing(mtk, references, estimates, tmp_path, jobs):
    stream = mtk("tokenize", estimates).out
    for given in ((estimates,), ()):
        outputs = []
        for number in (1, jobs):
            pictures = tmp_path / f"{len(given)}-{number}"
            result = mtk(
                "eval", "transcription", *given, "-r", references, "--json", "-j", number, "--plot", f"{pictures}/",
                stdin=stream,
            )  # fmt: skip
            outputs.append([result, {path.name: path.read_bytes() for path in sorted(pictures.rglob("*.png"))}])
        assert outputs[0] == outputs[1]
        assert list(outputs[0][1]) == ["a.png", "b.png", "c.png"]


# ------------------------------------------------------------------------------------------------------------- options


def test_assertions_hold_the_mean_to_account(mtk, references, estimates):
    def run(*conditions):
        options = [word for condition in conditions for word in ("--assert", condition)]
        return mtk("eval", "transcription", estimates / "a.mid", estimates / "b.mid", "-r", references, *options)

    assert run("onset_f1>=0.83", "onset_recall==0.75", "median_onset_error_ms<1").status == 0
    result = run("onset_f1>=0.84", "onset_f1<0.9", "frame_f1>0.99")
    assert result.status == 1
    errors = result.err.splitlines()
    assert errors[0] == "mtk: error: mean onset_f1 is to be >= 0.84, and it is 0.833333 (--assert)"
    assert len(errors) == 2
    assert mtk("eval", "transcription", estimates / "d.mid", "-r", references, "--assert", "onset_f1>=0").status == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--assert", "onset_f>=0.5"), "no such metric"),
        (("--assert", "onset_f1"), "no condition"),
        (("--plot", "x.gif"), "no such kind of picture"),
        (("--plot", "-"), "no such kind of picture"),
        (("--plot", "{who}.png"), "unknown placeholder"),
        (("--onset-tolerance", "-1"), "no tolerance"),
        (("--duration", "0"), "no duration"),
        (("--duration", "inf"), "no duration"),
        (("--scheme", "nonsense"), "no such scheme"),
        (("--device", "abacus"), "no such device"),
    ],
)
def test_wrong_usage_ends_before_any_work(mtk, estimates, options, message):
    result = mtk("eval", "transcription", estimates, "-r", estimates / "nowhere", *options)
    assert (result.status, result.out) == (2, b"")
    assert message in result.err.splitlines()[0]


def test_a_reference_must_be_given_and_be_there(mtk, estimates):
    assert mtk("eval", "transcription", estimates).status == 2
    assert mtk("eval", "transcription", estimates, "-r", estimates / "nowhere").status == 3


def test_one_reference_is_for_one_item(mtk, references, estimates):
    result = mtk("eval", "transcription", estimates, "-r", references / "a.mid")
    assert result.status == 2
    assert "more than one item for one reference" in result.err


def test_tolerances_duration_and_pedal_reach_the_scores(mtk, tmp_path):
    played = Notes.of([0, 1, 5], [0.5, 1.5, 5.5], [60, 62, 64])
    late = played.with_columns(onset_seconds=played.onset_seconds + 0.07)
    (tmp_path / "ref.mid").write_bytes(write_midi(Score(played, pedals=Pedals.of([0.4], [0.9], [0]))))
    (tmp_path / "late.mid").write_bytes(write_midi(Score(late)))

    def run(*options):
        items, _ = items_of(
            mtk("eval", "transcription", tmp_path / "late.mid", "-r", tmp_path / "ref.mid", "--json", *options)
        )
        return items["late"]

    assert run()["onset_f1"] == 0
    wide = run("--onset-tolerance", "0.1")
    assert (wide["onset_f1"], wide["onset_offset_f1"], wide["estimated_notes"]) == (1, 1, 3)
    assert run("--onset-tolerance", "0.1", "--pedal")["onset_offset_f1"] == pytest.approx(2 / 3)
    loose = run("--onset-tolerance", "0.1", "--pedal", "--offset-ratio", "0.5")
    assert loose["onset_offset_f1"] == 1
    assert run("--onset-tolerance", "0.1", "--pedal", "--offset-min-tolerance", "0.45")["onset_offset_f1"] == 1
    part = run("--duration", "3")
    assert (part["reference_notes"], part["estimated_notes"]) == (2, 2)


def test_a_silent_reference_is_pointed_out(mtk, tmp_path, estimates):
    (tmp_path / "silence.tsv").write_text("onset,offset,pitch\n")
    result = mtk("eval", "transcription", estimates / "a.mid", "-r", tmp_path / "silence.tsv", "--json")
    assert (result.status, items_of(result)[1]["mean"]["onset_f1"]) == (0, 0)
    assert "the reference has no notes" in result.err


# ------------------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_picture_is_written_whole_and_kept_unless_forced(mtk, references, estimates, tmp_path, suffix):
    target = tmp_path / f"x.{suffix}"
    command = ("eval", "transcription", estimates / "b.mid", "-r", references, "--plot", target)
    assert mtk(*command).status == 0
    first = target.read_bytes()
    assert mtk(*command).status == 2
    target.write_bytes(b"old")
    assert mtk(*command, "--force").status == 0
    assert target.read_bytes() == first


def test_a_picture_shows_what_the_scores_count(mtk, references, estimates, tmp_path, monkeypatch):
    drawn = {}

    def draw(file, reference, estimate, **options):
        drawn.update(options, notes=(len(reference), len(estimate)))

    monkeypatch.setattr(piano_roll, "draw", draw)
    options = ("--onset-tolerance", "0.1", "--duration", "2", "--plot", tmp_path / "x.PDF")
    assert mtk("eval", "transcription", estimates / "b.mid", "-r", references, *options).status == 0
    assert (drawn["tolerances"].onset_seconds, drawn["notes"], drawn["format"]) == (0.1, (8, 8), "pdf")
    assert drawn["title"].split("     ") == ["b", "onset F1 1.000", "onset+offset F1 1.000", "frame F1 1.000"]


def test_pictures_of_many_go_by_name(mtk, references, estimates, tmp_path):
    (tmp_path / "there").mkdir()
    assert mtk("eval", "transcription", estimates / "a.mid", "-r", references, "--plot", tmp_path / "there").status == 0
    assert (tmp_path / "there" / "a.png").is_file()
    template = tmp_path / "{name}.svg"
    assert mtk("eval", "transcription", estimates, "-r", references, "--plot", template).status == 1  # d
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["a.svg", "b.svg"]
    assert (tmp_path / "inner" / "c.svg").is_file()
    result = mtk("eval", "transcription", estimates, "-r", references, "--plot", tmp_path / "one.svg")
    assert (result.status, "more than one item for one file" in result.err) == (2, True)


def test_without_matplotlib_a_picture_ends_with_4(mtk, references, estimates, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = mtk("eval", "transcription", estimates, "-r", references, "--plot", tmp_path / "x.png")
    assert (result.status, result.out) == (4, b"")
    assert "pip install 'musictool[plot]'" in result.err
    assert mtk("eval", "transcription", estimates / "a.mid", "-r", references).status == 0


# --------------------------------------------------------------------------------------------------------------- sound


def test_sound_is_transcribed_and_lists_beside_it_are_references(mtk, references, monkeypatch):
    for name in ("a", "b"):
        (references / f"{name}.flac").write_bytes(b"fLaC")
    heard = []

    def listener(model, adapter, device, precision, environment):
        heard.append((model, adapter, device, precision.value))
        return lambda path: heard.append(path.name) or Score(notes_of(40))

    monkeypatch.setattr(eval_transcription, "_listener", listener)
    result = mtk("eval", "transcription", references, "-r", references, "--json", "--device", "cpu")
    assert heard == [("note-tagger", None, "cpu", "fp32"), "a.flac", "b.flac"]
    assert {name: item["onset_recall"] for name, item in items_of(result)[0].items()} == {"a.flac": 1, "b.flac": 1}
    assert result.err.count("left out, since it is its own reference") == 3
    assert result.status == 0


def test_sound_that_cannot_be_read_fails_alone_with_3_and_among_others_with_1(mtk, references, monkeypatch):
    (references / "b.wav").write_bytes(b"no sound")

    def listen(path):
        raise InputError("unreadable audio", context=str(path))

    monkeypatch.setattr(eval_transcription, "_listener", lambda *_: listen)
    assert mtk("eval", "transcription", references / "b.wav", "-r", references).status == 3
    result = mtk("eval", "transcription", references / "b.wav", references / "b.wav", "-r", references)
    assert (result.status, result.err.count("mtk: failed: ")) == (1, 2)


# ------------------------------------------------------------------------------------------------- in real processes


def test_a_pipe_is_read_as_it_comes(references, estimates):
    """An item's line is there before the next item is."""
    command = [sys.executable, "-m", "musictool"]
    streams = [
        subprocess.run([*command, "tokenize", path], capture_output=True, check=True).stdout
        for path in (estimates / "a.mid", estimates / "b.mid")
    ]
    evaluate = [*command, "eval", "transcription", "-r", str(references)]
    with subprocess.Popen(evaluate, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        impatience = threading.Timer(30, process.kill)
        impatience.start()
        process.stdin.write(streams[0])
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"item\n")
        assert process.stdout.readline().endswith(b"  a\n")
        process.stdin.write(streams[1])
        process.stdin.close()
        assert [line.split()[-1] for line in process.stdout] == [b"b", b"2"]
        assert (process.wait(60), process.stderr.read()) == (0, b"")
        impatience.cancel()


@pytest.mark.skipif(not SHARED, reason="MTK_TEST_SHARED is not set")
def test_the_published_models_tokens_pass_at_its_published_scores(mtk):
    tokens = json.loads((Path(SHARED) / "references/mt3/tokens_greedy_fp32.json").read_text())
    stream = b"".join(one_item(name, np.concatenate(segments)) for name, segments in tokens.items())
    recordings = Path(SHARED) / "data/recordings/maps-dev"
    result = mtk(
        "eval", "transcription", "-r", recordings, "--json", "--assert", "onset_f1>=0.776", stdin=stream
    )  # fmt: skip
    mean = items_of(result)[1]["mean"]
    assert result.status == 0
    assert (mean["onset_f1"], mean["onset_offset_f1"]) == pytest.approx((0.7791, 0.4675), abs=0.003)
