"""Token corpora, read piece by piece for training without loading them.

Files are those of `symbolic.corpus`. They are mapped; Parquet gives whole row groups, about a million tokens each, of
which the last ones used are kept. `token_windows` makes examples of the pieces. Needs pyarrow, the extra `corpus`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.corpus import load_pyarrow
from musictool.symbolic.vocabulary import Ids, Vocabulary

if TYPE_CHECKING:
    import pyarrow

CACHED_IDS = 1 << 26
"""How many ids a process keeps by default: 256 MiB."""
BLOCK_IDS = 1 << 25
"""How many ids are shuffled at a time, about; a smaller corpus is shuffled as a whole."""

_FACTS = ("item", "kind", "vocab", "vocab_sha", "n")


@dataclass(frozen=True, eq=False, slots=True)
class TokenExample:
    """Tokens in a row, of one piece or of several.

    Attributes:
        ids: int32 [t].
        piece: int32 [t], the number of the piece that each token is from.
        position: int32 [t], the place of each in its piece, from 0.
    """

    ids: Ids
    piece: NDArray[np.int32]
    position: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group: the file, its number there, and the numbers of the corpus's pieces in it, [first, last)."""

    path: Path
    number: int
    first: int
    last: int


class TokenCorpus:
    """Pieces as ids, read where they are asked for. A copy in another process reads and keeps its own.

    Args:
        vocabulary: what the ids mean.
        names: of the pieces.
        lengths: int64 [pieces], how many tokens each has, 1 at least.
        groups: where they are, in their order.
        cached_ids: how many ids may be kept, beside the row group in use.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        names: Sequence[str],
        lengths: NDArray[np.int64],
        groups: Sequence[_Group],
        cached_ids: int,
    ) -> None:
        self.vocabulary = vocabulary
        self.names = names
        self.lengths = lengths
        self._groups = groups
        self._firsts = np.array([group.first for group in groups])
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._cached_ids = cached_ids
        self._cache: OrderedDict[int, Ids] = OrderedDict()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def token_count(self) -> int:
        """How many tokens all pieces have."""
        return int(self._starts[-1])

    def ids(self, piece: int, start: int = 0, stop: int | None = None) -> Ids:
        """Tokens [start, stop) of a piece, int32; not to be written to.

        Raises:
            InputError: the file is damaged, or has changed since it was opened.
        """
        index = int(np.searchsorted(self._firsts, piece, side="right")) - 1
        group = self._groups[index]
        begin = int(self._starts[piece] - self._starts[group.first])
        length = int(self.lengths[piece])
        stop = length if stop is None else min(stop, length)
        return self._group_ids(index)[begin + start : begin + stop]

    def example(self, piece: int, start: int, stop: int, separator: int | None = None) -> TokenExample:
        """Tokens [start, stop) of a piece, as far as there are; with a separator, that is one more behind its last."""
        ids = self.ids(piece, start, stop)
        if separator is not None and start <= int(self.lengths[piece]) < stop:
            ids = np.append(ids, np.int32(separator))
        else:
            ids = ids.copy()
        position = np.arange(start, start + len(ids), dtype=np.int32)
        return TokenExample(ids, np.full(len(ids), piece, np.int32), position)

    def draw_blocks(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Put row groups into blocks of about `BLOCK_IDS`, at random; the block of each piece, int64 [pieces]."""
        counts = np.array([group.last - group.first for group in self._groups])
        sizes = self._starts[self._firsts + counts] - self._starts[self._firsts]
        order = generator.permutation(len(sizes))
        blocks = np.empty(len(sizes), np.int64)
        blocks[order] = (np.cumsum(sizes[order]) - sizes[order]) // BLOCK_IDS
        return np.repeat(blocks, counts)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def _group_ids(self, index: int) -> Ids:
        """All ids of a row group."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        ids = self._read_group(self._groups[index])
        self._cache[index] = ids
        while len(self._cache) > 1 and sum(map(len, self._cache.values())) > self._cached_ids:
            self._cache.popitem(last=False)
        return ids

    def _read_group(self, group: _Group) -> Ids:
        with _opened(group.path) as file:
            table = file.read_row_group(group.number, columns=["ids"], use_threads=False)
            column = table.column("ids").combine_chunks()
            lengths = np.diff(column.offsets.to_numpy())
            ids: Ids = column.flatten().to_numpy()
        expected = self.lengths[group.first : group.last]
        if not np.array_equal(lengths[lengths > 0], expected):
            raise InputError(
                "a row has not as many tokens as it says", context=str(group.path), hint=_hint(self.vocabulary)
            )
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.vocabulary):
            message = f"a token is not in vocabulary {self.vocabulary.name} of {len(self.vocabulary)} tokens"
            raise InputError(message, context=str(group.path), hint=_hint(self.vocabulary))
        return ids


def open_token_corpus(
    paths: Sequence[Path | str], vocabulary: Vocabulary, *, cached_ids: int = CACHED_IDS
) -> TokenCorpus:
    """Open files as one corpus. Lengths and names are read, tokens are not; pieces without tokens are left out.

    Args:
        paths: Parquet files.
        vocabulary: that they have to be of.
        cached_ids: how many ids a process may keep in memory, beside the row group in use.

    Raises:
        MissingError: pyarrow is not installed.
        InputError: a file is not there, is no token corpus, or is one of another vocabulary; or all are empty.
    """
    names: list[str] = []
    lengths: list[NDArray[np.int64]] = []
    groups: list[_Group] = []
    for path in map(Path, paths):
        with _opened(path) as file:
            _check_columns(file.schema_arrow, vocabulary, path)
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=list(_FACTS), use_threads=False)
                _check_vocabulary(table, vocabulary, path)
                counts = table.column("n").fill_null(0).to_numpy().astype(np.int64)
                found = [name for name, count in zip(table.column("item").to_pylist(), counts) if count]
                groups.append(_Group(path, number, len(names), len(names) + len(found)))
                names += found
                lengths.append(counts[counts > 0])
    if not names:
        listed = ", ".join(map(str, paths))
        raise InputError("the corpus is empty", context=listed, hint=_hint(vocabulary), code="empty-corpus")
    return TokenCorpus(vocabulary, names, np.concatenate(lengths), groups, cached_ids)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A Parquet file, mapped; what pyarrow has to say of it in our words."""
    arrow, parquet = load_pyarrow()
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            yield file
    except (arrow.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or ["cannot be read"])[0].rstrip(".")
        is_there = path.exists()
        message = f"broken Parquet file: {reason}" if is_there else "no such token corpus"
        code = "corrupt-corpus" if is_there else "no-such-file"
        raise InputError(
            message, context=str(path), hint="mtk validate tells more" if is_there else "", code=code
        ) from error


def _check_columns(schema: pyarrow.Schema, vocabulary: Vocabulary, path: Path) -> None:
    """Refuse a Parquet file that is no token corpus."""
    arrow, _ = load_pyarrow()
    types = arrow.types

    def is_right(name: str, kind: pyarrow.DataType) -> bool:
        if name == "ids":
            return (types.is_list(kind) or types.is_large_list(kind)) and types.is_int32(kind.value_type)
        return types.is_integer(kind) if name == "n" else types.is_string(kind)

    kinds = dict(zip(schema.names, schema.types))
    for name in (*_FACTS, "ids"):
        if name not in kinds or not is_right(name, kinds[name]):
            found = f"it is {kinds[name]}" if name in kinds else "it is not there"
            raise InputError(f"no token corpus: column {name!r}: {found}", context=str(path), hint=_hint(vocabulary))


def _check_vocabulary(table: pyarrow.Table, vocabulary: Vocabulary, path: Path) -> None:
    """Refuse rows of another vocabulary, or of a codec."""
    wanted = ("events", vocabulary.fingerprint)
    if all(
        set(table.column(name).unique().to_pylist()) <= {value} for name, value in zip(("kind", "vocab_sha"), wanted)
    ):
        return
    rows = (table.column(name).to_pylist() for name in ("item", "kind", "vocab", "vocab_sha"))
    item, kind, name, fingerprint = next(row for row in zip(*rows) if (row[1], row[3]) != wanted)
    what = f"{name!r:.40} ({str(fingerprint)[:8]})" if kind == "events" else f"{kind!r:.40}"
    raise InputError(
        f"the corpus is of vocabulary {what}, not {vocabulary.name!r} ({vocabulary.fingerprint[:8]})",
        context=f"{path}, item {item!r:.60}",
        hint=_hint(vocabulary),
        code="wrong-vocabulary",
    )


def _hint(vocabulary: Vocabulary) -> str:
    return f"mtk tokenize --scheme {vocabulary.name} -o corpus.parquet makes one"
