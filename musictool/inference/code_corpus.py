"""Corpora of codes: Parquet files with one row a sound, for training and for pandas, DuckDB and Hugging Face datasets.

They have the columns of `symbolic.corpus`, where `ids` holds codes frame by frame: all codebooks of the first frame,
then of the second; `n` counts frames. Beside them stand `codebooks`, how many codes a frame has; `scales`, of the
segments of codecs that have them; and the lengths `samples` and `source_samples`, as in a stream's closing line. Needs
pyarrow, the extra `corpus`.
"""

from __future__ import annotations

import hashlib
from typing import BinaryIO

import numpy as np

from musictool.inference.coded_sound import CodedSound
from musictool.stream.records import Head
from musictool.symbolic.corpus import RowWriter


class CodeCorpusWriter:
    """Sounds to rows.

    Args:
        sink: the file; whoever opened it closes it.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self._rows = RowWriter(
            sink, {"codebooks": "int", "scales": "floats", "samples": "int", "source_samples": "int"}
        )

    def write(self, head: Head, codebooks: int, sound: CodedSound) -> None:
        """Add one sound.

        Args:
            head: of its item.
            codebooks: rows of its codes.
            sound: its codes; read to their end.
        """
        chunks = list(sound)
        frames = np.concatenate([np.zeros((0, codebooks), "<i4"), *(chunk.codes.T for chunk in chunks)])
        scales = np.concatenate([np.zeros(0, "<f4"), *(chunk.scales for chunk in chunks)])
        ids = np.ascontiguousarray(frames, "<i4").reshape(-1)
        sha = hashlib.sha256(ids.tobytes() + scales.astype("<f4").tobytes()).hexdigest()
        self._rows.write(
            head,
            ids,
            len(frames),
            sha,
            sound.source_sha256,
            codebooks=codebooks,
            scales=scales,
            samples=sound.samples,
            source_samples=sound.source_samples,
        )

    def close(self) -> None:
        """Write what is left and the file's footer."""
        self._rows.close()
