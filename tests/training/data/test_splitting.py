"""A split keeps what belongs together on one side, and stays as it is when a corpus grows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.errors import InputError, UsageError
from musictool.training.data.splitting import (
    SplitItem,
    group_items,
    list_items,
    listed_stem,
    name_key,
    names_of,
    parse_evidence,
    parse_fractions,
    read_list,
    split_groups,
)

FRACTIONS = {"train": 0.6, "valid": 0.2, "test": 0.2}
SEEDS = st.integers(0, 1000)


def item(stem: str, piece: str = "", sha: str = "") -> SplitItem:
    return SplitItem(stem, Path("/corpus", f"{stem}.mid"), piece, sha)


@st.composite
def corpora(draw):
    """Items of a few pieces, named or told by a manifest, with some links by their notes."""
    numbers = draw(st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=25))
    items = []
    for number in numbers:
        piece = number % 7
        kind = draw(st.sampled_from(["alone", "version", "manifest", "sha"]))
        items.append(
            {
                "alone": item(f"alone-{number}"),
                "version": item(f"p{piece}/versions/tune_v{number}"),
                "manifest": item(f"made-{number}", piece=f"piece-{piece}"),
                "sha": item(f"cut-{number}", piece=f"cut-{number}", sha=f"{piece:064}"),
            }[kind]
        )
    index = st.integers(0, len(items) - 1)
    alike = draw(st.lists(st.tuples(index, index), max_size=5))
    return items, alike


def sides_of(items, alike, seed, **options):
    """The side of each item by its stem; None for one that is left out."""
    groups = group_items(items, ("manifest", "name", "content"), alike)
    split = split_groups(items, groups, FRACTIONS, seed, **options)
    placed = [(index, side) for side, indices in split.sides.items() for index in indices]
    placed += [(index, None) for index in split.left_out]
    assert sorted(index for index, _ in placed) == list(range(len(items))), "each item is in one place"
    return {items[index].stem: side for index, side in placed}


@given(corpora(), SEEDS)
@settings(deadline=None)
def test_what_belongs_together_is_on_one_side(corpus, seed):
    items, alike = corpus
    sides = sides_of(items, alike, seed)
    pairs = [(items[i], items[j]) for i, j in alike]
    pairs += [
        (a, b)
        for a in items
        for b in items
        if (a.piece and a.piece == b.piece)
        or (a.source_sha256 and a.source_sha256 == b.source_sha256)
        or name_key(a.stem) == name_key(b.stem)
    ]
    assert all(sides[a.stem] == sides[b.stem] for a, b in pairs)


@given(corpora(), SEEDS, st.randoms())
@settings(deadline=None)
def test_the_order_of_the_items_changes_nothing(corpus, seed, random):
    items, alike = corpus
    order = random.sample(range(len(items)), len(items))
    shuffled = [items[index] for index in order]
    moved = [(order.index(i), order.index(j)) for i, j in alike]
    assert sides_of(shuffled, moved, seed) == sides_of(items, alike, seed)


@given(corpora(), SEEDS)
@settings(deadline=None)
def test_new_pieces_and_new_renderings_of_old_ones_move_nothing(corpus, seed):
    items, alike = corpus
    before = sides_of(items, alike, seed)
    more = [item(f"new-{n}") for n in range(5)]
    more += [
        item(f"again-{n}", old.piece, old.source_sha256) if old.piece else item(f"{old.stem}~{n + 1}")
        for n, old in enumerate(items)
        if not old.source_sha256
    ]
    after = sides_of([*items, *more], alike, seed)
    assert before.items() <= after.items()


@given(corpora(), corpora(), SEEDS)
@settings(deadline=None)
def test_known_sides_win_whatever_comes(old, new, seed):
    items, alike = old
    before = sides_of(items, alike, seed)
    added = [SplitItem(f"later/{i.stem}", i.notes, i.piece, i.source_sha256) for i in new[0]]
    everything = [*items, *added]
    links = [*alike, *((i + len(items), j + len(items)) for i, j in new[1])]
    links += [(n, len(items) + n) for n in range(min(len(items), len(added)))]  # bridges between old groups
    known = {index: before[old_item.stem] for index, old_item in enumerate(items)}
    after = sides_of(everything, links, seed + 1, known=known)
    assert before.items() <= after.items()
    groups = group_items(everything, ("manifest", "name", "content"), links)
    for group in groups:
        on = {known[index] for index in group if index in known}
        newcomers = {after[everything[index].stem] for index in group if index not in known}
        if len(on) > 1:
            assert newcomers <= {None}, "what would join two sides goes to neither"
        elif on and newcomers:
            assert newcomers == on


@given(corpora(), SEEDS)
@settings(deadline=None)
def test_what_is_left_out_takes_its_group_along_and_moves_no_other(corpus, seed):
    items, alike = corpus
    before = sides_of(items, alike, seed)
    after = sides_of(items, alike, seed, excluded=[0])
    (group,) = (g for g in group_items(items, ("manifest", "name", "content"), alike) if 0 in g)
    gone = {items[index].stem for index in group}
    assert {stem for stem, side in after.items() if side is None} == gone
    assert {stem: side for stem, side in before.items() if stem not in gone}.items() <= after.items()


def test_many_pieces_meet_the_fractions_and_a_seed_is_a_split():
    items = [item(f"{n}") for n in range(4000)]
    splits = [split_groups(items, [[n] for n in range(4000)], FRACTIONS, seed).sides for seed in range(5)]
    for split in splits:
        for side, fraction in FRACTIONS.items():
            spread = np.sqrt(4000 * fraction * (1 - fraction))
            assert abs(len(split[side]) - 4000 * fraction) < 4 * spread
    both = set(splits[0]["test"]) & set(splits[1]["test"])
    assert 100 < len(both) < 220, "seeds are independent: 4% of 4000 are expected on both"


def test_big_groups_are_drawn_as_evenly_as_small_ones():
    items = [item(f"{n}") for n in range(9000)]
    split = split_groups(items, [list(range(n, n + 9)) for n in range(0, 9000, 9)], FRACTIONS, 0)
    assert 160 < split.group_counts["test"] < 240
    assert sum(split.group_counts.values()) == 1000


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("001/001", "001/versions/001-v1"),
        ("a/tune", "a/tune~3"),
        ("tune", "tune_v2"),
        ("tune", "tune (copy)"),
        ("tune", "tune (2)"),
        ("tune", "tune take 2"),
        ("tune", "Tune".lower() + "-alt_v3"),
        ("tune.v1", "tune.V2"),
    ],
)
def test_marks_of_a_version_are_no_part_of_a_name(first, second):
    assert name_key(first) == name_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("schumm-1", "schumm-2"),
        ("chpn_op10_e1", "chpn_op10_e12"),
        ("sonata_v", "sonata_iv"),
        ("a/tune", "b/tune"),
        ("~1", "~2"),
        ("waltz 1", "waltz 2"),
    ],
)
def test_numbers_of_movements_are(first, second):
    assert name_key(first) != name_key(second)


def test_evidence_that_is_not_asked_for_does_not_count():
    items = [item("a/x", "p"), item("b/y", "p"), item("a/x_v2"), item("b/z")]
    assert group_items(items, ("manifest",)) == [[0, 1], [2], [3]]
    assert group_items(items, ("name",), [(0, 3)]) == [[0, 2], [1], [3]]
    assert group_items(items, ("folder",)) == [[0, 2], [1, 3]]
    assert group_items(items, ("content",), [(0, 3), (3, 1)]) == [[0, 1, 3], [2]]


def test_files_at_the_top_are_a_folder_too():
    assert group_items([item("x"), item("y"), item("a/z")], ("folder",)) == [[0, 1], [2]]


def test_one_file_by_two_paths_is_one_piece(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.mid").touch()
    (tmp_path / "y.mid").symlink_to(tmp_path / "in" / "x.mid")
    items, _ = list_items(tmp_path)
    assert [i.stem for i in items] == ["in/x", "y"]
    assert group_items(items, ()) == [[0, 1]]


# ------------------------------------------------------------------------------------------------------ on the disk


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_items_are_pairs_where_there_are_any(tmp_path):
    touch(tmp_path, "b.MID", "a/x.mid", "a/x.tsv", "a/list.txt", ".hidden/h.mid", ".h.mid", "c.tsv")
    items, lone = list_items(tmp_path)
    assert ([i.stem for i in items], lone) == (["a/x", "b"], 0), "tables alone are no pieces"
    touch(tmp_path, "a/x.flac", "c.ogg", "sound.wav")
    items, lone = list_items(tmp_path)
    assert ([i.stem for i in items], lone) == (["a/x", "c"], 3)
    assert [i.notes.name for i in items] == ["x.mid", "c.tsv"]


def test_manifests_of_every_folder_and_share_count(tmp_path):
    touch(tmp_path, "a/x.mid", "a/y.mid", "b/in/x.mid", "b/z.mid")
    (tmp_path / "a" / "manifest.jsonl").write_text(json.dumps({"name": "x", "piece": "p", "seed": 0}) + "\n")
    shares = {"manifest.1-of-2.jsonl": "in/x", "manifest.2-of-2.jsonl": "z"}
    for name, made in shares.items():
        (tmp_path / "b" / name).write_text(json.dumps({"name": made, "piece": "q", "source_sha256": "0"}) + "\n")
    items, _ = list_items(tmp_path)
    assert {i.stem: (i.piece, i.source_sha256) for i in items} == {
        "a/x": ("p", ""),
        "a/y": ("", ""),
        "b/in/x": ("q", "0"),
        "b/z": ("q", "0"),
    }


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"piece": "p"}', '{"name": 3}', '{"name": "x", "piece": null}'])
def test_a_manifest_that_makes_no_sense_is_named_by_line(tmp_path, line):
    touch(tmp_path, "x.mid")
    (tmp_path / "manifest.jsonl").write_text(f'{{"name": "x"}}\n{line}\n')
    with pytest.raises(InputError, match=r"manifest.jsonl, line 2"):
        list_items(tmp_path)


def test_no_folder_and_no_items_are_errors(tmp_path):
    touch(tmp_path, "f", "sound.wav")
    for path in (tmp_path / "nowhere", tmp_path / "f", tmp_path):
        with pytest.raises(InputError) as caught:
            list_items(path)
        assert caught.value.hint


def test_a_list_leads_back_to_its_items(tmp_path):
    corpus, lists = tmp_path / "corpus", tmp_path / "out" / "lists"
    touch(corpus, "#1.mid", "a b/ü.mid", "x.v1.mid")
    items, _ = list_items(corpus)
    for folder in (corpus, lists, tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "train.txt"
        lines = [listed_stem(i, corpus, folder) for i in items]
        path.write_text("# head\n" + "".join(f"{line}\n" for line in lines))
        assert read_list(path) == lines
        assert [(folder / f"{line}.mid").resolve() for line in lines] == [i.notes for i in items]


@pytest.mark.parametrize("name", ["a\nb", "a ", "a\tb", "a\u2028b", "a\udc80"])
def test_a_name_that_cannot_stand_in_a_list_is_refused(name):
    with pytest.raises(InputError, match="cannot stand in a list"):
        listed_stem(item(name), Path("/corpus"), Path("/corpus"))


def test_names_of_an_item_are_its_own_and_its_pieces():
    assert names_of(item("a/x-0", "p/q.mid")) == {"a/x-0", "x-0", "p/q.mid", "p/q", "q"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "train",
        "train=1,train=0",
        "train=.5",
        "train=.5,test=.6",
        "train=1.5,test=-.5",
        "a=1,b=0",
        "a=.5,a=.5",
        "../x=1",
        "a=nan,b=1",
        "a=x",
    ],
)
def test_fractions_that_make_no_sense_are_refused(text):
    with pytest.raises(UsageError):
        parse_fractions(text)


def test_fractions_and_evidence_are_read():
    assert parse_fractions("train=.9, valid=.05,test=0.05") == {"train": 0.9, "valid": 0.05, "test": 0.05}
    assert parse_fractions("all=1") == {"all": 1.0}
    assert parse_fractions(",".join(f"fold{n}={1 / 3}" for n in range(3))).keys() == {"fold0", "fold1", "fold2"}
    assert parse_evidence("content, name") == ("name", "content")
    with pytest.raises(UsageError):
        parse_evidence("name,key")
