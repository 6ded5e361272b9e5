"""`mtk transfer` as a whole command, with a small random model."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.stream.reader import StreamReader
from musictool.stream.records import ItemFailed
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score, Track
from musictool.symbolic.schemes import SCHEMES, find_scheme, lookup_events
from tests.small_models import install_small_mt3, install_small_tatumflow

EXAMPLES = Path(__file__).parents[2] / "examples"
WALTZ = EXAMPLES / "waltz.mid"
JAZZ = ("--style", "jazz", "--steps", 3)

Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A store that holds the small model as `tatumflow`."""
    home = tmp_path_factory.mktemp("home")
    install_small_tatumflow(home)
    install_small_mt3(home)
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
def pieces(tmp_path) -> Path:
    """Three pieces for piano and one for violin."""
    folder = tmp_path / "pieces"
    folder.mkdir()
    for number, name in enumerate("abc"):
        (folder / f"{name}.mid").write_bytes(write_midi(tune(6.0 + number, number)))
    violin = tune(3.0, 3)
    violin = Score(violin.notes.with_columns(program=np.full(len(violin.notes), 40, np.int16)), (Track("violin", 40),))
    (folder / "v.mid").write_bytes(write_midi(violin))
    return folder


def tune(seconds: float, seed: int = 0) -> Score:
    generator = np.random.default_rng(seed)
    onset = np.arange(0, seconds, 0.25)
    return Score(Notes.of(onset, onset + 0.2, generator.integers(40, 80, len(onset)), 70).sorted())


def items(stream: bytes) -> dict[str, tuple[dict, np.ndarray | str]]:
    """Each item's head and ids, or why it failed; the stream is checked as it is read."""
    found = {}
    for item in StreamReader(io.BytesIO(stream), lookup_events, "test"):
        try:
            ids: np.ndarray | str = np.concatenate([np.zeros(0, np.int32), *item.chunks()])
        except ItemFailed as error:
            ids = error.message
        found[item.head.item] = item.head.to_json(), ids
    return found


def ids_of(stream: bytes) -> dict[str, list[int] | str]:
    return {name: ids if isinstance(ids, str) else ids.tolist() for name, (_, ids) in items(stream).items()}


def notes_of(ids: np.ndarray, scheme: str = "tatum") -> Notes:
    return find_scheme(scheme).decode([ids]).notes


def rows(notes: Notes) -> list[tuple]:
    columns = notes.onset_seconds.round(2), notes.offset_seconds.round(2), notes.pitch, notes.program, notes.is_drum
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


# ------------------------------------------------------------------------------------------------ what comes out of it


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stream_stays_in_its_scheme_and_keeps_all_but_the_piano(run, scheme):
    source = run("tokenize", WALTZ, "--scheme", scheme)[1]
    status, stream, errors = run("transfer", *JAZZ, stdin=source)
    assert (status, errors) == (0, "")
    before, ids = items(source)["waltz"]
    after, made = items(stream)["waltz"]
    assert (after["vocab"], after["meta"], after["number"]) == (scheme, before["meta"], 1)
    was, now = (notes_of(some, scheme) for some in (ids, made))
    are_others = [(notes.program != 0) | notes.is_drum for notes in (was, now)]
    assert rows(now.take(are_others[1])) == rows(was.take(are_others[0]))
    assert rows(now) != rows(was)
    assert now.end_seconds <= was.end_seconds + 0.1


def test_metre_names_and_words_reach_the_midi_file(run, tmp_path):
    run("decode", "-o", tmp_path / "x.mid", stdin=run("transfer", WALTZ, *JAZZ)[1])
    source, made = read_midi(WALTZ), read_midi(tmp_path / "x.mid")
    assert {(t.name, t.program, t.is_drum) for t in made.tracks} == {
        (t.name, t.program, t.is_drum) for t in source.tracks
    }
    assert [s.numerator for s in made.time_signatures] == [3]
    assert made.key_signatures == source.key_signatures
    assert [lyric.text for lyric in made.lyrics] == ["One", "two", "three"]
    np.testing.assert_array_equal(made.tempo_map.start_quarters, source.tempo_map.start_quarters)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_strength_0_gives_the_tokens_back(run, scheme):
    options = ("--style", 3) if scheme == "tatum" else ()
    source = run("tokenize", WALTZ, "--scheme", scheme, *options)[1]
    status, stream, errors = run("transfer", *JAZZ, "--strength", 0, stdin=source)
    assert (status, errors) == (0, "")
    assert ids_of(stream) == ids_of(source)


def test_a_midi_file_gives_what_its_stream_gives(run):
    for scheme in SCHEMES:
        stream = run("transfer", *JAZZ, stdin=run("tokenize", WALTZ, "--scheme", scheme)[1])[1]
        assert run("transfer", WALTZ, *JAZZ, "--scheme", scheme)[1] == stream
    assert (
        ids_of(run("transfer", *JAZZ, stdin=WALTZ.read_bytes())[1])["stdin"]
        == ids_of(run("transfer", WALTZ, *JAZZ)[1])["waltz"]
    )


def test_a_miditok_stream_stays_one(run, tmp_path):
    miditok = pytest.importorskip("miditok")
    path = tmp_path / "own.json"
    miditok.REMI(miditok.TokenizerConfig(use_programs=True)).save(path)
    name = f"miditok:{path}"
    source = run("tokenize", WALTZ, "--scheme", name)[1]
    status, stream, errors = run("transfer", *JAZZ, "--scheme", name, stdin=source)
    assert (status, errors) == (0, "")
    assert b'"vocab":"miditok"' in stream
    assert run("decode", "--scheme", name, "-o", tmp_path / "x.mid", stdin=stream)[0] == 0
    status, _, errors = run("transfer", *JAZZ, stdin=source)
    assert status == 3
    assert "--scheme miditok:FILE.json" in errors


def test_the_head_says_what_was_done(run):
    options = ("--keep", "none", "--seed", 7, "--instruments", "piano,bass", "--eta", 0.5, "--guidance", 2)
    stream = run("transfer", *JAZZ, *options, stdin=run("tokenize", WALTZ)[1])[1]
    head, _ = items(stream)["waltz"]
    first, stage = head["made"]
    assert first["command"] == "tokenize"
    assert len(stage.pop("model_sha256")) == 64
    del stage["version"]
    assert stage == {
        "command": "transfer",
        "model": "tatumflow",
        "style": "jazz",
        "strength": 0.7,
        "keep": [],
        "steps": 3,
        "guidance": 2.0,
        "eta": 0.5,
        "temperature": 0.5,
        "seed": 7,
        "instruments": "piano,bass",
    }
    source = run("tokenize", WALTZ)[1].splitlines()[-1]
    assert json.loads(stream.splitlines()[-1])["source_sha"] == json.loads(source)["sha"]


def test_tokens_by_name_are_the_same_tokens(run):
    by_name = run("transfer", WALTZ, *JAZZ, "--names")[1]
    assert b'"w":[' in by_name
    assert ids_of(by_name) == ids_of(run("transfer", WALTZ, *JAZZ)[1])


def test_an_item_without_a_piano_passes_with_one_warning(run, pieces):
    source = run("tokenize", pieces / "v.mid")[1]
    status, stream, errors = run("transfer", *JAZZ, stdin=source)
    assert (status, ids_of(stream)) == (0, ids_of(source))
    assert errors.splitlines() == [
        "mtk: warning: no piano plays in it: it stays as it is (v)",
        "hint: --instruments all takes every instrument but drums",
    ]
    status, stream, errors = run("transfer", *JAZZ, "--instruments", "all", stdin=source)
    assert (status, errors) == (0, "")
    assert ids_of(stream) != ids_of(source)
    assert set(notes_of(items(stream)["v"][1]).program.tolist()) == {40}


@pytest.mark.parametrize("notes", [Notes.empty(), Notes.of([0.0], [1.0], [36], is_drum=True)], ids=["empty", "drums"])
def test_an_item_without_notes_to_carry_over_passes_with_one_warning(run, notes):
    source = run("tokenize", stdin=write_midi(Score(notes, (Track("", 0, bool(len(notes))),))))[1]
    status, stream, errors = run("transfer", *JAZZ, stdin=source)
    assert (status, ids_of(stream)) == (0, ids_of(source))
    assert errors == "mtk: warning: there is no note to carry over (stdin)\n"


# ------------------------------------------------------------------------------------------------- what it depends on


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(run, pieces):
    stream = run("transfer", pieces, *JAZZ)[1]
    assert run("transfer", pieces, *JAZZ)[1] == stream
    assert ids_of(run("transfer", pieces, *JAZZ, "--seed", 1)[1])["a"] != ids_of(stream)["a"]


def test_items_do_not_depend_on_their_neighbours(run, pieces):
    together = ids_of(run("transfer", pieces, *JAZZ)[1])
    for name in "abc":
        assert ids_of(run("transfer", pieces / f"{name}.mid", *JAZZ)[1])[name] == together[name]
    stream = run("tokenize", pieces / "c.mid", pieces / "a.mid")[1]
    assert ids_of(run("transfer", *JAZZ, stdin=stream)[1]) == {name: together[name] for name in "ca"}


def test_the_style_of_a_file_and_a_mix_are_styles(run, pieces, tmp_path):
    (tmp_path / "like.mtk").write_bytes(run("tokenize", pieces / "b.mid", "--scheme", "remi")[1])
    found = {}
    for name, options in {
        "jazz": ("--style", "jazz"),
        "all jazz": ("--mix", "jazz=2"),
        "mix": ("--mix", "jazz=0.7,classical=0.3"),
        "midi": ("--style", pieces / "b.mid"),
        "stream": ("--style", tmp_path / "like.mtk"),
        "other": ("--style", pieces / "c.mid"),
    }.items():
        status, stream, errors = run("transfer", pieces / "a.mid", "--steps", 3, "--temperature", 1, *options)
        assert (status, errors) == (0, "")
        found[name] = items(stream)["a"]
    tokens = {name: tuple(ids.tolist()) for name, (_, ids) in found.items()}
    assert tokens["jazz"] == tokens["all jazz"]
    assert len({tokens[name] for name in ("jazz", "mix", "midi", "other")}) == 4
    stages = {name: head["made"][-1] for name, (head, _) in found.items()}
    assert stages["mix"]["mix"] == {"jazz": 0.7, "classical": 0.3}
    assert "style" not in stages["mix"]
    assert stages["midi"]["style"] == "b.mid"
    assert stages["midi"]["style_sha256"] == hashlib.sha256((pieces / "b.mid").read_bytes()).hexdigest()


def test_factors_are_borrowed_with_a_style_and_without(run, pieces, tmp_path):
    (tmp_path / "donor.mtk").write_bytes(run("tokenize", pieces / "b.mid", "--scheme", "mt3")[1])
    made = {}
    for name, options in {
        "style": ("--style", "jazz"),
        "both": ("--style", "jazz", "--borrow", f"dynamics={pieces / 'b.mid'}"),
        "alone": ("--borrow", f"dynamics={pieces / 'b.mid'}"),
        "two": ("--borrow", f"dynamics={pieces / 'b.mid'}", "--borrow", f"rhythm={tmp_path / 'donor.mtk'}"),
    }.items():
        status, stream, errors = run("transfer", pieces / "a.mid", "--steps", 3, *options)
        assert (status, errors) == (0, "")
        made[name] = items(stream)["a"]
    assert len({tuple(ids.tolist()) for _, ids in made.values()}) == 4
    stage = made["two"][0]["made"][-1]
    assert stage["borrow"]["rhythm"]["name"] == "donor.mtk"
    assert stage["borrow"]["dynamics"]["sha256"] == hashlib.sha256((pieces / "b.mid").read_bytes()).hexdigest()
    assert "style" not in stage


def test_a_donor_that_cannot_be_borrowed_from_is_said_in_one_line(run, pieces, tmp_path):
    (tmp_path / "silent.mid").write_bytes(write_midi(Score()))
    (tmp_path / "two.mtk").write_bytes(run("tokenize", pieces / "a.mid", pieces / "b.mid")[1])
    for options, expected, message in (
        (("rhythm=nowhere.mid",), 3, "no such file or directory (nowhere.mid)"),
        ((f"rhythm={tmp_path / 'silent.mid'}",), 3, "there is no note to borrow rhythm from"),
        (
            (f"rhythm={tmp_path / 'two.mtk'}",),
            3,
            "there is no one piece to borrow rhythm from: it holds several pieces",
        ),
        ((f"rythm={WALTZ}",), 2, "no such factor: 'rythm'"),
        (("rhythm",), 2, "no factor and file: 'rhythm'"),
        ((f"rhythm={WALTZ}", f"rhythm={WALTZ}"), 2, "rhythm is borrowed twice"),
    ):
        borrowed = [word for option in options for word in ("--borrow", option)]
        status, stream, errors = run("transfer", WALTZ, *borrowed)
        assert (status, stream) == (expected, b"")
        assert message in errors.splitlines()[0]
        assert errors.count("mtk: ") == 1


# -------------------------------------------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    ("options", "status", "message", "hint"),
    [
        ((), 2, "no style is asked for", "--style jazz"),
        (("--style", "jazz", "--mix", "pop=1"), 2, "--style and --mix contradict each other", ""),
        (
            ("--style", "jaz"),
            2,
            "no such style: 'jaz'",
            "did you mean jazz? the model knows pop, classical, jazz, game",
        ),
        (("--style", "polka"), 2, "no such style: 'polka'", "the model knows pop, classical, jazz, game"),
        (("--style", ""), 2, "no such style: ''", "the model knows"),
        (("--mix", "jazz=0.5,polka=0.5"), 2, "no such style: 'polka'", "the model knows"),
        (("--mix", "jazz"), 2, "no share of a style: 'jazz'", "jazz=0.7,classical=0.3"),
        (("--mix", "jazz=0"), 2, "the shares of a mix are 0 or more, and not all of them 0", ""),
        (("--style", EXAMPLES), 3, f"is a directory ({EXAMPLES})", ""),
        (("--style", "nowhere.mid"), 3, "no such file or directory (nowhere.mid)", ""),
        ((*JAZZ, "--strength", "2"), 2, "strength is from 0 to 1, not 2", ""),
        ((*JAZZ, "--strength", "much"), 2, "strength", ""),
        (
            (*JAZZ, "--keep", "harmony,melodie"),
            2,
            "no such factor: 'melodie'",
            "did you mean melody? factors are chords, harmony,",
        ),
        ((*JAZZ, "--steps", "0"), 2, "steps is from 1 to 1000, not 0", ""),
        ((*JAZZ, "--eta", "2"), 2, "eta is from 0 to 1, not 2", ""),
        ((*JAZZ, "--temperature", "nan"), 2, "temperature is from 0 to 10, not nan", ""),
        ((*JAZZ, "--instruments", "kazoo"), 2, "no such instrument: 'kazoo'", ""),
        ((*JAZZ, "--instruments", "drums"), 2, "drums cannot be carried over to a piano", "leave them out"),
        ((*JAZZ, "--scheme", "tatun"), 2, "no such scheme: 'tatun'", "tatum"),
        ((*JAZZ, "--model", "tatumflaw"), 4, "no model named 'tatumflaw'", ""),
        ((*JAZZ, "--model", "mt3"), 2, "mt3 is no model that transfers style", "use --model tatumflow"),
        ((*JAZZ, "--device", "cuda:99"), 5, "no such device: cuda:99", ""),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, options, status, message, hint):
    got, stream, errors = run("transfer", WALTZ, *options)
    assert (got, stream) == (status, b"")
    assert message in errors.splitlines()[0]
    assert errors.count("mtk: ") == 1
    assert hint in errors


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("broken.mid", b"MThd, but no more of it", "broken.mid"),
        ("silent.mid", write_midi(Score()), "there is no note to learn a style from"),
        ("broken.mtk", b'{"mtk":1', "the stream ends inside a line"),
    ],
)
def test_a_style_file_that_cannot_be_read_is_said_in_one_line(run, tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    status, stream, errors = run("transfer", WALTZ, "--style", path)
    assert (status, stream) == (3, b"")
    assert message in errors.splitlines()[0]
    assert name in errors.splitlines()[0]
    assert errors.count("mtk: ") == 1


def test_a_failed_item_among_the_style_is_no_style(run, tmp_path):
    (tmp_path / "like.mtk").write_bytes(run("tokenize", stdin=b"MThd, but no more of it")[1])
    status, _, errors = run("transfer", WALTZ, "--style", tmp_path / "like.mtk")
    assert status == 3
    assert "item 'stdin'" in errors.splitlines()[0]


def test_failed_items_travel_through_and_the_others_go_on(run, pieces):
    (pieces / "bad.mid").write_bytes(b"MThd, but no more of it")
    source = run("tokenize", pieces)[1]
    status, stream, errors = run("transfer", *JAZZ, stdin=source)
    assert status == 1
    assert "mtk: failed: bad: " in errors
    assert list(items(stream)) == ["a", "b", "bad", "c", "v"]
    assert items(stream)["bad"][1] == items(source)["bad"][1]
    assert run("transfer", pieces, *JAZZ)[0] == 1
    assert run("transfer", pieces / "bad.mid", *JAZZ)[0] == 3


def test_meta_that_makes_no_sense_fails_its_item(run):
    fingerprint = find_scheme("tatum").vocabulary.fingerprint
    head = f'{{"mtk":1,"item":"x","kind":"events","vocab":"tatum","vocab_sha":"{fingerprint}","meta":{{"tempo":3}}}}'
    end = f'{{"end":1,"n":0,"sha":"{hashlib.sha256(b"").hexdigest()}"}}'
    status, stream, errors = run("transfer", *JAZZ, stdin=f"{head}\n{end}\n".encode())
    assert status == 1
    assert "mtk: failed: x: meta 'tempo' makes no sense" in errors
    assert "makes no sense" in items(stream)["x"][1]


def test_a_stream_that_breaks_off_never_passes_for_a_whole_one(run, pieces, tmp_path):
    source = run("tokenize", pieces / "a.mid", pieces / "b.mid")[1]
    for length in range(0, len(source), 97):
        status, stream, errors = run("transfer", *JAZZ, "--strength", 0, stdin=source[:length])
        assert status == 3
        assert errors.splitlines()[0].startswith("mtk: error: ")
        assert run("decode", "-o", f"{tmp_path}/{length}/", stdin=stream)[0] != 0
    path = tmp_path / "x.mtk"
    assert run("transfer", *JAZZ, "-o", path, stdin=source[:-20])[0] == 3
    assert not path.exists()


def test_a_broken_stream_among_others_fails_alone(run, pieces, tmp_path):
    several = run("tokenize", pieces / "b.mid", pieces / "c.mid")[1]
    for name, data in {
        "one": run("tokenize", pieces / "a.mid")[1],
        "two": several[: several.index(b'{"end"')],
        "three": run("tokenize", pieces / "v.mid")[1],
    }.items():
        (tmp_path / f"{name}.mtk").write_bytes(data)
    status, stream, errors = run("transfer", *(tmp_path / f"{n}.mtk" for n in ("one", "two", "three")), *JAZZ)
    assert status == 3
    assert "mtk: failed: two: " in errors
    assert {name: isinstance(ids, str) for name, ids in ids_of(stream).items()} == {"a": False, "b": True, "v": False}


# ------------------------------------------------------------------------------------------------------------- files


def test_each_item_gets_a_stream_of_its_own_and_a_batch_goes_on_where_it_stopped(run, pieces, tmp_path):
    folder = tmp_path / "out"
    whole = ids_of(run("transfer", pieces, *JAZZ)[1])
    assert run("transfer", pieces, *JAZZ, "-o", f"{folder}/")[0] == 0
    for name in "abcv":
        assert ids_of((folder / f"{name}.mtk").read_bytes()) == {name: whole[name]}
    assert run("transfer", pieces, *JAZZ, "-o", f"{folder}/")[0] == 2  # they exist
    (folder / "b.mtk").unlink()
    before = (folder / "a.mtk").stat().st_mtime_ns
    assert run("transfer", *JAZZ, "-o", f"{folder}/", "--skip-existing", stdin=run("tokenize", pieces)[1])[0] == 0
    assert (folder / "b.mtk").exists()
    assert (folder / "a.mtk").stat().st_mtime_ns == before
    assert run("transfer", pieces, *JAZZ, "-o", f"{folder}/", "--force")[0] == 0


def test_a_name_that_leaves_the_folder_fails_its_item(run, pieces, tmp_path):
    stream = run("tokenize", pieces / "a.mid")[1].replace(b'"item":"a"', b'"item":"../a"').replace(b'"sealed":1,', b"")
    lines = stream.splitlines(keepends=True)
    lines[-1] = lines[-1].split(b',"seal"')[0] + b"}\n"
    status, _, errors = run("transfer", *JAZZ, "-o", f"{tmp_path}/out/", stdin=b"".join(lines))
    assert status == 1
    assert "no name for a file" in errors


def test_shards_share_the_files(run, pieces):
    found = [ids_of(run("transfer", pieces, *JAZZ, "--shard", f"{k}/2")[1]) for k in (1, 2)]
    assert [list(part) for part in found] == [["a", "c"], ["b", "v"]]


def test_a_compressed_stream_is_read_and_written(run, pieces, tmp_path):
    run("tokenize", pieces / "a.mid", "-o", tmp_path / "in.mtk.zst")
    assert run("transfer", tmp_path / "in.mtk.zst", *JAZZ, "-o", tmp_path / "out.mtk.gz")[0] == 0
    assert (tmp_path / "out.mtk.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert run("validate", tmp_path / "out.mtk.gz")[0] == 0


def test_machines_are_told_how_far_the_run_is(run, pieces):
    _, _, errors = run("transfer", pieces / "a.mid", *JAZZ, "--log", "json")
    end = [json.loads(line) for line in errors.splitlines()][-1]
    assert (end["event"], end["label"]) == ("end", "transfer")
    assert end["audio_seconds"] == pytest.approx(end["total_seconds"], abs=0.3)


# --------------------------------------------------------------------------------------------------- real processes


@pytest.fixture
def process(home) -> Iterator[subprocess.Popen]:
    """`mtk transfer` on a pipe."""
    command = [sys.executable, "-m", "musictool", "transfer", *map(str, JAZZ)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, "MTK_HOME": str(home)}, **pipes) as process:
        yield process


def test_an_item_leaves_before_the_next_one_comes(process, run, pieces):
    source = run("tokenize", pieces / "a.mid", pieces / "b.mid")[1]
    second = source.index(b'{"mtk"', 1)
    process.stdin.write(source[: source.index(b"\n") + 1])
    process.stdin.flush()
    lines = [process.stdout.readline()]  # blocks for ever if the head waits for the tokens
    assert json.loads(lines[0])["item"] == "a"
    process.stdin.write(source[source.index(b"\n") + 1 : second])
    process.stdin.flush()
    while b'"end"' not in lines[-1]:
        lines.append(process.stdout.readline())
    rest, errors = process.communicate(source[second:], timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert list(items(b"".join(lines) + rest)) == ["a", "b"]


def test_a_signal_ends_the_run_and_leaves_no_file(home, run, pieces, tmp_path):
    target = tmp_path / "out.mtk"
    command = [sys.executable, "-m", "musictool", "transfer", *map(str, JAZZ), "-o", str(target)]
    environ = {**os.environ, "MTK_HOME": str(home)}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(run("tokenize", pieces / "a.mid")[1][:-20])
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143, process.stderr.read()
        process.stdin.close()
    assert [path.name for path in tmp_path.iterdir()] == ["pieces"]
