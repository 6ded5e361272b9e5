"""`mtk validate`: every kind of input, every exit status, and memory that does not grow with an item."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zstandard

from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.commands import validate
from musictool.inference.code_corpus import CodeCorpusWriter
from musictool.inference.coded_sound import WholeCodes
from musictool.stream.records import CodeChunk, Failure, Head
from musictool.stream.writer import StreamWriter
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.schemes import SCHEMES, find_scheme
from musictool.validation.streams import IDS_A_BATCH

Mtk = Callable[..., "object"]

SCORE = Score(Notes.of([0, 1, 2, 3], [1, 2, 3, 4.5], [60, 62, 64, 65]))
OTHER = Score(Notes.of([0, 1, 2, 3], [1, 2, 3, 4.5], [60, 62, 64, 66]))


def stream_of(*scores: Score, scheme: str = "tatum", copies: int = 1) -> bytes:
    """A stream of items i0, i1, …, each of the ids of a score some times over."""
    chosen, sink = find_scheme(scheme), io.BytesIO()
    writer = StreamWriter(sink)
    for number, score in enumerate(scores):
        head = Head(f"i{number}", "events", scheme, chosen.vocabulary.fingerprint, number=number + 1, of=len(scores))
        with writer.item(head) as item:
            for _ in range(copies):
                item.write(chosen.encode(score))
    return sink.getvalue()


def records(result) -> list[dict]:
    return [json.loads(line) for line in result.out.splitlines()]


def found(result) -> list[dict[str, str]]:
    """The findings of each item as rule -> severity."""
    return [{f["rule"]: f["severity"] for f in record["findings"]} for record in records(result)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two good files, a third with the content of the first, and one that hangs."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.mid").write_bytes(write_midi(SCORE))
    (folder / "b.mid").write_bytes(write_midi(OTHER))
    (folder / "c.mid").write_bytes(write_midi(SCORE) + b"XXXX\0\0\0\0")
    (folder / "d.mid").write_bytes(hanging())
    return folder


def hanging() -> bytes:
    """A file of one note that nothing ends."""
    body = b"\0\x90\x40\x40\x60\xff\x2f\0"
    return b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk" + len(body).to_bytes(4, "big") + body


# ------------------------------------------------------------------------------------------------------------- MIDI


def test_a_good_file_is_good(mtk: Mtk, waltz: Path):
    result = mtk("validate", waltz)
    assert result.status == 0, result.err
    header, row, summary = result.out.decode().splitlines()
    assert header.split() == ["kind", "seconds", "notes", "tokens", "item", "findings"]
    assert row.split()[:2] == ["ok", "midi"]
    assert summary == "1 item: 1 good, 0 bad"


def test_findings_end_with_status_1_and_lists_part_the_good_from_the_bad(mtk: Mtk, corpus: Path, tmp_path: Path):
    result = mtk("validate", corpus, "--good", tmp_path / "good.txt", "--bad", tmp_path / "bad.txt", "--json")
    assert result.status == 1
    assert [record["ok"] for record in records(result)] == [True, True, False, False]
    assert found(result) == [{}, {}, {"duplicates": "error"}, {"hanging": "error"}]
    assert (tmp_path / "good.txt").read_text().split() == [str(corpus / "a.mid"), str(corpus / "b.mid")]
    assert (tmp_path / "bad.txt").read_text().split() == [str(corpus / "c.mid"), str(corpus / "d.mid")]
    assert result.err == "mtk: note: 4 items: 2 good, 2 bad; duplicates 1, hanging 1\n"


def test_facts_are_those_of_the_file(mtk: Mtk, tmp_path: Path):
    (tmp_path / "a.mid").write_bytes(write_midi(SCORE))
    (record,) = records(mtk("validate", tmp_path / "a.mid", "--json"))
    facts = record["facts"]
    assert (record["name"], record["path"], record["kind"]) == ("a", str(tmp_path / "a.mid"), "midi")
    assert (facts["notes"], facts["duration_seconds"], facts["programs"]) == (4, 4.5, [0])
    assert (facts["lowest_pitch"], facts["highest_pitch"], facts["has_drums"]) == (60, 65, False)


def test_processes_change_nothing(mtk: Mtk, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (corpus / "e.mtk").write_bytes(stream_of(SCORE, OTHER, SCORE))
    (corpus / "f.mid").write_bytes(b"nothing")
    monkeypatch.setattr(validate, "REPORTS_HELD", 2)  # so that the stream's go by way of a file
    alone, together = (mtk("validate", corpus, "--json", "--jobs", jobs) for jobs in (1, 3))
    assert alone == together
    assert len(records(alone)) == 8


def test_shards_share_the_inputs(mtk: Mtk, corpus: Path):
    names = [[r["name"] for r in records(mtk("validate", corpus, "--json", "--shard", f"{k}/2"))] for k in (1, 2)]
    assert names == [["a", "c"], ["b", "d"]]


def test_an_unreadable_file_among_several_is_a_finding(mtk: Mtk, folder: Path):
    result = mtk("validate", folder, "--json", "--set", "duplicates.max=9")
    assert result.status == 1
    assert found(result)[1] == {"unreadable": "error"}
    assert [record["ok"] for record in records(result)] == [True, False, True]


def test_an_only_input_that_is_unreadable_ends_with_status_3_and_one_line(mtk: Mtk, folder: Path, tmp_path: Path):
    result = mtk("validate", folder / "b.mid", "--bad", tmp_path / "bad.txt")
    assert result.status == 3
    (line, *hint) = result.err.splitlines()
    assert line.startswith("mtk: error: ")
    assert str(folder / "b.mid") in line
    assert all(other.startswith("hint: ") for other in hint)
    assert (tmp_path / "bad.txt").read_text() == f"{folder / 'b.mid'}\n"


def test_an_input_that_is_not_there_is_a_finding_among_others(mtk: Mtk, waltz: Path, tmp_path: Path):
    result = mtk("validate", waltz, tmp_path / "no.mid", "--json")
    assert result.status == 1
    assert found(result)[1] == {"unreadable": "error"}
    assert mtk("validate", tmp_path / "no.mid").status == 3


def test_warnings_fail_only_if_strict(mtk: Mtk, tmp_path: Path):
    overlapping = Score(Notes.of([0, 0.5], [1, 2], [60, 60]))
    (tmp_path / "a.mid").write_bytes(write_midi(overlapping))
    assert mtk("validate", tmp_path / "a.mid").status == 0
    strict = mtk("validate", tmp_path / "a.mid", "--strict", "--json")
    assert strict.status == 1
    assert found(strict) == [{"overlapping": "warning"}]
    assert not records(strict)[0]["ok"]


# ------------------------------------------------------------------------------------------------------------ rules


def test_rules_come_from_a_file_and_single_ones_from_the_line(mtk: Mtk, tmp_path: Path):
    (tmp_path / "a.mid").write_bytes(write_midi(SCORE))
    (tmp_path / "rules.toml").write_text("[notes]\nmin = 5\n[instruments]\nallowed = ['strings']\n")
    rules = "--rules", tmp_path / "rules.toml"
    result = mtk("validate", tmp_path / "a.mid", *rules, "--json")
    assert found(result) == [{"notes": "error", "instruments": "error"}]
    result = mtk(
        "validate", tmp_path / "a.mid", *rules, "--set", "notes.min=4", "--set", 'instruments.allowed=["piano"]'
    )
    assert result.status == 0
    result = mtk("validate", tmp_path / "a.mid", "--set", "notes.min=5", "--set", "notes.severity=warning", "--json")
    assert result.status == 0
    assert found(result) == [{"notes": "warning"}]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("nots.min=5", "did you mean 'notes'?"),
        ("notes.minimum=5", "did you mean 'notes.min'?"),
        ("notes.min=many", "'notes.min' is 'many', not a number"),
        ("notes", "no setting"),
        ("instruments.allowed=['pianos']", "'instruments': 'pianos' is no program"),
        ("notes={min = 3, max = 2}", "min 3 is over max 2"),
    ],
)
def test_rules_that_make_no_sense_are_wrong_usage(mtk: Mtk, waltz: Path, setting: str, words: str):
    result = mtk("validate", waltz, "--set", setting)
    assert result.status == 2
    assert words in result.err


def test_the_rules_for_training_are_rules(mtk: Mtk, tmp_path: Path):
    path = Path(__file__).parents[2] / "examples" / "rules" / "training.toml"
    (tmp_path / "a.mid").write_bytes(write_midi(SCORE))
    result = mtk("validate", tmp_path / "a.mid", "--rules", path, "--json")
    assert found(result) == [{"duration": "error", "notes": "error", "pitches": "warning"}]


def test_lists_that_exist_are_kept_unless_forced(mtk: Mtk, waltz: Path, tmp_path: Path):
    listed = tmp_path / "good.txt"
    listed.write_text("old")
    assert mtk("validate", waltz, "--good", listed).status == 2
    assert listed.read_text() == "old"
    assert mtk("validate", waltz, "--good", listed, "--force").status == 0
    assert listed.read_text() == f"{waltz}\n"
    assert mtk("validate", waltz, "--good", listed, "--bad", listed, "--force").status == 2


# ---------------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stream_has_the_facts_of_its_notes(mtk: Mtk, waltz: Path, scheme: str):
    score = read_midi(waltz)
    result = mtk("validate", "--json", stdin=stream_of(score, scheme=scheme))
    (record,) = records(result)
    facts = record["facts"]
    kept, pedals = find_scheme(scheme).quantize(score)
    assert (record["name"], record["path"], record["kind"], record["ok"]) == ("i0", None, "stream", True)
    assert facts["tokens"] == len(find_scheme(scheme).encode(score))
    assert facts["notes"] == len(kept)
    assert facts["duration_seconds"] == max(kept.end_seconds, pedals.offset_seconds.max(initial=0))
    assert facts["programs"] == np.unique(kept.program[~kept.is_drum]).tolist()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_item_of_many_batches_has_the_notes_of_all(mtk: Mtk, waltz: Path, scheme: str):
    score = read_midi(waltz)
    copies = 3 * IDS_A_BATCH // len(find_scheme(scheme).encode(score))
    (record,) = records(mtk("validate", "--json", stdin=stream_of(score, scheme=scheme, copies=copies)))
    assert record["facts"]["tokens"] > 2 * IDS_A_BATCH
    assert record["facts"]["notes"] == copies * len(find_scheme(scheme).quantize(score)[0])


def test_items_with_the_same_tokens_are_duplicates(mtk: Mtk):
    result = mtk("validate", "--json", stdin=stream_of(SCORE, OTHER, SCORE))
    assert result.status == 1
    assert found(result) == [{}, {}, {"duplicates": "error"}]
    assert records(result)[2]["findings"][0]["message"] == "same content as i0"


@pytest.mark.parametrize("scheme", ["tatum", "mt3"])
def test_a_note_that_no_token_ends_hangs(mtk: Mtk, scheme: str):
    vocabulary = find_scheme(scheme).vocabulary
    names = {
        "tatum": ["NoteOn_60", "Time_100"],
        "mt3": ["Tie", "Shift_1", "Program_0", "Velocity_1", "Pitch_60", "End"],
    }
    sink = io.BytesIO()
    with StreamWriter(sink).item(Head("x", "events", scheme, vocabulary.fingerprint)) as item:
        item.write(vocabulary.ids(names[scheme]))
    result = mtk("validate", "--json", stdin=sink.getvalue())
    assert "hanging" in found(result)[0]


def test_notes_on_one_key_at_once_overlap(mtk: Mtk):
    result = mtk("validate", "--json", stdin=stream_of(Score(Notes.of([0, 0.5], [1, 2], [60, 60]))))
    assert found(result) == [{"overlapping": "warning"}]


def test_an_item_without_tokens_is_a_finding(mtk: Mtk):
    vocabulary = find_scheme("tatum").vocabulary
    sink = io.BytesIO()
    with StreamWriter(sink).item(Head("x", "events", "tatum", vocabulary.fingerprint)):
        pass
    assert found(mtk("validate", "--json", stdin=sink.getvalue())) == [{"tokens": "error"}]


def test_a_failed_item_is_a_finding_and_the_others_go_on(mtk: Mtk):
    sink = io.BytesIO()
    StreamWriter(sink).failed(
        Head("lost", "events", "tatum", find_scheme("tatum").vocabulary.fingerprint),
        Failure("unreadable-midi", "no notes in there"),
    )
    result = mtk("validate", "--json", stdin=sink.getvalue() + stream_of(SCORE))
    assert result.status == 1
    assert found(result) == [{"failed": "error"}, {}]
    assert "no notes in there" in records(result)[0]["findings"][0]["message"]


def test_codes_are_checked_for_digest_and_shape(mtk: Mtk):
    sink = io.BytesIO()
    with StreamWriter(sink).item(Head("sound", "codes", "some-codec", "1" * 64)) as item:
        item.write(np.arange(12).reshape(4, 3))
        item.write(np.arange(8).reshape(4, 2))
    result = mtk("validate", "--json", stdin=sink.getvalue())
    assert result.status == 0, result.err
    facts = records(result)[0]["facts"]
    assert (facts["tokens"], facts["codebooks"], facts["item_kind"]) == (5, 4, "codes")
    assert mtk("validate", stdin=sink.getvalue().replace(b"[0,1,2]", b"[0,1,3]")).status == 3


@pytest.mark.parametrize(
    ("claims", "rules"), [({}, []), ({"codebook_size": 11}, ["codes"]), ({"hop_samples": 319}, ["length"])]
)
def test_codes_that_their_head_and_end_contradict_are_findings(
    mtk: Mtk, tmp_path: Path, claims: dict, rules: list[str]
):
    meta = {"rate_hz": 24_000, "codebook_size": 12, "hop_samples": 320, **claims}
    head = Head("sound", "codes", "some-codec", "1" * 64, meta)
    chunk = CodeChunk(np.arange(12, dtype=np.int32).reshape(4, 3), np.array([0.5], np.float32))
    sink = io.BytesIO()
    with StreamWriter(sink).item(head) as item:
        item.write(*chunk)
        item.samples = 958
    with (tmp_path / "x.parquet").open("wb") as file:
        writer = CodeCorpusWriter(file)
        writer.write(head, 4, WholeCodes((chunk,), 958, None, ""))
        writer.close()
    for result in (mtk("validate", "--json", stdin=sink.getvalue()), mtk("validate", "--json", tmp_path / "x.parquet")):
        assert result.status == (1 if rules else 0), result.err
        (record,) = records(result)
        assert [finding["rule"] for finding in record["findings"]] == rules
        assert (record["facts"]["tokens"], record["facts"]["codebooks"]) == (3, 4)
        assert record["facts"]["duration_seconds"] == 958 / 24_000


def broken_streams() -> dict[str, bytes]:
    whole = stream_of(SCORE, OTHER)
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 6
    digit = lines[1].index(b"[") + 1
    return {
        "cut inside a line": whole[:-9],
        "cut inside an item": b"".join(lines[:5]),
        "cut between items": b"".join(lines[:3]),
        "a flipped byte": lines[0] + lines[1][:digit] + b"9" + lines[1][digit + 1 :] + b"".join(lines[2:]),
        "no end": b"".join(lines[:2] + lines[3:]),
        "two heads in a row": lines[0] + whole,
        "another vocabulary": whole.replace(b'"vocab":"tatum"', b'"vocab":"remi"'),
        "an unknown vocabulary": whole.replace(b'"vocab":"tatum"', b'"vocab":"nobody"'),
        "nothing": b"",
    }


@pytest.mark.parametrize("how", broken_streams())
def test_a_broken_stream_ends_with_status_3_and_one_line_that_says_where(mtk: Mtk, how: str):
    result = mtk("validate", "--json", stdin=broken_streams()[how])
    assert result.status == 3
    errors = [line for line in result.err.splitlines() if line.startswith("mtk: error")]
    assert len(errors) == 1
    assert "line " in errors[0]
    if how != "nothing":
        assert "item 'i" in errors[0]
    assert records(result)[-1]["findings"][0]["rule"] == "unreadable"


def test_a_name_cannot_pass_for_two_lines_of_a_list(mtk: Mtk, tmp_path: Path):
    sink = io.BytesIO()
    chosen = find_scheme("tatum")
    with StreamWriter(sink).item(Head("a\n/b", "events", "tatum", chosen.vocabulary.fingerprint)) as item:
        item.write(chosen.encode(SCORE))
    assert mtk("validate", "--good", tmp_path / "good.txt", stdin=sink.getvalue()).status == 0
    assert (tmp_path / "good.txt").read_text() == "a /b\n"


def test_items_before_the_break_are_reported(mtk: Mtk):
    result = mtk("validate", "--json", stdin=stream_of(SCORE, OTHER)[:-9])
    assert [record["ok"] for record in records(result)] == [True, False]


def test_a_broken_stream_among_several_spoils_only_itself(mtk: Mtk, tmp_path: Path):
    (tmp_path / "a.mtk").write_bytes(stream_of(SCORE)[:-9])
    (tmp_path / "b.mtk").write_bytes(stream_of(OTHER))
    result = mtk("validate", tmp_path, "--json")
    assert result.status == 3
    assert [record["ok"] for record in records(result)] == [False, True]
    assert result.err.count("mtk: failed: i0: ") == 1


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_compressed_streams_are_unpacked(mtk: Mtk, pack: Callable[[bytes], bytes], tmp_path: Path):
    packed = pack(stream_of(SCORE))
    assert mtk("validate", stdin=packed).status == 0
    assert mtk("validate", stdin=packed[:-5]).status == 3


# --------------------------------------------------------------------------------------------------- corpora, audio


def write_corpus(path: Path, **changes: object) -> Path:
    """A corpus of two rows, the second with changes."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = []
    for name, score in (("a", SCORE), ("b", OTHER)):
        ids = find_scheme("tatum").encode(score)
        row = {
            "item": name,
            "kind": "events",
            "vocab": "tatum",
            "vocab_sha": find_scheme("tatum").vocabulary.fingerprint,
        }
        row |= {"ids": ids, "n": len(ids), "sha": hashlib.sha256(ids.astype("<i4").data).hexdigest()}
        rows.append(row | {"source_sha": "", "meta": "{}", "made": "[]"})
    rows[1] |= changes
    types = [(key, arrow.string()) for key in rows[0]]
    types[4], types[5] = ("ids", arrow.list_(arrow.int32())), ("n", arrow.int64())
    parquet.write_table(arrow.Table.from_pylist(rows, arrow.schema(types)), path, row_group_size=1)
    return path


def test_a_corpus_is_checked_row_by_row(mtk: Mtk, tmp_path: Path):
    path = write_corpus(tmp_path / "a.parquet")
    result = mtk("validate", path, "--json")
    assert result.status == 0, result.err
    assert [(r["name"], r["kind"], r["facts"]["notes"]) for r in records(result)] == [
        ("a", "corpus", 4),
        ("b", "corpus", 4),
    ]
    assert mtk("validate", stdin=path.read_bytes()).status == 0


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"n": 3}, {"count"}),
        ({"sha": "0"}, {"digest"}),
        ({"vocab_sha": "0"}, {"vocabulary"}),
        ({"vocab": "nobody"}, {"vocabulary"}),
        ({"kind": "smells"}, {"kind"}),
        ({"kind": "codes"}, {"codebooks"}),
        ({"meta": "[1"}, {"meta"}),
        ({"ids": [100_000]}, {"count", "digest", "vocabulary"}),
        ({"ids": [-1]}, {"count", "digest", "vocabulary"}),
        ({"ids": None}, {"count", "digest", "tokens"}),
    ],
)
def test_a_row_that_is_wrong_is_a_finding(mtk: Mtk, tmp_path: Path, changes: dict, rules: set[str]):
    result = mtk("validate", write_corpus(tmp_path / "a.parquet", **changes), "--json")
    assert result.status == 1, result.err
    assert [set(row) for row in found(result)] == [set(), rules]


def test_a_broken_corpus_ends_with_status_3(mtk: Mtk, tmp_path: Path):
    path = write_corpus(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    assert mtk("validate", path).status == 3


def test_parquet_that_is_no_corpus_is_refused_by_its_column(mtk: Mtk, tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"item": ["a"]}), tmp_path / "a.parquet")
    result = mtk("validate", tmp_path / "a.parquet")
    assert result.status == 3
    assert "column 'kind'" in result.err


def test_sound_is_checked_from_files_and_from_standard_input(mtk: Mtk, tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8000) / 5) / 2, 8000)
    soundfile.write(tmp_path / "b.wav", np.zeros(8000), 8000)
    (tmp_path / "c.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:-99])
    result = mtk("validate", tmp_path, "--json")
    assert result.status == 1
    assert found(result) == [{}, {"audio.silence": "error"}, {"audio.truncated": "error"}]
    assert records(result)[0]["facts"]["duration_seconds"] == 1.0
    assert mtk("validate", stdin=(tmp_path / "a.wav").read_bytes()).status == 0


def test_standard_input_is_known_by_its_first_bytes(mtk: Mtk, waltz: Path):
    midi = waltz.read_bytes()
    riff = b"RIFF" + (len(midi) + 12).to_bytes(4, "little") + b"RMIDdata" + len(midi).to_bytes(4, "little") + midi
    kinds = [records(mtk("validate", "--json", stdin=data))[0]["kind"] for data in (midi, riff, stream_of(SCORE))]
    assert kinds == ["midi", "midi", "stream"]


# --------------------------------------------------------------------------------------------------------- the rest


def test_names_of_strangers_do_not_drive_the_terminal(mtk: Mtk):
    evil = stream_of(SCORE).replace(b'"item":"i0"', b'"item":"\\u001b[31m"').replace(b'"sealed":1,', b"")
    evil = b"".join(
        line[: line.index(b',"seal"')] + b"}\n" if b'"seal"' in line else line for line in evil.splitlines(True)
    )
    assert b"\x1b" not in mtk("validate", stdin=evil).out


def test_a_terminal_gets_colours_and_the_same_words(waltz: Path):
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    shown, plain = (Environment(io.BytesIO(), kind(), io.StringIO()) for kind in (Terminal, io.BytesIO))
    assert main(["validate", str(waltz)], shown) == main(["validate", str(waltz)], plain) == 0
    assert isinstance(shown.stdout, io.BytesIO)
    assert isinstance(plain.stdout, io.BytesIO)
    assert b"\x1b[" in shown.stdout.getvalue()
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", shown.stdout.getvalue()) == plain.stdout.getvalue()


def test_help_imports_no_numpy():
    code = (
        "import sys\nfrom musictool.cli.main import main\nassert main(['validate', '--help']) == 0\n"
        "assert not {'numpy', 'torch', 'soundfile', 'pyarrow', 'rich'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert all(example.encode() in done.stdout for example in validate.EXAMPLES)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_process_checks_a_long_item_in_bounded_memory(waltz: Path, scheme: str):
    """Three million tokens in one item take no more than a tenth of that many: what is kept is figures, not notes."""
    program = (
        "import sys\nfrom musictool.cli.main import main\nstatus = main(['validate', '--json'])\n"
        "with open('/proc/self/status') as file:\n"
        "    print(next(line.split()[1] for line in file if 'VmHWM' in line), file=sys.stderr)\n"
        "sys.exit(status)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    score = read_midi(waltz)
    length = len(find_scheme(scheme).encode(score))
    peaks = {}
    for tokens in (300_000, 3_000_000):
        stream = stream_of(score, scheme=scheme, copies=tokens // length)
        done = subprocess.run([sys.executable, "-c", program], input=stream, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        (record,) = (json.loads(line) for line in done.stdout.splitlines())
        assert record["facts"]["notes"] == tokens // length * len(find_scheme(scheme).quantize(score)[0])
        peaks[tokens] = int(done.stderr.splitlines()[-1])
    assert peaks[3_000_000] < 150_000
    assert peaks[3_000_000] - peaks[300_000] < 20_000
