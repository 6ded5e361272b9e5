"""Token corpora: Parquet files with one row an item, for training and for pandas, DuckDB and Hugging Face datasets.

Written in bounded memory, a row group at a time. Needs pyarrow, the extra `corpus`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

import orjson

from musictool.errors import MissingError
from musictool.stream.records import Head
from musictool.symbolic.tokenization import Item
from musictool.symbolic.vocabulary import Ids

CORPUS_SUFFIX = ".parquet"
IDS_A_GROUP = 1 << 20
ROWS_A_GROUP = 4096


def is_corpus_path(path: str | Path) -> bool:
    """Whether a file's name says that it holds a token corpus."""
    return str(path).lower().endswith(CORPUS_SUFFIX)


def load_pyarrow() -> tuple[ModuleType, ModuleType]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        MissingError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingError(
            "token corpora need pyarrow", hint="pip install 'musictool[corpus]'", code="missing-dependency"
        ) from error
    return pyarrow, pyarrow.parquet


class RowWriter:
    """Rows of a corpus, written a group at a time.

    Args:
        sink: the file; whoever opened it closes it.
        more: columns beside those of every corpus, by name: `int` or `floats`.
    """

    def __init__(self, sink: BinaryIO, more: Mapping[str, Literal["int", "floats"]] | None = None) -> None:
        self._arrow, parquet = load_pyarrow()
        text, number = self._arrow.string(), self._arrow.int64()
        kinds = {"int": number, "floats": self._arrow.list_(self._arrow.float32())}
        self._schema = self._arrow.schema(
            [
                ("item", text),
                ("kind", text),
                ("vocab", text),
                ("vocab_sha", text),
                ("ids", self._arrow.list_(self._arrow.int32())),
                ("n", number),
                ("sha", text),
                ("source_sha", text),
                ("meta", text),
                ("made", text),
                *((name, kinds[kind]) for name, kind in (more or {}).items()),
            ],
            metadata={"musictool_corpus": "1"},
        )
        self._file = parquet.ParquetWriter(sink, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._ids = 0

    def write(self, head: Head, ids: Ids, count: int, sha: str, source_sha: str, **more: Any) -> None:
        """Add a row.

        Args:
            head: of the item.
            ids: int32 [t].
            count: of what the item counts.
            sha: of the item's tokens.
            source_sha: of what it is made from.
            **more: the other columns.
        """
        self._rows.append(
            {
                "item": head.item,
                "kind": head.kind,
                "vocab": head.vocab,
                "vocab_sha": head.vocab_sha,
                "ids": ids,
                "n": count,
                "sha": sha,
                "source_sha": source_sha,
                "meta": orjson.dumps(head.meta).decode(),
                "made": orjson.dumps(list(head.made)).decode(),
                **more,
            }
        )
        self._ids += len(ids)
        if self._ids >= IDS_A_GROUP or len(self._rows) >= ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left and the file's footer."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows, self._ids = [], 0


class CorpusWriter:
    """Items to rows.

    Args:
        sink: the file; whoever opened it closes it.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self._rows = RowWriter(sink)

    def write(self, item: Item) -> None:
        """Add one item that has not failed."""
        sha = hashlib.sha256(item.ids.astype("<i4", copy=False).data).hexdigest()
        self._rows.write(item.head, item.ids, len(item.ids), sha, item.source_sha)

    def close(self) -> None:
        """Write what is left and the file's footer."""
        self._rows.close()
