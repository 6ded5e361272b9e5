"""Which items of a corpus are for training and which to be kept aside, without a piece on both sides.

Items that belong together (versions of a piece, renderings of one MIDI file, copies, performances) form a group, and a
group goes to one side as a whole. Four kinds of evidence tell what belongs together, and what two items have in common
by any of them joins their groups:

    manifest   `manifest.jsonl` (or `manifest.….jsonl`, of a share of the work) beside the items names the piece that
               an item was made from, or its sha256; one of the pipeline's lists the items' files, too
    name       the same path but for marks of a version: `b.mid`, `b~1.mid`, `b_v2.mid`, `b (copy).mid`, and for
               folders called `versions`
    folder     the same folder
    content    notes that are alike, as `likeness` has it

A side is drawn for each group alone, from the seed and the key of one of its items. So the same seed gives the same
split wherever the corpus lies; new items change no side of old ones unless they join a group, which may then go
elsewhere as a whole; and what a side gets is near its fraction for many groups, and may be far from it for few. Sides
that are known before win over the draw. Reads names and manifests; notes are read by the caller.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

import orjson

from musictool.audio.checks import AUDIO_SUFFIXES
from musictool.errors import InputError, UsageError
from musictool.metrics.note_files import MIDI_SUFFIXES
from musictool.symbolic.note_tables import TABLE_SUFFIXES

Evidence = Literal["manifest", "name", "folder", "content"]

EVIDENCE: tuple[Evidence, ...] = ("manifest", "name", "folder", "content")
NOTE_SUFFIXES = (*MIDI_SUFFIXES, *TABLE_SUFFIXES)

_SIDE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_MANIFEST = re.compile(r"manifest(\..+)?\.jsonl")
_SUM_TOLERANCE = 1e-6
_VERSION_MARK = re.compile(
    r"(~\d+|[\s_.-]*\(\s*(copy|version|take|v|)\s*\d*\s*\)|[\s_.-]+((ver|version|take|copy|alt)[\s_.-]?\d*|v\d+))$",
    re.IGNORECASE,
)
_UNLISTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_VERSION_FOLDERS = ("version", "versions")


# ------------------------------------------------------------------------------------------------------------- items


@dataclass(frozen=True)
class SplitItem:
    """A pair of sound and notes, or one of them alone.

    Attributes:
        stem: its path without suffix, relative to the corpus, with `/` between folders.
        notes: the file with its notes; None for sound alone.
        piece: what a manifest says it was made from; empty without one.
        source_sha256: digest of that.
    """

    stem: str
    notes: Path | None
    piece: str = ""
    source_sha256: str = ""

    @property
    def key(self) -> str:
        """What the item is drawn by: the same for all that was made of a piece, and for versions by their names."""
        return self.piece or name_key(self.stem)


def list_items(folder: Path) -> tuple[list[SplitItem], int]:
    """Find the items below a folder: the files that a pipeline's manifests list; else pairs of sound and notes where
    there are any; else files with notes.

    Args:
        folder: walked to its bottom; hidden files and folders are left out.

    Returns:
        The items by rising stem, and how many files have no partner and are left out.

    Raises:
        InputError: there is no such folder, it holds no item, or a manifest makes no sense.
    """
    if not folder.is_dir():
        reason = "not a folder" if folder.exists() else "no such folder"
        raise InputError(reason, context=str(folder), hint="name a folder of pairs or of MIDI files")
    notes, audio, manifest = _files_below(folder)
    listed = {stem for stem, line in manifest.items() if line.is_file}
    pairs = notes.keys() & audio
    midi = {stem for stem, path in notes.items() if path.suffix.lower() in MIDI_SUFFIXES}
    stems = sorted(listed or pairs or midi)
    if not stems:
        hint = "a pair is a sound file and its notes, .mid or .tsv, with one stem"
        raise InputError("the folder holds no pair and no MIDI file", context=str(folder), hint=hint)
    lines = (manifest.get(stem, _Line()) for stem in stems)
    items = [SplitItem(stem, notes.get(stem), line.piece, line.sha) for stem, line in zip(stems, lines, strict=True)]
    return items, len((notes.keys() ^ audio) - set(stems)) if pairs else 0


def name_key(stem: str) -> str:
    """A stem without what marks a version: `001/versions/001-v2` and `001/001` have one key."""
    *folders, name = stem.split("/")
    while (shorter := _VERSION_MARK.sub("", name)) not in ("", name):
        name = shorter
    return "/".join([*(folder for folder in folders if folder.lower() not in _VERSION_FOLDERS), name])


class _Line(NamedTuple):
    """What a manifest says of a stem; `is_file` where it lists the files themselves."""

    piece: str = ""
    sha: str = ""
    is_file: bool = False


def _files_below(folder: Path) -> tuple[dict[str, Path], set[str], dict[str, _Line]]:
    """Files with notes by stem, stems of sound files, and what manifests say of stems."""
    notes: dict[str, tuple[int, Path]] = {}
    audio: set[str] = set()
    manifest: dict[str, _Line] = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(root).relative_to(folder)
        for name in sorted(names):
            base, suffix = os.path.splitext(name)
            stem = (inner / base).as_posix()
            if _MANIFEST.fullmatch(name):
                manifest |= _read_manifest(Path(root) / name, inner)
            elif name.startswith("."):
                continue
            elif suffix.lower() in NOTE_SUFFIXES:
                candidate = NOTE_SUFFIXES.index(suffix.lower()), Path(root) / name
                notes[stem] = min(notes.get(stem, candidate), candidate)
            elif suffix.lower() in AUDIO_SUFFIXES:
                audio.add(stem)
    return {stem: path for stem, (_, path) in notes.items()}, audio, manifest


def _read_manifest(path: Path, inner: Path) -> dict[str, _Line]:
    found: dict[str, _Line] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = orjson.loads(line)
            name, piece, sha = (entry.get(key, "") for key in ("name", "piece", "source_sha256"))
            files = [part["file"] for part in entry["parts"].values()] if "parts" in entry else None
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            name = piece = sha = None
        place = f"{path}, line {number}"
        if not (name and all(isinstance(value, str) for value in (name, piece, sha, *(files or ())))):
            raise InputError("not an object with a name", context=place, hint="mend or remove it")
        if any(file.startswith(("../", "/")) for file in files or ()):
            message, hint = "the item's file lies elsewhere", "split what has files: cut windows with mtk data clips"
            raise InputError(message, context=place, hint=hint)
        stems = [name] if files is None else [os.path.splitext(file)[0] for file in files]
        found |= {(inner / stem).as_posix(): _Line(piece, sha, files is not None) for stem in stems}
    return found


# ------------------------------------------------------------------------------------------------------------ groups


class Groups:
    """Numbers 0..count-1 in groups that grow together (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def join(self, first: int, second: int) -> None:
        """Make one group of those of two numbers."""
        first, second = self._root(first), self._root(second)
        self._parents[max(first, second)] = min(first, second)

    def join_equal(self, keys: Iterable[object]) -> None:
        """Join the numbers that have equal keys; an empty key is like no other."""
        first: dict[object, int] = {}
        for number, key in enumerate(keys):
            if key:
                self.join(first.setdefault(key, number), number)

    def members(self) -> list[list[int]]:
        """The groups, by their lowest member; members rise."""
        groups: dict[int, list[int]] = {}
        for number in range(len(self._parents)):
            groups.setdefault(self._root(number), []).append(number)
        return list(groups.values())

    def _root(self, number: int) -> int:
        parents = self._parents
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number


def group_items(
    items: Sequence[SplitItem], evidence: Iterable[Evidence], alike: Iterable[tuple[int, int]] = ()
) -> list[list[int]]:
    """Put together what belongs together; the same file, by whatever path, always does.

    Args:
        items: of one corpus or more.
        evidence: the kinds that count; for `content` it is `alike` that tells.
        alike: pairs of indices of items whose notes are alike.

    Returns:
        Groups of indices of items.
    """
    groups = Groups(len(items))
    groups.join_equal(item.notes and item.notes.resolve() for item in items)
    for kind in set(evidence):
        if kind == "manifest":
            groups.join_equal(item.piece for item in items)
            groups.join_equal(item.source_sha256 for item in items)
        elif kind == "name":
            groups.join_equal(name_key(item.stem) for item in items)
        elif kind == "folder":
            groups.join_equal(os.path.dirname(item.stem) or "." for item in items)
        else:
            for first, second in alike:
                groups.join(first, second)
    return groups.members()


# ------------------------------------------------------------------------------------------------------------- sides


def parse_fractions(text: str) -> dict[str, float]:
    """Read `train=.9,valid=.05,test=.05`.

    Raises:
        UsageError: it is not of that form, or the fractions do not add up to 1.
    """
    where, hint = "--fractions", "write train=.9,valid=.05,test=.05"
    fractions: dict[str, float] = {}
    for part in text.split(","):
        side, _, value = part.strip().partition("=")
        try:
            fraction = float(value)
        except ValueError:
            fraction = -1.0
        if not (_SIDE.fullmatch(side) and 0 < fraction <= 1):
            raise UsageError(f"no such share: {part.strip()[:40]!r}", context=where, hint=hint)
        if side in fractions:
            raise UsageError(f"{side} is named twice", context=where, hint=hint)
        fractions[side] = fraction
    total = sum(fractions.values())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise UsageError(f"the fractions add up to {total:g}, not to 1", context=where, hint=hint)
    return fractions


def parse_evidence(text: str) -> tuple[Evidence, ...]:
    """Read `manifest,name,content`.

    Raises:
        UsageError: there is no such kind of evidence.
    """
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in EVIDENCE:
            hint = f"there are {', '.join(EVIDENCE)}; several are joined by commas"
            raise UsageError(f"no such evidence: {name[:40]!r}", context="--group-by", hint=hint)
    return tuple(kind for kind in EVIDENCE if kind in names)


@dataclass
class Split:
    """A corpus on its sides.

    Attributes:
        sides: indices of items by side, in rising order, every side of the fractions.
        group_counts: how many groups there are on each side.
        left_out: indices of items on no side.
        torn: groups that are on several sides, since they were before.
    """

    sides: dict[str, list[int]]
    group_counts: Counter[str] = field(default_factory=Counter)
    left_out: list[int] = field(default_factory=list)
    torn: list[list[int]] = field(default_factory=list)


def split_groups(
    items: Sequence[SplitItem],
    groups: Sequence[Sequence[int]],
    fractions: Mapping[str, float],
    seed: int,
    *,
    known: Mapping[int, str] | None = None,
    excluded: Iterable[int] = (),
) -> Split:
    """Draw a side for every group.

    Args:
        items: of the corpus.
        groups: of their indices.
        fractions: how much of the whole each side is to get.
        seed: another one gives another split.
        known: sides that items have already and keep; the rest of their group follows. Where a group's items have
            several, each stays where it is, and the rest is left out.
        excluded: items to be left out, with their groups.
    """
    split = Split({side: [] for side in fractions})
    known, excluded = known or {}, set(excluded)
    for group in groups:
        before = {known[index] for index in group if index in known}
        if not excluded.isdisjoint(group):
            split.left_out += group
        elif len(before) > 1:
            split.torn.append(list(group))
            split.left_out += [index for index in group if index not in known]
            for index in group:
                if index in known:
                    split.sides[known[index]].append(index)
        else:
            side = before.pop() if before else _drawn_side([items[index].key for index in group], fractions, seed)
            split.sides[side] += group
            split.group_counts[side] += 1
    for indices in (*split.sides.values(), split.left_out):
        indices.sort()
    return split


def _drawn_side(keys: Iterable[str], fractions: Mapping[str, float], seed: int) -> str:
    """The side of a group, by one of its keys: the first in an order that the seed does not change."""
    draw = _uniform(f"{seed}\n{min(keys, key=_uniform)}")
    for side, fraction in fractions.items():
        draw -= fraction
        if draw < 0:
            return side
    return side


def _uniform(text: str) -> float:
    """A number of [0, 1) that depends on a text alone."""
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


# ------------------------------------------------------------------------------------------------------------- lists


def names_of(item: SplitItem) -> set[str]:
    """What a list may call an item: its stem, the last part of it, and the same of the piece it was made from."""
    piece = os.path.splitext(item.piece)[0]
    return {item.stem, item.stem.rpartition("/")[2], item.piece, piece, piece.rpartition("/")[2]} - {""}


def read_list(path: Path) -> list[str]:
    """The lines of a list, without comments.

    Raises:
        InputError: it cannot be read as text.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise InputError(f"cannot read the list: {reason.lower()}", context=str(path)) from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def listed_stem(item: SplitItem, corpus: Path, folder: Path) -> str:
    """An item's line in a list that lies in a folder.

    Raises:
        InputError: the name cannot stand in a list.
    """
    stem = Path(os.path.relpath(corpus.resolve() / item.stem, folder.resolve())).as_posix()
    if stem != stem.strip() or _UNLISTABLE.search(stem):
        raise InputError("the name cannot stand in a list", context=repr(stem)[:80], hint="rename the file")
    return f"./{stem}" if stem.startswith("#") else stem
