"""Token streams, item by item: form, digests, vocabularies, and the notes that the ids mean.

An item is read and decoded chunk by chunk, and of its notes only running figures are kept: memory is bounded whatever
the size of an item.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from musictool.errors import InputError
from musictool.findings import Finding
from musictool.stream.reader import ItemReader, StreamReader
from musictool.stream.records import Head, ItemFailed, StreamError
from musictool.symbolic.checks import NoteFacts, NoteTally, judge
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import Scheme, find_scheme, lookup_events
from musictool.symbolic.vocabulary import Ids, Vocabulary
from musictool.validation.reports import Report, ValidationRules, plain, unreadable

IDS_A_BATCH = 1 << 16

_SWITCHING_SCHEMES = ("tatum", "mt3")  # those in which the end of a note is an event of its own, and may be missing
_VOICED_SCHEMES = ("tatum",)  # those in which notes that overlap are told apart by a voice


def check_stream(
    file: BinaryIO, path: Path | None, name: str, rules: ValidationRules, own_scheme: str | None = None
) -> Iterator[Report]:
    """Check the items of a token stream: its form, its digests, its vocabularies, and the notes that its ids mean."""
    own = find_scheme(own_scheme) if own_scheme else None
    context = "standard input" if path is None else str(path)
    current = name
    try:
        for item in StreamReader(file, partial(_lookup, own=own), context):
            current = item.head.item
            yield _check_item(item, path, rules, own)
            current = name
    except StreamError as error:
        yield unreadable(current, path, "stream", error)


def _lookup(head: Head, own: Scheme | None) -> Vocabulary | None:
    """The vocabulary of an item; codes have none that is known here."""
    return lookup_events(head, own) if head.kind == "events" else None


def scheme_of(vocab: str, own: Scheme | None) -> Scheme:
    return own if own is not None and own.name == vocab else find_scheme(vocab)


def _check_item(item: ItemReader, path: Path | None, rules: ValidationRules, own: Scheme | None) -> Report:
    head = item.head
    facts: dict[str, Any] = {"item_kind": head.kind, "vocab": head.vocab}
    findings: list[Finding] = []
    try:
        if head.kind == "codes":
            code_facts, findings = _check_codes(item)
            facts.update(code_facts)
        else:
            meaning = Meaning(scheme_of(head.vocab, own))
            for ids in _batched(item.chunks()):
                meaning.add(ids)
            note_facts, findings = meaning.judged(rules)
            facts.update(tokens=meaning.tokens, **note_facts)
    except ItemFailed as error:
        finding = Finding("failed", "error", f"failed in an earlier stage: {error.message}", error.code)
        return Report(head.item, path, "stream", facts, (finding,))
    findings = [*rules.tokens.judge("tokens", "tokens", facts["tokens"]), *findings]
    sha = item.closing.sha if item.closing is not None else ""
    content = f"{head.vocab_sha} {sha}" if facts["tokens"] else ""
    return Report(head.item, path, "stream", {**facts, "sha": sha}, tuple(findings), content)


def _check_codes(item: ItemReader) -> tuple[dict[str, Any], list[Finding]]:
    """What codes are like, and what in them does not fit what is said of them.

    Raises:
        ItemFailed, StreamError: as `ItemReader.chunks`.
    """
    frames, codebooks, highest = 0, 0, 0
    for codes in item.chunks():
        codebooks = len(codes)
        frames += codes.shape[1]
        highest = max(highest, int(codes.max(initial=0)))
    claims = CodeClaims.of(item.head.meta, item.closing.samples if item.closing is not None else None)
    return {"tokens": frames, "codebooks": codebooks, **claims.facts}, claims.judge(frames, 0, highest)


@dataclass(frozen=True)
class CodeClaims:
    """What is said of codes; None where it is not. The codec itself is not asked.

    Attributes:
        size: entries of a codebook.
        hop: samples of a frame.
        rate_hz: of the sound.
        samples: how long the sound is.
    """

    size: int | None
    hop: int | None
    rate_hz: int | None
    samples: int | None

    @classmethod
    def of(cls, meta: Mapping[str, Any] | None, samples: int | None) -> CodeClaims:
        """What `meta` says, and the end of an item."""
        values = ((meta or {}).get(key) for key in ("codebook_size", "hop_samples", "rate_hz"))
        size, hop, rate_hz = (value if type(value) is int and value > 0 else None for value in values)
        return cls(size, hop, rate_hz, samples)

    @property
    def facts(self) -> dict[str, Any]:
        """How long the sound is."""
        if self.samples is None or self.rate_hz is None:
            return {}
        return {"duration_seconds": self.samples / self.rate_hz}

    def judge(self, frames: int, lowest: int, highest: int) -> list[Finding]:
        """What is wrong with so many frames of codes within these bounds."""
        findings = []
        if lowest < 0 or (self.size is not None and highest >= self.size):
            code = lowest if lowest < 0 else highest
            message = f"code {code} is out of range: the codebooks have {self.size} entries"
            findings.append(Finding("codes", "error", message, code))
        if self.samples is not None and self.hop is not None and self.samples > frames * self.hop:
            message = f"{self.samples} samples are promised, and {frames} frames have {frames * self.hop} at most"
            findings.append(Finding("length", "error", message, self.samples))
        return findings


def _batched(chunks: Iterable[Ids]) -> Iterator[Ids]:
    """The same ids in fewer pieces, for a decoder that works on many as fast as on few."""
    batch: list[Ids] = []
    size = 0
    for chunk in chunks:
        batch.append(chunk)
        size += len(chunk)
        if size >= IDS_A_BATCH:
            yield np.concatenate(batch)
            batch, size = [], 0
    if batch:
        yield np.concatenate(batch)


class Meaning:
    """The notes that ids mean, figured as they pass; none is kept.

    Attributes:
        tokens: how many ids there were.
    """

    def __init__(self, scheme: Scheme) -> None:
        self.tokens = 0
        self._scheme = scheme
        self._decoder = scheme.decoder()
        self._decoder.keeps_pedals = False
        self._tally = NoteTally()
        self._error: InputError | None = None

    def add(self, ids: Ids) -> None:
        """Take in ids; after some that cannot be decoded the rest are only counted."""
        self.tokens += len(ids)
        if self._error is None:
            try:
                self._tally.add(self._decoder.feed(ids))
            except InputError as error:
                self._error = error

    def judged(self, rules: ValidationRules) -> tuple[dict[str, Any], list[Finding]]:
        """End the decoding: the facts as plain values, and what is wrong with them."""
        if self._error is None:
            try:
                rest = self._decoder.finish()
            except InputError as error:
                self._error = error
            else:
                facts = self._facts(rest)
                return plain(facts), judge(facts, rules) if self.tokens else []
        return {}, [Finding("undecodable", "error", f"the tokens make no notes: {self._error}")]

    def _facts(self, rest: Score) -> NoteFacts:
        self._tally.add(rest.notes)
        return replace(
            self._tally.facts(float(rest.pedals.offset_seconds.max(initial=0.0))),
            hanging=len(rest.notes) if self._scheme.name in _SWITCHING_SCHEMES else None,
            overlapping=self._tally.voiced if self._scheme.name in _VOICED_SCHEMES else None,
        )
