"""Token corpora, row by row: counts, digests, vocabularies, and the notes that the ids mean."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.findings import Finding
from musictool.stream.records import KINDS, Head
from musictool.symbolic.corpus import load_pyarrow
from musictool.symbolic.schemes import Scheme, find_scheme, lookup_events
from musictool.validation.reports import Report, ValidationRules, unreadable
from musictool.validation.streams import IDS_A_BATCH, CodeClaims, Meaning, scheme_of

if TYPE_CHECKING:
    import pyarrow

ROWS_A_BATCH = 16

_TEXTS = ("item", "kind", "vocab", "vocab_sha", "sha", "meta")
_OF_CODES = ("codebooks", "scales", "samples")  # which corpora of events have not


def check_corpus(
    file: Path | BinaryIO, path: Path | None, name: str, rules: ValidationRules, own_scheme: str | None = None
) -> Iterator[Report]:
    """Check the rows of a token corpus as `check_stream` checks items; a row that is wrong spoils no other."""
    arrow, parquet = load_pyarrow()
    own = find_scheme(own_scheme) if own_scheme else None
    context = "standard input" if path is None else str(path)
    try:
        with parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as corpus:
            _check_columns(arrow, corpus.schema_arrow, context)
            columns = [*_TEXTS, "ids", "n", *(name for name in _OF_CODES if name in corpus.schema_arrow.names)]
            for batch in corpus.iter_batches(batch_size=ROWS_A_BATCH, columns=columns, use_threads=False):
                values = {column: batch.column(column).to_pylist() for column in columns if column != "ids"}
                ids = batch.column("ids")
                for number in range(batch.num_rows):
                    row = {column: values[column][number] for column in values}
                    row.update((column, row[column] or "") for column in _TEXTS)
                    entry = ids[number].values
                    tokens = np.zeros(0, np.int32) if entry is None else entry.to_numpy(zero_copy_only=False)
                    check = _check_codes_row if row["kind"] == "codes" else partial(_check_row, rules=rules, own=own)
                    yield check(row, tokens, path)
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else "cannot be read"
        broken = InputError(f"broken Parquet file: {reason}", context=context, code="corrupt-corpus")
        yield unreadable(name, path, "corpus", broken)
    except InputError as error:
        yield unreadable(name, path, "corpus", error)


def _check_columns(arrow: Any, schema: pyarrow.Schema, context: str) -> None:
    """Refuse a Parquet file that is no token corpus."""
    types = arrow.types
    for column in (*_TEXTS, "n", "ids"):
        index = schema.get_field_index(column)
        kind = schema.field(index).type if index >= 0 else None
        if column == "ids":
            is_right = kind is not None and (types.is_list(kind) or types.is_large_list(kind))
            is_right = is_right and types.is_int32(cast(Any, kind).value_type)
        elif column == "n":
            is_right = kind is not None and types.is_integer(kind)
        else:
            is_right = kind is not None and (types.is_string(kind) or types.is_large_string(kind))
        if not is_right:
            found = "no such column" if kind is None else f"it is {kind}"
            raise InputError(
                f"no token corpus: column {column!r}: {found}",
                context=context,
                hint="mtk tokenize -o corpus.parquet makes one",
            )


def _check_row(
    row: dict[str, Any], ids: NDArray[np.int32], path: Path | None, *, rules: ValidationRules, own: Scheme | None
) -> Report:
    facts: dict[str, Any] = {"item_kind": row["kind"], "vocab": row["vocab"], "tokens": len(ids)}
    sha = hashlib.sha256(np.ascontiguousarray(ids, "<i4").data).hexdigest()
    findings = list(_row_findings(row, len(ids), sha))
    try:
        vocabulary = lookup_events(Head(row["item"], "events", row["vocab"], row["vocab_sha"]), own)
        if vocabulary.fingerprint != row["vocab_sha"]:
            raise InputError(f"vocabulary {row['vocab']!r:.40} is another one: its fingerprint differs")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(vocabulary):
            raise InputError(f"a token is not in vocabulary {row['vocab']!r:.40} of {len(vocabulary)} tokens")
    except InputError as error:
        findings.append(Finding("vocabulary", "error", str(error), row["vocab_sha"]))
    else:
        meaning = Meaning(scheme_of(row["vocab"], own))
        for start in range(0, len(ids), IDS_A_BATCH):
            meaning.add(ids[start : start + IDS_A_BATCH])
        note_facts, note_findings = meaning.judged(rules)
        findings += [*rules.tokens.judge("tokens", "tokens", len(ids)), *note_findings]
        facts.update(note_facts)
    content = f"{row['vocab_sha']} {sha}" if len(ids) else ""
    return Report(row["item"], path, "corpus", {**facts, "sha": sha}, tuple(findings), content)


def _check_codes_row(row: dict[str, Any], ids: NDArray[np.int32], path: Path | None) -> Report:
    """A row of a codec's codes; the codec itself is not asked."""
    codebooks, scales = row.get("codebooks") or 0, np.array(row.get("scales") or (), "<f4")
    frames = len(ids) // max(1, codebooks)
    facts: dict[str, Any] = {"item_kind": "codes", "vocab": row["vocab"], "tokens": frames, "codebooks": codebooks}
    sha = hashlib.sha256(np.ascontiguousarray(ids, "<i4").tobytes() + scales.tobytes()).hexdigest()
    findings = list(_row_findings(row, frames, sha))
    if codebooks < 1 or len(ids) % codebooks:
        findings.append(Finding("codebooks", "error", f"{len(ids)} codes in {codebooks} codebooks", codebooks))
    claims = CodeClaims.of(_meta_of(row), row.get("samples"))
    facts.update(claims.facts)
    findings += claims.judge(frames, int(ids.min(initial=0)), int(ids.max(initial=0)))
    content = f"{row['vocab_sha']} {sha}" if len(ids) else ""
    return Report(row["item"], path, "corpus", {**facts, "sha": sha}, tuple(findings), content)


def _row_findings(row: dict[str, Any], found: int, sha: str) -> Iterator[Finding]:
    """What a row says of itself that is not so."""
    if row["kind"] not in KINDS:
        known = " and ".join(map(repr, KINDS))
        yield Finding("kind", "error", f"the row's kind is {row['kind']!r:.40}, and there are {known}", row["kind"])
    if row["n"] != found:
        yield Finding("count", "error", f"the row has {found} tokens where it says {row['n']}", found)
    if row["sha"] != sha:
        yield Finding("digest", "error", "the row's tokens are not those that were written: their sha256 differs", sha)
    if _meta_of(row) is None:
        yield Finding("meta", "error", "the row's meta is no JSON object")


def _meta_of(row: dict[str, Any]) -> dict[str, Any] | None:
    """A row's meta; None if it has none that can be read."""
    with suppress(ValueError):
        meta = orjson.loads(row["meta"] or "{}")
        return meta if isinstance(meta, dict) else None
    return None
