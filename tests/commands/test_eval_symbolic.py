"""`mtk eval symbolic` as a whole command."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from musictool.metrics.corpus_likeness import FEATURES
from musictool.metrics.symbolic import FIGURES, figures_of
from musictool.metrics.symbolic_similarity import COMPARISONS, compare
from musictool.stream.records import Failure, Head
from musictool.stream.writer import StreamWriter
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.schemes import find_scheme


def piece(seed, count=60):
    """Sixteen seconds of random notes, on a grid that every scheme keeps."""
    generator = np.random.default_rng(seed)
    onset = generator.integers(0, 128, count) / 8
    return Score(Notes.of(onset, onset + generator.integers(1, 8, count) / 8, generator.integers(48, 84, count)))


@pytest.fixture
def references(tmp_path):
    """A folder with MIDI files and a list of notes."""
    folder = tmp_path / "refs"
    (folder / "inner").mkdir(parents=True)
    for seed, name in enumerate(("a", "b", "inner/c")):
        (folder / f"{name}.mid").write_bytes(write_midi(piece(seed)))
    (folder / "e.tsv").write_text("onset\toffset\tpitch\n0\t1\t60\n1\t2\t64\n")
    return folder


@pytest.fixture
def results(tmp_path):
    """A folder with a, half of b, something else for c, and d."""
    folder = tmp_path / "out"
    (folder / "inner").mkdir(parents=True)
    half = Score(piece(1).notes.take(slice(0, None, 2)))
    for name, score in {"a": piece(0), "b": half, "inner/c": piece(7), "d": piece(8)}.items():
        (folder / f"{name}.mid").write_bytes(write_midi(score))
    return folder


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for seed in range(10, 22):
        (folder / f"{seed}.mid").write_bytes(write_midi(piece(seed, 40 + seed)))
    (folder / "metadata.csv").write_text("composer,year\nAnon,1700\n")
    return folder


def items_of(result):
    record = json.loads(result.out, parse_constant=pytest.fail)
    return {item["item"]: item for item in record["items"]}, record


def stream_of(**scores):
    """A stream in scheme tatum; an item without a score has failed."""
    scheme, stream = find_scheme("tatum"), io.BytesIO()
    writer = StreamWriter(stream)
    for name, score in scores.items():
        head = Head(name, "events", scheme.name, scheme.vocabulary.fingerprint)
        if score is None:
            writer.failed(head, Failure("bad-file", "no good"))
            continue
        with writer.item(head) as item:
            item.write(scheme.encode(score))
    return stream.getvalue()


# --------------------------------------------------------------------------------------------------------------- alone


def test_pieces_alone_have_their_figures_and_their_mean(mtk, results):
    result = mtk("eval", "symbolic", results, "--json")
    items, record = items_of(result)
    expected = {name: figures_of(read_midi(results / f"{name}.mid")) for name in ("a", "b", "d", "inner/c")}
    assert list(items["a"]) == ["item", "notes", *FIGURES]
    assert {name: {figure: items[name][figure] for figure in FIGURES} for name in items} == expected
    assert record["mean"] == {name: pytest.approx(np.mean([f[name] for f in expected.values()])) for name in FIGURES}
    assert (result.status, record["failed"], record["corpus"], items["b"]["notes"]) == (0, [], {}, 30)


def test_the_table_has_a_line_an_item_and_their_mean(mtk, results):
    lines = mtk("eval", "symbolic", results).out.decode().splitlines()
    assert [line.split("  ")[-1].strip() for line in lines] == ["item", "a", "b", "d", "inner/c", "mean of 4"]
    assert lines[0].split()[:1] + lines[0].split()[-2:] == ["notes/s", "notes", "item"]
    figures = figures_of(read_midi(results / "b.mid"))
    assert lines[2].split() == [
        *(str(value) if isinstance(value, int) else f"{value:.4f}" for value in figures.values()),
        "30",
        "b",
    ]


@pytest.mark.parametrize("scheme", ["tatum", "mt3", "remi"])
def test_files_and_streams_in_every_scheme_measure_the_same(mtk, results, tmp_path, scheme):
    stream = mtk("tokenize", results / "a.mid", "-s", scheme).out
    (tmp_path / "a.mtk").write_bytes(stream)
    assert mtk("tokenize", results / "a.mid", "-s", scheme, "-o", tmp_path / "z.mtk.zst").status == 0
    given = [mtk("eval", "symbolic", "--json", *paths, stdin=stream) for paths in
             ((), ("-",), (tmp_path / "a.mtk",), (tmp_path / "z.mtk.zst",))]  # fmt: skip
    assert len({result.out for result in given}) == 1
    figures = figures_of(read_midi(results / "a.mid"))
    found = items_of(given[0])[0]["a"]
    for name in ("note_density", "mean_ioi_seconds", "unique_pitches", "pitch_class_entropy", "groove_consistency"):
        assert found[name] == pytest.approx(figures[name], rel=0.02), name


def test_lists_of_notes_are_read_if_they_are_named(mtk, references):
    assert "e" not in items_of(mtk("eval", "symbolic", references, "--json"))[0]
    assert items_of(mtk("eval", "symbolic", references / "e.tsv", "--json"))[0]["e"]["unique_pitches"] == 2


# ---------------------------------------------------------------------------------------------------- with references


def test_results_are_compared_with_the_references_of_their_names(mtk, references, results):
    result = mtk("eval", "symbolic", results, "-r", references, "--json")
    items, record = items_of(result)
    assert list(items["b"]) == ["item", "notes", "reference_notes", *FIGURES, *COMPARISONS]
    for name in ("a", "b", "inner/c"):
        expected = compare(*(read_midi(folder / f"{name}.mid") for folder in (references, results)))
        assert {score: items[name][score] for score in expected} == expected
    assert (items["b"]["notes"], items["b"]["reference_notes"]) == (30, 60)
    assert items["a"]["chord_similarity"] == 1 > items["b"]["chord_similarity"] > items["inner/c"]["chord_similarity"]
    assert record["mean"]["chord_similarity"] == pytest.approx(
        np.mean([item["chord_similarity"] for item in items.values()])
    )
    assert (result.status, record["failed"]) == (
        1,
        [{"item": "d", "code": "no-reference", "message": "there is no reference"}],
    )


def test_a_stream_is_compared_item_by_item_and_failed_items_are_named(mtk, references):
    stream = stream_of(a=piece(0), b=None, **{"inner/c": piece(2)})
    result = mtk("eval", "symbolic", "-r", references, "--json", stdin=stream)
    items, record = items_of(result)
    assert all(item["melody_similarity"] > 0.98 for item in items.values())
    assert (result.status, list(items), record["failed"][0]["item"]) == (1, ["a", "inner/c"], "b")
    assert "mtk: failed: b: no good" in result.err
    table = mtk("eval", "symbolic", "-r", references, stdin=stream).out.decode().splitlines()
    assert [line.split("  ")[-1].strip() for line in table] == ["item", "a", "inner/c", "mean of 2"]


def test_a_stream_may_hold_the_references(mtk, results, tmp_path):
    (tmp_path / "refs.mtk").write_bytes(stream_of(a=piece(0), b=piece(1)))
    items, _ = items_of(mtk("eval", "symbolic", results / "a.mid", "-r", tmp_path / "refs.mtk", "--json"))
    assert items["a"]["frame_profile_similarity"] == pytest.approx(1, abs=1e-3)


def test_folders_are_not_compared_with_themselves(mtk, references):
    result = mtk("eval", "symbolic", references, "-r", references, "--json")
    assert (result.status, items_of(result)[0]) == (0, {})
    assert result.err.count("left out, since it is its own reference") == 3


# ------------------------------------------------------------------------------------------------------ with a corpus


def test_results_are_compared_with_a_corpus_by_distribution(mtk, results, corpus):
    result = mtk("eval", "symbolic", results, "--corpus", corpus, "--json")
    items, record = items_of(result)
    assert (result.status, result.err, list(items)) == (0, "", ["a", "b", "d", "inner/c"])
    assert (tuple(record["corpus"]), record["corpus_pieces"]) == (FEATURES, 12)
    density = record["corpus"]["note_density"]
    expected = [figures_of(read_midi(path))["note_density"] for path in sorted(corpus.glob("*.mid"))]
    assert density["corpus_mean"] == pytest.approx(np.mean(expected))
    assert density["results_mean"] == record["mean"]["note_density"]
    for feature, like in record["corpus"].items():
        assert record["mean"][f"{feature}_overlap"] == like["overlap"]
        assert record["mean"][f"{feature}_kl"] == like["kl"]
        assert 0 < like["overlap"] <= 1
    table = mtk("eval", "symbolic", results, "--corpus", corpus).out.decode().splitlines()
    assert [line.split("  ")[-1].strip() for line in table] == ["feature", *FEATURES]
    assert table[1].split()[:2] == [f"{density['overlap']:.4f}", f"{density['kl']:.4f}"]


def test_a_corpus_may_be_a_stream_and_too_small(mtk, results, tmp_path):
    (tmp_path / "two.mtk").write_bytes(stream_of(one=piece(1), two=piece(2)))
    result = mtk("eval", "symbolic", results / "a.mid", "--corpus", tmp_path / "two.mtk", "--json")
    assert (result.status, items_of(result)[1]["corpus"]["polyphony"]["overlap"]) == (0, None)
    assert "mtk: warning: the corpus is too small for distributions" in result.err


def test_a_corpus_that_cannot_be_read_whole_is_said_to_be(mtk, results, corpus):
    (corpus / "x.mid").write_bytes(b"MThd")
    result = mtk("eval", "symbolic", results / "a.mid", "--corpus", corpus, "--json")
    items, record = items_of(result)
    assert (result.status, list(items), [one["item"] for one in record["failed"]]) == (1, ["a"], ["x"])
    assert record["corpus"]["note_density"]["overlap"] is not None


# ------------------------------------------------------------------------------------------- little, nothing and damage


ODDITIES = {
    "nothing": Score(),
    "drums": Score(Notes.of([0, 1, 3], [0.1, 1.1, 3.1], [36, 38, 36], is_drum=True)),
    "one": Score(Notes.of([1], [2], [60])),
    "crowd": Score(Notes.of(np.zeros(200), np.ones(200), 20 + np.arange(200) % 100, program=np.arange(200) // 100)),
}


@pytest.mark.parametrize("against", ["alone", "themselves", "each other", "corpus"])
def test_nothing_drums_one_note_and_a_crowd_are_measured(mtk, corpus, tmp_path, against):
    others = list(ODDITIES.values())
    if against == "each other":
        others.reverse()
    (tmp_path / "refs.mtk").write_bytes(stream_of(**dict(zip(ODDITIES, others))))
    options = {"alone": (), "corpus": ("--corpus", corpus)}.get(against, ("-r", tmp_path / "refs.mtk"))
    stream = stream_of(**ODDITIES)
    result = mtk("eval", "symbolic", *options, "--json", stdin=stream)
    items, _ = items_of(result)
    assert (result.status, list(items)) == (0, list(ODDITIES))
    assert items["nothing"]["note_density"] is items["drums"]["unique_pitches"] is None
    assert items["crowd"]["unique_pitches"] == 100
    assert mtk("eval", "symbolic", *options, stdin=stream).status == 0
    assert "mtk: warning: it has no notes (nothing)" in result.err


def test_unreadable_files_fail_alone_with_3_and_among_others_with_1(mtk, results):
    bad = results / "b.mid"
    bad.write_bytes(b"MThd")
    alone = mtk("eval", "symbolic", bad)
    assert (alone.status, alone.err.splitlines()[0].startswith("mtk: error: ")) == (3, True)
    among = mtk("eval", "symbolic", results / "a.mid", bad, results / "no.mid", "--json")
    assert (among.status, list(items_of(among)[0])) == (1, ["a"])


def test_sound_is_sent_to_be_transcribed_first(mtk, results):
    (results / "take.flac").write_bytes(b"fLaC")
    assert mtk("eval", "symbolic", results).status == 0
    result = mtk("eval", "symbolic", results / "take.flac")
    assert result.status == 3
    assert result.err.splitlines() == [
        f"mtk: error: no notes in this file ({results / 'take.flac'})",
        "hint: of sound they are made by mtk transcribe FILE | mtk eval symbolic",
    ]


def test_a_stream_that_breaks_off_ends_with_3_after_the_items_before(mtk):
    stream = stream_of(a=piece(0), b=piece(1))
    result = mtk("eval", "symbolic", "--json", stdin=stream[:-20])
    assert (result.status, list(items_of(result)[0])) == (3, ["a"])
    assert "the stream ends inside" in result.err


def test_names_of_strangers_do_not_drive_the_terminal(mtk):
    table = mtk("eval", "symbolic", stdin=stream_of(**{"a\x1b[2J\n": piece(0)})).out.decode()
    assert table.splitlines()[1].endswith("  a_[2J_")


# ------------------------------------------------------------------------------------------------------------- options


def test_assertions_hold_the_mean_to_account(mtk, references, results, corpus):
    def run(*conditions, options=("-r", references)):
        words = [word for condition in conditions for word in ("--assert", condition)]
        return mtk("eval", "symbolic", results / "b.mid", *options, *words)

    assert run("chord_similarity>=0.2", "unique_pitches_difference<0", "note_density>1").status == 0
    result = run("pitch_class_kl>9", "melody_similarity<=1")
    assert result.status == 1
    assert result.err.startswith("mtk: error: mean pitch_class_kl is to be > 9, and it is 0.")
    assert run("transitions_overlap>0", "polyphony_kl<40", options=("--corpus", corpus)).status == 0
    assert run("note_density_overlap>1", options=("--corpus", corpus)).status == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--assert", "chord_similarity>0.5"), "no such metric"),  # there is no reference
        (("--assert", "note_density_overlap>0.5"), "no such metric"),
        (("--assert", "note_density"), "no condition"),
        (("-r", "x", "--corpus", "y"), "contradict each other"),
        (("--corpus", "-"), "a corpus cannot come from standard input"),
        (("--scheme", "nonsense"), "no such scheme"),
    ],
)
def test_wrong_usage_ends_before_any_work(mtk, results, options, message):
    result = mtk("eval", "symbolic", results, *options)
    assert (result.status, result.out) == (2, b"")
    assert message in result.err.splitlines()[0]


@pytest.mark.parametrize("option", ["-r", "--corpus"])
def test_what_is_not_there_ends_with_3(mtk, results, option):
    result = mtk("eval", "symbolic", results, option, results / "nowhere")
    assert (result.status, result.out) == (3, b"")


@pytest.mark.parametrize("against", [(), ("-r",), ("--corpus",)])
def test_jobs_change_nothing(mtk, references, results, corpus, against):
    options = [*against, *({"-r": [references], "--corpus": [corpus]}.get(*against, []) if against else [])]
    one, two = (mtk("eval", "symbolic", results, *options, "--json", "-j", jobs) for jobs in (1, 2))
    assert one == two


def test_neither_torch_nor_mir_eval_is_loaded(results):
    code = (
        "import sys; from musictool.cli.main import main\n"
        f"assert main(['eval', 'symbolic', {str(results / 'a.mid')!r}]) == 0\n"
        "assert not {'torch', 'mir_eval', 'scipy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
