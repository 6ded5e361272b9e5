"""Token corpora: Parquet files with one row an item, for training and for pandas, DuckDB and Hugging Face datasets.

Written in bounded memory, a row group at a time. Needs pyarrow, the extra `corpus`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import orjson

from musictool.errors import MissingError
from musictool.symbolic.tokenization import Item

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


class CorpusWriter:
    """Items to rows.

    Args:
        sink: the file; whoever opened it closes it.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self._arrow, parquet = load_pyarrow()
        text = self._arrow.string()
        self._schema = self._arrow.schema(
            [
                ("item", text),
                ("kind", text),
                ("vocab", text),
                ("vocab_sha", text),
                ("ids", self._arrow.list_(self._arrow.int32())),
                ("n", self._arrow.int64()),
                ("sha", text),
                ("source_sha", text),
                ("meta", text),
                ("made", text),
            ],
            metadata={"musictool_corpus": "1"},
        )
        self._file = parquet.ParquetWriter(sink, self._schema, compression="zstd")
        self._rows: list[dict] = []
        self._ids = 0

    def write(self, item: Item) -> None:
        """Add one item that has not failed."""
        self._rows.append(
            {
                "item": item.head.item,
                "kind": item.head.kind,
                "vocab": item.head.vocab,
                "vocab_sha": item.head.vocab_sha,
                "ids": item.ids,
                "n": len(item.ids),
                "sha": hashlib.sha256(item.ids.astype("<i4", copy=False).data).hexdigest(),
                "source_sha": item.source_sha,
                "meta": orjson.dumps(item.head.meta).decode(),
                "made": orjson.dumps(list(item.head.made)).decode(),
            }
        )
        self._ids += len(item.ids)
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
