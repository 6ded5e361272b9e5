"""Codes of a pipeline's items put together: a corpus for each side of a split and each part.

`train.lead.parquet` and `train.backing.parquet` have the same items in the same order; of items with one part,
`train.parquet` has them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from musictool.errors import InputError
from musictool.inference.code_corpus import CodeCorpusWriter
from musictool.inference.coded_sound import ItemCodes
from musictool.stream.reader import StreamReader
from musictool.symbolic.corpus import CORPUS_SUFFIX
from musictool.training.data.pipeline.items import Item


def corpora_of(items: Iterable[Item], sides: Mapping[str, Iterable[str]], folder: Path) -> dict[str, list[Path]]:
    """Which streams go into which corpus.

    Args:
        items: with codes as their files.
        sides: stems of those files, relative to `folder`, by side.
        folder: that they lie in.

    Returns:
        Streams in the order of the items, by the corpus's file name; a corpus of nothing is none.
    """
    side_of = {stem: side for side, stems in sides.items() for stem in stems}
    found: dict[str, list[Path]] = {}
    for item in items:
        for part, entry in item.parts.items():
            side = side_of.get(entry.file.relative_to(folder).with_suffix("").as_posix())
            if side is not None:
                mark = f".{part}" if len(item.parts) > 1 else ""
                found.setdefault(f"{side}{mark}{CORPUS_SUFFIX}", []).append(entry.file)
    return found


def write_corpus(sink: BinaryIO, streams: Iterable[Path]) -> int:
    """Write a corpus of codes; how many sounds it has.

    Raises:
        MissingError: pyarrow is not installed.
        InputError: a stream cannot be read.
    """
    writer = CodeCorpusWriter(sink)
    count = 0
    for path in streams:
        try:
            with open(path, "rb") as file:
                for item in StreamReader(file, lambda head: None, str(path)):
                    writer.write(item.head, int(item.head.meta["codebooks"]), ItemCodes(item))
                    count += 1
        except OSError as error:
            raise InputError((error.strerror or "cannot be read").lower(), context=str(path)) from error
    writer.close()
    return count
