"""A folder of items split into sides: lists written, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musictool.cli.environment import Environment
from musictool.cli.files import atomic_writer
from musictool.cli.parallel import parallel_map
from musictool.cli.progress import track
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from musictool.training.data.likeness import Fingerprint
    from musictool.training.data.splitting import Evidence, Split, SplitItem

_LIST_SUFFIX = ".txt"
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class WantedSplit:
    """How to split.

    Attributes:
        shares: the sides, and how much each is to get.
        seed: of the draw.
        evidence: what keeps items together.
    """

    shares: Mapping[str, float]
    seed: int
    evidence: Sequence[Evidence]


def split_folder(
    environment: Environment,
    folder: Path,
    output: Path | None,
    wanted: WantedSplit,
    *,
    leave_out: Sequence[Path] = (),
    extend: bool = False,
    jobs: int = 1,
    force: bool = False,
) -> tuple[bool, dict[str, list[str]]]:
    """Split a folder's items, and write that down.

    Args:
        environment: where messages go, and lines if there is no `output`.
        folder: of the items.
        output: where lists go.
        wanted: how to split.
        leave_out: lists and folders of what has no side.
        extend: keep the sides that the lists give.
        jobs: processes that read notes.
        force: replace lists.

    Returns:
        Whether all items could be read, and the stems of each side's.
    """
    from musictool.training.data import splitting
    from musictool.training.data.likeness import alike_pairs

    shares, seed, evidence = wanted.shares, wanted.seed, wanted.evidence
    lists = {} if output is None else {side: output / (side + _LIST_SUFFIX) for side in shares}
    if not (force or extend):
        _refuse_existing(lists.values())

    corpus = _Corpus(folder, output or folder, leave_out, environment)
    alike = alike_pairs(corpus.fingerprints(jobs)) if "content" in evidence else ()
    items = [entry.item for entry in corpus.entries]
    groups = splitting.group_items(items, evidence, alike)
    excluded = (index for index, entry in enumerate(corpus.entries) if entry.is_barred)
    known = corpus.known_sides(lists) if extend else {}
    split = splitting.split_groups(items, groups, shares, seed, known=known, excluded=excluded)

    if output is None:
        environment.stdout.writelines(corpus.rows(split, groups))
    for side, path in lists.items():
        head = f"# mtk data split: {side}, {shares[side]:g} of the pieces by {', '.join(evidence)}, seed {seed}"
        with atomic_writer(path, force=force or extend) as file:
            file.writelines(f"{line}\n".encode() for line in [head, *corpus.lines(split.sides[side])])
    _tell(split, shares, corpus, environment)
    stems = {side: [items[index].stem for index in indices] for side, indices in split.sides.items()}
    return not corpus.has_failed, stems


def _refuse_existing(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists():
            hint = "replace it with --force, or add to it with --extend"
            raise UsageError("the list exists", context=str(path), hint=hint, code="exists")


@dataclass
class _Entry:
    """An item, what it is called in a list (nothing where it is from elsewhere), and whether it is to be left out."""

    item: SplitItem
    line: str = ""
    is_barred: bool = False


class _Corpus:
    """The items of a corpus, and behind them those of folders that are kept off it.

    Attributes:
        entries: the items of which nothing is wrong.
        has_failed: whether there were others.
    """

    def __init__(self, folder: Path, lists_folder: Path, left_out: Sequence[Path], environment: Environment) -> None:
        from musictool.training.data.splitting import list_items, listed_stem

        self.entries: list[_Entry] = []
        self.has_failed = False
        self._environment = environment
        items, lone_count = list_items(folder)
        if lone_count:
            environment.note(f"files without a partner are left out: {lone_count}", context=str(folder))
        for item in items:
            try:
                self.entries.append(_Entry(item, listed_stem(item, folder, lists_folder)))
            except InputError as error:
                self._fail(item, error)
        for path in left_out:
            if path.is_dir():
                self.entries += [_Entry(item, is_barred=True) for item in list_items(path)[0]]
            else:
                self._bar_listed(path)

    def fingerprints(self, jobs: int) -> list[Fingerprint]:
        """What the items are recognised by; those whose notes cannot be read are entries no more."""
        found, readable = [], []
        paths = [entry.item.notes for entry in self.entries]
        with track(parallel_map(_fingerprint, paths, jobs), self._environment, label="split", total=len(paths)) as done:
            for entry, result in zip(self.entries, done):
                if isinstance(result, InputError):
                    self._fail(entry.item, result)
                else:
                    readable.append(entry)
                    found.append(result)
        if not readable:
            raise InputError("no item can be read", hint="mtk validate tells what is wrong with each")
        self.entries = readable
        return found

    def known_sides(self, lists: Mapping[str, Path]) -> dict[int, str]:
        """The sides that lists give to entries, by index."""
        from musictool.training.data.splitting import read_list

        numbers = {entry.line: number for number, entry in enumerate(self.entries) if entry.line}
        known: dict[int, str] = {}
        for side, path in lists.items():
            lines = read_list(path) if path.exists() else []
            numbered = {numbers[line] for line in lines if line in numbers}
            if not numbered.isdisjoint(known):
                name = self.entries[min(numbered & known.keys())].line
                raise InputError("an item is on two sides", context=f"{path}: {name}", hint="take it out of one list")
            known |= dict.fromkeys(numbered, side)
            self._warn_of("items of the list are gone", [line for line in lines if line not in numbers], path)
        return known

    def lines(self, indices: Iterable[int]) -> list[str]:
        """What the entries of some indices are called in a list."""
        return [self.entries[index].line for index in indices]

    def rows(self, split: Split, groups: Iterable[Sequence[int]]) -> Iterator[bytes]:
        """A line for each item that has a side: the side, the item, and the first item of its group."""
        first = {index: self.entries[group[0]].line for group in groups for index in group}
        for side, indices in split.sides.items():
            for index in indices:
                yield f"{side}\t{self.entries[index].line}\t{first[index]}\n".encode()

    def warn_of_torn(self, split: Split) -> None:
        """Name the groups that are on several sides."""
        for group in split.torn:
            message = "a piece is on several sides, as the lists have it"
            self._warn_of(message, [line for line in self.lines(group) if line], None)

    def _bar_listed(self, path: Path) -> None:
        from musictool.training.data.splitting import names_of, read_list

        names, found = set(read_list(path)), set()
        for entry in self.entries:
            if hit := names & names_of(entry.item):
                entry.is_barred = True
                found |= hit
        self._warn_of("names of the list fit no item", sorted(names - found), path)

    def _warn_of(self, message: str, names: Sequence[str], path: Path | None) -> None:
        if names:
            shown = ", ".join([*names[:_NAMES_SHOWN], *["…"][: len(names) - _NAMES_SHOWN]])
            self._environment.warn(f"{message}: {len(names)} ({shown})", context="" if path is None else str(path))

    def _fail(self, item: SplitItem, error: InputError) -> None:
        self.has_failed = True
        self._environment.item_failed(item.stem, error)


def _fingerprint(path: Path | None) -> Fingerprint | InputError:
    """What a file's notes are recognised by, or why they cannot be read; runs in a worker process."""
    from musictool.metrics.note_files import read_score
    from musictool.symbolic.notes import Notes
    from musictool.training.data.likeness import fingerprint

    try:
        return fingerprint(Notes.empty() if path is None else read_score(path).notes)
    except InputError as error:
        return error


def _tell(split: Split, shares: Mapping[str, float], corpus: _Corpus, environment: Environment) -> None:
    """Say how far the fractions are met, and what to look at."""
    corpus.warn_of_torn(split)
    total = sum(map(len, split.sides.values())) or 1
    width = max(map(len, shares))
    for side, indices in split.sides.items():
        items, pieces, share = len(indices), split.group_counts[side], len(indices) / total
        counts = f"{items:>7} items {pieces:>7} pieces {share:>7.3f} of all"
        environment.note(f"{side:{width}}{counts}, {shares[side]:.3f} asked for")
        environment.event("side", side=side, items=items, pieces=pieces, share=share, asked=shares[side])
        if not items:
            environment.note(f"nothing is on side {side}: give it a larger share, or try another --seed")
    if left_out := sum(bool(line) for line in corpus.lines(split.left_out)):
        environment.note(f"left out: {left_out} items")
