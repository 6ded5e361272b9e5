"""`mtk tokenize` as a whole command."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from musictool.stream.files import decompressing
from musictool.stream.reader import StreamReader
from musictool.stream.records import ItemFailed
from musictool.symbolic.midi import read_midi
from musictool.symbolic.schemes import SCHEMES, find_scheme, lookup_events


def items(data: bytes) -> dict[str, np.ndarray | str]:
    """Ids by item, or the code of its failure."""
    found = {}
    with decompressing(io.BytesIO(data), "x") as plain:
        for item in StreamReader(plain, lookup_events):
            try:
                found[item.head.item] = np.concatenate([np.zeros(0, np.int32), *item.chunks()])
            except ItemFailed as error:
                found[item.head.item] = error.failure.code
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stream_holds_what_the_scheme_encodes(mtk, waltz, scheme):
    result = mtk("tokenize", waltz, "--scheme", scheme)
    assert result.status == 0
    expected = find_scheme(scheme).encode(read_midi(waltz))
    np.testing.assert_array_equal(items(result.out)["waltz"], expected)


def test_standard_input_is_the_same_as_a_file(mtk, waltz):
    from_file, from_stdin = mtk("tokenize", waltz), mtk("tokenize", stdin=waltz.read_bytes())
    np.testing.assert_array_equal(items(from_file.out)["waltz"], items(from_stdin.out)["stdin"])


def test_names_are_the_same_tokens(mtk, waltz):
    ids, names = mtk("tokenize", waltz), mtk("tokenize", waltz, "--names")
    assert b'"NoteOn_79"' in names.out
    np.testing.assert_array_equal(items(ids.out)["waltz"], items(names.out)["waltz"])


def test_same_inputs_give_the_same_bytes_with_any_number_of_jobs(mtk, folder):
    variations = ("--augment", "pitch=-5..6,time=0.9..1.1,velocity=8", "--copies", 3, "--seed", 7)
    one = mtk("tokenize", folder, *variations)
    four = mtk("tokenize", folder, *variations, "--jobs", 4)
    assert one.out == four.out
    assert one.status == four.status == 1
    assert mtk("tokenize", folder, *variations[:-1], 8).out != one.out


def test_a_bad_file_is_a_failed_item_and_the_others_go_on(mtk, folder):
    result = mtk("tokenize", folder)
    found = items(result.out)
    assert list(found) == ["a", "b", "inner/c"]
    assert found["b"] == "invalid-input"
    np.testing.assert_array_equal(found["a"], found["inner/c"])
    assert result.status == 1
    assert result.err.startswith("mtk: failed: b: ")


def test_the_only_input_being_bad_is_exit_3_and_its_item_travels_all_the_same(mtk, folder, tmp_path):
    bad = folder / "b.mid"
    for result, where in ((mtk("tokenize", bad), bad), (mtk("tokenize", stdin=bad.read_bytes()), "standard input")):
        assert result.status == 3
        assert result.err.startswith("mtk: error: ")
        assert f"({where})" in result.err
        assert list(items(result.out).values()) == ["invalid-input"]
    assert mtk("tokenize", bad, "-o", tmp_path / "x.mtk").status == 3
    assert not (tmp_path / "x.mtk").exists()


def test_a_missing_file_among_others_is_a_failed_item(mtk, waltz):
    result = mtk("tokenize", waltz, "nowhere.mid")
    assert items(result.out)["nowhere"] == "no-such-file"
    assert result.status == 1


def test_shards_are_disjoint_and_together_everything(mtk, folder):
    shards = [items(mtk("tokenize", folder, "--shard", f"{k}/2").out) for k in (1, 2)]
    assert sorted([*shards[0], *shards[1]]) == ["a", "b", "inner/c"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_retokenizing_a_stream_is_tokenizing_its_source(mtk, waltz, scheme):
    direct = mtk("tokenize", waltz, "--scheme", scheme)
    again = mtk("tokenize", "--scheme", scheme, stdin=direct.out)
    np.testing.assert_array_equal(items(again.out)["waltz"], items(direct.out)["waltz"])
    head = json.loads(again.out.splitlines()[0])
    assert [entry["command"] for entry in head["made"]] == ["tokenize", "tokenize"]


def test_a_failed_item_travels_through_retokenizing(mtk, folder):
    result = mtk("tokenize", "--scheme", "mt3", stdin=mtk("tokenize", folder).out)
    found = items(result.out)
    assert list(found) == ["a", "b", "inner/c"]
    assert found["b"] == "invalid-input"
    assert result.status == 1


def test_a_broken_stream_ends_retokenizing_with_exit_3(mtk, waltz):
    stream = mtk("tokenize", waltz).out
    result = mtk("tokenize", "--scheme", "mt3", stdin=stream[: len(stream) // 2])
    assert result.status == 3
    assert "item 'waltz', line " in result.err


def test_a_folder_gets_a_stream_for_each_item(mtk, folder, tmp_path):
    result = mtk("tokenize", folder, "-o", f"{tmp_path}/out/")
    assert result.status == 1
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/*.mtk")) == [
        "a.mtk",
        "inner/c.mtk",
    ]
    assert list(items((tmp_path / "out/a.mtk").read_bytes())) == ["a"]


def test_skip_existing_makes_a_batch_resumable(mtk, folder, tmp_path):
    (folder / "b.mid").unlink()
    out = tmp_path / "out"
    mtk("tokenize", folder / "a.mid", "-o", f"{out}/")
    before = (out / "a.mtk").stat().st_mtime_ns
    assert mtk("tokenize", folder, "-o", f"{out}/").status == 2, "an existing file is kept"
    assert mtk("tokenize", folder, "-o", f"{out}/", "--skip-existing").status == 0
    assert (out / "a.mtk").stat().st_mtime_ns == before
    assert (out / "inner/c.mtk").exists()


@pytest.mark.parametrize("suffix", [".mtk", ".mtk.gz", ".mtk.zst"])
def test_a_file_is_compressed_by_its_suffix(mtk, waltz, tmp_path, suffix):
    path = tmp_path / f"waltz{suffix}"
    assert mtk("tokenize", waltz, "-o", path).status == 0
    plain = mtk("tokenize", waltz).out
    assert (path.read_bytes() == plain) == (suffix == ".mtk")
    np.testing.assert_array_equal(items(path.read_bytes())["waltz"], items(plain)["waltz"])
    assert items(mtk("tokenize", path).out).keys() == {"waltz"}


def test_a_corpus_holds_a_row_for_each_good_item(mtk, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra corpus is not installed")
    path = tmp_path / "corpus.parquet"
    result = mtk("tokenize", folder, "-o", path, "--augment", "pitch=1..3", "--copies", 2)
    assert result.status == 1
    rows = parquet.read_table(path).to_pylist()
    assert [row["item"] for row in rows] == ["a", "a~1", "a~2", "inner/c", "inner/c~1", "inner/c~2"]
    assert all(len(row["ids"]) == row["n"] for row in rows)
    np.testing.assert_array_equal(rows[0]["ids"], items(mtk("tokenize", folder).out)["a"])
    assert json.loads(rows[1]["made"])[0]["augment"]["pitch"] in (1, 2, 3)


def test_variations_are_what_they_say(mtk, waltz):
    result = mtk("tokenize", waltz, "--augment", "pitch=3..3,time=2..2")
    stream = StreamReader(io.BytesIO(result.out), lookup_events)
    tatum = find_scheme("tatum")
    plain, varied = (tatum.decode([np.concatenate(list(item.chunks()))]).notes for item in stream)
    melodic = ~plain.is_drum
    assert (np.sort(varied.pitch[~varied.is_drum]) == np.sort(plain.pitch[melodic]) + 3).all()
    assert (np.sort(varied.pitch[varied.is_drum]) == np.sort(plain.pitch[plain.is_drum])).all()
    assert varied.end_seconds == pytest.approx(2 * plain.end_seconds, abs=0.02)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_show_vocab_prints_ranges_and_fingerprint(mtk, scheme):
    result = mtk("tokenize", "--show-vocab", "--scheme", scheme)
    assert result.status == 0
    assert find_scheme(scheme).vocabulary.fingerprint in result.out.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--scheme", "tatm"),
        ("--augment", "pitch=up"),
        ("--augment", "pitch=6..-5"),
        ("--augment", "time=0..1"),
        ("--scheme", "mt3", "--style", "3"),
        ("--shard", "4/3"),
        ("--wrong",),
        ("-o", "x.mtk", "--skip-existing", "--force"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(mtk, waltz, arguments):
    result = mtk("tokenize", waltz, *arguments)
    assert result.status == 2
    assert result.err.startswith("mtk: error: ")
    assert result.err.count("\n") <= 2
    assert result.out == b""
